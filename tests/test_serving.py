"""The HTTP API, over real HTTP on loopback, against the answers of a recognizer in this process."""

import asyncio
import base64
import concurrent.futures
import json
import logging
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch
from hostile import hostile_requests, mutated_videos
from server import RunningServer, running_server
from tiny import tiny_model, tiny_tokenizer
from videos import write_video

import openxclip
from openxclip.checkpoints.save import save_as
from openxclip.cli.main import run
from openxclip.errors import InputError, ServerError, VideoError
from openxclip.serving import events
from openxclip.serving.client import Client, ServerPath
from openxclip.serving.options import ServeOptions
from openxclip.serving.problems import KINDS
from openxclip.shapes.examples import EXAMPLE_LABELS, example_clips
from openxclip.shapes.long import LongVideo, usual_labels
from openxclip.text.label_texts import LabelTexts
from openxclip.timelines.formats import json_text
from openxclip.timelines.options import SegmentRules, WindowOptions
from openxclip.timelines.watcher import Watcher
from openxclip.video.transforms import Preprocessor

pytestmark = pytest.mark.on_cpu

LABELS = list(EXAMPLE_LABELS)
MODEL = ("--model", "openxclip-tiny", "--dtype", "float32")
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    paths = []
    for clip in example_clips():
        paths.append(folder / f"{clip.kind.name.replace(' ', '_')}.mp4")
        paths[-1].write_bytes(clip.encode())
    return paths


@pytest.fixture(scope="module")
def server(tmp_path_factory, clips):
    limits = ("--max-megabytes", "2", "--max-seconds", "20", "--max-frame-px", "70000", "--max-labels", "20",
              "--max-label-letters", "60", "--max-views", "6", "--max-batch", "4", "--receive-seconds", "3",
              "--max-sentences", "700", "--max-windows", "300")  # fmt: skip
    scratch = tmp_path_factory.mktemp("scratch")
    with running_server(scratch, *MODEL, "--allow-paths", str(clips[0].parent), *limits) as running:
        yield running
        assert running.process.poll() is None, "it lives through everything that was sent"
        assert left_behind(running) == []


def left_behind(server: RunningServer) -> list[str]:
    """Temporary files of the server; torch makes an empty folder for code that it would compile."""
    files = [path.name for path in server.scratch.rglob("*") if not path.is_dir()]
    folders = [path.name for path in server.scratch.iterdir() if not path.name.startswith("torchinductor_")]
    return [*files, *folders]


@pytest.fixture(scope="module")
def http(server: RunningServer):
    with httpx2.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def recognizer():
    source = openxclip.ModelSource(source="openxclip-tiny", dtype="float32")
    return openxclip.Recognizer.from_pretrained(source, LABELS)


def form(**fields):
    """A multipart form without files."""
    pairs = [
        (name, v) for name, value in fields.items() for v in (value if isinstance(value, list) else [value])
    ]
    return [(name, (None, value)) for name, value in pairs]


def upload(path: Path, name: str = "video"):
    return (name, (path.name, path.read_bytes()))


def assert_problem(response, status: int, kind: str, *words: str) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    body = response.json()
    assert body["type"] == f"urn:openxclip:problem:{kind}"
    assert (body["status"], body["title"]) == KINDS[kind]
    for word in words:
        assert word in body["detail"]
    return body


# --- the same answers as offline --------------------------------------------------------------------------------


def same_scores(found, expected) -> None:
    assert [label for label, _ in found] == [label for label, _ in expected]
    assert np.allclose([p for _, p in found], [p for _, p in expected], atol=1e-5)


@pytest.mark.parametrize("views", ["1x1", "2x3"])
def test_predictions_are_those_of_a_recognizer(views, server, clips, recognizer) -> None:
    with Client(server.url) as client:
        for path in clips:
            expected = recognizer.predict(path, views=views, top_k=4)
            same_scores(client.predict(path, LABELS, views=views, top_k=4).scores, expected.scores)
        by_bytes = client.predict(clips[0].read_bytes(), LABELS)
        assert by_bytes.path == "<bytes>"
        by_path = client.predict(ServerPath(clips[0].name), LABELS)
        absolute = client.predict(ServerPath(str(clips[0])), LABELS)
        assert by_bytes.scores == by_path.scores == absolute.scores


def test_a_batch_answers_in_order_and_names_the_bad_one(server, clips, recognizer) -> None:
    with Client(server.url) as client:
        wanted = [ServerPath(clips[1].name), clips[0], b"no video", ServerPath("none.mp4")]
        found = client.predict_batch(wanted, LABELS, top_k=2)
    for prediction, path in zip(found[:2], (clips[1], clips[0]), strict=True):
        same_scores(prediction.scores, recognizer.predict(path, top_k=2).scores)
    assert "not a video" in found[2].error
    assert "no such file" in found[3].error


def test_embeddings_are_the_models(server, clips, recognizer) -> None:
    with Client(server.url) as client:
        found = client.embed(clips[0], texts=LABELS)
        only_texts = client.embed(texts=["surfing"])
    features = torch.nn.functional.normalize(recognizer.label_set.features, dim=-1)
    assert np.allclose(found.texts, features.numpy(), atol=1e-5)
    pixels = recognizer.read(clips[0], openxclip.inference.views.Views())
    video = torch.nn.functional.normalize(recognizer.engine.encode(pixels).video[0], dim=-1)
    assert np.allclose(found.video, video.numpy(), atol=1e-5)
    assert only_texts.video is None
    assert len(only_texts.texts) == 1
    with Client(server.url) as client:
        as_they_are = client.embed(texts=["hello, world", "hello", "Hello", "hello"]).texts
        assert len(as_they_are) == 4
        assert as_they_are[1] == as_they_are[3]
        with pytest.raises(ServerError, match="at least one character"):
            client.embed(texts=[" "])


def test_an_explanation_is_that_of_a_recognizer(server, clips, recognizer) -> None:
    expected = recognizer.explain(clips[2], top_k=2).numbers()
    with Client(server.url) as client:
        found = client.explain(clips[2], LABELS, top_k=2)
        chosen = client.explain(clips[2], LABELS, explain=[LABELS[3]])
    assert [label["label"] for label in found["labels"]] == [label["label"] for label in expected["labels"]]
    for ours, theirs in zip(found["labels"], expected["labels"], strict=True):
        assert np.allclose(ours["sensitivity"], theirs["sensitivity"], atol=1e-3)
        assert np.allclose(ours["frame_relevance"], theirs["frame_relevance"], atol=1e-2)
        assert [word for word, _ in ours["words"]] == [word for word, _ in theirs["words"]]
    assert len(found["frames"]) == 8
    assert all(frame.startswith("data:image/jpeg;base64,") for frame in found["frames"])
    assert [label["label"] for label in chosen["labels"]] == [LABELS[3]]


def test_named_sets_and_templates(http, clips) -> None:
    fields = form(labels="a, b", templates=["a video of {}.", "{}"])
    assert http.post("/v1/predict", files=[upload(clips[0]), *fields]).status_code == 200
    fields = form(label_set="hmdb51", templates="video")
    assert_problem(http.post("/v1/predict", files=[upload(clips[0]), *fields]), 422, "too-many-labels", "20")
    fields = form(labels="a, b", templates="viedo")
    assert_problem(
        http.post("/v1/predict", files=[upload(clips[0]), *fields]), 422, "invalid-labels", "clip-80"
    )


# --- each limit has its own answer --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"labels": "only one"}, "invalid-labels", ("single label",)),
        ({}, "invalid-labels", ("label_set",)),
        ({"labels": "a, b", "label_set": "hmdb51"}, "invalid-labels", ("not both",)),
        ({"label_set": "kinetics40"}, "invalid-labels", ("kinetics400",)),
        ({"labels": ["a", "A"]}, "invalid-labels", ("more than once",)),
        ({"labels": [f"label {i}" for i in range(21)]}, "too-many-labels", ("21", "20")),
        ({"labels": ["a", "b" * 61]}, "label-too-long", ("61", "60")),
        ({"labels": "a,b", "templates": "{} " + "b" * 60}, "label-too-long", ("60",)),
        ({"labels": [f"l{i}" for i in range(10)], "templates": "clip-80"}, "too-many-labels", ("700",)),
        ({"labels": "a, b", "templates": ["no slot", "{}"]}, "invalid-labels", ("{}",)),
        ({"labels": "a, b", "views": "4x3"}, "too-many-views", ("12", "6")),
        ({"labels": "a, b", "views": "4by3"}, "invalid-request", ("views",)),
        ({"labels": "a, b", "views": "0x3"}, "invalid-request", ("0x3",)),
        ({"labels": "a, b", "top_k": "0"}, "invalid-request", ("top_k",)),
        ({"labels": "a, b", "top_k": "many"}, "invalid-request", ("top_k",)),
        ({"labels": "a, b", "path": "a.mp4"}, "invalid-request", ("either",)),
        ({"labels": [f"label {i}" for i in range(2000)]}, "too-many-labels", ("fewer",)),
    ],
)
def test_a_field_that_cannot_be_used(fields, kind, words, http, clips) -> None:
    response = http.post("/v1/predict", files=[upload(clips[0]), *form(**fields)])
    assert_problem(response, 422, kind, *words)


def test_a_video_beyond_the_limits(http, tmp_path) -> None:
    files = form(labels="a, b")
    long = write_video(tmp_path / "long.mp4", num_frames=110, fps=5)
    response = http.post("/v1/predict", files=[upload(long), *files])
    assert assert_problem(response, 422, "video-too-long", "22.0 s", "20")["limit"] == 20
    large = write_video(tmp_path / "large.mp4", width=320, height=240, num_frames=5)
    assert_problem(http.post("/v1/predict", files=[upload(large), *files]), 422, "video-too-large", "320x240")
    heavy = tmp_path / "heavy.mp4"
    heavy.write_bytes(os.urandom(2_100_000))
    assert_problem(http.post("/v1/predict", files=[upload(heavy), *files]), 413, "too-many-bytes", "2 MB")


def test_a_request_that_does_not_say_its_size_is_counted(http) -> None:
    def body():
        yield b'--b\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'
        for _ in range(60):
            yield os.urandom(50_000)
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert_problem(http.post("/v1/predict", content=body(), headers=headers), 413, "too-many-bytes", "2 MB")


def test_a_claimed_size_is_refused_before_anything_is_sent(server) -> None:
    head = (
        "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 99999999999\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    assert exchange(server, head.encode()).startswith(b"HTTP/1.1 413 ")


def test_a_slow_body_is_cut_off(server) -> None:
    head = (
        "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
    )
    started = time.monotonic()
    assert exchange(server, head.encode()).startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - started < 10


def exchange(server: RunningServer, data: bytes, timeout: float = 20) -> bytes:
    """Send raw bytes -> all that comes back before the server closes, or the time is over."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as connection:
        connection.sendall(data)
        answer = b""
        try:
            while more := connection.recv(65536):
                answer += more
        except (TimeoutError, ConnectionResetError):
            pass
        return answer


def test_unreadable_videos_say_why(http, tmp_path) -> None:
    for content in (b"", b"text", b"PK\x03\x04" + b"\0" * 1000, bytes(100_000)):
        files = [("video", ("../../etc/passwd", content)), *form(labels="a, b")]
        body = assert_problem(http.post("/v1/predict", files=files), 422, "video-unreadable")
        assert "passwd" not in json.dumps(body)


def test_addresses_and_methods_that_do_not_exist(http) -> None:
    assert_problem(http.get("/nothing"), 404, "not-found")
    assert_problem(http.get("/page/../api.py"), 404, "not-found")
    assert_problem(http.get("/page/__init__.py"), 404, "not-found")
    assert_problem(http.get("/v1/examples/..%2F..%2Fa.mp4"), 404, "not-found")
    assert_problem(http.get("/v1/predict"), 405, "method-not-allowed")
    assert_problem(http.post("/v1/predict", json={"labels": ["a", "b"]}), 422, "invalid-labels", "form")


# --- paths on the server ------------------------------------------------------------------------------------------


def test_paths_lead_nowhere_else(http, clips, tmp_path) -> None:
    folder = clips[0].parent
    outside = tmp_path / "secret.mp4"
    outside.write_bytes(clips[0].read_bytes())
    links = {"link.mp4": outside, "linked_folder": tmp_path, "inside.mp4": clips[0], "loop": folder / "loop"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()

    def ask(path: str):
        return http.post("/v1/predict", files=form(labels="a, b", path=path))

    for path in ("../secret.mp4", str(outside), "link.mp4", "linked_folder/secret.mp4", "a/../../x", "/etc/passwd",
                 "loop", "nul\0.mp4", "..", "file:///etc/passwd/../.."):  # fmt: skip
        response = ask(path)
        assert response.status_code in (403, 404), path
        assert_problem(
            response,
            response.status_code,
            {403: "path-not-allowed", 404: "no-such-video"}[response.status_code],
        )
        assert str(tmp_path) not in response.text
    for path in ("none.mp4", "pipe.mp4", "folder.mp4", ".", "x" * 300, "http://127.0.0.1/a.mp4"):
        assert_problem(ask(path), 404, "no-such-video")
    assert_problem(ask("x" * 5000), 422, "invalid-request", "path")
    assert ask("inside.mp4").status_code == 200
    assert ask(clips[0].name).status_code == 200


# --- who may ask ---------------------------------------------------------------------------------------------------


def test_a_key_is_asked_for(tmp_path, clips) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# ours\nfirst-key\nsecond-key\n")
    with running_server(tmp_path / "scratch", *MODEL, "--api-key-file", str(keys)) as server:
        with Client(server.url, api_key="second-key") as client:
            assert client.predict(clips[0], LABELS).scores
            assert client.models()["accepts_paths"] is False
        with (
            Client(server.url, api_key="third-key") as client,
            pytest.raises(ServerError, match="key") as caught,
        ):
            client.predict(clips[0], LABELS)
        assert (caught.value.status, caught.value.kind) == (401, "unauthorized")
        for path in ("/v1/models", "/metrics", "/v1/examples"):
            response = httpx2.get(server.url + path, trust_env=False)
            assert_problem(response, 401, "unauthorized")
            assert response.headers["www-authenticate"].startswith("Bearer")
        assert httpx2.get(f"{server.url}/metrics", headers={"X-API-Key": "first-key"}).status_code == 200
        assert (
            httpx2.get(f"{server.url}/v1/models", headers={"X-API-Key": "ключ".encode()}).status_code == 401
        )
        for path in ("/", "/healthz", "/readyz"):
            assert httpx2.get(server.url + path, trust_env=False).status_code == 200
        files = form(labels="a, b", path="a.mp4")
        headers = {"Authorization": "Bearer second-key"}
        response = httpx2.post(f"{server.url}/v1/predict", files=files, headers=headers)
        assert_problem(response, 403, "path-not-allowed", "--allow-paths")
        assert "key" not in json.dumps(server.log())


# --- busy, late, gone, stopped --------------------------------------------------------------------------------------


def test_a_burst_beyond_the_queue_gets_answers_and_503_only(tmp_path, clips) -> None:
    with running_server(tmp_path / "scratch", *MODEL, "--max-queue", "3") as server:
        files = [upload(clips[0]), *form(labels=LABELS, views="4x3")]

        def ask(_: int):
            return httpx2.post(f"{server.url}/v1/predict", files=files, timeout=60, trust_env=False)

        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            responses = list(pool.map(ask, range(96)))
        statuses = {response.status_code for response in responses}
        assert statuses == {200, 503}
        best = {r.json()["scores"][0]["label"] for r in responses if r.status_code == 200}
        assert best == {"red circle moving left"}
        for response in responses:
            if response.status_code == 503:
                assert_problem(response, 503, "queue-full", "3")
                assert int(response.headers["retry-after"]) >= 1
        batch = [upload(clips[0], "videos") for _ in range(4)]
        response = httpx2.post(f"{server.url}/v1/predict/batch", files=[*batch, *form(labels=LABELS)])
        assert_problem(response, 422, "too-many-videos", "3")  # it would never find as many places
        assert metric(server, "openxclip_places_taken") == 0


def metric(server: RunningServer, name: str) -> float:
    text = httpx2.get(f"{server.url}/metrics", trust_env=False).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


SLOW = form(label_set="kinetics600", templates="clip-video")
"""16,800 sentences: takes the text tower seconds."""


def test_a_deadline_and_a_client_that_leaves(tmp_path, clips) -> None:
    with running_server(tmp_path / "scratch", *MODEL, "--deadline-seconds", "0.4") as server:
        started = time.monotonic()
        response = httpx2.post(f"{server.url}/v1/predict", files=[upload(clips[0]), *SLOW], timeout=60)
        assert_problem(response, 503, "deadline-exceeded", "0.4 s")
        assert time.monotonic() - started < 5
    with running_server(tmp_path / "scratch2", *MODEL) as server:
        with pytest.raises(httpx2.TimeoutException):
            httpx2.post(f"{server.url}/v1/predict", files=[upload(clips[0]), *SLOW], timeout=0.5)
        until = time.monotonic() + 5
        while metric(server, "openxclip_places_taken") and time.monotonic() < until:
            time.sleep(0.05)
        assert metric(server, "openxclip_places_taken") == 0
        assert metric(server, "openxclip_clients_gone_total") == 1


def test_a_client_that_leaves_while_it_sends_is_counted(tmp_path) -> None:
    with running_server(tmp_path / "scratch", *MODEL) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(hostile_post([("labels", "a" * 100)], "/v1/predict")[:-50])
            time.sleep(0.3)
        until = time.monotonic() + 10
        while not metric(server, "openxclip_clients_gone_total") and time.monotonic() < until:
            time.sleep(0.05)
        assert metric(server, "openxclip_clients_gone_total") == 1
        assert metric(server, "openxclip_places_taken") == 0


def test_sigterm_under_load_answers_what_was_taken_and_exits_with_0(tmp_path, clips) -> None:
    with running_server(tmp_path / "scratch", *MODEL) as server:
        files = [upload(clips[0]), *form(labels=LABELS, views="8x3")]
        answers: list[int] = []
        lost: list[str] = []

        def ask_until_it_stops(_: int) -> None:
            with httpx2.Client(base_url=server.url, timeout=60, trust_env=False) as client:
                while True:
                    try:
                        answers.append(client.post("/v1/predict", files=files).status_code)
                    except httpx2.HTTPError as error:
                        lost.append(type(error).__name__)
                        return

        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            clients = [pool.submit(ask_until_it_stops, i) for i in range(12)]
            time.sleep(1.5)
            status = server.stop()
            for client in clients:
                client.result(60)
        assert status == 0, "".join(server.lines)
        assert set(answers) == {200}
        # Each client loses at most the request that it made after the signal; none that the server took.
        assert len(lost) == 12
        taken = [line for line in server.log() if line["route"] == "/v1/predict"]
        assert len(taken) == len(answers) >= 12
        assert {line["status"] for line in taken} == {200}


def test_a_client_that_does_not_read_loses_its_place(tmp_path) -> None:
    request = hostile_post([("texts", f"text {i}") for i in range(990)], "/v1/embed")
    with running_server(tmp_path / "scratch", *MODEL, "--max-queue", "2") as server:
        sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
        for connection in sockets:
            connection.settimeout(20)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(request * 8)
        until = time.monotonic() + 60
        while metric(server, "openxclip_places_taken") < 2 and time.monotonic() < until:
            time.sleep(0.05)
        while metric(server, "openxclip_places_taken") and time.monotonic() < until:
            time.sleep(0.2)
        assert metric(server, "openxclip_places_taken") == 0
        for connection in sockets:
            connection.close()
        assert server.stop(20) == 0


def hostile_post(fields: list[tuple[str, str]], path: str) -> bytes:
    """A request as bytes, whose connection stays open."""
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields
    ]
    body = "".join([*parts, "--b--\r\n"]).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    return head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_slow_senders_make_room_for_others(tmp_path, clips) -> None:
    with running_server(tmp_path / "scratch", *MODEL, "--max-queue", "4") as server:
        head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n"
        head += b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
        sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(4)]
        for connection in sockets:
            connection.sendall(head)
        time.sleep(2.5)
        with Client(server.url) as client:
            assert client.predict(clips[0], LABELS).scores[0][0] == "red circle moving left"
        sockets[0].settimeout(20)  # the slowest made room
        assert sockets[0].recv(100).startswith(b"HTTP/1.1 408")
        for connection in sockets[1:]:
            connection.settimeout(0.1)
            with pytest.raises(TimeoutError):  # the others keep their places, until their own time is over
                connection.recv(100)
        for connection in sockets:
            connection.close()


def test_one_request_does_not_stop_the_others(tmp_path, clips) -> None:
    """Long paths, wrong labels to explain, long labels in many templates: the server answers others meanwhile."""
    costly = [
        ("/v1/predict/batch", form(labels="a, b", paths=["a/" * 200_000])),
        (
            "/v1/explain",
            [upload(clips[0]), *form(labels=["ab" * 90 + str(i) for i in range(300)], explain="ba" * 90)],
        ),
        ("/v1/explain", [upload(clips[0]), *form(labels=["w " * 99, "v " * 99], templates="clip-80")]),
    ]
    with running_server(tmp_path / "scratch", *MODEL, "--allow-paths", str(clips[0].parent)) as server:
        for path, files in costly:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                answer = pool.submit(httpx2.post, server.url + path, files=files, timeout=90, trust_env=False)
                while not answer.done():
                    assert httpx2.get(f"{server.url}/healthz", timeout=30, trust_env=False).text == "ok\n"
                    with Client(server.url) as client:
                        assert client.predict(clips[0], LABELS).scores[0][0] == LABELS[0]
                assert answer.result().status_code in (200, 422)


def test_an_error_of_ours_is_a_500_with_a_name(tmp_path) -> None:
    """A model whose scores are not numbers: that is found when it computes."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    model.logit_scale.data.fill_(float("nan"))
    save_as(tmp_path / "broken", model, tokenizer, Preprocessor.official(32))
    video = write_video(tmp_path / "a.mp4")
    with running_server(tmp_path / "scratch", "--model", str(tmp_path / "broken")) as server:
        response = httpx2.post(f"{server.url}/v1/predict", files=[upload(video), *form(labels="bade, kilo")])
        assert_problem(response, 500, "internal-error")
        line = logged(server, response)
        assert (line["status"], line["route"]) == (500, "/v1/predict")
        assert metric(server, 'openxclip_requests_total{route="/v1/predict",status="500"}') == 1
        assert any("NaN" in text for text in server.lines), "the log says what happened"


def test_a_model_without_a_tokenizer_is_refused_at_the_start(tmp_path, capsys) -> None:
    save_as(tmp_path / "model", tiny_model(), tiny_tokenizer(), Preprocessor.official(32))
    (tmp_path / "model" / "tokenizer.json").unlink()
    assert run(["serve", "--model", str(tmp_path / "model"), "--port", "0"]) == 1
    assert "tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "[", "Origin": "http://["},
        {"Origin": "http://[::1"},
        {"Host": "]:x"},
    ],
)
def test_pages_of_other_sites_may_not_ask(headers, http, clips) -> None:
    response = http.post("/v1/predict", files=[upload(clips[0]), *form(labels="a, b")], headers=headers)
    assert_problem(response, 403, "foreign-origin")


def test_names_of_a_proxy_and_frames_can_be_allowed(tmp_path) -> None:
    allowed = ("--allow-hosts", "videos.example", "--allow-frames", "https://huggingface.co")
    with running_server(tmp_path / "scratch", *MODEL, *allowed) as server:
        for name, status in (("videos.example", 200), ("videos.example:443", 200), ("other.example", 403)):
            assert httpx2.get(f"{server.url}/v1/models", headers={"Host": name}).status_code == status
        policy = httpx2.get(server.url).headers["content-security-policy"]
        assert "frame-ancestors https://huggingface.co" in policy


# --- timelines ------------------------------------------------------------------------------------------------------

WINDOWS = {"window": "2s", "stride": "1s"}
MANY_WINDOWS = {"window": "1s", "stride": "0.04s"}
"""Nearly 15,000 of them in `endless`."""
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def eventful(clips) -> Path:
    """A video of the moving shapes in which things happen on a quiet stage."""
    path = clips[0].parent / "eventful.mp4"
    LongVideo(key="serving", seconds=30.0, labels=usual_labels(), quiet_seconds=4.0).write(path)
    return path


@pytest.fixture(scope="module")
def endless(tmp_path_factory) -> Path:
    """Ten seconds, nearly sixty times: bare H.264 may be joined end to end."""
    path = tmp_path_factory.mktemp("endless") / "endless.h264"
    write_video(path, num_frames=250, fps=25)
    path.write_bytes(path.read_bytes() * 59)
    return path


@pytest.fixture(scope="module")
def patient(tmp_path_factory, clips):
    """A server that takes as many windows as there may be."""
    scratch, options = tmp_path_factory.mktemp("patient"), ("--max-windows", "20000")
    with running_server(scratch, *MODEL, *options, "--allow-paths", str(clips[0].parent)) as running:
        yield running
        assert left_behind(running) == []


def events_of(text: str) -> list[tuple[str, dict]]:
    """Server-sent events: names and data."""
    found = re.findall(r"event: (\w+)\ndata: (.+)\n\n", text)
    assert "".join(f"event: {name}\ndata: {data}\n\n" for name, data in found) == text
    return [(name, json.loads(data)) for name, data in found]


def ask_timeline(server: RunningServer, video: Path, headers: dict | None = None, **fields):
    files = [upload(video), *form(**({"labels": LABELS} | fields))]
    return httpx2.post(
        f"{server.url}/v1/timeline", files=files, headers=headers, timeout=120, trust_env=False
    )


@pytest.mark.parametrize("background", [None, "self"])
def test_a_timeline_is_that_of_the_library(background, patient, eventful, recognizer) -> None:
    windows, rules = WindowOptions(**WINDOWS), SegmentRules(enter=0.6)
    watcher = Watcher(recognizer.engine, usual_labels(), windows=windows, rules=rules)
    watcher.calibrate_with([] if background is None else [background])
    expected = json.loads(json_text(watcher.watch(eventful)))
    told: list[tuple[float, float | None]] = []
    with Client(patient.url) as client:
        found = client.timeline(
            eventful,
            usual_labels(),
            windows=windows,
            rules=rules,
            background=background,
            thumbnails=True,
            on_progress=lambda *progress: told.append(progress),
        )
        by_path = client.timeline(
            ServerPath(eventful.name), usual_labels(), windows=windows, rules=rules, background=background
        )
    assert found | {"video": "", "thumbnails": []} == by_path | {"video": "", "thumbnails": []}
    assert by_path.get("thumbnails", []) == []
    assert [one["seconds"] for one in found["thumbnails"]] == pytest.approx(list(np.arange(60) / 2), abs=0.07)
    assert base64.b64decode(found["thumbnails"][0]["image"].partition(",")[2]).startswith(b"\xff\xd8")
    assert (found["video"], found["model"]) == (str(eventful), "openxclip-tiny")
    assert len(found["segments"]) >= (2 if background is None else 0)
    assert [one["label"] for one in found["segments"]] == [one["label"] for one in expected["segments"]]
    for ours, theirs in zip(found["segments"], expected["segments"], strict=True):
        for name in ("start_seconds", "end_seconds", "score", "peak"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-4)
    for ours, theirs in zip(found["windows"], expected["windows"], strict=True):
        assert np.allclose(ours["scores"], theirs["scores"], atol=2e-5)
    assert (found["background"] is None) == (background is None)
    assert told == sorted(told)
    assert told[-1] == (30.0, 30.0)


def test_a_single_label_where_the_video_is_its_own_background(patient, eventful) -> None:
    answer = ask_timeline(patient, eventful, labels=usual_labels()[0], background="self", **WINDOWS)
    assert answer.status_code == 200
    assert answer.json()["labels"] == [usual_labels()[0]]


def test_events_or_json_as_the_client_accepts(patient, eventful) -> None:
    streamed = ask_timeline(patient, eventful, headers={"Accept": "text/event-stream;q=0.9, */*"}, **WINDOWS)
    assert streamed.status_code == 200
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *progress, (last, result) = events_of(streamed.text)
    assert last == "result"
    assert progress
    assert {name for name, _ in progress} == {"progress"}
    shares = [told["share"] for _, told in progress]
    assert shares == sorted(shares)
    assert progress[-1][1] == {"seconds_seen": 30.0, "seconds_total": 30.0, "share": 1.0}
    for accept in ("*/*", "application/json"):
        plain = ask_timeline(patient, eventful, headers={"Accept": accept}, **WINDOWS)
        assert plain.headers["content-type"] == "application/json"
        assert plain.json() == result


def test_a_timeline_takes_all_settings(patient, eventful, recognizer) -> None:
    rules = SegmentRules(enter=0.3, leave=0.2, min_seconds=0.5, close_gap_seconds=0.0, suppress=0.1)
    windows = WindowOptions(window="2s", stride="1.5s", shots=True)
    labels = ['a "quoted"\u2028label, with a comma', *LABELS]
    texts = LabelTexts(labels=labels, templates=("a video of {}.",))
    expected = json.loads(
        json_text(Watcher(recognizer.engine, texts, windows=windows, rules=rules).watch(eventful))
    )
    with Client(patient.url) as client:
        found = client.timeline(eventful, labels, templates="a video of {}.", windows=windows, rules=rules)
    assert found["labels"] == expected["labels"]
    assert found["cuts_seconds"] == expected["cuts_seconds"]
    spans = [(one["label"], one["start_seconds"], one["end_seconds"]) for one in found["segments"]]
    assert spans == [(one["label"], one["start_seconds"], one["end_seconds"]) for one in expected["segments"]]
    with Client(patient.url) as client, pytest.raises(InputError, match="one view"):
        client.timeline(eventful, LABELS, windows=WindowOptions(views="4x3"))


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"window": "4x"}, "invalid-request", ("window", "4x")),
        ({"stride": "0s"}, "invalid-request", ("stride",)),
        ({"stride": "1" * 30}, "invalid-request", ("stride",)),
        ({"window": "11m"}, "invalid-request", ("600",)),
        ({"window": "4s", "stride": "0.1s"}, "invalid-request", ("longer stride",)),
        ({"window": "0.1s", "stride": "0.01s"}, "invalid-request", ("0.04",)),
        ({"enter": "0.2"}, "invalid-request", ("leave is 0.3 and enter 0.2",)),
        ({"enter": "1.5"}, "invalid-request", ("enter",)),
        ({"leave": "nan"}, "invalid-request", ("leave",)),
        ({"min_seconds": "-1"}, "invalid-request", ("min_seconds",)),
        ({"close_gap_seconds": "inf"}, "invalid-request", ("close_gap_seconds",)),
        ({"suppress": "2"}, "invalid-request", ("suppress",)),
        ({"shots": "perhaps"}, "invalid-request", ("shots",)),
        ({"background": "quiet.mp4"}, "invalid-request", ("background",)),
        ({"labels": "one"}, "invalid-labels", ("single",)),
        ({"labels": [f"label {i}" for i in range(1001)]}, "too-many-labels", ("1000",)),
        ({"path": "a.mp4"}, "invalid-request", ("either",)),
    ],
)
def test_a_timeline_that_cannot_be_made(fields, kind, words, patient, clips) -> None:
    assert_problem(ask_timeline(patient, clips[0], headers=STREAM, **fields), 422, kind, *words)


def test_what_is_wrong_from_the_beginning_has_its_status(server, patient, http, tmp_path) -> None:
    wrong = tmp_path / "text.mp4"
    wrong.write_text("this is no video")
    assert_problem(ask_timeline(patient, wrong, headers=STREAM), 422, "video-unreadable")
    long = write_video(tmp_path / "long.mp4", num_frames=110, fps=5)
    assert_problem(ask_timeline(server, long, headers=STREAM), 422, "video-too-long", "22.0 s")
    large = write_video(tmp_path / "large.mp4", width=320, height=240, num_frames=5)
    assert_problem(ask_timeline(server, large), 422, "video-too-large", "320x240")
    many = write_video(tmp_path / "many.mp4", num_frames=400, fps=25)
    response = ask_timeline(server, many, headers=STREAM, **MANY_WINDOWS)
    assert_problem(response, 422, "too-many-windows", "400", "300")
    response = ask_timeline(server, long, headers=STREAM | {"Origin": "https://evil.example"})
    assert_problem(response, 403, "foreign-origin")
    assert_problem(
        http.post("/v1/timeline", files=form(labels="a, b", path="/etc/x")), 403, "path-not-allowed"
    )
    with Client(patient.url) as client, pytest.raises(VideoError, match="not a video"):
        client.timeline(wrong, LABELS)


def test_a_video_that_does_not_tell_its_length_ends_at_the_limit(server, tmp_path) -> None:
    raw = write_video(tmp_path / "raw.h264", num_frames=700, fps=25)
    assert_problem(ask_timeline(server, raw), 422, "video-too-long", "20")
    told: list[tuple[float, float | None]] = []
    with Client(server.url) as client:
        with pytest.raises(VideoError, match="20"):
            client.timeline(raw, LABELS)
        short = write_video(tmp_path / "short.h264", num_frames=100, fps=25)
        found = client.timeline(short, LABELS, on_progress=lambda *progress: told.append(progress))
    assert found["duration_seconds"] == pytest.approx(4.0)
    assert {total for _, total in told} == {None}
    many = write_video(tmp_path / "many.h264", num_frames=400, fps=25)
    assert_problem(ask_timeline(server, many, **MANY_WINDOWS), 422, "too-many-windows", "301", "300")


def test_others_are_answered_during_a_timeline_and_one_that_is_left_stops(patient, endless, clips) -> None:
    gone = metric(patient, "openxclip_clients_gone_total")
    files = [upload(endless), *form(labels=LABELS, **MANY_WINDOWS)]
    with httpx2.Client(base_url=patient.url, timeout=60, trust_env=False) as http:
        with http.stream("POST", "/v1/timeline", files=files, headers=STREAM) as response:
            chunks = response.iter_text()
            assert next(chunks).startswith("event: progress")
            assert metric(patient, "openxclip_timelines") == 1
            with Client(patient.url) as client:
                for _ in range(5):
                    assert client.predict(clips[0], LABELS).scores[0][0] == LABELS[0]
            assert "result" not in next(chunks), "it goes on"
        wait_for(patient, "openxclip_places_taken", 0)
        wait_for(patient, "openxclip_timelines", 0)
        assert metric(patient, "openxclip_clients_gone_total") == gone + 1
        time.sleep(1.0)
        num_batches = metric(patient, "openxclip_batch_views_count")
        time.sleep(1.0)
        assert metric(patient, "openxclip_batch_views_count") == num_batches, "nothing is computed for it"


def wait_for(server: RunningServer, name: str, value: float) -> None:
    until = time.monotonic() + 20
    while metric(server, name) != value:
        assert time.monotonic() < until, name
        time.sleep(0.05)


def test_a_timeline_has_its_own_deadline_and_places(tmp_path, endless, clips) -> None:
    options = ("--timeline-deadline-seconds", "3", "--max-timelines", "1", "--max-windows", "20000")
    with running_server(tmp_path / "scratch", *MODEL, *options) as server:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            first = pool.submit(ask_timeline, server, endless, headers=STREAM, **MANY_WINDOWS)
            wait_for(server, "openxclip_timelines", 1)
            second = ask_timeline(server, clips[0], headers=STREAM)
            assert_problem(second, 503, "queue-full", "1")
            assert int(second.headers["retry-after"]) >= 1
            *progress, (last, problem) = events_of(first.result().text)
        assert {name for name, _ in progress} <= {"progress"}
        assert (last, problem["status"]) == ("error", 503)
        assert problem["type"] == "urn:openxclip:problem:deadline-exceeded"
        late = ask_timeline(server, endless, **MANY_WINDOWS)
        assert_problem(late, 503, "deadline-exceeded", "3 s")
        assert "retry-after" in late.headers
        with Client(server.url) as client:
            with pytest.raises(ServerError, match="3 s") as caught:
                client.timeline(endless, LABELS, windows=WindowOptions(**MANY_WINDOWS))
            assert (caught.value.status, caught.value.kind) == (503, "deadline-exceeded")
            assert client.timeline(clips[0], LABELS)["duration_seconds"] == 2.0, "the place is free again"


def test_a_server_that_stops_finishes_short_timelines_and_ends_long_ones(tmp_path, eventful, endless) -> None:
    options = ("--deadline-seconds", "6", "--receive-seconds", "1", "--max-windows", "20000")
    with running_server(tmp_path / "scratch", *MODEL, *options) as server:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            long = pool.submit(ask_timeline, server, endless, headers=STREAM, **MANY_WINDOWS)
            short = pool.submit(ask_timeline, server, eventful, headers=STREAM, **WINDOWS)
            wait_for(server, "openxclip_timelines", 2)
            assert server.stop() == 0
            assert events_of(short.result().text)[-1][0] == "result"
            last, problem = events_of(long.result().text)[-1]
        assert (last, problem["type"]) == ("error", "urn:openxclip:problem:server-stopping")
        assert {line["status"] for line in server.log() if line["route"] == "/v1/timeline"} == {200}
        assert left_behind(server) == []


def test_a_mistake_of_ours_in_the_middle_is_the_last_event() -> None:
    """And the log has it."""

    async def failing():
        yield events.event("progress", "{}")
        raise RuntimeError("ours")

    sent: list[dict] = []

    async def send(message) -> None:
        sent.append(message)

    async def receive() -> dict:
        return {"type": "http.request"}

    asyncio.run(events.EventStream(failing())({"type": "http"}, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", *["http.response.body"] * 3]
    (_, _), (last, problem) = events_of(b"".join(message["body"] for message in sent[1:]).decode())
    assert (last, problem["status"]) == ("error", 500)
    assert sent[-1]["more_body"] is False


# --- what can be seen of it ------------------------------------------------------------------------------------------


def test_what_is_served_can_be_asked_for(server, http) -> None:
    body = http.get("/v1/models").json()
    assert body["models"][0]["id"] == "openxclip-tiny"
    assert body["models"][0]["num_frames"] == 8
    assert body["limits"]["max_bytes"] == 2_000_000
    assert {"name": "kinetics400", "num_labels": 400} in body["label_sets"]
    assert http.get("/healthz").text == "ok\n"
    assert http.get("/readyz").text == "ready\n"
    examples = http.get("/v1/examples").json()
    assert len(examples) == 6
    for example in examples:
        assert example["name"] in example["labels"]
        assert http.get(example["url"]).content[4:8] == b"ftyp"


def test_the_description_has_examples_and_the_pages_fetch_nothing_from_outside(http) -> None:
    schema = http.get("/openapi.json").json()
    for path in ("/v1/predict", "/v1/predict/batch", "/v1/embed", "/v1/explain", "/v1/timeline"):
        operation = schema["paths"][path]["post"]
        assert "multipart/form-data" in operation["requestBody"]["content"]
        assert {"413", "422", "503"} <= set(operation["responses"])
    assert "surfing" in json.dumps(schema)
    answers = schema["paths"]["/v1/timeline"]["post"]["responses"]["200"]["content"]
    assert set(answers) == {"application/json", "text/event-stream"}
    assert answers["text/event-stream"]["example"].startswith("event: progress")
    for page in ("/docs", "/"):
        text = http.get(page).text
        outside = [found for found in re.findall(r"""(?:src|href)=["']([^"']+)""", text) if "//" in found]
        assert outside == []


def test_the_log_is_one_line_each_without_contents(server, http, clips) -> None:
    name = "the-name-of-a-file.mp4"
    response = http.post(
        "/v1/predict?secret=1",
        files=[("video", (name, clips[0].read_bytes())), *form(labels="hush one, hush two")],
    )
    line = logged(server, response)
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/predict", 200)
    assert line["bytes"] > clips[0].stat().st_size
    assert not re.search(r"hush|secret|the-name", "".join(server.lines))


def logged(server: RunningServer, response) -> dict:
    """The line of a request, which comes after its answer."""
    wanted, lines = response.headers["x-request-id"], []
    until = time.monotonic() + 10
    while not lines and time.monotonic() < until:
        time.sleep(0.05)
        lines = [line for line in server.log() if line["id"] == wanted]
    (line,) = lines
    return line


def test_metrics_count_requests_by_route_and_batches(server, http) -> None:
    http.get("/made/up/1")
    http.get("/made/up/2")
    text = http.get("/metrics").text
    assert re.search(r'openxclip_requests_total\{route="/v1/predict",status="200"\} \d', text)
    assert 'route="(none)",status="404"' in text
    assert "made" not in text
    http.post("/v1/predict", headers={"Origin": "https://evil.example"})
    refused = 'openxclip_requests_total{route="/v1/predict",status="403"}'
    assert refused in http.get("/metrics").text, "also where it is refused before it is routed"
    assert "openxclip_batch_views_bucket" in text
    assert "process_resident_memory_bytes" in text


# --- hostile input ---------------------------------------------------------------------------------------------------


def test_hostile_videos_of_timelines(server, clips) -> None:
    videos = mutated_videos([path.read_bytes() for path in clips[:3]], 60)
    statuses = set()
    with httpx2.Client(base_url=server.url, timeout=70, trust_env=False) as client:
        for i, content in enumerate(videos):
            fields = form(labels="a, b", window="1s", stride="0.1s", shots="true")
            headers = STREAM if i % 2 else {}
            files = [("video", ("a.mp4", content)), *fields]
            response = client.post("/v1/timeline", files=files, headers=headers)
            statuses.add(response.status_code)
            if response.status_code != 200:
                assert_problem(response, 422, response.json()["type"].rpartition(":")[2])
            elif headers:
                assert events_of(response.text)[-1][0] == "result"
    assert statuses == {200, 422}
    assert metric(server, "openxclip_timelines") == 0


def assert_survives(server: RunningServer, videos: list[bytes], requests: list[bytes]) -> dict[int, int]:
    """Every video gets scores or a clear refusal, and so does every malformed request, within the deadline."""
    statuses: dict[int, int] = {}
    with httpx2.Client(base_url=server.url, timeout=70, trust_env=False) as client:

        def ask(content: bytes) -> int:
            response = client.post("/v1/predict", files=[("video", ("a.mp4", content)), *form(labels="a, b")])
            if response.status_code == 200:
                assert len(response.json()["scores"]) == 2
            else:
                assert_problem(response, response.status_code, response.json()["type"].rpartition(":")[2])
                assert 400 <= response.status_code < 500, response.text
            return response.status_code

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for status in pool.map(ask, videos):
                statuses[status] = statuses.get(status, 0) + 1
    for request in requests:
        answer = exchange(server, request, timeout=15)
        # With more headers than the server reads, it hangs up; whether its answer arrives before is a race.
        assert (not answer and len(request) > 60_000) or re.match(rb"HTTP/1\.1 (200|4\d\d) ", answer), (
            request[:200],
            answer[:300],
        )
    assert httpx2.get(f"{server.url}/readyz", trust_env=False).status_code == 200
    assert metric(server, "openxclip_places_taken") == 0
    assert left_behind(server) == []
    return statuses


def test_hostile_input(server, clips) -> None:
    originals = [path.read_bytes() for path in clips[:3]]
    statuses = assert_survives(server, mutated_videos(originals, 90), hostile_requests(40))
    assert set(statuses) == {200, 422}


@pytest.mark.slow
def test_much_hostile_input(tmp_path, clips) -> None:
    """2,000 mutated videos of four containers, and 400 malformed requests."""
    originals = [path.read_bytes() for path in clips]
    for suffix, codec in ((".mkv", "libx264"), (".webm", "libvpx"), (".avi", "mpeg4"), (".gif", "gif")):
        pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        originals.append(write_video(tmp_path / f"a{suffix}", codec=codec, pix_fmt=pix_fmt).read_bytes())
    with running_server(tmp_path / "scratch", *MODEL, "--receive-seconds", "3") as server:
        statuses = assert_survives(server, mutated_videos(originals, 2000), hostile_requests(400))
        print(f"answers to 2,000 mutated videos: {statuses}")
        assert set(statuses) == {200, 422}
        assert server.stop() == 0


@pytest.mark.slow
def test_memory_does_not_grow(tmp_path, clips) -> None:
    """Resident memory after 2,000 requests within 5 % of that after 200."""
    with running_server(tmp_path / "scratch", *MODEL) as server:

        def ask(i: int) -> int:
            files = [upload(clips[i % 6]), *form(labels=[*LABELS, f"label {i % 100}"])]
            with httpx2.Client(base_url=server.url, timeout=60, trust_env=False) as client:
                return client.post("/v1/predict", files=files).status_code

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert set(pool.map(ask, range(200))) == {200}
            first = server.resident_bytes()
            assert set(pool.map(ask, range(200, 2000))) == {200}
            last = server.resident_bytes()
        print(
            f"resident memory: {first / 2**20:.0f} MiB after 200 requests, {last / 2**20:.0f} MiB after 2,000"
        )
        assert last < 1.05 * first
        assert left_behind(server) == []


# --- the description is true ---


def test_random_requests_of_the_description_get_answers_that_it_describes(server) -> None:
    """What schemathesis makes up from the description: no 5xx, and every answer is described."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
    ]
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    num_operations = 0
    for operation in schema.get_all_operations():
        num_operations += 1

        @given(case=operation.ok().as_strategy())
        @settings(
            max_examples=25,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case) -> None:
            case.call_and_validate(checks=checks)

        ask()
    assert num_operations == 11


# --- the client and the command ---


def test_the_client_says_what_is_wrong(server, clips, tmp_path) -> None:
    with Client(server.url) as client:
        with pytest.raises(VideoError, match="not a video"):
            client.predict(b"no video", LABELS)
        with pytest.raises(VideoError, match=r"none\.mp4"):
            client.predict(tmp_path / "none.mp4", LABELS)
        with pytest.raises(VideoError, match="no such file"):
            client.predict(ServerPath("none.mp4"), LABELS)
        with pytest.raises(ServerError, match="single label") as caught:
            client.predict(clips[0], ["one"])
        assert (caught.value.status, caught.value.kind) == (422, "invalid-labels")
        with pytest.raises(ServerError, match="kinetics400"):
            client.predict(clips[0], "kinetic400")
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServerError, match="is the server running"):
        client.models()


PAGE = (Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def documented(tmp_path_factory, clips):
    """A server as docs/serving.md asks it, and a folder with its two clips."""
    folder = tmp_path_factory.mktemp("documented")
    for name, clip in zip(("clip.mp4", "other.mp4"), clips, strict=False):
        (folder / name).write_bytes(clip.read_bytes())
    with running_server(folder / "scratch", *MODEL, "--allow-paths", str(folder)) as server:
        yield server, folder


CURL_LINES = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("curl ")
]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("line", CURL_LINES)
def test_a_curl_line_of_the_docs(line, documented) -> None:
    server, folder = documented
    arguments = shlex.split(line.replace("http://127.0.0.1:8000", server.url))
    command = ["curl", "--silent", "--show-error", "--fail-with-body", *arguments[1:]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if "text/event-stream" in line:
        assert [name for name, _ in events_of(done.stdout)] == ["progress", "result"]
    elif not line.endswith("/metrics"):
        assert json.loads(done.stdout)


def test_the_curl_lines_are_found() -> None:
    assert len(CURL_LINES) == 11


def test_the_python_of_the_docs(documented, monkeypatch, capsys) -> None:
    server, folder = documented
    monkeypatch.chdir(folder)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec("".join(blocks).replace("http://127.0.0.1:8000", server.url), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5
    assert printed[-1] == "64"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "70000"], "--port"),
        (["--max-queue", "0"], "--max-queue"),
        (["--deadline-seconds", "-1"], "--deadline-seconds"),
        (["--allow-paths", "/none"], "--allow-paths"),
        (["--api-key-file", "/none"], "--api-key-file"),
        (["--max-megabytes", "nan"], "--max-megabytes"),
    ],
)
def test_the_command_refuses_settings_that_mean_nothing(arguments, words, capsys) -> None:
    assert run(["serve", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_an_empty_key_file_lets_nobody_in(tmp_path, capsys) -> None:
    (tmp_path / "keys").write_text("\n# none\n")
    assert run(["serve", "--api-key-file", str(tmp_path / "keys")]) == 2
    assert "one key per line" in capsys.readouterr().err


def test_a_taken_port_is_named_and_leaves_the_process_as_it_was(server, capsys) -> None:
    names = ("openxclip.access", "openxclip.text", "uvicorn", "python_multipart")
    before = [
        (logger.level, logger.propagate, list(logger.handlers)) for logger in map(logging.getLogger, names)
    ]
    assert run(["serve", "--port", str(server.port)]) == 1
    assert f"127.0.0.1:{server.port}" in capsys.readouterr().err
    after = [
        (logger.level, logger.propagate, list(logger.handlers)) for logger in map(logging.getLogger, names)
    ]
    assert after == before


def test_defaults_are_for_this_machine_alone() -> None:
    options = ServeOptions()
    options.check()
    assert options.host == "127.0.0.1"
    assert options.allow_paths is None


def test_the_client_loads_no_model_code() -> None:
    code = (
        "import openxclip, sys; openxclip.Client(); print('torch' in sys.modules, 'fastapi' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
