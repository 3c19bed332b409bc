"""Live streams: pipes and a real HTTP server on loopback, with stalls, cuts and jumps of the time stamps."""

import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

import av
import numpy as np
import pytest

from openxclip.checkpoints.source import ModelSource
from openxclip.cli.main import run
from openxclip.errors import VideoError
from openxclip.inference.engine import Engine
from openxclip.shapes.clip import FRAMES_PER_SECOND
from openxclip.shapes.examples import EXAMPLE_LABELS, example_clips
from openxclip.timelines import live as timelines_live
from openxclip.timelines.live import Event, LiveWatcher
from openxclip.timelines.options import SegmentRules, WindowOptions
from openxclip.timelines.watcher import Watcher
from openxclip.timelines.webhook import Webhook
from openxclip.video import live
from openxclip.video.live import LivePlayer, is_live
from openxclip.video.playback import Break, PlayedFrame

pytestmark = pytest.mark.on_cpu

CLIPS = example_clips()[:3]
LABELS = tuple(clip.kind.name for clip in CLIPS)


@pytest.fixture(scope="module")
def watcher() -> Watcher:
    engine = Engine.load(ModelSource(source="openxclip-tiny", dtype="float32"))
    return Watcher(
        engine,
        EXAMPLE_LABELS,
        windows=WindowOptions(window="2s", stride="2s"),
        rules=SegmentRules(min_seconds=0, close_gap_seconds=0),
    )


def stream(clips: int = 3, *, shift_seconds: float = 0.0, format: str = "mpegts") -> bytes:
    """Some clips one after the other, 2 s each, from a time stamp on."""
    file = io.BytesIO()
    options = {"mpegts_flags": "+resend_headers"} if format == "mpegts" else {}
    with av.open(file, "w", format=format, options=options) as container:
        write(container, clips, shift_seconds)
    return file.getvalue()


def write(container, clips: int, shift_seconds: float = 0.0) -> None:
    """Encode some clips."""
    options = {"g": "16", "bf": "0", "tune": "zerolatency", "crf": "20"}
    video = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
    video.width = video.height = 128
    video.pix_fmt = "yuv420p"
    video.codec_context.thread_count = 1
    pictures = [frame for i in range(clips) for frame in CLIPS[i % 3].frames(np.arange, 128)]
    for number, frame in enumerate(pictures):
        image = av.VideoFrame.from_ndarray(frame, format="rgb24")
        image.pts, image.time_base = number, Fraction(1, FRAMES_PER_SECOND)
        mux(container, video.encode(image), shift_seconds)
    mux(container, video.encode(None), shift_seconds)


def mux(container, packets, shift_seconds: float) -> None:
    for packet in packets:
        ticks = round(shift_seconds / packet.time_base)
        packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        container.mux(packet)


def feed(pipe: Path, data: bytes) -> None:
    """Write to a named pipe beside the test; a reader may leave before the end."""

    def write_all() -> None:
        with suppress(BrokenPipeError):
            pipe.write_bytes(data)

    threading.Thread(target=write_all, daemon=True).start()


Script = Callable[["Sender"], None]


class Sender:
    """What a script of the server's side uses to send."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self.handler = handler

    def send(self, data: bytes, seconds: float = 0.0) -> None:
        """Send bytes, spread over so many seconds."""
        pieces = max(1, round(seconds * 10))
        step = -(-len(data) // pieces)
        for start in range(0, len(data), step):
            self.handler.wfile.write(data[start : start + step])
            self.handler.wfile.flush()
            if seconds:
                time.sleep(seconds / pieces)


@contextmanager
def server(*connections: Script) -> Iterator[str]:
    """A real HTTP server: each connection is served by the next script, and cut at its end."""
    scripts = iter(connections)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script = next(scripts, None)
            if script is None:
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            with suppress(OSError):  # the player has gone
                script(Sender(self))

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/live.ts"
        http.shutdown()


def events_of(
    watcher: Watcher, address: str, *, until: Callable[[list[Event]], bool], seconds: float = 60.0, **more
) -> list[Event]:
    """Watch until a condition holds, then stop as Ctrl-C does."""
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    found: list[Event] = []
    try:
        for event in LiveWatcher(watcher, **more).events(LivePlayer(address, wait=stop.wait), stop):
            found.append(event)
            if until(found):
                stop.set()
    finally:
        timer.cancel()
    assert found[-1].kind == "end"
    return found


def segments(events: list[Event]) -> list[tuple[str | None, float, float]]:
    return [
        (event.label, round(event.start_seconds, 1), round(event.end_seconds, 1))
        for event in events
        if event.kind == "segment"
    ]


def count(events: list[Event], kind: str) -> int:
    return sum(event.kind == kind for event in events)


# --- connections --------------------------------------------------------------------------------------------------


def test_a_pipe_to_its_end(watcher, tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert is_live(str(tmp_path / "pipe"))
    feed(tmp_path / "pipe", stream(3))
    found = events_of(watcher, str(tmp_path / "pipe"), until=lambda events: False, seconds=30)
    assert segments(found) == [(LABELS[0], 0.0, 2.0), (LABELS[1], 2.0, 4.0), (LABELS[2], 4.0, 6.0)]
    assert found[-1].reason == "the stream ended"
    assert [
        event.scores and max(event.scores, key=event.scores.get) for event in found if event.kind == "window"
    ] == [*LABELS]


def test_a_pipe_whose_name_is_gone_ends_as_others(watcher, tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    player = LivePlayer(str(tmp_path / "pipe"))
    (tmp_path / "pipe").rename(tmp_path / "moved")  # the sender finds it; the name that was given is gone
    player.name = str(tmp_path / "moved")
    feed(tmp_path / "moved", stream(2))
    stop = threading.Event()
    found = []
    for event in LiveWatcher(watcher).events(player, stop):
        if not found:
            (tmp_path / "moved").unlink()
        found.append(event)
    assert [label for label, _, _ in segments(found)] == [LABELS[0], LABELS[1]]
    assert found[-1].reason == "the stream ended"


def test_leaving_the_events_ends_the_reading(watcher, tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    feed(tmp_path / "pipe", stream(9))
    events = LiveWatcher(watcher).events(LivePlayer(str(tmp_path / "pipe")), threading.Event())
    assert next(events).kind == "window"
    events.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "stream"]


def num_unread(pipe: IO[bytes]) -> int:
    """Bytes that the other end has not read yet. Not on Windows."""
    import fcntl
    import termios

    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]


def test_a_signal_ends_it_before_anything_came() -> None:
    command = [sys.executable, "-m", "openxclip", "timeline", "-", "--labels", ", ".join(EXAMPLE_LABELS)]
    with subprocess.Popen(
        [*command, "--model", "openxclip-tiny"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # A shell ignores SIGINT for what runs in the background.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(stream(1)[:3000])
        process.stdin.flush()
        while num_unread(process.stdin) > 0:  # until it has begun to read
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert json.loads(process.stdout.read())["kind"] == "end"
        process.stdin.close()


def test_a_pipe_that_holds_a_file_waits_for_the_model(watcher, tmp_path) -> None:
    """It comes at once, and nothing of it is dropped."""
    os.mkfifo(tmp_path / "pipe")
    feed(tmp_path / "pipe", stream(12))
    found = events_of(watcher, str(tmp_path / "pipe"), until=lambda events: False)
    assert count(found, "window") == 12
    assert count(found, "dropped") == 0


def test_standard_input_of_the_command(tmp_path) -> None:
    command = [sys.executable, "-m", "openxclip", "timeline", "-", "--labels", ", ".join(EXAMPLE_LABELS)]
    options = ["--model", "openxclip-tiny", "--window", "2s", "--stride", "2s"]
    options += ["--alert", f"{LABELS[1]}=0.8", "--alert", f"{EXAMPLE_LABELS[-1]}=1"]
    done = subprocess.run(
        [*command, *options, "--close-gap-seconds", "0"],
        input=stream(3),
        capture_output=True,
        timeout=120,
        check=True,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["label"] for event in events if event["kind"] == "segment"] == list(LABELS)
    (alert,) = [event for event in events if event["kind"] == "alert"]
    assert (alert["label"], alert["threshold"], alert["start_seconds"]) == (LABELS[1], 0.8, 2.0)
    assert alert["wall_time"].endswith("+00:00")
    assert events[-1] == {**events[-1], "kind": "end", "reason": "the stream ended"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_all_segments_closed(number) -> None:
    command = [sys.executable, "-m", "openxclip", "timeline", "-", "--labels", ", ".join(EXAMPLE_LABELS)]
    options = ["--model", "openxclip-tiny", "--window", "2s", "--stride", "2s"]
    with subprocess.Popen([*command, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(stream(2))
        process.stdin.flush()  # and nothing more comes
        first = json.loads(process.stdout.readline())
        assert first["kind"] == "window"
        process.send_signal(number)
        events = [json.loads(line) for line in process.stdout]
        assert process.wait(20) == 0
        process.stdin.close()
    assert [event["label"] for event in events if event["kind"] == "segment"] == [LABELS[0]]
    assert events[-1]["reason"] == "stopped"


def test_a_lost_connection_comes_back(watcher, monkeypatch) -> None:
    """Cut within the second clip, refused once, and there again: time went on meanwhile."""
    monkeypatch.setattr(live, "FIRST_PAUSE_SECONDS", 0.4)
    whole = stream(6)

    def first(sender: Sender) -> None:
        sender.send(whole[: len(whole) // 2], seconds=4)

    def refused(sender: Sender) -> None:
        sender.send(b"no video")

    def second(sender: Sender) -> None:
        sender.send(stream(8), seconds=8)
        time.sleep(20)

    with server(first, refused, second) as address:
        found = events_of(
            watcher,
            address,
            until=lambda events: (
                count(events, "gap") > 0
                and sum(e.kind == "window" and e.start_seconds > events_gap(events) for e in events) >= 2
            ),
        )
    lost = [event for event in found if event.kind == "lost"]
    assert len(lost) == 2
    assert all("trying again in" in (event.reason or "") for event in lost)
    assert not any("the file is damaged" in (event.reason or "") for event in found)
    assert (lost[0].reason or "").startswith("it broke off (")
    assert "0.4 s" in (lost[0].reason or "")
    assert "0.8 s" in (lost[1].reason or "")
    (gap,) = [event for event in found if event.kind == "gap"]
    assert gap.end_seconds - gap.start_seconds > 1.2
    assert "connected again" in (gap.reason or "")
    windows = [event for event in found if event.kind == "window"]
    # A window of 2 s looks at 8 frames, the first of them after 0.125 s.
    assert all(
        event.end_seconds <= gap.start_seconds or event.start_seconds >= gap.end_seconds - 0.2
        for event in windows
    )


def events_gap(events: list[Event]) -> float:
    return next(event.end_seconds for event in events if event.kind == "gap") - 0.1


class Lost:
    """A stream of 7 s that is lost, and that nobody waits for."""

    frame_rate, end_seconds = Fraction(25), None

    def connect(self) -> None:
        pass

    def close(self) -> None:
        pass

    def pixels(self, frame: PlayedFrame, size: object) -> np.ndarray:
        return np.zeros((3, 72, 72), np.uint8)

    def __iter__(self) -> Iterator[PlayedFrame | Break]:
        yield from (PlayedFrame(None, i / 25) for i in range(175))
        yield Break("lost", 6.96, 6.96, "x")


def test_segments_before_and_behind_a_loss_do_not_overlap(watcher) -> None:
    long = Watcher(
        watcher.engine,
        LABELS[:2],
        rules=SegmentRules(enter=0.5, leave=0.5, min_seconds=0, close_gap_seconds=0),
    )
    found = list(LiveWatcher(long).events(Lost(), threading.Event()))
    windows = [(event.start_seconds, event.end_seconds) for event in found if event.kind == "window"]
    assert windows[-1] == (4.0, pytest.approx(7.0, abs=0.1)), "the last one begins before the loss"
    first, *others = segments(found)
    assert first[1:] == (0.0, 7.0)
    assert all(start >= 6.96 for _, start, _ in others)


def test_what_nobody_takes_does_not_grow(monkeypatch) -> None:
    monkeypatch.setattr(timelines_live, "MAX_ITEMS", 20)
    waiting, stop = timelines_live._Waiting(), timelines_live._Either(threading.Event())

    def put() -> None:
        for i in range(100):
            waiting.put(Break("gap", float(i), float(i), "x"), stop)

    thread = threading.Thread(target=put, daemon=True)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    assert len(waiting._items) == 20
    taken = [waiting.take()[0].item.start_seconds for _ in range(100)]
    assert taken == list(range(100))
    thread.join()


def test_time_stamps_that_jump_are_no_time(watcher, tmp_path) -> None:
    """A camera that was set anew: an hour forward, and then back to zero."""
    os.mkfifo(tmp_path / "pipe")
    data = stream(2) + stream(2, shift_seconds=3600) + stream(2)
    feed(tmp_path / "pipe", data)
    found = events_of(watcher, str(tmp_path / "pipe"), until=lambda events: False)
    jumps = [event for event in found if event.kind == "jump"]
    first, second = (
        float((event.reason or "").removeprefix("the time stamps jump by ")[:-2]) for event in jumps
    )
    assert (first, second) == (pytest.approx(3596, abs=0.5), pytest.approx(-3604, abs=0.5))
    windows = [(event.start_seconds, event.end_seconds) for event in found if event.kind == "window"]
    assert windows == [(2.0 * i, 2.0 * i + 2) for i in range(6)]
    assert [label for label, _, _ in segments(found)] == [LABELS[0], LABELS[1]] * 3


def test_frames_that_a_network_lost_are_a_gap(watcher, tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    data = stream(2) + stream(2, shift_seconds=4 + 3.0)
    feed(tmp_path / "pipe", data)
    found = events_of(watcher, str(tmp_path / "pipe"), until=lambda events: False)
    (gap,) = [event for event in found if event.kind in ("gap", "damage")]
    assert (gap.start_seconds, gap.end_seconds) == (pytest.approx(4, abs=0.3), pytest.approx(7, abs=0.1))
    windows = [event.start_seconds for event in found if event.kind == "window"]
    assert {0.0, 8.0} <= set(windows) <= {0.0, 2.0, 8.0, 10.0}


def test_a_playlist_over_http(watcher, tmp_path) -> None:
    options = {"hls_time": "2", "hls_list_size": "0"}
    with av.open(str(tmp_path / "list.m3u8"), "w", format="hls", options=options) as container:
        write(container, 3)
    assert len(list(tmp_path.glob("list*.ts"))) == 3

    class Files(SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(tmp_path))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{http.server_port}/list.m3u8"
        found = events_of(watcher, address, until=lambda events: False, seconds=30)
        http.shutdown()
    assert [label for label, _, _ in segments(found)] == list(LABELS)
    assert count(found, "lost") == 0, "its length is known: it has ended"


class Nothing:
    """A connection that works and brings no frame."""

    frame_rate, stated_seconds, broke_off = Fraction(25), None, None

    def close(self) -> None:
        pass

    def __iter__(self) -> Iterator[PlayedFrame]:
        return iter(())


def test_a_sender_that_answers_and_sends_nothing_is_asked_less_and_less(monkeypatch) -> None:
    pauses: list[float] = []

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) == 7

    monkeypatch.setattr(LivePlayer, "_connect", lambda self: Nothing())
    player = LivePlayer("http://127.0.0.1:9/x", wait=wait)
    player.connect()
    assert {item.kind for item in player} == {"lost", "gap"}
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_the_time_of_a_sender_that_stands_still_counts(monkeypatch) -> None:
    monkeypatch.setattr(live, "READ_SECONDS", 1.0)
    monkeypatch.setattr(live, "FIRST_PAUSE_SECONDS", 0.3)

    def still(sender: Sender) -> None:
        sender.send(stream(2), seconds=4)
        time.sleep(4)

    def back(sender: Sender) -> None:
        sender.send(stream(2))
        time.sleep(4)

    with server(still, back) as address:
        player = LivePlayer(address)
        player.connect()
        before, gap = 0.0, None
        for item in player:
            if isinstance(item, PlayedFrame):
                before = item.seconds
            elif item.kind == "gap":
                gap = item
                break
        player.close()
    assert gap is not None
    assert before == pytest.approx(4 - 1 / FRAMES_PER_SECOND, abs=0.2), (
        "what the decoder held back comes as well"
    )
    assert gap.start_seconds == before
    assert (
        gap.end_seconds - before > 1.0
    )  # 1.0 s without a packet, 0.3 s of pause; the last one was sent 0.1 s early


def test_a_file_over_http_that_breaks_off_goes_on_from_there(watcher) -> None:
    data = stream(9)
    starts: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            starts.append(start)
            self.send_response(206)
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(data[start : len(data) // 2] if start < len(data) // 2 else data[start:])

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{http.server_port}/film.ts"
        found = events_of(watcher, address, until=lambda events: False, seconds=30)
        http.shutdown()
    assert any(len(data) // 2 <= start < len(data) for start in starts)
    assert [label for label, _, _ in segments(found)] == [*LABELS] * 3
    assert {event.kind for event in found} == {"window", "segment", "end"}


def test_a_file_over_http_that_breaks_off_for_good_is_an_error(watcher, monkeypatch) -> None:
    monkeypatch.setattr(live, "LONGEST_PAUSE_SECONDS", 1.0)
    data = stream(9)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            self.send_response(206)
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            is_end = start > 0.9 * len(data)  # where the length is looked up
            with suppress(OSError):
                self.wfile.write(data[start:] if is_end else data[start : len(data) // 2])

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        player = LivePlayer(f"http://127.0.0.1:{http.server_port}/film.ts")
        with pytest.raises(VideoError, match="it broke off"):
            list(LiveWatcher(watcher).events(player, threading.Event()))
        http.shutdown()


def test_a_film_that_an_address_sends_once_is_watched_once() -> None:
    """Without a length nothing tells it from a camera: --once does."""

    def film(sender: Sender) -> None:
        sender.send(stream(3))

    options = [
        "--model",
        "openxclip-tiny",
        "--window",
        "2s",
        "--stride",
        "2s",
        "--min-seconds",
        "0",
        "--once",
    ]
    with server(film, film) as address:
        command = [
            sys.executable,
            "-m",
            "openxclip",
            "timeline",
            address,
            "--labels",
            ", ".join(EXAMPLE_LABELS),
        ]
        done = subprocess.run(
            [*command, *options, "--close-gap-seconds", "0"], capture_output=True, timeout=120, check=True
        )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["label"] for event in events if event["kind"] == "segment"] == list(LABELS)
    assert {event["kind"] for event in events} == {"window", "segment", "end"}


def test_an_mp4_whose_index_stands_at_its_end_cannot_come_through_a_pipe(tmp_path) -> None:
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        write(container, 12)  # more than is read before its beginning is gone
    command = [sys.executable, "-m", "openxclip", "timeline", "-", "--labels", "surfing, dancing"]
    done = subprocess.run(
        [*command, "--model", "openxclip-tiny"],
        input=(tmp_path / "film.mp4").read_bytes(),
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert "+faststart" in line


RTSP_SENDER = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
pictures = "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=128,height=128,framerate=15/1"
factory.set_launch(f"( {pictures} ! jpegenc ! rtpjpegpay name=pay0 pt=26 )")
factory.set_shared(True)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""


@pytest.mark.slow
def test_a_camera_over_rtsp_that_goes_away_and_comes_again(watcher, monkeypatch) -> None:
    """By GStreamer's server, where the system's Python has it (gir1.2-gst-rtsp-server-1.0 of Debian)."""
    monkeypatch.setattr(live, "FIRST_PAUSE_SECONDS", 0.3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    @contextmanager
    def camera() -> Iterator[None]:
        command = ["/usr/bin/python3", "-c", RTSP_SENDER, str(port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                pytest.skip("there is no RTSP server of GStreamer")
            yield
            process.kill()

    player = LivePlayer(f"rtsp://127.0.0.1:{port}/live")
    found: list[Event] = []
    events = LiveWatcher(watcher).events(player, threading.Event())
    with camera():
        while count(found, "window") < 2:
            found.append(next(events))
    while count(found, "lost") < 2:
        found.append(next(events))
    with camera():
        while count(found, "window") < 4:
            found.append(next(events))
    events.close()
    assert "it cannot be reached (Connection refused)" in [
        (event.reason or "").partition(";")[0] for event in found if event.kind == "lost"
    ]
    (gap,) = [event for event in found if event.kind == "gap"]
    assert "connected again" in (gap.reason or "")
    assert max(event.late_seconds or 0 for event in found) < 1.0


def test_datagrams_that_stop_and_come_again(watcher, monkeypatch) -> None:
    """UDP has no connection: a sender that is silent for long counts as lost, and is listened to again."""
    monkeypatch.setattr(live, "READ_SECONDS", 1.5)
    monkeypatch.setattr(live, "FIRST_PAUSE_SECONDS", 0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    is_over = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            while not is_over.is_set():
                data = stream(3)
                for start in range(0, len(data), 1316):
                    out.sendto(data[start : start + 1316], ("127.0.0.1", port))
                    time.sleep(6 * 1316 / len(data))
                is_over.wait(4)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    found = events_of(
        watcher,
        f"udp://127.0.0.1:{port}",
        until=lambda events: count(events, "gap") >= 1 and events[-1].kind == "window",
    )
    is_over.set()
    thread.join()
    assert count(found, "lost") >= 1
    assert count(found, "window") >= 2


# --- a slow model -------------------------------------------------------------------------------------------------


def test_a_model_that_is_too_slow_drops_windows_and_is_not_late(watcher, monkeypatch) -> None:
    engine = watcher.engine
    fast = Watcher(
        engine,
        EXAMPLE_LABELS,
        windows=WindowOptions(window="1s", stride="0.25s"),
        rules=SegmentRules(min_seconds=0),
    )
    logits = Engine.logits

    def slow(self: Engine, *arguments: object, **more: object) -> object:
        time.sleep(0.6)
        return logits(self, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "logits", slow)

    def camera(sender: Sender) -> None:
        sender.send(stream(8), seconds=16)
        time.sleep(20)

    with server(camera) as address:
        found = events_of(fast, address, until=lambda events: events[-1].end_seconds > 12)
    dropped = sum(event.num_windows or 0 for event in found if event.kind == "dropped")
    windows = [event for event in found if event.kind == "window"]
    assert dropped > 8
    assert len(windows) + dropped >= 40
    late = [event.late_seconds or 0 for event in windows[4:]]
    assert max(late) < 5 * 0.6, "what waits is bounded, and so is how late it is"
    assert "slower than the stream" in next(event.reason or "" for event in found if event.kind == "dropped")


# --- alerts -------------------------------------------------------------------------------------------------------


def test_an_alert_is_posted_to_the_address_alone(caplog) -> None:
    posted: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            values = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            posted.append({"path": self.path, **values})
            if self.path == "/moved":
                self.send_response(307)
                self.send_header("Location", "/elsewhere")
            else:
                self.send_response(204)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        for path in ("/alerts", "/moved"):
            webhook = Webhook(f"http://127.0.0.1:{http.server_port}{path}")
            webhook.post({"label": "falling", "score": 0.9})
            webhook.close()
        http.shutdown()
    assert [(value["path"], value["label"]) for value in posted] == [
        ("/alerts", "falling"),
        ("/moved", "falling"),
    ]
    assert "/moved did not accept an alert" in caplog.text


def test_a_host_that_cannot_be_does_not_end_the_thread(caplog) -> None:
    webhook = Webhook(f"http://{'x' * 70}.example/alerts")
    for _ in range(2):
        webhook.post({"label": "falling"})
    webhook.close()
    assert caplog.text.count("did not accept an alert") == 2


def test_alerts_are_given_once_until_the_label_is_gone(watcher, tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    feed(tmp_path / "pipe", stream(5))
    half = Watcher(
        watcher.engine, EXAMPLE_LABELS, windows=WindowOptions(window="2s", stride="1s"), rules=SegmentRules()
    )
    found = events_of(half, str(tmp_path / "pipe"), until=lambda events: False, alerts={LABELS[0]: 0.6})
    alerts = [event for event in found if event.kind == "alert"]
    assert [round(event.start_seconds) for event in alerts] == [0, 6]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.mp4", "--alert", "surfing=0.8"], "streams"),
        (["none.mp4", "--once"], "streams"),
        (["-", "--alert", "surfing"], "falling=0.8"),
        (["-", "--alert", "surfing=x"], "falling=0.8"),
        (["-", "--webhook", "http://x/y"], "--alert"),
        (["-", "other.mp4"], "alone"),
        (["-", "--alert", "surfing=0.8", "--webhook", "ftp://x/y"], "such as https://"),
        (["-", "--alert", "surfing=0.8", "--webhook", "http://[::1"], "such as https://"),
        (["-", "--alert", "surfing=0.8", "--webhook", "http://x:port/"], "such as https://"),
        (["-", "--alert", "surfing=0.8", "--webhook", "http://x/\u00fc"], "escape"),
        (["-", "--alert", "surfing=0.8", "--webhook", "http://me:secret@x/"], "not supported"),
        (["gopher://x/y"], "gopher is not a known kind of stream"),
        (["file:///x/y.mp4"], "by its path"),
        (["-", "--alert", "flying=0.8"], "not one of the labels"),
        (["-", "--alert", "surfing=80"], "between 0 and 1"),
        (["-", "--background", "self"], "footage"),
        (["-", "--window", "x"], "--window"),
        (["a.mp4", "--output", "o", "--formats", "gif"], "gif"),
        (["a.mp4", "--output", "o", "--formats", ","], "is empty"),
        (["a.mp4", "--formats", "png"], "--output FOLDER"),
        (["-", "--output", "o"], "for files"),
        (["-", "--formats", "png"], "for files"),
        (["-", "--shots"], "for files"),
        (["a.mp4", "--threshold", "0.9", "--leave", "0.8"], "--threshold"),
        (["a.mp4", "--output", "/proc/none"], "/proc/none"),
        (["a.mp4", "--leave", "0.9"], "--leave"),
        ([], "no video"),
    ],
)
def test_wrong_use_is_one_line(arguments, words, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    labels = ["--labels", "surfing, dancing", "--model", "nowhere/no-model"]  # nothing is loaded before
    assert run(["timeline", *arguments, *labels]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def test_a_closed_standard_input_is_named_once(watcher, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(VideoError) as caught:
        list(LiveWatcher(watcher).events(LivePlayer("-"), threading.Event()))
    assert caught.value.reason.startswith("standard input is closed")


def test_a_stream_that_does_not_answer_is_one_line(capsys) -> None:
    labels = ["--labels", "surfing, dancing", "--model", "openxclip-tiny"]
    assert run(["timeline", "http://127.0.0.1:9/x", *labels]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
