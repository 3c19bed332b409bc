"""Decoding by index against a plain decode of the whole video, and every kind of bad input."""

import io
import os
import shutil
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from paths import DATA, needs_data
from videos import moving_frames, write_video

from openxclip.errors import ConfigError, InputError, VideoError
from openxclip.video import Frames, FrameSize, VideoLimits, VideoReader, read_frames
from openxclip.video.convert import Filter, Resize
from openxclip.video.packets import PacketInfo, PacketTable, Run, share_out
from openxclip.video.stream import VideoStream

X264_CLOSED = {"x264-params": "keyint=10:min-keyint=10:bframes=3:b-pyramid=normal:open-gop=0:scenecut=0"}
X264_OPEN = {"x264-params": "keyint=10:min-keyint=10:bframes=3:open-gop=1:scenecut=0"}
X265_OPEN = {"x265-params": "keyint=10:min-keyint=10:bframes=3:open-gop=1:log-level=none:pools=1"}
VP9 = {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"}
VFR = [i + i * i // 3 for i in range(40)]

# file name -> how it is written; the name tells the container
CASES: dict[str, dict] = {
    "h264_closed.mp4": {"options": X264_CLOSED},
    "h264_open.mp4": {"options": X264_OPEN},
    "h264_open.mkv": {"options": X264_OPEN},
    "h264_open.ts": {"options": X264_OPEN},
    "h264.flv": {"options": X264_CLOSED},
    "h264.avi": {"options": X264_CLOSED},
    "h264_without_pts.h264": {"options": X264_CLOSED},
    "h264_intra_refresh.mp4": {"options": {"x264-params": "keyint=12:intra-refresh=1:bframes=0"}},
    "h264_one_key_frame.mp4": {"options": {"x264-params": "keyint=500:bframes=2"}},
    "h264_interlaced.mp4": {"options": {"x264-params": "keyint=10:bframes=2:interlaced=1"}},
    "h264_10_bit.mp4": {"options": X264_CLOSED, "pix_fmt": "yuv420p10le"},
    "h264_late_start.mp4": {"options": X264_CLOSED, "pts": [i + 7 for i in range(40)]},
    "h264_variable_rate.mp4": {"options": X264_CLOSED, "pts": VFR},
    "hevc_open.mp4": {"codec": "libx265", "options": X265_OPEN},
    "vp9.webm": {"codec": "libvpx-vp9", "options": VP9, "gop": 12, "bit_rate": 100_000},
    "vp8.webm": {"codec": "libvpx", "options": VP9, "gop": 12, "bit_rate": 100_000},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "10"}, "width": 128, "height": 96, "bit_rate": 0},
    "mpeg2.ts": {"codec": "mpeg2video", "gop": 9, "num_b_frames": 2},
    "mpeg2.mpg": {"codec": "mpeg2video", "gop": 9, "num_b_frames": 2},
    "mpeg4_b_frames.avi": {"codec": "mpeg4", "gop": 9, "num_b_frames": 2},
    "mpeg4_b_frames.mp4": {"codec": "mpeg4", "gop": 9, "num_b_frames": 2},
    "motion_jpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "lossless_alpha.mkv": {"codec": "ffv1", "pix_fmt": "bgra"},
    "one_frame.mp4": {"num_frames": 1},
    "animation.gif": {"codec": "gif", "pix_fmt": "rgb8"},
}
# Cases whose packets must suffice: decoding them from the start would be right, but slow.
BY_PACKETS = {
    "h264_closed.mp4", "h264_open.mp4", "h264_open.mkv", "h264_open.ts", "h264.flv", "h264_one_key_frame.mp4",
    "h264_10_bit.mp4", "h264_variable_rate.mp4", "hevc_open.mp4", "vp9.webm", "mpeg2.ts",
    "mpeg4_b_frames.mp4",
}  # fmt: skip


def hwc(frames: Frames) -> np.ndarray:
    """(T, H, W, 3), the order in which the tests' references have them."""
    assert frames.data.flags.c_contiguous
    return frames.data.transpose(0, 2, 3, 1)


def plain_decode(source: Path | io.BytesIO, stream_index: int | None = None) -> list[av.VideoFrame]:
    """Every frame, one after the other, up to where the file breaks off."""
    frames: list[av.VideoFrame] = []
    with av.open(str(source) if isinstance(source, Path) else source) as container:
        stream = container.streams.video[0] if stream_index is None else container.streams[stream_index]
        context = stream.codec_context
        context.thread_count = 1
        try:
            for packet in container.demux(stream):
                if packet.size:
                    frames += context.decode(packet)
        except av.FFmpegError:
            pass
        frames += context.decode(None)
    return frames


def rgb(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray(format="rgb24")


def probes(num_frames: int) -> list[np.ndarray]:
    """Eight spread indices, a single one, and a shuffle of the whole with repeats."""
    shuffled = np.random.default_rng(0).permutation(num_frames)
    spread = np.linspace(0, num_frames - 1, 8).astype(int)
    return [spread, np.array([num_frames // 2]), np.concatenate([shuffled, shuffled[:3], shuffled[:1]])]


def assert_exact(path: Path, truth: np.ndarray, num_threads: int = 0) -> None:
    """Each probe in a reader of its own, then all in one."""
    for indices in probes(len(truth)):
        with VideoReader(path, num_threads=num_threads) as reader:
            assert reader.num_frames == len(truth)
            np.testing.assert_array_equal(hwc(reader.read(indices)), truth[indices])
    with VideoReader(path, num_threads=num_threads) as reader:
        for indices in probes(len(truth)):
            np.testing.assert_array_equal(hwc(reader.read(indices)), truth[indices])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def video(folder: Path) -> Path:
    """An ordinary video of 40 frames at 25 frames a second, 64 x 48 px, that can be cut off anywhere."""
    path = folder / "plain.mp4"
    return write_video(path, options=X264_CLOSED, container_options={"movflags": "faststart"})


@pytest.mark.parametrize("name", CASES)
def test_frames_are_those_of_a_plain_decode(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, **CASES[name])
    truth = np.stack([rgb(frame) for frame in plain_decode(path)])
    assert len(truth) == CASES[name].get("num_frames", 40)
    assert len(np.unique(truth.reshape(len(truth), -1), axis=0)) == len(truth), "frames must be told apart"
    assert_exact(path, truth)
    assert_exact(path, truth, num_threads=1)
    with VideoReader(path) as reader:
        reader.read(range(len(truth)))
        assert (reader._table is not None) or name not in BY_PACKETS


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Three decoders wherever there are stretches for them; packets of each share that a second or third decoded."""
    decoded: list[int] = []
    decode_share = VideoReader._decode_share

    def counted(reader: VideoReader, table: PacketTable, runs: list[Run], *others: Any) -> Any:
        decoded.append(sum(run.num_packets for run in runs))
        return decode_share(reader, table, runs, *others)

    monkeypatch.setattr("openxclip.video.decode._MIN_PACKETS_OF_SHARE", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    monkeypatch.setattr(VideoReader, "_decode_share", counted)
    return decoded


ONE_STRETCH = {"h264_one_key_frame.mp4", "h264_open.mp4", "h264_open.mkv", "h264_open.ts", "hevc_open.mp4"}


@pytest.mark.parametrize("name", sorted(BY_PACKETS))
def test_stretches_decoded_side_by_side_are_exact(tmp_path: Path, name: str, side_by_side: list[int]) -> None:
    path = write_video(tmp_path / name, **CASES[name])
    truth = np.stack([rgb(frame) for frame in plain_decode(path)])
    assert_exact(path, truth)
    if name not in ONE_STRETCH:  # all frames of an open GOP are one stretch; a few of them may be several
        assert len(side_by_side) >= 4
    elif name == "h264_one_key_frame.mp4":
        assert side_by_side == []
    side_by_side.clear()
    assert_exact(path, truth, num_threads=1)
    assert side_by_side == []


def test_side_by_side_every_stretch_is_decoded_once(video: Path, side_by_side: list[int]) -> None:
    """Key frames every ten frames: four stretches up to the wanted frame for three decoders, two for the first."""
    truth = np.stack([rgb(frame) for frame in plain_decode(video)])
    wanted = [39, 9, 28, 19]
    np.testing.assert_array_equal(hwc(read_frames(video, lambda _: wanted)), truth[wanted])
    assert len(side_by_side) == 2
    assert all(9 <= num_packets <= 10 for num_packets in side_by_side)
    side_by_side.clear()
    np.testing.assert_array_equal(hwc(read_frames(video.read_bytes(), lambda _: wanted)), truth[wanted])
    assert len(side_by_side) == 2
    side_by_side.clear()
    with video.open("rb") as file:  # has one place to read from
        np.testing.assert_array_equal(hwc(read_frames(file, lambda _: wanted)), truth[wanted])
    assert side_by_side == []


def test_an_open_video_outlives_its_name(
    tmp_path: Path, side_by_side: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "video.mp4", options=X264_CLOSED)
    truth = np.stack([rgb(frame) for frame in plain_decode(path)])
    monkeypatch.chdir(tmp_path)
    with VideoReader("video.mp4") as reader:
        monkeypatch.chdir("/")
        np.testing.assert_array_equal(hwc(reader.read([9, 28])), truth[[9, 28]])
        assert len(side_by_side) == 1
        path.unlink()
        np.testing.assert_array_equal(hwc(reader.read([19, 39])), truth[[19, 39]])
        assert len(side_by_side) == 1


def test_a_short_video_is_not_opened_twice(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    opened: list[Any] = []
    open_container = VideoStream._reopen
    monkeypatch.setattr(VideoStream, "_reopen", lambda *args: opened.append(1) or open_container(*args))
    read_frames(video, lambda _: [39, 9, 28, 19])
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("name", "stream_index"),
    [
        ("arm_wrestling.mp4", 0), ("av1_video.mkv", 0), ("flipping_a_pancake.mkv", 0), ("h265_10bits.mp4", 0),
        ("nasa_13013.mp4", 3), ("rotated_90.mov", 0),
    ],
)  # fmt: skip
@needs_data("clips")
def test_real_clips_are_exact(name: str, stream_index: int) -> None:
    path = DATA / "clips" / name
    turns = -1 if name == "rotated_90.mov" else 0
    frames = plain_decode(path, stream_index)
    with VideoReader(path) as reader:
        assert reader.num_frames == len(frames)
        for indices in (*probes(len(frames))[:2], probes(len(frames))[2][-50:]):
            expected = np.stack([np.rot90(rgb(frames[i]), turns) for i in indices])
            np.testing.assert_array_equal(hwc(reader.read(indices)), expected)


@needs_data("ucf8/videos")
def test_real_xvid_clips_are_exact() -> None:
    paths = sorted((DATA / "ucf8" / "videos").iterdir())[::14]
    assert len(paths) == 20
    for path in paths:
        frames = plain_decode(path)
        with VideoReader(path, num_threads=1) as reader:
            assert reader.num_frames == len(frames)
            for indices in probes(len(frames)):
                expected = np.stack([rgb(frames[i]) for i in indices])
                np.testing.assert_array_equal(hwc(reader.read(indices)), expected)


def test_a_video_too_large_to_keep_is_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openxclip.video.decode._KEEP_BYTES", 10_000)
    path = write_video(tmp_path / "video.avi", codec="mpeg4", num_b_frames=2)
    assert_exact(path, np.stack([rgb(frame) for frame in plain_decode(path)]))


@pytest.mark.parametrize("part", [0.4, 0.63, 0.8, 0.95])
@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.ts", "cut.flv", "cut.avi"])
def test_a_file_cut_off_holds_the_frames_before_the_cut(tmp_path: Path, name: str, part: float) -> None:
    options = {"movflags": "faststart"} if name == "cut.mp4" else {}
    whole = write_video(tmp_path / name, options=X264_OPEN, container_options=options).read_bytes()
    cut = whole[: int(len(whole) * part)]
    truth = np.stack([rgb(frame) for frame in plain_decode(io.BytesIO(cut))])
    assert 5 < len(truth) < 40
    with VideoReader(cut, num_threads=1) as reader:
        assert reader.num_frames == len(truth)
        for indices in probes(len(truth)):
            np.testing.assert_array_equal(hwc(reader.read(indices)), truth[indices])
    with VideoReader(cut) as reader:  # more threads: the same count
        assert reader.num_frames == len(truth)
        np.testing.assert_array_equal(hwc(reader.read([0, len(truth) // 2])), truth[[0, len(truth) // 2]])


def spoil_last_packets(path: Path) -> Path:
    """The last five packets are there, well formed for the container, and hold nothing that decodes."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        spoiled = path.with_name("spoiled.mkv")
        with av.open(str(spoiled), "w") as output:
            stream = output.add_stream_from_template(container.streams.video[0])
            for i, packet in enumerate(packets):
                data = bytes(packet) if i < len(packets) - 5 else b"\0" * packet.size
                copy = av.Packet(data)
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.is_keyframe, copy.stream = packet.is_keyframe, stream
                output.mux(copy)
    return spoiled


def test_what_a_second_decoder_finds_spoiled_counts_too(tmp_path: Path, side_by_side: list[int]) -> None:
    path = write_video(tmp_path / "video.mp4", options={"x264-params": "keyint=10:bframes=0"})
    truth = np.stack([rgb(frame) for frame in plain_decode(path)])
    frames = read_frames(spoil_last_packets(path), lambda num_frames: [9, 19, num_frames - 1])
    np.testing.assert_array_equal(hwc(frames), truth[[9, 19, 34]])
    assert len(side_by_side) == 2


def test_packets_that_promise_too_much_give_way_to_what_decodes(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", options={"x264-params": "keyint=10:bframes=0"})
    spoiled = spoil_last_packets(path)
    truth = np.stack([rgb(frame) for frame in plain_decode(path)])
    asked: list[int] = []

    def last(num_frames: int) -> list[int]:
        asked.append(num_frames)
        return [num_frames - 1]

    np.testing.assert_array_equal(hwc(read_frames(spoiled, last)), truth[34:35])
    assert asked == [40, 35]
    with VideoReader(spoiled) as reader:
        with pytest.raises(InputError, match="no frame 39, only 0 to 34"):
            reader.read([39])
        assert reader.num_frames == 35


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", options=X264_CLOSED, pts=[50 + p for p in VFR])
    with VideoReader(path) as reader:
        frames = reader.read([39, 0, 3])
        np.testing.assert_allclose(frames.pts_seconds, np.array([VFR[39], 0, VFR[3]]) / 25, atol=1e-3)
    with VideoReader(write_video(tmp_path / "video.avi", codec="mpeg4", num_b_frames=2)) as reader:
        np.testing.assert_allclose(reader.read([0, 5, 39]).pts_seconds[[0, 1]], [0, 5 / 25], atol=1e-6)
        assert reader.duration_seconds == pytest.approx(40 / 25, abs=0.05)


def test_facts_of_a_video(video: Path) -> None:
    with VideoReader(video) as reader:
        assert (reader.num_frames, reader.width, reader.height, reader.codec) == (40, 64, 48, "h264")
        assert reader.duration_seconds == pytest.approx(1.6)


# ------------------------------------------------------------------------------------------------- pixels


def test_scaling_is_one_bilinear_pass_of_the_short_side(video: Path) -> None:
    frames = plain_decode(video)
    for short_side, (width, height) in {24: (32, 24), 31: (41, 31), 96: (128, 96), 48: (64, 48)}.items():
        expected = [frames[i].reformat(width, height, "gbrp", interpolation="BILINEAR") for i in (3, 30)]
        actual = hwc(read_frames(video, lambda n: [3, 30], FrameSize(short_side_px=short_side)))
        np.testing.assert_array_equal(actual, np.stack([frame.to_ndarray() for frame in expected]))


@pytest.mark.parametrize(
    ("filter", "resize"), [("bicubic", "short_side"), ("bicubic", "squash"), ("bilinear", "squash")]
)
def test_filter_and_shape_are_those_asked_for(video: Path, filter: Filter, resize: Resize) -> None:
    width = 24 if resize == "squash" else 32
    expected = plain_decode(video)[3].reformat(width, 24, "gbrp", interpolation=filter.upper()).to_ndarray()
    with VideoReader(video) as reader:
        data = hwc(reader.read([3], FrameSize(short_side_px=24, resize=resize, filter=filter)))
    np.testing.assert_array_equal(data[0], expected)
    again = hwc(read_frames(video, lambda n: [3], FrameSize(short_side_px=24, resize=resize, filter=filter)))
    np.testing.assert_array_equal(again, data)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_of_the_container_is_applied(tmp_path: Path, rotation: int) -> None:
    path = write_video(tmp_path / "turned.mp4", num_frames=3, rotation=rotation)
    stored = np.stack([rgb(frame) for frame in plain_decode(path)])
    # Where the file's own display matrix puts the pixel to the right of the origin, in 16.16 fixed point:
    # (x, y) becomes (a x + c y, b x + d y), y pointing down.
    data = path.read_bytes()
    matrix = struct.unpack(">9i", data[data.index(b"tkhd") + 44 :][:36])
    a, b = matrix[0] >> 16, matrix[1] >> 16
    clockwise_turns = {(1, 0): 0, (0, 1): 1, (-1, 0): 2, (0, -1): 3}[(a, b)]
    upright = np.rot90(stored, -clockwise_turns, axes=(1, 2))
    with VideoReader(path) as reader:
        assert (reader.height, reader.width) == upright.shape[1:3]
        np.testing.assert_array_equal(hwc(reader.read([0, 1, 2])), upright)
        assert min(hwc(reader.read([0], FrameSize(short_side_px=24))).shape[1:3]) == 24


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "name"),
    [
        ("libx264", "yuv420p", "limited.mp4"),
        ("libx264", "yuv420p10le", "limited_10_bit.mp4"),
        ("mjpeg", "yuvj420p", "full.avi"),
        ("ffv1", "bgra", "alpha.mkv"),
        ("ffv1", "gray", "gray.mkv"),
    ],
)
def test_black_and_white_of_any_pixel_format(tmp_path: Path, codec: str, pix_fmt: str, name: str) -> None:
    pictures = [np.full((48, 64, 3), value, np.uint8) for value in (0, 255)]
    path = write_video(tmp_path / name, codec=codec, pix_fmt=pix_fmt, frames=pictures)
    black, white = hwc(read_frames(path, range))
    assert int(black.max()) <= 2
    assert int(white.min()) >= 253


def test_lossless_video_gives_back_the_pixels(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", codec="ffv1", pix_fmt="bgra", num_frames=5)
    np.testing.assert_array_equal(hwc(read_frames(path, range)), np.stack(moving_frames(5)))


def test_frames_of_another_size_come_at_the_size_of_the_first(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.h264", num_frames=5)
    large = write_video(tmp_path / "large.h264", num_frames=5, width=96, height=96)
    assert hwc(read_frames(small.read_bytes() + large.read_bytes(), range)).shape == (10, 48, 64, 3)


def test_a_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "picture.png", codec="png", pix_fmt="rgb24", num_frames=1, format="image2")
    np.testing.assert_array_equal(hwc(read_frames(path, range)), np.stack(moving_frames(1)))


# ------------------------------------------------------------------------------------------------ sources


class Pipe(io.RawIOBase):
    """A readable file object that cannot seek."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._data.readinto(buffer)


def test_every_kind_of_source_gives_the_same_frames(video: Path, tmp_path: Path) -> None:
    expected = read_frames(video, lambda n: [0, 17, 39])
    data = video.read_bytes()
    odd = tmp_path / "a folder" / "vidéo %03d *?* ☃ concat:x.mp4"
    odd.parent.mkdir()
    shutil.copy(video, odd)
    with video.open("rb") as file:
        file.seek(100)
        for source in (str(video), data, io.BytesIO(data), file, Pipe(data), odd, str(odd)):
            np.testing.assert_array_equal(hwc(read_frames(source, lambda n: [0, 17, 39])), hwc(expected))
        assert not file.closed, "a file object of the caller stays open"


def test_a_reader_closes_what_it_opened(video: Path) -> None:
    with VideoReader(video) as reader:
        file = reader._stream._file
        assert not file.closed
    assert file.closed
    reader.close()  # closing twice does no harm


@pytest.mark.parametrize("source", ["http://localhost/video.mp4", "concat:{}|{}", "file:{}", "pipe:0", "-"])
def test_a_path_is_never_an_address(video: Path, source: str) -> None:
    address = source.format(video, video)
    with pytest.raises(VideoError, match="there is no such file") as caught:
        VideoReader(address)
    assert caught.value.source == address


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("entry", ["segment.ts", "{}", "file:{}", "file://{}", "http://localhost:9/{}"])
def test_a_playlist_reads_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    monkeypatch.chdir(tmp_path)
    segment = write_video(tmp_path / "segment.ts", num_frames=10)
    assert hwc(read_frames("segment.ts", range)).shape[0] == 10
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(PLAYLIST.format(entry.format(segment)))
    concat = tmp_path / "list.txt"
    concat.write_text(f"ffconcat version 1.0\nfile '{entry.format(segment)}'\n")
    for source in (playlist, playlist.read_bytes(), concat, concat.read_bytes()):
        with pytest.raises(VideoError):
            VideoReader(source)


# ------------------------------------------------------------------------------------------------- errors


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"missing\.mp4: there is no such file"):
        VideoReader(tmp_path / "missing.mp4")
    with pytest.raises(VideoError, match="this is a folder"):
        VideoReader(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"no video at all\n" * 50])
def test_what_is_no_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(content)
    for source, name in ((path, str(path)), (content, "<bytes>"), (io.BytesIO(content), "<bytes>")):
        with pytest.raises(VideoError) as caught:
            VideoReader(source)
        assert caught.value.source == name


def write_audio(path: Path, cover: bool) -> Path:
    """A second of silence, with a cover picture or without."""
    with av.open(str(path), "w") as container:
        audio = container.add_stream("libmp3lame" if path.suffix == ".mp3" else "pcm_s16le", rate=16000)
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(moving_frames(1)[0], format="rgb24")
            frame.pts, frame.time_base = 0, Fraction(1, 1)
            container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="mono")
        frame.rate, frame.pts = 16000, 0
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path


def test_sound_alone_is_no_video_nor_is_its_cover(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"no video stream \(found: audio\)"):
        VideoReader(write_audio(tmp_path / "sound.wav", cover=False))
    covered = write_audio(tmp_path / "song.mp3", cover=True)
    with av.open(str(covered)) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(VideoError, match="it holds no video, only cover art"):
        VideoReader(covered)


@needs_data("clips")
def test_real_bad_clips() -> None:
    with pytest.raises(VideoError, match="no video stream"):
        VideoReader(DATA / "clips" / "audio_only.wav")
    with pytest.raises(VideoError, match="packet 30 cannot be decoded, and others follow it"):
        read_frames(DATA / "clips" / "corrupted.mp4", lambda n: np.arange(8) * n // 8)


def test_limits_are_named_with_the_way_to_raise_them(video: Path, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"64x48 px is over the limit max_frame_px=3000.*VideoLimits\(max_f"):
        VideoReader(video, limits=VideoLimits(max_frame_px=3000))
    with pytest.raises(VideoError, match=r"1\.6 s is over the limit max_seconds=1\..*VideoLimits\(max_s"):
        VideoReader(video, limits=VideoLimits(max_seconds=1))
    with VideoReader(video, limits=VideoLimits(max_frame_px=64 * 48, max_seconds=1.6)) as reader:
        assert reader.num_frames == 40
    for wrong in ({"max_frame_px": 0}, {"max_seconds": -1.0}):
        with pytest.raises(ConfigError, match="must be greater than 0"):
            VideoLimits(**wrong)


def test_limits_hold_where_the_header_lies(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.h264", num_frames=5)
    large = write_video(tmp_path / "large.h264", num_frames=5, width=96, height=96)
    data = small.read_bytes() + large.read_bytes()
    with pytest.raises(VideoError, match="96x96 px is over the limit max_frame_px=3072"):
        VideoReader(data, limits=VideoLimits(max_frame_px=64 * 48))


def test_limits_hold_for_scaled_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "thin.mkv", codec="ffv1", pix_fmt="bgra", frames=moving_frames(2, 2000, 16))
    with VideoReader(path, limits=VideoLimits(max_frame_px=40 * 5000)) as reader:
        assert hwc(reader.read([0], FrameSize(short_side_px=40))).shape == (1, 40, 5000, 3)
        with pytest.raises(
            VideoError, match=r"a scaled frame of 5125x41 px is over the limit max_frame_px=2"
        ):
            reader.read([0], FrameSize(short_side_px=41))


@pytest.mark.parametrize(("name", "max_seconds"), [("no_times.h264", 0.4), ("times.mkv", 0.8)])
def test_decoding_stops_at_the_longest_allowed_length(
    name: str, max_seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the header states no length, it shows only while decoding."""
    codec = {"codec": "ffv1", "pix_fmt": "bgra", "pts": range(0, 80, 2)} if name == "times.mkv" else {}
    live = {"live": "1"} if name == "times.mkv" else {}
    path = write_video(tmp_path / name, container_options=live, **codec)
    decode_all, decoded = VideoStream.decode_all, []

    def counted(stream: VideoStream) -> Iterator[Any]:
        for frame in decode_all(stream):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(VideoStream, "decode_all", counted)
    with pytest.raises(VideoError, match=rf"is over the limit max_seconds={max_seconds}"):
        VideoReader(path, limits=VideoLimits(max_seconds=max_seconds))
    assert len(decoded) == 12  # of 40: the 12th is the first one beyond the limit
    assert (decoded[0] is None) == (name == "no_times.h264")


@pytest.mark.parametrize("at_once", [False, True])
def test_a_damaged_middle_is_an_error_and_not_other_frames(
    video: Path, at_once: bool, request: pytest.FixtureRequest
) -> None:
    """Wherever the damage lies: either exact frames, or an error; never a crash and never a hang."""
    if at_once:
        request.getfixturevalue("side_by_side")
    data = video.read_bytes()
    rng = np.random.default_rng(1)
    for start in range(0, len(data) - 40, len(data) // 25):
        spoiled = bytearray(data)
        spoiled[start : start + 40] = rng.bytes(40)
        try:
            frames = read_frames(bytes(spoiled), lambda n: np.arange(8) * n // 8)
        except VideoError:
            continue
        assert hwc(frames).shape == (8, 48, 64, 3)


@pytest.mark.parametrize("indices", [[], [40], [-1], [0.5], [[0, 1]], ["0"]])
def test_indices_are_checked(video: Path, indices: list) -> None:
    with VideoReader(video) as reader, pytest.raises(InputError):
        reader.read(indices)


def test_threads_are_checked(video: Path) -> None:
    with pytest.raises(InputError, match="num_threads is -1"):
        VideoReader(video, num_threads=-1)


# -------------------------------------------------------------------------------------------- packet table


def table_of(text: str) -> PacketTable | None:
    """A table from packets in decode order, such as "0K 3 1 2": pts, K for key frame, D for discarded."""
    packets = [
        PacketInfo(int(word.rstrip("KD")), None, "K" in word, "D" in word, False) for word in text.split()
    ]
    return PacketTable.build(packets, reorders=True)


def test_frames_before_a_key_frame_of_an_open_gop_belong_to_the_one_before() -> None:
    table = table_of("0K 3 1 2 6K 4 5 9 7 8")
    assert table is not None
    assert table.pts.tolist() == list(range(10))
    assert [(run.start, run.stop) for run in table.plan([4])] == [(0, 6)]
    assert [(run.start, run.stop) for run in table.plan([6])] == [(4, 5)]
    assert [(run.start, run.stop, sorted(run.positions)) for run in table.plan([8, 1, 8])] == [
        (0, 3, [2]),
        (4, 10, [9]),
    ]


def test_stretches_that_share_packets_are_decoded_in_one_go() -> None:
    """Frame 5 lies behind the second key frame, which frame 6 needs, too."""
    table = table_of("0K 3 1 2 6K 4 5 9 7 8")
    assert table is not None
    (run,) = table.plan([6, 5, 1])
    assert (run.start, run.stop, run.positions) == (0, 7, {2, 4, 6})
    assert run.index_of_pts == {1: 1, 5: 5, 6: 6}


def test_frames_cut_off_by_an_edit_list_are_not_counted() -> None:
    table = table_of("0KD 1D 2 3")
    assert table is not None
    assert table.pts.tolist() == [2, 3]
    assert [(run.start, run.stop) for run in table.plan([0])] == [(0, 3)]


@pytest.mark.parametrize("text", ["", "0 1K", "2K 0 1", "0K 1 1", "0K 5 2K 5", "0KD"])
def test_packets_that_cannot_be_relied_on_give_no_table(text: str) -> None:
    assert table_of(text) is None


def test_a_gap_of_the_time_stamps_may_be_a_lost_packet() -> None:
    for text, is_even in (
        ("0K 3 1 2 4", True),
        ("0K 33 66 100 133", True),
        ("0K 3 1 4", False),
        ("0K", True),
    ):
        table = table_of(text)
        assert table is not None
        assert table.is_even == is_even, text


def test_time_stamps_of_the_decode_order_say_nothing_of_the_screen() -> None:
    packets = [PacketInfo(i, i, i == 0, False, False) for i in range(5)]
    assert PacketTable.build(packets, reorders=True) is None
    assert PacketTable.build(packets, reorders=False) is not None
    assert PacketTable.build(packets[:1], reorders=True) is not None


def run_of(num_packets: int) -> Run:
    return Run(0, num_packets, frozenset(), {})


def test_shares_are_about_equal_and_the_largest_comes_first() -> None:
    runs = [run_of(size) for size in (3, 20, 9, 8, 2)]
    shares = share_out(runs, 2)
    assert [[run.num_packets for run in share] for share in shares] == [[20, 2], [9, 8, 3]]
    assert share_out(runs, 1) == [sorted(runs, key=lambda run: -run.num_packets)]
    assert [len(share) for share in share_out(runs, 9)] == [1] * 5


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="needs Linux's scheduling calls")
def test_writing_videos_leaves_the_process_as_it_was(tmp_path) -> None:
    """SVT-AV1 makes the process that calls it as root a real-time one; servers that tests start would inherit it."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    options = {"preset": "10"}
    write_video(
        tmp_path / "a.mp4", codec="libsvtav1", options=options, width=128, height=96, bit_rate=0, num_frames=3
    )
    assert (os.sched_getscheduler(0), os.sched_getparam(0)) == before
