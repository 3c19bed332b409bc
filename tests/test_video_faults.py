"""Files that tools and recorders write wrongly: each frame is that of a plain decode, or the error is the right one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from paths import DATA, needs_data
from videos import moving_frames, write_video

from openxclip.errors import VideoError
from openxclip.video.decode import VideoReader
from openxclip.video.sampling import centred
from openxclip.video.source import VideoLimits

FAULTS = DATA / "faults"


def plain_decode(path: Path) -> np.ndarray:
    """Every frame (N, H, W, 3), as decoding from the start with one thread yields them."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def check_every_frame(path: Path, num_frames: int) -> None:
    """Each frame alone, and the eight of a clip, are those of a plain decode."""
    expected = plain_decode(path)
    with VideoReader(path) as reader:
        assert reader.num_frames == len(expected) == num_frames
        chosen = centred(num_frames, 8)
        clip = reader.read(chosen).data.transpose(0, 2, 3, 1)
        assert np.array_equal(clip, expected[chosen])
        for index in range(num_frames):
            alone = reader.read([index]).data.transpose(0, 2, 3, 1)
            assert np.array_equal(alone[0], expected[index]), index


def remux(source: Path, target: Path, change: Callable[[int, Any], bool]) -> Path:
    """Copy the packets of a video; `change` edits the i-th and says whether it stays."""
    with av.open(str(source)) as given, av.open(str(target), "w") as written:
        stream = given.streams.video[0]
        copy = written.add_stream_from_template(stream)
        for i, packet in enumerate(p for p in given.demux(stream) if p.size):
            if change(i, packet):
                packet.stream = copy
                written.mux(packet)
    return target


@pytest.fixture(scope="module")
def reordered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 frames of H.264 with B-frames that other B-frames refer to."""
    path = tmp_path_factory.mktemp("faults") / "reordered.mp4"
    return write_video(path, num_frames=100, gop=25, num_b_frames=3, options={"b-pyramid": "normal"})


def test_time_stamps_in_decode_order(reordered: Path, tmp_path: Path) -> None:
    """As `ffmpeg -r 25 -i raw.h264 -c copy out.mp4` writes: sorted by its stamps, a clip would show other frames."""

    def stamp(_: int, packet: Any) -> bool:
        packet.pts = packet.dts
        return True

    stamped = remux(reordered, tmp_path / "stamped.mp4", stamp)
    check_every_frame(stamped, len(plain_decode(stamped)))


def test_lost_packets(reordered: Path, tmp_path: Path) -> None:
    lost = remux(reordered, tmp_path / "lost.mp4", lambda i, _: i % 17 != 5)
    check_every_frame(lost, len(plain_decode(lost)))


def test_a_jump_of_the_time_stamps_is_no_length(tmp_path: Path) -> None:
    """Two recordings behind each other, the second stamped hours later: 4 s are played."""
    pts = [*range(50), *(i + 10_000_000 for i in range(50))]
    jump = write_video(tmp_path / "jump.mkv", num_frames=100, pts=pts)
    limits = VideoLimits(max_seconds=20.0)
    with VideoReader(jump, limits=limits) as reader:
        assert reader.num_frames == 100
    with pytest.raises(VideoError, match=r"a length of .* over the limit max_seconds=3"):
        VideoReader(jump, limits=VideoLimits(max_seconds=3.0))


def test_the_stream_that_plays_is_the_video(tmp_path: Path) -> None:
    """An animated picture has its first frame in a larger stream of its own, which comes first."""
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as container:
        still = container.add_stream("libx264", rate=25)
        moving = container.add_stream("libx264", rate=25)
        for stream, (width, height) in ((still, (128, 96)), (moving, (64, 48))):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for stream, frames in ((still, moving_frames(1, 128, 96)), (moving, moving_frames(12))):
            for i, picture in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = i
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    with VideoReader(path) as reader:
        assert (reader.num_frames, reader.width) == (12, 64)


@needs_data("faults")
@pytest.mark.parametrize(
    ("name", "num_frames"),
    [
        ("f1_raw_to_mp4.mp4", 98),
        ("f1_hevc_to_mp4.mp4", 98),
        ("f2_lost_packets.mp4", 94),
        ("f3_paff.mp4", 40),
        ("f10_jump.ts", 100),
    ],
)
def test_reported_files_show_the_frames_of_a_plain_decode(name: str, num_frames: int) -> None:
    check_every_frame(FAULTS / name, num_frames)


@needs_data("faults")
@pytest.mark.parametrize("name", ["f1_raw_to_mp4.mp4", "f1_hevc_to_mp4.mp4"])
def test_a_clip_of_a_restamped_file_has_the_right_frames(name: str) -> None:
    with VideoReader(FAULTS / name) as reader:
        assert centred(reader.num_frames, 8).tolist() == [6, 18, 30, 42, 55, 67, 79, 91]


@needs_data("faults")
def test_reported_files_that_hold_no_video_to_decode() -> None:
    with pytest.raises(VideoError, match=r"cannot decode this kind of webp.*MP4 or GIF"):
        VideoReader(FAULTS / "f8_animated.webp")
    with pytest.raises(VideoError, match="no video, only cover art"):
        VideoReader(FAULTS / "f11_cover.m4a")
