"""Processes that decode: those that do not start, die while they answer, or hang when their job is killed."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from videos import write_video

from openxclip.errors import InputError, VideoError
from openxclip.inference.views import Views
from openxclip.tagging import workers
from openxclip.tagging.decoding import LastFile, Piece, Plan, decode
from openxclip.tagging.sources import ManifestRow, Source
from openxclip.tagging.workers import Decoders
from openxclip.video.source import VideoLimits
from openxclip.video.transforms import Preprocessor
from openxclip.workers import num_cores

pytestmark = pytest.mark.on_cpu

PLAN = Plan(
    preprocess=Preprocessor.official(224), num_frames=4, views=Views(), window_seconds=None, stride_seconds=None,
    content_hash=False, limits=VideoLimits(),
)  # fmt: skip

SCRIPT = """
import pickle, sys
from concurrent.futures import ThreadPoolExecutor
from openxclip.errors import InputError
from openxclip.tagging.decoding import Piece
from openxclip.tagging.sources import Source
from openxclip.tagging.workers import Decoders

def read():
    with open({plan!r}, "rb") as file:
        plan = pickle.load(file)
    with Decoders(plan, 2, 60.0) as decoders, ThreadPoolExecutor(2) as pool:
        print(*(worker._process.pid for worker in decoders._workers), flush=True)
        pieces = [Piece(number=i, source=Source({video!r})) for i in range(3)]
        try:
            print([pixels.shape for pixels in pool.map(decoders.read, pieces)])
        except InputError as error:
            print("InputError", error)

"""


@pytest.fixture
def script(tmp_path) -> str:
    """Reads a video by decoders, in `read`."""
    (tmp_path / "plan").write_bytes(pickle.dumps(PLAN))
    video = write_video(tmp_path / "a.mp4", num_frames=8)
    return SCRIPT.format(plan=str(tmp_path / "plan"), video=str(video))


@pytest.mark.parametrize("way", ["no guard", "standard input", "types.py"])
def test_what_keeps_decoders_from_starting_is_no_error_of_a_video(way, script, tmp_path) -> None:
    folder, words = tmp_path / "here", [str(tmp_path / "script.py")]
    folder.mkdir()
    text = script + ("read()" if way == "no guard" else 'if __name__ == "__main__":\n    read()\n')
    (tmp_path / "script.py").write_text(text)
    if way == "types.py":
        (folder / "types.py").write_text("nothing of Python's own\n")
    if way == "standard input":
        words = ["-"]
    found = subprocess.run(
        [sys.executable, *words],
        input=text.encode(),
        capture_output=True,
        cwd=folder,
        timeout=120,
        check=False,
    )
    last = found.stdout.decode().splitlines()[-1]
    assert last.startswith("InputError"), found.stderr.decode()
    assert 'if __name__ == "__main__"' in last
    assert "types.py" in last


def test_a_slow_start_is_no_error_of_a_video(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(workers, "START_SECONDS", 0.001)
    piece = Piece(number=0, source=Source(str(tmp_path / "a.mp4")))
    with Decoders(PLAN, 1, 60.0) as decoders:
        for _ in range(2):  # who comes later is told as well
            with pytest.raises(InputError, match="did not start within") as caught:
                decoders.read(piece)
            assert not isinstance(caught.value, VideoError)


def test_a_decoder_that_is_killed_before_it_began_is_replaced_where_others_began(tmp_path) -> None:
    piece = Piece(number=0, source=Source(str(write_video(tmp_path / "a.mp4", num_frames=8))))
    with Decoders(PLAN, 1, 60.0) as decoders:
        decoders.read(piece)
        decoders._replace(decoders._idle.get())
        os.kill(decoders._workers[0]._process.pid, signal.SIGKILL)
        assert decoders.read(piece).shape == (1, 4, 3, 224, 224)


def test_a_decoder_that_is_killed_while_it_sends_pixels_has_died(tmp_path, monkeypatch) -> None:
    """It stands in the middle of a message: these are more bytes than a pipe holds."""
    piece = Piece(number=0, source=Source(str(write_video(tmp_path / "a.mp4", num_frames=8))))
    kills: list[int] = []
    with Decoders(PLAN, 1, 60.0) as decoders:
        expected = decoders.read(piece)

        def empty(*words: object) -> np.ndarray:
            if not kills:
                process = decoders._workers[0]._process
                kills.append(process.pid)
                os.kill(process.pid, signal.SIGKILL)
                process.join()
            return np.zeros(*words)

        with monkeypatch.context() as patch:
            patch.setattr(np, "empty", empty)
            found = decoders.read(piece)
        assert kills
        assert kills[0] != decoders._workers[0]._process.pid
        assert (found == expected).all()
        assert (decoders.read(piece) == expected).all()


def test_a_worker_that_broke_off_is_never_idle_again(tmp_path, monkeypatch) -> None:
    piece = Piece(number=0, source=Source(str(write_video(tmp_path / "a.mp4", num_frames=8))))
    with Decoders(PLAN, 1, 60.0) as decoders:
        expected = decoders.read(piece)
        with monkeypatch.context() as patch:
            patch.setattr(np, "empty", _no_memory)
            with pytest.raises(MemoryError):
                decoders.read(piece)
        assert (decoders.read(piece) == expected).all()


def _no_memory(*words: object) -> np.ndarray:
    raise MemoryError


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_decoder_that_hangs_ends_with_its_job(tmp_path, script) -> None:
    (tmp_path / "a.mp4").unlink()
    os.mkfifo(tmp_path / "a.mp4")  # reading it never ends
    (tmp_path / "script.py").write_text(script + 'if __name__ == "__main__":\n    read()\n')
    with subprocess.Popen([sys.executable, str(tmp_path / "script.py")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        decoders, pipes = [int(word) for word in process.stdout.readline().split()], list[int]()
        try:
            _wait_until(lambda: _opened_for_writing(tmp_path / "a.mp4", pipes))
            process.kill()
            process.wait()
            _wait_until(lambda: not any(_is_there(pid) for pid in decoders))
        finally:
            for pipe in pipes:
                os.close(pipe)
            for pid in decoders:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _wait_until(is_so, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)


def _is_there(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _opened_for_writing(path: Path, pipes: list[int]) -> bool:
    """Open a pipe that somebody else reads; nothing is ever written to it."""
    with contextlib.suppress(OSError):
        pipes.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    return bool(pipes)


def test_a_fetched_file_is_kept_for_its_next_piece(tmp_path) -> None:
    system = fsspec.filesystem("memory")
    data = write_video(tmp_path / "a.mp4", num_frames=8).read_bytes()
    for name in ("/kept/a.mp4", "/kept/b.mp4"):
        system.pipe_file(name, data)
    last, (a, b) = LastFile(), (Source(f"memory://kept/{name}.mp4") for name in "ab")
    first, _ = decode(Piece(number=0, source=a), PLAN, last.open)
    system.rm("/kept/a.mp4")
    again, _ = decode(Piece(number=0, source=a), PLAN, last.open)
    assert np.array_equal(first, again)
    decode(Piece(number=1, source=b), PLAN, last.open)
    with pytest.raises(VideoError, match="no such file"):
        decode(Piece(number=0, source=a), PLAN, last.open)
    system.rm("/kept", recursive=True)


def test_the_columns_of_a_manifest_stay_at_home() -> None:
    source = Source("/a.mp4", 1, 2, ManifestRow(object, 7), "why")
    assert pickle.loads(pickle.dumps(source)) == source
    assert pickle.loads(pickle.dumps(source)).extra is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a choice of cores")
def test_cores_are_those_that_may_be_used() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert num_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert num_cores() == len(before)
