"""The command as people use it: what goes to stdout, what to stderr, and the exit status."""

import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import TINY, tiny_model, tiny_pixels, tiny_tokenizer, tiny_tokens
from videos import moving_frames, write_video

import openxclip
from openxclip.checkpoints.source import ModelSource
from openxclip.cli.evaluate import PROTOCOLS
from openxclip.cli.main import COMMANDS, main, run
from openxclip.experiments.ablations import ABLATIONS
from openxclip.inference.options import InferenceOptions
from openxclip.inference.recognizer import Recognizer
from openxclip.models.config import PRESETS
from openxclip.runtimes.options import RuntimeOptions
from openxclip.shapes.splits import LISTS
from openxclip.text.templates import BUILT_IN_TEMPLATES
from openxclip.video import Preprocessor

OPENXCLIP = [sys.executable, "-m", "openxclip"]
LABELS = ["playing piano", "surfing", "zo ve"]


class Outcome(NamedTuple):
    """What a call left behind."""

    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict]:
        """stdout as JSON lines, in which nan and infinity are no numbers."""
        return [json.loads(line, parse_constant=refuse) for line in self.out.splitlines()]


Call = Callable[..., Outcome]


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@pytest.fixture
def call(capsys) -> Call:
    """Run the command in this process."""

    def call(*arguments: str | Path, debug: bool = False) -> Outcome:
        capsys.readouterr()
        try:
            status = run([str(argument) for argument in arguments], debug)
        except SystemExit as stop:
            status = int(stop.code or 0)
        return Outcome(status, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model folder."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    openxclip.save_as(
        folder, tiny_model(), tiny_tokenizer(), Preprocessor.official(TINY.vision.image_size_px)
    )
    return folder


@pytest.fixture(scope="module")
def bare_model(model, tmp_path_factory) -> Path:
    """The same without its tokenizer."""
    folder = shutil.copytree(model, tmp_path_factory.mktemp("models") / "bare")
    (folder / "tokenizer.json").unlink()
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """A folder: two videos, one in a folder of its own with a name that is no ASCII, and what is no video."""
    folder = tmp_path_factory.mktemp("media") / "videos"
    (folder / "später").mkdir(parents=True)
    for i, path in enumerate(
        (folder / "one.mp4", folder / "two.AVI", folder / "später" / "日本 🎹 'x' \"y\".mp4")
    ):
        write_video(path, frames=moving_frames(10 + i, seed=i))
    (folder / "notes.txt").write_text("no video")
    (folder / "._one.mp4").write_bytes(b"left by a file manager")
    (folder / "folder.mp4").mkdir()
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A labelled folder: six readable videos of two classes in test.txt, one broken one in broken.txt."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(6):
        write_video(folder / f"{i}.mp4", frames=moving_frames(8 + i, seed=i))
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "labels.csv").write_text("id,name\n0,playing piano\n1,surfing\n2,nobody\n")
    (folder / "test.txt").write_text("".join(f"{i}.mp4 {i % 2}\n" for i in range(6)))
    (folder / "train_16shot.txt").write_text("".join(f"{i}.mp4 {i % 2}\n" for i in range(4)))
    (folder / "broken.txt").write_text("0.mp4 0\nbroken.mp4 1\n1.mp4 1\n")
    return folder


def options(arguments: list[str]) -> set[str]:
    return {argument for argument in arguments if argument.startswith("--")}


def options_in_help(call: Call, *command: str) -> set[str]:
    """Every option that `command` has, as its help lists them at the left."""
    outcome = call(*command, "--help")
    assert outcome.status == 0
    listed = re.findall(r"^. (?:-\w, )?(--[a-z][\w-]*)", outcome.out, flags=re.MULTILINE)
    return set(listed) - {"--help"}


def assert_refused(outcome: Outcome, message: str, status: int = 2) -> None:
    """One line on stderr, nothing on stdout."""
    assert outcome.out == ""
    assert re.fullmatch(rf"openxclip: .*{message}.*\n", outcome.err), outcome.err
    assert outcome.status == status


# All commands


@pytest.mark.parametrize("command", [*COMMANDS, *(f"evaluate {protocol}" for protocol in PROTOCOLS)])
def test_help_says_what_every_option_is_for(call, command):
    outcome = call(*command.split(), "--help")
    assert (outcome.status, outcome.err) == (0, "")
    assert f"usage: openxclip {command}" in outcome.out
    text = re.sub(r"\s*│\n│\s*", " ", outcome.out)
    for option in options_in_help(call, *command.split()):
        assert not re.search(rf"{option}( [\w{{}}|,]+)? +\(default", text), f"{option} has no help"


def test_help_needs_no_torch():
    code = (
        "import sys; from openxclip.cli.main import main; sys.argv = ['openxclip', *sys.argv[1:]]\n"
        "try: main()\n"
        "finally: print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    for arguments in (
        ["--help"],
        ["predict", "--help"],
        ["evaluate", "few-shot", "--help"],
        ["train", "--recipe"],
    ):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == (0 if "--help" in arguments else 2)
        loaded = set(done.stderr.splitlines()[-1].split())
        assert "tyro" in loaded
        assert loaded & {"torch", "numpy", "av", "tokenizers", "huggingface_hub", "matplotlib"} == set()


@pytest.mark.parametrize(
    "arguments", [[], ["frobnicate"], ["predict"], ["predict", "--top-k", "many"], ["info", "m", "--no-such"]]
)
def test_an_unknown_command_or_option_is_wrong_use(call, arguments):
    outcome = call(*arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert "--help" in outcome.err
    assert "Traceback" not in outcome.err


def test_debug_shows_where_an_error_came_from(call):
    arguments = ("predict", "x.mp4", "--labels", "a, a")
    assert_refused(call(*arguments), "more than once")
    outcome = call(*arguments, debug=True)
    assert outcome.status == 2
    assert outcome.err.startswith("Traceback (most recent call last)")
    assert outcome.err.splitlines()[-1].startswith("openxclip: labels 'a, a'")


@pytest.mark.parametrize("place", [0, 1, 4])
def test_debug_may_stand_anywhere(capsys, monkeypatch, place):
    arguments = ["openxclip", "predict", "x.mp4", "--labels", "a, a"]
    arguments.insert(place + 1, "--debug")
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_interruption_gives_130(call, monkeypatch):
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "info", interrupted)
    assert call("info") == (130, "", "openxclip: interrupted\n")


@pytest.mark.on_cpu
def test_a_reader_that_has_seen_enough_is_no_error(model, videos):
    command = [*OPENXCLIP, "predict", str(videos), "--labels", "a, b", "--model", str(model)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    with process.stderr:
        assert not re.search("Traceback|Broken|Exception", process.stderr.read())
    assert process.wait() == 0


def test_neither_is_one_that_goes_before_the_only_output(call, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert call("info", "B/32-8").status == 0
        assert call("info", "B/32-8").err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_is_one_line(call, monkeypatch):
    with Path(os.devnull).open("w") as null, Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        outcome = call("info", "B/32-8")
        os.dup2(null.fileno(), full.fileno())  # closing the file writes once more
        assert (outcome.status, outcome.err) == (1, "openxclip: [Errno 28] No space left on device\n")


# predict


def test_predict_ranks_the_labels_of_every_video_in_a_folder(call, model, videos):
    outcome = call("predict", videos, "--labels", ", ".join(LABELS), "--model", model)
    assert outcome.status == 0
    recognizer = Recognizer.from_pretrained(model, LABELS)
    expected = []
    for path in (videos / "one.mp4", next((videos / "später").iterdir()), videos / "two.AVI"):
        scores = recognizer.predict(path).scores
        expected += [str(path), *(f"  {probability:6.1%}  {label}" for label, probability in scores)]
    assert outcome.out.splitlines() == expected
    assert "3/3" in outcome.err


def test_predict_json_is_a_line_for_each_video(call, model, videos):
    paths = [videos / "two.AVI", next((videos / "später").iterdir()), videos / "one.mp4"]
    outcome = call("predict", *paths, "--labels", ", ".join(LABELS), "--model", model, "--json")
    assert outcome.status == 0
    predictions = Recognizer.from_pretrained(model, LABELS).predict(paths)
    assert outcome.rows == [
        {"path": p.path, "scores": [list(score) for score in p.scores], "error": None} for p in predictions
    ]
    assert [sum(p for _, p in row["scores"]) for row in outcome.rows] == pytest.approx([1, 1, 1])


def test_one_video_needs_no_progress_bar(call, model, videos):
    outcome = call("predict", videos / "one.mp4", "--labels", "a, b", "--model", model)
    assert (outcome.status, outcome.err) == (0, "")


def test_a_bad_video_gets_its_row_and_the_others_go_on(call, model, videos, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    paths = [videos / "one.mp4", tmp_path / "broken.mp4", tmp_path / "nowhere.mp4", videos / "two.AVI"]
    arguments = ["predict", *paths, "--labels", "a, b", "--model", model]
    text, as_json = call(*arguments), call(*arguments, "--json")
    assert text.status == as_json.status == 1
    lines = text.out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [str(path) for path in paths]
    assert "cannot be read: it is damaged" in lines[lines.index(str(paths[1])) + 1]
    assert "cannot be read: there is no such file" in lines[lines.index(str(paths[2])) + 1]
    assert [row["error"] is None for row in as_json.rows] == [True, False, False, True]
    assert [len(row["scores"]) for row in as_json.rows] == [2, 0, 0, 2]
    for outcome in (text, as_json):
        assert f"openxclip: {paths[1]}: it is damaged" in outcome.err
        assert f"openxclip: {paths[2]}: there is no such file" in outcome.err
        assert "Traceback" not in outcome.err


def test_a_folder_without_videos_gets_its_row_and_the_others_go_on(call, model, videos, tmp_path):
    (tmp_path / "empty").mkdir()
    paths = [tmp_path / "empty", videos / "one.mp4"]
    outcome = call("predict", *paths, "--labels", "a, b", "--model", model, "--json")
    assert outcome.status == 1
    empty, good = outcome.rows
    assert (empty["path"], empty["scores"]) == (str(paths[0]), [])
    assert re.fullmatch(r"the folder holds no video; known endings are .*\.mp4, .*", empty["error"])
    assert (good["error"], len(good["scores"])) == (None, 2)
    assert f"openxclip: {paths[0]}: the folder holds no video" in outcome.err


def test_predict_with_every_option(call, model, bare_model, videos, tmp_path):
    (tmp_path / "labels.csv").write_text('id,name\n1,"swim, or dive"\n0,climb\n2,ski\n')
    (tmp_path / "templates.txt").write_text("# ours\na clip of {}\n\nsomebody does {}\n")
    texts = {"climb": "up a rock", "Swim, or dive": ["in water", "under water"], "ski": ["snow"], "run": "on"}
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    arguments = [
        "predict", str(videos / "one.mp4"), str(videos / "two.AVI"), "--labels", str(tmp_path / "labels.csv"),
        "--model", str(bare_model), "--tokenizer", str(model / "tokenizer.json"), "--views", "2x3", "--top-k", "2",
        "--templates", str(tmp_path / "templates.txt"), "--json", "--device", "cpu", "--dtype", "bfloat16",
        "--descriptions", str(tmp_path / "texts.json"),
        "--frames", "6", "--max-seconds", "0.4", "--max-frame-px", "3072",
        "--interpolate", "1", "--image-model", str(bare_model),
        "--shortlist", "2", "--int8", "--text-cache", str(tmp_path / "cache"), "--batch-size", "3", "--any-order",
        "--runtime", "torch", "--merge-tokens", "1", "--num-threads", str(torch.get_num_threads()),
    ]  # fmt: skip
    # The first takes a minute, the second goes with other runtimes: tests/test_calibration.py.
    assert options(arguments) | {"--compile", "--calibration"} == options_in_help(call, "predict")
    outcome = call(*arguments)
    assert outcome.status == 1
    good, too_long = sorted(outcome.rows, key=lambda row: row["error"] is not None)
    recognizer = Recognizer.from_pretrained(
        ModelSource(source=str(model), device="cpu", dtype="bfloat16", num_frames=6),
        ["climb", "swim, or dive", "ski"],
        ["a clip of {}", "somebody does {}"],
        descriptions=texts,
        options=InferenceOptions(shortlist=2, runtime=RuntimeOptions(int8=True, merge_tokens=1)),
    )
    expected = recognizer.predict(videos / "one.mp4", views="2x3", top_k=2).scores
    assert good == {
        "path": str(videos / "one.mp4"),
        "scores": [list(score) for score in expected],
        "error": None,
    }
    assert too_long["scores"] == []
    assert "over the limit max_seconds=0.4" in too_long["error"]


@pytest.mark.parametrize(("limit", "value"), [("--max-seconds", "0.1"), ("--max-frame-px", "3071")])
def test_a_video_over_a_limit_gets_an_error_row(call, model, videos, limit, value):
    outcome = call(
        "predict", videos / "one.mp4", "--labels", "a, b", "--model", model, limit, value, "--json"
    )
    assert outcome.status == 1
    assert f"over the limit {limit[2:].replace('-', '_')}={value}" in outcome.rows[0]["error"]


@pytest.mark.parametrize("frames", [1, 2, 4, 9, 30])
def test_predict_runs_on_any_number_of_frames(call, model, videos, frames):
    outcome = call(
        "predict", videos / "one.mp4", "--labels", "a, b", "--model", model, "--frames", frames, "--json"
    )
    assert outcome.status == 0
    recognizer = Recognizer.from_pretrained(ModelSource(source=str(model), num_frames=frames), ["a", "b"])
    assert dict(outcome.rows[0]["scores"]) == dict(recognizer.predict(videos / "one.mp4").scores)


def test_built_in_templates_and_labels_change_the_scores(call, model, videos):
    base = ["predict", videos / "one.mp4", "--model", model, "--json", "--top-k", "1000", "--labels"]
    named, video = (call(*base, "a, b", "--templates", name).rows[0] for name in ("name", "video"))
    assert named == call(*base, "a, b").rows[0] != video
    assert len(call(*base, "hmdb51").rows[0]["scores"]) == 51


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", ""], "label 0 .* is empty"),
        (["--labels", "a, a"], "more than once"),
        (["--labels", "nowhere.txt"], r"no label file nowhere\.txt"),
        (["--views", "all"], "cannot read views 'all'"),
        (["--views", "1x2"], "crops 1 or 3"),
        (["--top-k", "0"], "--top-k must be at least 1, got 0"),
        (["--templates", "poem"], "one of name, video, .*, or a file .*'poem' is neither"),
        (["--max-seconds", "0"], "max_seconds is 0.0"),
        (["--max-seconds", "nan"], "max_seconds is nan"),
        (["--max-frame-px", "-1"], "max_frame_px is -1"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
        (["--frames", "0"], "num_frames must be a whole number of at least 1, got 0"),
    ],
)
def test_wrong_use_of_predict(call, model, videos, arguments, message):
    base = ["predict", videos / "one.mp4", "--model", model, "--labels", "a, b"]
    assert_refused(call(*base, *arguments), message)


@pytest.mark.parametrize("text", ["a video", "{} and {}", "\n# nothing\n"])
def test_wrong_template_files(call, model, videos, tmp_path, text):
    (tmp_path / "templates.txt").write_text(text)
    base = ["predict", videos / "one.mp4", "--model", model, "--labels", "a, b"]
    assert_refused(
        call(*base, "--templates", tmp_path / "templates.txt"), r"templates\.txt.*(exactly once|no template)"
    )


def test_what_can_be_checked_is_checked_before_the_model_is_loaded(call, videos, tmp_path):
    (tmp_path / "empty").mkdir()
    base = ["predict", "--labels", "a, b", "--model", "./no such model"]
    assert_refused(call(*base), "no video given; name at least one file or folder")
    (tmp_path / "bare").mkdir()
    message = r"empty, .*bare: the folder holds no video; known endings are .*\.mp4"
    assert_refused(call(*base, tmp_path / "empty", tmp_path / "bare"), message)
    assert_refused(call(*base, videos, "--views", "0x1"), "views 0x1")
    assert_refused(call(*base, videos, "--max-seconds", "-1"), "max_seconds is -1")
    (tmp_path / "texts.json").write_text('{"a": "first", "bb": "second"}')
    lacking = r"1 of 2 labels have no description: 'b' \(nearest: 'bb'\)"
    assert_refused(call(*base, videos, "--descriptions", tmp_path / "texts.json"), lacking)
    assert_refused(call(*base, videos, "--descriptions", "texts"), "'texts' is neither")
    assert_refused(call(*base, videos), "no such model does not exist", status=1)


def test_what_is_no_model_is_one_line(call, videos, tmp_path):
    (tmp_path / "model.pth").write_text("no weights")
    for source, message in (
        (videos, "not a model folder"),
        (tmp_path / "model.pth", "cannot be opened"),
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / ("x" * 300), "name too long"),
    ):
        assert_refused(call("predict", videos, "--labels", "a, b", "--model", source), message, status=1)


def test_a_model_without_a_tokenizer_says_where_to_get_one(call, bare_model, videos):
    outcome = call("predict", videos, "--labels", "a, b", "--model", bare_model)
    assert_refused(outcome, "came without a tokenizer.*--tokenizer", status=1)
    outcome = call("predict", videos, "--labels", "a, b", "--model", bare_model, "--tokenizer", videos)
    assert_refused(outcome, "no tokenizer at", status=1)


def test_weights_that_are_no_numbers_are_no_scores(call, videos, tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.text.proj.weight.fill_(float("inf"))
    openxclip.save_as(tmp_path / "model", model, tiny_tokenizer(), Preprocessor.official(32))
    outcome = call("predict", videos / "one.mp4", "--labels", "a, b", "--model", tmp_path / "model", "--json")
    assert_refused(outcome, "scores are NaN", status=1)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_no_encoding_knows_can_be_printed(model, videos, tmp_path, monkeypatch, encoding):
    broken_name = os.fsdecode(b"no \xff text.mp4")
    folder = tmp_path / "ü"
    folder.mkdir()
    shutil.copy(videos / "one.mp4", folder / broken_name)
    command = ["openxclip", "predict", str(folder), "--labels", "ü, b", "--model", str(model)]
    text, as_json = (
        output_of_main(monkeypatch, arguments, encoding) for arguments in (command, [*command, "--json"])
    )
    letter = "ü" if encoding == "utf-8" else r"\xfc"
    assert text.splitlines()[0] == rf"{tmp_path}/{letter}/no \udcff text.mp4"
    (row,) = Outcome(0, as_json, "").rows
    assert Path(row["path"]) == folder / broken_name
    assert {label for label, _ in row["scores"]} == {"ü", "b"}


def output_of_main(monkeypatch, arguments: list[str], encoding: str) -> str:
    """stdout of the whole command, where stdout has an encoding of its own."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    return stdout.buffer.getvalue().decode(encoding)


@pytest.mark.on_cpu
def test_data_goes_to_stdout_beside_a_progress_bar(model, videos):
    """As in `openxclip predict ... --json > rows.jsonl`, typed at a terminal."""
    reading, terminal = pty.openpty()
    command = [*OPENXCLIP, "predict", str(videos), "--labels", "a, b", "--model", str(model), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True)
    os.close(terminal)
    out, _ = process.communicate()
    os.close(reading)
    assert process.returncode == 0
    assert [len(row["scores"]) for row in Outcome(0, out, "").rows] == [2, 2, 2]


# info


def test_info_of_a_model(call, model):
    assert options_in_help(call, "info") == {"--json"}
    outcome = call("info", model, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    (facts,) = outcome.rows
    assert facts["num_parameters"] == sum(parameter.numel() for parameter in tiny_model().parameters())
    assert (facts["source"], facts["format"], facts["is_image_model"]) == (str(model), "openxclip", False)
    assert facts["config"] == TINY.to_dict()
    assert facts["preprocessor"]["resize_short_side_px"] == 37
    text = call("info", model)
    assert text.status == 0
    assert re.search(rf"^num_parameters +{facts['num_parameters']:,}$", text.out, flags=re.MULTILINE)
    assert re.search(r"^    image_size_px +32$", text.out, flags=re.MULTILINE)
    assert re.search(r"^    mlp_width +default$", text.out, flags=re.MULTILINE)  # it is not left out


@pytest.mark.parametrize("name", PRESETS)
def test_info_of_a_preset_loads_nothing(call, name):
    outcome = call("info", name, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    (facts,) = outcome.rows
    assert facts["num_frames"] == PRESETS[name].num_frames
    assert facts["num_parameters"] > 190e6
    assert "preprocessor" not in facts


def test_info_of_nothing(call, videos):
    assert_refused(call("info", "./nowhere"), "does not exist", status=1)
    assert_refused(call("info", videos), "not a model folder", status=1)


# convert


@pytest.mark.on_cpu
def test_convert_there_and_back_keeps_every_number(call, model, videos, tmp_path):
    there, back = tmp_path / "deep" / "there", tmp_path / "back"
    outcome = call("convert", model, there, "--to", "huggingface")
    assert (outcome.status, outcome.out) == (0, "")
    assert outcome.err == f"openxclip -> huggingface: {there}\n"
    assert json.loads((there / "config.json").read_text())["model_type"] == "xclip"
    outcome = call("convert", there, back)
    assert outcome == (0, "", f"huggingface -> openxclip: {back}\n")
    assert (back / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    with torch.no_grad():
        logits = [
            openxclip.load(folder, dtype="float32").model(tiny_pixels(), tiny_tokens())
            for folder in (model, there, back)
        ]
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])
    predictions = [
        call("predict", videos / "one.mp4", "--labels", "surfing, ba", "--model", folder, "--json").out
        for folder in (model, there, back)
    ]
    assert len(set(predictions)) == 1


def test_convert_with_every_option_but_those_of_a_push_adds_a_tokenizer(call, model, bare_model, tmp_path):
    output = str(tmp_path / "whole")
    arguments = [
        "convert", str(bare_model), output, "--to", "openxclip", "--tokenizer", str(model),
    ]  # fmt: skip
    assert options(arguments) | {"--push", "--private", "--licence"} == options_in_help(call, "convert")
    assert call(*arguments).status == 0
    assert sorted(path.name for path in Path(output).iterdir()) == sorted(
        path.name for path in model.iterdir()
    )


def test_convert_leaves_what_exists_alone(call, model, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "file").write_text("do not touch")
    for name in ("thesis", "file"):
        assert_refused(call("convert", model, tmp_path / name), f"{name} exists; choose another folder")
    assert_refused(call("convert", model, tmp_path / "file" / "model"), "Not a directory", status=1)
    assert_refused(call("convert", "./nowhere", tmp_path / "new"), "does not exist", status=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "thesis"]


# evaluate


def test_evaluate_lists_the_six_protocols(call):
    outcome = call("evaluate", "--help")
    assert outcome.status == 0
    for protocol in ("supervised", "few-shot", "zero-shot", "base-to-novel", "label-union", "static-bias"):
        assert re.search(rf"• {protocol} +\w+", outcome.out)
    assert "evaluate" in call("--help").out
    for arguments in ([], ["everything"], ["--model", "x"]):
        outcome = call("evaluate", *arguments)
        assert (outcome.status, outcome.out) == (2, "")
        assert "static-bias" in outcome.err


def test_evaluate_prints_a_table(call, model, data):
    outcome = call("evaluate", "supervised", "--model", model, "--data", data)
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert [re.sub(r" +[\d.]+%?$", " P", line) for line in lines] == [
        "playing piano     3 videos P",
        "surfing           3 videos P",
        "nobody            0 videos       -",
        "",
        f"supervised: {data.name}/test.txt, views 1x1, %",
        "",
        f"       {model}",
        "top-1 P",
        "top-5 P",
    ]
    assert "6/6" in outcome.err


def test_evaluate_with_every_option(call, model, bare_model, data, tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    for name in ("0.mp4", "1.mp4", "broken.mp4"):
        shutil.copy(data / name, media)
    lists = tmp_path / "lists"
    lists.mkdir()
    for name in ("broken.txt", "test.txt"):
        shutil.copy(data / name, lists)
    output = tmp_path / "deep" / "report"
    texts = {"piano": ["keys", "a tune"], "waves": "the sea", "nobody": "an empty room"}
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    arguments = [
        "evaluate", "supervised", "--model", str(bare_model), "--tokenizer", str(model / "tokenizer.json"),
        "--data", str(lists), "--list", "broken.txt", "--media-root", str(media), "--output", str(output),
        "--views", "2x1", "--templates", "video", "--json", "--device", "cpu", "--dtype", "bfloat16", "--frames", "3",
        "--labels", "piano, waves, nobody", "--interpolate", "1", "--image-model", str(bare_model),
        "--descriptions", str(tmp_path / "texts.json"), "--batch-size", "2", "--max-seconds", "60",
        "--max-frame-px", "1000000", "--runtime", "torch", "--merge-tokens", "0", "--int8",
        "--num-threads", str(torch.get_num_threads()),
    ]  # fmt: skip
    # The first takes a minute, the second goes with other runtimes.
    assert options(arguments) | {"--compile", "--calibration"} == options_in_help(
        call, "evaluate", "supervised"
    )
    outcome = call(*arguments)
    assert outcome.status == 1  # one video cannot be read
    (row,) = outcome.rows
    (found,) = row["models"]
    result = found["evaluations"]["test"]
    assert (row["protocol"], found["model"]) == ("supervised", str(bare_model))
    assert found["figures"] == {"top-1": result["top1"], "top-5": result["top5"]}
    folder = output / "evaluation-supervised-test"
    assert result == json.loads((folder / "evaluation.json").read_text())
    assert row["table"] == json.loads((output / "supervised.json").read_text())
    assert (result["num_videos"], result["num_unreadable"], result["views"]) == (3, 1, "2x1")
    assert [row["accuracy"] for row in result["classes"]][2] is None
    labels = [row["label"] for row in result["classes"]]
    assert labels == ["piano", "waves", "nobody"]
    recognizer = Recognizer.from_pretrained(
        ModelSource(source=str(model), dtype="bfloat16", num_frames=3),
        labels,
        BUILT_IN_TEMPLATES["video"],
        descriptions=texts,
    )
    for i in (0, 2):
        best, probability = recognizer.predict(media / result["videos"][i]["path"], views="2x1").scores[0]
        assert result["videos"][i]["predicted"] == best
        assert result["videos"][i]["probability"] == pytest.approx(probability, abs=0.01)  # bfloat16
    assert result["videos"][1]["path"] == "broken.mp4"
    assert "damaged" in result["videos"][1]["error"]
    assert "openxclip: broken.mp4: it is damaged" in outcome.err
    with Image.open(folder / "confusion.png") as image:
        assert image.format == "PNG"
    assert sorted(path.name for path in folder.iterdir()) == ["confusion.png", "evaluation.json"]
    assert sorted(path.name for path in output.iterdir()) == [folder.name, "supervised.json"]
    assert call(*arguments).out == outcome.out


def test_evaluate_says_how_many_videos_it_left_out(call, model, data):
    outcome = call("evaluate", "supervised", "--model", model, "--data", data, "--list", "broken.txt")
    assert outcome.status == 1
    last = outcome.out.splitlines()[-1]
    assert last == f"{data.name}/broken.txt: 1 of 3 videos could not be read and are not counted"


def test_evaluate_names_only_so_many_missing_videos(call, model, data, tmp_path):
    for name in ("labels.csv", "0.mp4"):
        shutil.copy(data / name, tmp_path)
    (tmp_path / "test.txt").write_text("0.mp4 0\n" + "".join(f"no{i}.mp4 0\n" for i in range(25)))
    outcome = call("evaluate", "supervised", "--model", model, "--data", tmp_path)
    assert outcome.status == 1
    assert len(re.findall(r"openxclip: no\d+\.mp4: there is no such file", outcome.err)) == 20
    assert "openxclip: and 5 more of 25; --json and --output list them all" in outcome.err
    assert "25 of 26 videos could not be read" in outcome.out


def test_evaluate_has_no_accuracy_where_nothing_can_be_read(call, model, data, tmp_path):
    shutil.copy(data / "labels.csv", tmp_path)
    (tmp_path / "test.txt").write_text("nowhere.mp4 0\n")
    outcome = call("evaluate", "supervised", "--model", model, "--data", tmp_path)
    assert outcome.status == 1
    assert outcome.out == ""
    message = (
        f"openxclip: {tmp_path.name}/test.txt: none of its 1 videos can be read; they are missing or damaged"
    )
    assert message in outcome.err


def first_evaluation(outcome: Outcome) -> dict:
    """Of the first model."""
    return next(iter(outcome.rows[0]["models"][0]["evaluations"].values()))


def test_evaluate_takes_class_folders_and_list_files(call, model, data, tmp_path):
    for i, name in enumerate(("playing piano", "surfing", "nobody")):
        (tmp_path / name).mkdir()
        shutil.copy(data / f"{i}.mp4", tmp_path / name)
    base = ("evaluate", "supervised", "--model", model, "--json", "--data")
    folders = first_evaluation(call(*base, tmp_path))
    assert [row["label"] for row in folders["classes"]] == ["nobody", "playing piano", "surfing"]
    assert [row["num_videos"] for row in folders["classes"]] == [1, 1, 1]
    assert first_evaluation(call(*base, data / "test.txt")) == first_evaluation(call(*base, data))


@pytest.fixture(scope="module")
def other_model(tmp_path_factory) -> Path:
    """Another model, in the folder of a run that says what it was trained on."""
    run = tmp_path_factory.mktemp("run")
    preprocess = Preprocessor.official(TINY.vision.image_size_px)
    openxclip.save_as(run / "last", tiny_model(seed=5), tiny_tokenizer(), preprocess)
    (run / "config.json").write_text(json.dumps({"labels": ["climbing", "Surfing"]}))
    return run


def test_several_models_give_mean_and_standard_deviation(call, model, other_model, data, tmp_path):
    arguments = ["evaluate", "supervised", "--model", model, "--model", other_model, "--data", data, "--json"]
    outcome = call(*arguments, "--output", tmp_path)
    (row,) = outcome.rows
    values = [found["figures"]["top-1"] for found in row["models"]]
    assert values[0] != values[1]
    assert row["table"]["columns"] == ["", str(model), str(other_model), "mean ± std over models"]
    spread = abs(values[0] - values[1]) / 2**0.5
    expected = [*(f"{100 * value:.1f}" for value in values), f"{50 * sum(values):.1f} ± {100 * spread:.1f}"]
    assert row["table"]["rows"][0] == ["top-1", *expected]
    assert "± is the sample standard deviation over models." in row["table"]["notes"]
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert folders == ["evaluation-supervised-1-test", "evaluation-supervised-2-test", "supervised.json"]
    for folder, found in zip(folders, row["models"], strict=False):
        assert json.loads((tmp_path / folder / "evaluation.json").read_text()) == found["evaluations"]["test"]


def test_an_evaluation_stands_in_place_of_an_earlier_one_of_its_protocol(call, model, data, tmp_path):
    """Not beside it, where both would seem to belong to one table; what others wrote stays."""
    base = ["evaluate", "zero-shot", "--model", model, "--data", data, "--output", tmp_path]
    assert call(*base, "--lists", "test.txt", "train_16shot.txt").status == 0
    assert call("evaluate", "supervised", "--model", model, "--data", data, "--output", tmp_path).status == 0
    (tmp_path / "evaluation-zero-shot-test.txt" / "notes.txt").write_text("mine")
    (tmp_path / "evaluation-zero-shot-notes").write_text("mine, too")
    assert call(*base, "--lists", "train_16shot.txt").status == 0
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert found == [
        "evaluation-supervised-test/confusion.png",
        "evaluation-supervised-test/evaluation.json",
        "evaluation-zero-shot-notes",
        "evaluation-zero-shot-test.txt/notes.txt",
        "evaluation-zero-shot-train_16shot.txt/confusion.png",
        "evaluation-zero-shot-train_16shot.txt/evaluation.json",
        "supervised.json",
        "zero-shot.json",
    ]


def test_zero_shot_refuses_trained_classes(call, model, other_model, data):
    base = ["evaluate", "zero-shot", "--data", data, "--lists", "test.txt", "train_16shot.txt"]
    outcome = call(*base, "--model", model)
    assert outcome.status == 0
    assert "The training classes are unknown" in outcome.out
    for figure in (
        "top-1, test.txt",
        "top-1, train_16shot.txt",
        "top-1, mean over splits",
        "top-1, std over splits",
    ):
        assert re.search(rf"^{figure} +\d", outcome.out, flags=re.MULTILINE)
    assert outcome.out.endswith("\nThe std over splits is the sample standard deviation.\n")
    known = call(*base, "--model", model, "--train-labels", "climbing, diving")
    assert known.status == 0
    assert "unknown" not in known.out
    for source in (other_model, other_model / "last"):
        assert_refused(
            call(*base, "--model", source), "1 of 3 classes .* not new ones: surfing.*--allow-overlap"
        )
    assert_refused(call(*base, "--model", model, "--train-labels", "nobody"), "not new ones: nobody")
    assert_refused(call(*base, "test.txt", "--model", model), r"--lists has test\.txt more than once")
    allowed = call(*base, "--model", other_model, "--allow-overlap")
    assert allowed.status == 0
    assert f"{data.name}/test.txt: 1 of 3 classes were trained: surfing." in allowed.out
    without = call(*base, "--model", other_model, "--labels", "a, b, c")
    assert (without.status, "unknown" in without.out) == (0, False)


def test_zero_shot_with_label_splits(call, model, data, tmp_path):
    for number, names in ((1, ("surfing", "nobody")), (2, ("playing piano", "surfing")), (3, ("surfing",))):
        rows = "".join(f"{i},{name}\n" for i, name in enumerate(names))
        (tmp_path / f"labels_split{number}.csv").write_text("id,name\n" + rows)
    base = ["evaluate", "zero-shot", "--model", model, "--data", data, "--lists", "test.txt", "--json"]
    (row,) = call(*base, "--label-splits", tmp_path).rows
    evaluations = row["models"][0]["evaluations"]
    assert list(evaluations) == [f"test.txt, split {number}" for number in (1, 2, 3)]
    assert [evaluation["num_videos"] for evaluation in evaluations.values()] == [3, 6, 3]
    assert row["models"][0]["figures"]["top-1, test.txt, split 3"] == 1  # of one candidate


def test_the_other_protocols_print_their_figures(call, model, other_model, data, tmp_path):
    (data / "piano.txt").write_text("0.mp4 0\n2.mp4 0\n")
    (data / "surf.txt").write_text("1.mp4 1\n3.mp4 1\n")
    base = ["--model", other_model, "--data", data]
    outcome = call("evaluate", "base-to-novel", *base, "--base-list", "surf.txt", "--novel-list", "piano.txt")
    assert outcome.status == 0
    assert [line.split()[-1] for line in outcome.out.splitlines()[-3:]] == ["100.0"] * 3  # one candidate each
    assert_refused(call("evaluate", "label-union", *base), "1 of 3 classes .* not new ones: surfing")
    outcome = call("evaluate", "label-union", *base, "--output", tmp_path, "--allow-overlap")
    assert outcome.status == 0
    assert "among 4 labels" in outcome.out  # surfing is trained and tested
    assert f"{data.name}/test.txt: 1 of 3 classes were trained: surfing." in outcome.out
    assert "best label is a training class" in outcome.out
    assert (tmp_path / "evaluation-label-union-union" / "evaluation.json").exists()
    given = ["evaluate", "label-union", "--model", model, "--data", data]
    assert_refused(call(*given), "training classes of .* are unknown; give their names with --train-labels")
    assert "among 5 labels" in call(*given, "--train-labels", "diving, climbing").out
    outcome = call("evaluate", "static-bias", *base)
    assert outcome.status == 0
    for figure in ("top-1, as they are", "other background", "same label over both", "frozen middle frame"):
        assert figure in outcome.out
    same = call("evaluate", "static-bias", *base, "--swapped-list", "test.txt").out
    assert re.search(r"^same label over both +100\.0$", same, flags=re.MULTILINE)


def test_new_classes_of_base_to_novel_are_new(call, model, other_model, data):
    (data / "piano.txt").write_text("0.mp4 0\n2.mp4 0\n")
    (data / "surf.txt").write_text("1.mp4 1\n3.mp4 1\n")
    lists = ["--data", data, "--base-list", "piano.txt", "--novel-list", "surf.txt"]
    base = ["evaluate", "base-to-novel", *lists, "--model"]
    assert_refused(call(*base, other_model), r"1 of 1 classes of .*surf\.txt.* not new ones: surfing")
    assert_refused(call(*base, model, "--train-labels", "Surfing"), "not new ones: surfing")
    allowed = call(*base, other_model, "--allow-overlap").out
    assert "surf.txt, 1 of 3 classes: 1 of 1 classes were trained: surfing.\n" in allowed
    assert "piano.txt, 1 of 3 classes: 1 of 1 base classes were not trained: playing piano.\n" in allowed
    assert "The training classes are unknown" in call(*base, model).out
    known = call(*base, model, "--train-labels", "Playing Piano")
    assert (known.status, "trained" in known.out, "unknown" in known.out) == (0, False, False)


def test_few_shot_trains_measures_and_draws(call, data, tmp_path, monkeypatch):
    output = tmp_path / "few"
    arguments = [
        "evaluate", "few-shot", "--recipe", "ucf8_fewshot", "--data", str(data), "--train-list", "train_16shot.txt",
        "--test-list", "test.txt", "--shots", "1", "2", "--seeds", "3", "4", "--targets", "both", "--output",
        str(output), "--labels", "piano, waves", "--json", *settings(*SMALL),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["openxclip", *arguments])
    outcome = call(*arguments)
    assert outcome.status == 0, outcome.err
    (table,) = outcome.rows
    assert table == json.loads((output / "few-shot.json").read_text())
    assert table["command"].startswith("openxclip evaluate few-shot --recipe ucf8_fewshot")
    assert table["columns"] == ["K", "text targets", "discrete targets"]
    found = {
        path.parent.relative_to(output).as_posix(): json.loads(path.read_text())["top1"]
        for path in output.rglob("evaluation.json")
    }
    assert len(found) == 8
    for (shots, *cells), k in zip(table["rows"], "12", strict=True):
        assert shots == k
        for cell, kind in zip(cells, ("text", "discrete"), strict=True):
            values = [100 * found[f"{kind}/{k}shot-seed{seed}"] for seed in (3, 4)]
            assert cell == f"{sum(values) / 2:.1f} ± {abs(values[0] - values[1]) / 2**0.5:.1f}"
    with Image.open(output / "few-shot.png") as image:
        assert image.format == "PNG"
    logs = {path: path.read_text() for path in output.rglob("log.jsonl")}
    assert call(*arguments).out == outcome.out
    assert {path: path.read_text() for path in output.rglob("log.jsonl")} == logs
    changed = call(*arguments, "--set", "optim.learning_rate=1")
    assert (changed.status, changed.out) == (2, "")
    assert "holds a run with other settings (config.optim.learning_rate: was 0.001, now 1.0)" in changed.err


def test_few_shot_draws_from_the_videos_that_are_there(call, data, tmp_path):
    """Of six listed videos of each class three are gone; any draw of three is of the others."""
    shutil.copy(data / "labels.csv", tmp_path)
    for i in range(6):
        shutil.copy(data / f"{i}.mp4", tmp_path)
    gone = "".join(f"gone{i}.mp4 {i % 2}\n" for i in range(6))
    (tmp_path / "train.txt").write_text(gone + (data / "test.txt").read_text())
    (tmp_path / "test.txt").write_text("0.mp4 0\n1.mp4 1\n")
    output = tmp_path / "few"
    base = [
        "evaluate", "few-shot", "--recipe", "ucf8_fewshot", "--data", tmp_path, "--train-list", "train.txt",
        "--test-list", "test.txt", "--seeds", "1", "2", "--output", output, *settings(*SMALL),
    ]  # fmt: skip
    problem = r"train\.txt, 2 of 3 classes: 6 of 12 videos are missing, the first is gone0\.mp4"
    assert_refused(call(*base, "--shots", "3"), f"{problem}.*--set data.skip_missing=true")
    skipping = [*base, "--set", "data.skip_missing=true"]
    outcome = call(*skipping, "--shots", "4")
    assert (outcome.status, list(output.iterdir())) == (2, [])
    assert "'playing piano' has 3 videos, but 4 shots are requested" in outcome.err
    outcome = call(*skipping, "--shots", "3", "--json")
    assert outcome.status == 0, outcome.err
    problem = problem.replace(", 2 of 3 classes", "")  # the list as it is
    assert re.search(f"{problem}; they were not used for training$", outcome.rows[0]["notes"][-1])
    clips = [json.loads(path.read_text())["clips"] for path in output.glob("text/3shot-seed*/config.json")]
    assert len(clips) == 2
    assert clips[0] == clips[1]  # all three that are there, whatever the seed


def test_few_shot_of_a_part_of_a_data_set(call, data, tmp_path):
    """Its label file has a third class, of which there is no video."""
    arguments = [
        "evaluate", "few-shot", "--recipe", "ucf8_fewshot", "--data", data, "--train-list", "train_16shot.txt",
        "--test-list", "test.txt", "--seeds", "1", "--shots", "1", "--output", tmp_path / "few", *settings(*SMALL),
    ]  # fmt: skip
    outcome = call(*arguments)
    assert outcome.status == 0, outcome.err
    assert f"few-shot: top-1 on {data.name}/test.txt, 2 of 3 classes, %" in outcome.out
    config = json.loads((tmp_path / "few" / "text" / "1shot-seed1" / "config.json").read_text())
    assert config["labels"] == ["playing piano", "surfing"]


def test_the_rendered_world_lies_nowhere(call, few_lists, tmp_path, monkeypatch):
    """A run goes on from any folder."""
    monkeypatch.chdir(tmp_path)
    small = [text for text in SMALL if not text.startswith("data.")]
    base = [
        "--recipe",
        "ucf8_fewshot",
        "--data",
        "moving-shapes",
        *settings(*small, "data.samples_per_epoch=2"),
    ]
    assert call("train", *base, "--output", tmp_path / "run", "--set", "data.train_list=val").status == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"] == "moving-shapes"
    few = ["--train-lists", "val", "--test-list", "val", "--seeds", "1", "--output", tmp_path / "few"]
    outcome = call("evaluate", "few-shot", *base, *few)
    assert outcome.status == 0, outcome.err
    config = json.loads((tmp_path / "few" / "text" / "val-seed1" / "config.json").read_text())
    assert config["data"] == "moving-shapes"
    table = json.loads((tmp_path / "few" / "few-shot.json").read_text())
    assert table["columns"] == ["training list", "text targets"]
    assert [row[0] for row in table["rows"]] == ["val"]


def test_wrong_use_of_few_shot(call, data, tmp_path):
    base = ["evaluate", "few-shot", "--recipe", "ucf8_fewshot", "--data", data, "--test-list", "test.txt"]
    base += ["--output", tmp_path / "few"]
    assert_refused(call(*base), "nothing to train on; give --train-list")
    lists = ["--train-lists", "train_16shot.txt"]
    assert_refused(call(*base, *lists, "--shots", "2"), "replaces --train-list and --shots; leave them out")
    assert_refused(
        call(*base, *lists, "--train-list", "test.txt"), "replaces --train-list and --shots; leave them out"
    )
    assert_refused(
        call(*base, *lists, "other/train_16shot.txt"), "--train-lists has train_16shot more than once"
    )
    drawn = [*base, "--train-list", "train_16shot.txt", "--labels", "piano, waves"]
    assert_refused(call(*drawn, "--shots", "3"), "'piano' has 2 videos, but 3 shots")
    assert_refused(call(*drawn, "--seeds", "1", "1", "--shots", "1"), "seeds once")
    assert_refused(call(*drawn, "--shots", "1", "2", "1"), "--shots has 1 more than once")
    assert_refused(call(*drawn, "--set", "seed=x"), "seed must be int")
    assert not (tmp_path / "few").exists() or not list((tmp_path / "few").iterdir())


def test_evaluate_without_a_protocol_names_them(call, model, data):
    assert_refused(
        call("evaluate", "--model", model, "--data", data),
        "name a protocol first: supervised, few-shot, zero-shot, .*; e.g. openxclip evaluate supervised --model",
    )


@pytest.mark.parametrize("protocol", ["supervised", "static-bias"])
def test_wrong_use_of_evaluate(call, data, tmp_path, protocol):
    base = ["evaluate", protocol, "--model", "./no such model", "--data"]
    (tmp_path / "list.txt").write_text("a.mp4 0\n")
    assert_refused(call(*base, tmp_path / "nowhere"), "There is no .*nowhere")
    assert_refused(call(*base, tmp_path / "list.txt"), "needs class names")
    assert_refused(call(*base, data, "--list", "other.txt"), r"There is no list other\.txt")
    assert_refused(call(*base, data, "--views", "3"), "cannot read views '3'")
    assert_refused(call(*base, data, "--templates", "none"), "Templates are one of")
    assert_refused(call(*base, data, "--media-root", tmp_path / "x"), "There is no media root")
    assert_refused(
        call(*base, data, "--output", tmp_path / "list.txt"), r"--output .*list\.txt is a file; give a folder"
    )
    assert_refused(call(*base, data), "no such model does not exist", status=1)
    assert_refused(
        call("evaluate", protocol, "--data", data), "no model given; name at least one with --model"
    )


def test_evaluate_misses_matplotlib_before_the_work_and_not_after(call, data, tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)  # the import machinery's own way to say: not there
    monkeypatch.delitem(sys.modules, "openxclip.reports.plots", raising=False)
    output = tmp_path / "report"
    base = ("evaluate", "supervised", "--model", "./no such model", "--data", data)
    outcome = call(*base, "--output", output)
    assert_refused(outcome, r"matplotlib is needed.*pip install 'openxclip\[train\]'", status=1)


# train

SMALL = [
    "model.num_frames=2", "num_frames=2", "model.vision.image_size_px=32", "model.vision.num_layers=1",
    "optim.epochs=2", "optim.warmup_epochs=0", "optim.batch_size=2", "data.samples_per_epoch=4",
]  # fmt: skip


def settings(*overrides: str) -> list[str]:
    return [argument for override in overrides for argument in ("--set", override)]


def test_train_with_every_option_then_predict_with_the_run(call, model, bare_model, data, videos, tmp_path):
    media, lists, output = tmp_path / "media", tmp_path / "lists", tmp_path / "run"
    media.mkdir()
    lists.mkdir()
    for i in range(4):
        shutil.copy(data / f"{i}.mp4", media)
    shutil.copy(data / "train_16shot.txt", lists)
    start = ("model=null", f"init={bare_model}", *(text for text in SMALL if not text.startswith("model.")))
    arguments = [
        "train", "--recipe", "ucf8_fewshot", "--data", str(lists), "--media-root", str(media),
        "--labels", "playing piano, surfing", "--tokenizer", str(model / "tokenizer.json"),
        "--output", str(output), "--device", "cpu", *settings(*start),
        "--processes", "1", "--shard", "none", "--save-minutes", "5", "--tracker", "tensorboard", "--profile",
    ]  # fmt: skip
    assert {*options(arguments), "--dry-run"} == options_in_help(call, "train")
    outcome = call(*arguments)
    assert (outcome.status, outcome.out) == (0, "")
    assert outcome.err.endswith(f"trained 2 epochs, 4 steps: {output}\n")
    config = json.loads((output / "config.json").read_text())["config"]
    assert (config["recipe"], config["num_frames"], config["optim"]["batch_size"]) == ("ucf8_fewshot", 2, 2)

    weights, log = load_file(output / "last" / "model.safetensors"), (output / "log.jsonl").read_text()
    again = call(*arguments)
    assert (again.status, again.err.splitlines()[-1]) == (0, f"trained 2 epochs, 4 steps: {output}")
    assert (output / "log.jsonl").read_text() == log
    after = load_file(output / "last" / "model.safetensors")
    assert all(torch.equal(weights[name], after[name]) for name in weights)
    assert_refused(call(*arguments, "--set", "seed=3"), "config.seed: was 1024, now 3")

    outcome = call("predict", videos, "--labels", "playing piano, surfing", "--model", output, "--json")
    assert outcome.status == 0
    assert np.isfinite([p for row in outcome.rows for _, p in row["scores"]]).all()
    (facts,) = call("info", output, "--json").rows
    assert facts["num_frames"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--recipe", "soup"],
            "no recipe 'soup'; choose one of supervised, few_shot, zero_shot, ucf8_fewshot",
        ),
        (["--set", "epochs"], "cannot read 'epochs'; write it as setting=value"),
        (["--set", "epochs=3"], "unknown setting epochs; known are"),
        (["--set", "optim.epoch=3"], "unknown setting optim.epoch"),
        (["--set", "optim.epochs=many"], "optim.epochs must be int, got 'many'"),
        (["--set", "optim.epochs=0"], "optim.epochs must be at least 1, got 0"),
        (["--set", "precision=float64"], "precision must be 'float32' or 'bfloat16', got 'float64'"),
        (["--set", "data.train_list=none.txt"], r"There is no list none\.txt"),
        (["--set", "init=B.pt"], "exactly one of init .* and model"),
        (["--data", "./nowhere"], "There is no nowhere"),
        (["--media-root", "./nowhere"], "There is no media root nowhere"),
    ],
)
def test_wrong_use_of_train(call, data, tmp_path, arguments, message):
    base = ["train", "--recipe", "ucf8_fewshot", "--data", data, "--output", tmp_path / "run"]
    assert_refused(call(*base, *arguments), message)
    assert not (tmp_path / "run").exists()


def test_train_does_not_write_where_something_else_is(call, data, tmp_path):
    (tmp_path / "thesis.txt").write_text("do not touch")
    base = ["train", "--recipe", "ucf8_fewshot", "--data", data, "--output"]
    assert_refused(call(*base, tmp_path), "is not empty and holds no run; choose another --output")
    assert_refused(call(*base, tmp_path / "thesis.txt"), "thesis.txt is a file")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.on_cpu
def test_control_c_stops_a_run_with_one_line(data, tmp_path):
    command = [
        *OPENXCLIP, "train", "--recipe", "ucf8_fewshot", "--data", str(data), "--output", str(tmp_path / "run"),
        *settings(*SMALL, "optim.epochs=100000"),
    ]  # fmt: skip
    # A shell has what it starts in the background ignore Control-C, and so would the child of these tests.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    while not (tmp_path / "run" / "last").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert re.fullmatch(
        r"openxclip: stopped after step \d+; run the same command to resume", err.splitlines()[-1]
    )
    assert "Traceback" not in err
    # Perhaps as `.last.previous`, which the same command puts back, if it came between two renames.
    assert list((tmp_path / "run").glob("*last*/model.safetensors"))


# moving shapes and ablations


@pytest.fixture
def few_lists(monkeypatch):
    """The lists of moving shapes with a clip or two of all their classes: their files are written in a second."""
    for name, every in (("small-test-base", 132), ("small-few-test", 66), ("small-test-novel", 66)):
        whole = LISTS[name]()
        clips = whole._replace(rows=whole.rows[::every])
        monkeypatch.setitem(LISTS, name, partial(clips._replace))  # another copy for each call


def test_render_writes_a_list_that_other_commands_read(call, few_lists, model, tmp_path):
    arguments = ["render", "--list", "small-few-test", "--output", str(tmp_path / "few")]
    assert options(arguments) == options_in_help(call, "render")
    outcome = call(*arguments)
    assert (outcome.status, outcome.out) == (0, "")
    assert outcome.err.endswith(f"4 clips of 33 classes: {tmp_path / 'few'}\n")
    base = ["evaluate", "supervised", "--model", model, "--json", "--data"]
    files = call(*base, tmp_path / "few", "--list", "clips.txt").rows[0]["models"][0]["evaluations"]["test"]
    rendered = call(*base, "moving-shapes", "--list", "small-few-test").rows[0]["models"][0]["evaluations"][
        "test"
    ]
    assert [row["path"] for row in files["videos"]] == [row["path"] for row in rendered["videos"]]
    for file, clip in zip(files["videos"], rendered["videos"], strict=True):
        assert clip["file"] is None
        # Rendered frames are scored as they are, those of a file after H.264.
        assert file["probability"] == pytest.approx(clip["probability"], abs=0.01)
    assert_refused(call(*arguments), "few exists; choose another folder")
    assert_refused(
        call("render", "--list", "soup", "--output", tmp_path / "x"), "no list 'soup'.*one of train, val"
    )


PRETRAIN = [
    "num_steps=2", "warmup_steps=0", "batch_size=4", "model.vision.num_layers=1", "model.text.num_layers=1",
]  # fmt: skip


def test_pretrain_then_train_from_the_result(call, tmp_path):
    clip, run = tmp_path / "clip", tmp_path / "run"
    arguments = [
        "pretrain", "--recipe", "shapes_clip_small", "--output", str(clip), "--device", "cpu", *settings(*PRETRAIN),
    ]  # fmt: skip
    assert options(arguments) == options_in_help(call, "pretrain")
    outcome = call(*arguments)
    assert (outcome.status, outcome.out) == (0, "")
    assert outcome.err.endswith(f"trained 2 steps: {clip}\n")
    assert call(*arguments).status == 0
    assert_refused(call(*arguments, "--set", "seed=3"), "config.seed: was 1024, now 3")
    assert_refused(
        call("pretrain", "--recipe", "soup", "--output", tmp_path / "x"), "no pretraining recipe 'soup'"
    )
    assert_refused(
        call("pretrain", "--output", tmp_path / "x", "--set", "batch_size=0"),
        "batch_size must be at least 1, got 0",
    )
    quick = (
        f"init={clip}",
        "num_frames=2",
        "optim.epochs=1",
        "data.samples_per_epoch=4",
        "optim.batch_size=4",
    )
    base = ["train", "--recipe", "shapes_small", "--data", "moving-shapes", "--output", run]
    assert call(*base, *settings(*quick)).status == 0
    (facts,) = call("info", run, "--json").rows
    assert facts["num_frames"] == 2


QUICK = [
    "num_frames=2", "optim.epochs=1", "optim.warmup_epochs=0", "optim.batch_size=4", "data.samples_per_epoch=4",
]  # fmt: skip


def test_ablate_on_moving_shapes_and_on_given_data_with_every_option(
    call, few_lists, data, tmp_path, monkeypatch
):
    output = tmp_path / "shapes"
    on_shapes = [
        "ablate", "views", "interpolation", "--output", str(output), "--seeds", "1", "--shots", "2",
        "--device", "cpu", "--json", *settings(*QUICK),
        *(argument for text in PRETRAIN for argument in ("--pretrain-set", text)),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["openxclip", *on_shapes])
    outcome = call(*on_shapes)
    assert outcome.status == 0, outcome.err
    views, interpolation = outcome.rows
    assert views == json.loads((output / "views.json").read_text())
    assert interpolation == json.loads((output / "interpolation.json").read_text())
    assert views["command"].startswith("openxclip ablate views interpolation --output")
    assert views["columns"] == ["", "zero", "few", "full", "paper, full"]
    assert [row[0] for row in views["rows"]] == ["1x1", "4x1", "1x3", "4x3"]
    assert [row[-1] for row in views["rows"]] == [82.3, "", "", 83.8]
    for name in ("views", "interpolation"):
        with Image.open(output / f"{name}.png") as image:
            assert image.format == "PNG"
    assert "1 of 12: 1x1, zero, seed 1\n" in outcome.err
    assert "12 of 12: 4x3, full, seed 1\n" in outcome.err
    assert len(list((output / "runs").iterdir())) == 2  # a regime each; nothing here differs in training
    again = call(*on_shapes)
    assert again.out == outcome.out
    assert " of 12: " not in again.err

    (data / "novel.txt").write_text("5.mp4 2\n")
    (tmp_path / "texts.json").write_text('{"piano": "keys", "waves": "the sea", "nothing": "an empty room"}')
    given = [
        "ablate", "views", "--data", str(data), "--train-list", "train_16shot.txt", "--test-list", "test.txt",
        "--novel-list", "novel.txt", "--labels", "piano, waves, nothing", "--media-root", str(data),
        "--recipe", "ucf8_fewshot", "--seeds", "3", "--shots", "1", "--output", str(tmp_path / "given"),
        "--descriptions", str(tmp_path / "texts.json"),
        *settings(*SMALL),
    ]  # fmt: skip
    outcome = call(*given)
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines()[0] == f"single against multi-view: top-1 on {data.name}, %"
    assert [line.split()[:2] for line in outcome.out.splitlines()[3:7]] == [
        [name, "100.0"] for name in ("1x1", "4x1", "1x3", "4x3")
    ]  # zero-shot with one candidate
    assert options(on_shapes) | options(given) == options_in_help(call, "ablate")


def test_help_names_every_ablation(call):
    text = re.sub(r"[\s│]+", " ", call("ablate", "--help").out)
    assert f"{', '.join(ABLATIONS)}; or all" in text


def test_wrong_use_of_ablate(call, data, tmp_path):
    base = ["ablate", "--output", tmp_path / "out"]
    assert_refused(call(*base, "soup"), "no ablation 'soup'; choose from components, targets, .*, or all")
    assert_refused(call(*base), "no ablation named; `openxclip ablate --help` lists them")
    assert_refused(
        call(*base, "views", "--seeds", "1", "1"), "seeds .*give at least one, without repetitions"
    )
    assert_refused(
        call(*base, "views", "--train-list", "a", "--labels", "b"),
        "--train-list, --labels: .*these options need --data",
    )
    assert_refused(
        call(*base, "views", "--data", data), "--data also needs --train-list, --test-list, --recipe"
    )
    assert_refused(call(*base, "views", "--set", "optim.epoch=3"), "unknown setting optim.epoch")
    assert_refused(call(*base, "views", "--pretrain-set", "num_step=3"), "unknown setting num_step")
    given = [*base, "--data", data, "--train-list", "train_16shot.txt", "--test-list", "test.txt"]
    given += ["--recipe", "ucf8_fewshot"]
    assert_refused(
        call(*given, "views", "--pretrain-set", "num_steps=3"), "--pretrain-set is for moving shapes"
    )
    assert_refused(call(*given, "all"), "recipe ucf8_fewshot has no expansion to vary")
    (tmp_path / "texts.json").write_text('{"surfing": "the sea"}')
    undescribed = "1 of 2 labels have no description: 'playing piano'"
    assert_refused(
        call(*given, "views", "--shots", "1", "--descriptions", tmp_path / "texts.json"), undescribed
    )
    assert_refused(call(*given, "views", "--shots", "3"), "'playing piano' has 2 videos, but 3 shots")
    assert_refused(call(*given, "views", "--novel-list", "test.txt"), "are training classes")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_version():
    done = subprocess.run([*OPENXCLIP, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"openxclip {openxclip.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", ""), "source of the model is empty"),
        (("--device", "meta"), "device 'meta' cannot be used"),
    ],
)
def test_models_and_devices_that_are_none(call, videos, arguments, message):
    outcome = call("predict", videos, "--labels", "a, b", *arguments)
    assert outcome.status in (1, 2)
    assert message in outcome.err


@pytest.mark.on_cpu
@pytest.mark.slow
def test_what_is_compiled_is_kept_for_the_next_time(model, videos, tmp_path):
    arguments = [
        *OPENXCLIP, "predict", str(videos / "one.mp4"), "--labels", "climb, swim", "--model", str(model), "--json",
        "--dtype", "float32",
    ]  # fmt: skip
    environment = {**os.environ, "OPENXCLIP_CACHE": str(tmp_path)}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    plain, compiled = (
        json.loads(
            subprocess.run([*arguments, *more], capture_output=True, check=True, env=environment).stdout
        )["scores"]
        for more in ([], ["--compile"])
    )
    assert [label for label, _ in plain] == [label for label, _ in compiled]
    assert [score for _, score in compiled] == pytest.approx([score for _, score in plain], abs=1e-5)
    assert any(path.is_file() for path in (tmp_path / "compiled").rglob("*"))
