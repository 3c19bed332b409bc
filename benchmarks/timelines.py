"""Timelines: two hours against two minutes, decoding against a plain loop, and a live stream for ten minutes.

Everything is rendered: long videos of moving shapes, as files and over a real HTTP server on loopback.
"""

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np

from benchmarks.options import Options
from benchmarks.report import Section
from benchmarks.weights import write_model
from openxclip.data.annotations import Annotated, Event
from openxclip.evaluation.timeline_metrics import timeline_metrics
from openxclip.models import preset
from openxclip.progress import progress_bar
from openxclip.reports.table import Table
from openxclip.shapes.long import LongVideo, usual_labels
from openxclip.timelines.segments import Segment
from openxclip.timelines.windows import Window, WindowCollector, WindowPlan
from openxclip.video.playback import Player
from openxclip.video.transforms import Preprocessor

SUITE = "timelines"
COMMAND = f"python -m benchmarks {SUITE}"
FPS, WIDTH, HEIGHT = 25, 640, 360
SHORT_SECONDS, NUM_REPEATS = 120, 60
NUM_TURNS = 3
LIVE_FPS, LIVE_SIDE_PX, LIVE_SECONDS = 30, 128, 600
STALL_AT, STALL_SECONDS = 120, 5
CUT_AT, AWAY_SECONDS = 240, 4
JUMP_AT, JUMP_SECONDS = 360, 40_000
SLOW_SECONDS = 60
WINDOWS = ("--window", "2s", "--stride", "1s", "--min-seconds", "3")


def run(options: Options) -> Section:
    """Files first, then streams."""
    del options
    with TemporaryDirectory() as name:
        folder = Path(name)
        short, long = folder / "2 minutes.mp4", folder / "2 hours.mp4"
        write_film(short)
        repeat(short, long, NUM_REPEATS)
        tables = (lengths(short, long), decoding(short), live(folder), too_slow(folder))
    return Section(suite=SUITE, tables=tables)


# --- files --------------------------------------------------------------------------------------------------------


def write_film(path: Path) -> None:
    """A rendered video of 640 x 360 px; its sides go on as its edges."""
    video = LongVideo(key="film", seconds=SHORT_SECONDS, labels=usual_labels(), quiet_seconds=5.0)
    side = (WIDTH - HEIGHT) // 2
    with av.open(str(path), "w") as container, progress_bar() as bar:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "g": "50"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        task = bar.add_task("rendering", total=SHORT_SECONDS * FPS, note="")
        for number in range(SHORT_SECONDS * FPS):
            square = video.frame(number / FPS, HEIGHT)
            picture = np.pad(square, ((0, 0), (side, side), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            bar.advance(task)
        container.mux(stream.encode(None))


def repeat(path: Path, output: Path, times: int) -> None:
    """The same packets again and again."""
    with av.open(str(path)) as source, av.open(str(output), "w") as container:
        video = source.streams.video[0]
        stream = container.add_stream_from_template(video)
        packets = [
            (bytes(packet), packet.pts, packet.dts, packet.is_keyframe)
            for packet in source.demux(video)
            if packet.size
        ]
        base = video.time_base
        assert base is not None
        for turn in range(times):
            shift = round(turn * SHORT_SECONDS / base)
            for data, pts, dts, is_keyframe in packets:
                packet = av.Packet(data)
                packet.pts, packet.dts, packet.time_base = (pts or 0) + shift, (dts or 0) + shift, base
                packet.is_keyframe = is_keyframe
                packet.stream = stream
                container.mux(packet)


def lengths(short: Path, long: Path) -> Table:
    """The command on both, each in a process of its own."""
    rows = []
    peaks = []
    for path in (short, long):
        seconds, peak = _measured([str(path), "--json"])
        peaks.append(peak)
        rows.append((path.stem, f"{seconds:.1f}", f"{peak:.0f}"))
    return Table(
        title=f"openxclip timeline, {WIDTH} x {HEIGHT} px, {FPS} frames a second, openxclip-tiny",
        command=COMMAND,
        columns=("video", "seconds", "peak MiB"),
        rows=tuple(rows),
        notes=(
            f"The long one takes {100 * (peaks[1] / peaks[0] - 1):+.1f} % memory. Windows of 2 s, one a second.",
        ),
    )


def _command(arguments: Sequence[str], model: str = "openxclip-tiny") -> list[str]:
    labels = ["--labels", ", ".join(usual_labels()), "--model", model]
    return [sys.executable, "-m", "openxclip", "timeline", *arguments, *labels]


def _measured(arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds and peak memory in MiB of a process."""
    started = time.perf_counter()
    process = subprocess.Popen(
        _command([*arguments, *WINDOWS]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def decoding(path: Path) -> Table:
    """Frames a second of FFmpeg decoding a file from start to end, and of windows over it, without a model."""
    found: dict[str, list[float]] = {"plain decode": [], "windows": []}
    for _ in range(NUM_TURNS):
        for what, decode in (("plain decode", _plain), ("windows", _windows)):
            started = time.perf_counter()
            num_frames = decode(path)
            found[what].append(num_frames / (time.perf_counter() - started))
    plain, ours = (float(np.median(rates)) for rates in found.values())
    return Table(
        title="Decoding for windows of 4 s, one every 2 s",
        command=COMMAND,
        columns=("what", "frames a second", "against the plain decode"),
        rows=(("plain decode", f"{plain:.0f}", "1.00"), ("windows", f"{ours:.0f}", f"{ours / plain:.2f}")),
        notes=(f"The same FFmpeg with the same threads; medians of {NUM_TURNS} turns, one after the other.",),
    )


def _plain(path: Path) -> int:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = 0
        return sum(1 for _ in container.decode(stream))


def _windows(path: Path) -> int:
    plan = WindowPlan(window_seconds=4, stride_seconds=2, num_frames=8)
    with Player.of_file(path, ahead_seconds=5) as player:
        collector = WindowCollector(player, plan, Preprocessor.hugging_face(224))
        player.skip_unless(collector.is_wanted)
        assert (
            sum(isinstance(window, Window) for window in collector.windows(player)) == SHORT_SECONDS // 2 - 1
        )
        return SHORT_SECONDS * FPS


# --- streams ------------------------------------------------------------------------------------------------------


class Camera:
    """A stream of MPEG-TS that plays in real time, each second a group of pictures of its own."""

    def __init__(self, video: LongVideo, seconds: int) -> None:
        self.seconds = seconds
        self._groups = list(_groups(video, seconds))
        self._began: float | None = None
        self._stalled = 0.0

    def now(self) -> float:
        """What the camera sees, in seconds of its video."""
        if self._began is None:
            self._began = time.monotonic()
        return time.monotonic() - self._began - self._stalled

    def send(self, write: Any, start: int, stop: int) -> None:
        """The seconds from `start` to `stop`, each when it is over."""
        for second in range(start, min(stop, self.seconds)):
            time.sleep(max(0.0, second + 1 - self.now()))
            write(self._groups[second])

    def stall(self, seconds: float) -> None:
        """Nothing moves."""
        time.sleep(seconds)
        self._stalled += seconds


def _groups(video: LongVideo, seconds: int) -> Iterator[bytes]:
    file = io.BytesIO()
    options = {"mpegts_flags": "+resend_headers", "muxdelay": "0", "flush_packets": "1"}
    with av.open(file, "w", format="mpegts", options=options) as container, progress_bar() as bar:
        stream = container.add_stream(
            "libx264", rate=LIVE_FPS, options={"g": str(LIVE_FPS), "bf": "0", "preset": "veryfast"}
        )
        stream.width = stream.height = LIVE_SIDE_PX
        stream.pix_fmt = "yuv420p"
        stream.codec_context.options["tune"] = "zerolatency"
        task = bar.add_task("rendering", total=seconds, note="")
        written = 0
        for second in range(seconds):
            for part in range(LIVE_FPS):
                number = second * LIVE_FPS + part
                picture = video.frame(number / LIVE_FPS, LIVE_SIDE_PX)
                image = av.VideoFrame.from_ndarray(picture, format="rgb24")
                image.pts, image.time_base = number, Fraction(1, LIVE_FPS)
                for packet in stream.encode(image):
                    ticks = round((JUMP_SECONDS if second >= JUMP_AT else 0) / packet.time_base)
                    packet.pts, packet.dts = (packet.pts or 0) + ticks, (packet.dts or 0) + ticks
                    container.mux(packet)
            data = file.getvalue()
            yield data[written:]
            written = len(data)
            bar.advance(task)


@contextmanager
def _serving(camera: Camera, *, disturbed: bool) -> Iterator[str]:
    """An HTTP server: the first connection stalls once and is cut, the second one goes on to the end."""
    connections: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            connections.append(1)
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            with suppress(OSError):
                self.play(len(connections) == 1)

        def play(self, is_first: bool) -> None:
            if not disturbed:
                camera.send(self.wfile.write, 0, camera.seconds)
            elif is_first:
                camera.send(self.wfile.write, 0, STALL_AT)
                camera.stall(STALL_SECONDS)
                camera.send(self.wfile.write, STALL_AT, CUT_AT)
            elif camera.now() >= CUT_AT + AWAY_SECONDS:  # before, it is away
                camera.send(self.wfile.write, int(camera.now()), camera.seconds)
                time.sleep(5)

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/camera.ts"
        http.shutdown()


def live(folder: Path) -> Table:
    """Ten minutes with a stall, a cut and a jump of the time stamps."""
    video = LongVideo(
        key="live", seconds=LIVE_SECONDS, labels=usual_labels(), share_overlapping=0.0, share_others=0.0
    )
    quiet = folder / "quiet.mp4"
    video.quiet(300).write(quiet, LIVE_SIDE_PX)
    with _serving(Camera(video, LIVE_SECONDS), disturbed=True) as address:
        events, marks = _watched(address, ["--background", str(quiet), *WINDOWS], LIVE_SECONDS + 15)
    return _live_table(video, events, marks)


def _live_table(video: LongVideo, events: list[dict[str, Any]], marks: dict[int, float]) -> Table:
    segments = [
        Segment(
            label=event["label"],
            start_seconds=event["start_seconds"],
            end_seconds=event["end_seconds"],
            score=event["score"],
            peak=event["peak"],
        )
        for event in events
        if event["kind"] == "segment"
    ]
    truth = Annotated(
        video.seconds, tuple(Event(one.label, one.start_seconds, one.end_seconds) for one in video.truth)
    )
    metrics = timeline_metrics({"live": segments}, {"live": truth}, stride_seconds=1.0)
    (at,) = [at for at in metrics.thresholds if at.iou == 0.5]
    kinds = [event["kind"] for event in events]
    late = [event["late_seconds"] for event in events if event["kind"] == "window"]
    first, last = marks[60], marks[max(marks)]
    rows = (
        ("windows", str(kinds.count("window"))),
        ("dropped windows", str(sum(event.get("num_windows", 0) for event in events))),
        ("late, median and most", f"{np.median(late):.2f} s, {max(late):.2f} s"),
        ("events, segments, F1 at IoU 0.5", f"{metrics.num_events}, {len(segments)}, {at.f1:.3f}"),
        ("connection lost, back", f"{kinds.count('lost')}, {kinds.count('gap')}"),
        ("jumps of the time stamps", str(kinds.count("jump"))),
        (
            "resident after 1 minute, at the end",
            f"{first:.0f} MiB, {last:.0f} MiB ({100 * (last / first - 1):+.1f} %)",
        ),
    )
    return Table(
        title=f"A stream for {LIVE_SECONDS} s over HTTP, {LIVE_FPS} frames a second, openxclip-tiny",
        command=COMMAND,
        columns=("what", "seen"),
        rows=rows,
        notes=(
            f"The sender stalls for {STALL_SECONDS} s, is cut off and away for {AWAY_SECONDS} s or more, and its time "
            f"stamps jump by {JUMP_SECONDS} s. Events while it is away are missed.",
        ),
    )


def too_slow(folder: Path) -> Table:
    """A model that is slower than its stream."""
    model = write_model(folder / "model", preset("B/32-8"))
    video = LongVideo(key="slow", seconds=SLOW_SECONDS, labels=usual_labels())
    with _serving(Camera(video, SLOW_SECONDS), disturbed=False) as address:
        events, _ = _watched(address, ["--window", "2s", "--stride", "0.1s"], SLOW_SECONDS, str(model))
    windows = [event for event in events if event["kind"] == "window"]
    late = [event["late_seconds"] for event in windows]
    dropped = sum(event.get("num_windows", 0) for event in events)
    return Table(
        title=f"Ten windows a second, B/32-8 with random weights, {SLOW_SECONDS} s",
        command=COMMAND,
        columns=("what", "seen"),
        rows=(
            ("windows", str(len(windows))),
            ("dropped, and said", str(dropped)),
            ("late, median and most", f"{np.median(late):.2f} s, {max(late):.2f} s"),
            ("late in the first and last third", f"{_third(late, 0):.2f} s, {_third(late, 2):.2f} s"),
        ),
    )


def _third(values: Sequence[float], part: int) -> float:
    size = len(values) // 3
    return float(np.median(values[part * size : (part + 1) * size]))


def _watched(
    address: str, options: Sequence[str], seconds: float, model: str = "openxclip-tiny"
) -> tuple[list[dict[str, Any]], dict[int, float]]:
    """Events of the command and its resident MiB after each ten seconds; it is stopped as by Ctrl-C."""
    import signal

    with subprocess.Popen(
        _command([address, *options], model), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        events = [json.loads(process.stdout.readline())]
        marks: dict[int, float] = {}
        reader = threading.Thread(target=lambda: events.extend(map(json.loads, process.stdout or ())))
        reader.start()
        with progress_bar() as bar:
            task = bar.add_task("watching", total=seconds, note="")
            for second in range(round(seconds)):
                if process.poll() is not None:
                    break
                if second % 10 == 0:
                    marks[second] = _resident_mib(process.pid)
                time.sleep(1)
                bar.advance(task)
        process.send_signal(signal.SIGINT)
        reader.join()
    return events, marks


def _resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
