"""Packing: what comes out is exact, the same bytes every time, and read like the data set that went in."""

import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from paths import DATA
from safetensors.torch import load_file
from tiny import TINY
from videos import write_video

from openxclip.cli.main import run
from openxclip.cli.pack import PackArguments, _how
from openxclip.data import packing
from openxclip.data.manifest import list_names, read_manifest
from openxclip.data.media import TarMember
from openxclip.data.packed import damage, read_index, read_left_out, shard_path
from openxclip.data.packing import PackOptions, PackSummary, pack, parse_bytes, read_data_set
from openxclip.errors import ConfigError, InputError, VideoError
from openxclip.steps import finished
from openxclip.training.config import DataConfig, LearningRates, MixConfig, OptimConfig, TrainConfig
from openxclip.training.train import train
from openxclip.video.convert import FrameSize
from openxclip.video.decode import VideoReader, read_frames
from openxclip.video.encode import EncodeOptions, encode
from openxclip.workers import in_order

pytestmark = pytest.mark.on_cpu

ODD_NAMES = ("a b.mp4", "ünïcode.mp4", "quo'te\".mp4", "comma,.mp4", "..dots...mp4", "-dash.mp4")
SMALL_SHARDS = PackOptions(shard_bytes=30_000)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two lists that share videos, odd names, one file that is no video and one that is not there."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "videos" / "x").mkdir(parents=True)
    for i in range(1, 8):
        write_video(folder / "videos" / "x" / f"{i}.mp4", num_frames=20 + i)
    for i, name in enumerate(ODD_NAMES):
        write_video(folder / "videos" / name, num_frames=10 + i)
    (folder / "videos" / "broken.mp4").write_bytes(b"no video at all")
    (folder / "labels.csv").write_text("id,name\n0,waves\n1,blocks\n")
    train = [f"x/{i}.mp4 {i % 2}" for i in range(1, 8)] + [f"{name} 1" for name in ODD_NAMES]
    (folder / "train.txt").write_text("\n".join([*train, "broken.mp4 0", "gone.mp4 1", "x/1.mp4 0"]) + "\n")
    (folder / "val.txt").write_text("x/3.mp4 1\nx/2.mp4 0\nx/3.mp4 1\n")
    return folder


def packed(
    data: Path, output: Path, options: PackOptions = SMALL_SHARDS, num_processes: int = 2
) -> PackSummary:
    return finished(pack(read_data_set(data), output, options, num_processes))


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory) -> Path:
    """The data set, packed."""
    output = tmp_path_factory.mktemp("packed") / "all"
    packed(data, output)
    return output


def content(folder: Path) -> dict[str, str]:
    """Digests of all files."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# The encoded video


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((first.astype(float) - second) ** 2)))


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libvpx-vp9"])
def test_each_index_shows_the_picture_of_the_original(tmp_path, codec):
    suffix = {"libx264": ".mp4", "mpeg4": ".avi", "libvpx-vp9": ".webm"}[codec]
    path = write_video(tmp_path / f"a{suffix}", codec=codec, num_frames=50, width=96, height=64, gop=25)
    out = encode(path, EncodeOptions(group_of_pictures=8))
    original = read_frames(path, np.arange).data
    with av.open(io.BytesIO(out.data)) as container:
        sequential = [
            frame.to_ndarray(format="rgb24").transpose(2, 0, 1) for frame in container.decode(video=0)
        ]
    assert len(original) == len(sequential) == out.num_frames == 50
    rng = np.random.default_rng(0)
    for _ in range(6):  # at random, and exact: as a plain decode of the packed file has it
        wanted = rng.integers(50, size=5)
        assert np.array_equal(read_frames(out.data, lambda _, w=wanted: w).data, np.stack(sequential)[wanted])
    levels = np.array([[psnr(a, b) for b in sequential] for a in original])  # (50, 50)
    assert np.array_equal(levels.argmax(axis=1), np.arange(50)), "each resembles its own frame most"
    assert levels.diagonal().min() > 30


def facts(data: bytes) -> tuple[str, str, list[int], bool, int]:
    """Codec, pixel format, places of key frames, whether there is sound, most frames between key frames."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        keys = [
            i for i, packet in enumerate(p for p in container.demux(stream) if p.size) if packet.is_keyframe
        ]
        name, form = stream.codec_context.name, stream.codec_context.pix_fmt
        return name, form, keys, bool(container.streams.audio), max(np.diff([*keys, stream.frames]))


@pytest.mark.parametrize("group", [1, 4, 12])
def test_the_form(tmp_path, group):
    path = write_video(tmp_path / "a.mp4", num_frames=40, width=640, height=360)
    out = encode(path, EncodeOptions(group_of_pictures=group))
    codec, form, keys, has_sound, longest = facts(out.data)
    assert (codec, form, keys[0], has_sound) == ("h264", "yuv420p", 0, False)
    assert longest <= group
    with VideoReader(out.data) as reader:
        assert (reader.width, reader.height) == (456, 256)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), (2, 2)),
        ((7, 5), (8, 4)),
        ((33, 21), (32, 20)),
        ((300, 301), (256, 256)),
        ((800, 260), (788, 256)),
    ],
)
def test_sizes_are_even_and_small_videos_stay_small(tmp_path, size, expected):
    width, height = size
    frames = [np.full((height, width, 3), 40 * i, np.uint8) for i in range(5)]
    path = write_video(tmp_path / "a.mkv", codec="ffv1", pix_fmt="bgr0", frames=frames)
    with VideoReader(encode(path, EncodeOptions()).data) as reader:
        assert (reader.width, reader.height) == expected
        levels = reader.read(range(5)).data.mean(axis=(1, 2, 3))
    assert np.abs(levels - [0, 40, 80, 120, 160]).max() < 4


def broken_off(path: Path) -> Path:
    """A file that ends in the middle."""
    whole = write_video(path, codec="mpeg4", num_frames=60, gop=12, format="matroska")
    os.truncate(whole, whole.stat().st_size * 2 // 3)
    return whole


def test_playing_gives_the_frames_of_reading(tmp_path):
    files = [
        write_video(tmp_path / "b.mp4", num_frames=30, gop=10, num_b_frames=2),
        write_video(tmp_path / "r.mp4", num_frames=5, rotation=90),
        write_video(tmp_path / "a.avi", codec="mpeg4", num_frames=30),
        broken_off(tmp_path / "broken.mkv"),
        *(DATA / "faults").glob("*.mp4"),
        *(DATA / "clips").glob("nasa*.mp4"),
    ]
    for path in files:
        with VideoReader(path) as reader:
            played = [*reader.play(FrameSize(short_side_px=32).of)]
        with VideoReader(path) as reader:
            read = reader.read(range(reader.num_frames), FrameSize(short_side_px=32))
        assert np.array_equal(np.stack([pixels for _, pixels in played]), read.data), path
        assert [seconds for seconds, _ in played] == read.pts_seconds.tolist(), path


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_videos_come_out_upright(tmp_path, rotation):
    path = write_video(tmp_path / "a.mp4", num_frames=4, width=64, height=48, rotation=rotation)
    out = encode(path, EncodeOptions())
    with VideoReader(out.data) as reader:
        assert (reader.width, reader.height) == ((64, 48) if rotation == 180 else (48, 64))
    shown, again = (read_frames(source, np.arange).data for source in (path, out.data))
    assert psnr(shown, again) > 30


def test_frame_times_are_kept(tmp_path):
    pts = [0, 1, 2, 7, 8, 20, 21, 22, 60, 61]
    path = write_video(tmp_path / "vfr.mp4", num_frames=10, pts=pts, fps=30)
    out = encode(path, EncodeOptions())
    seconds = read_frames(out.data, np.arange).pts_seconds
    assert seconds == pytest.approx(np.array(pts) / 30, abs=1 / 90000)


@pytest.mark.parametrize("name", ["h265_10bits.mp4", "rotated_90.mov", "flipping_a_pancake.mkv"])
def test_memory_that_nobody_has_written_changes_no_byte(name):
    """libx264's macroblock tree would read it: glibc fills fresh memory with another byte in each process."""
    path = DATA / "clips" / name
    if not path.exists():
        pytest.skip(f"needs {path}")
    code = (
        "import sys; from openxclip.video.encode import EncodeOptions, encode; "
        "sys.stdout.buffer.write(encode(sys.argv[1], EncodeOptions()).data)"
    )
    outs = {
        subprocess.run(
            [sys.executable, "-c", code, str(path)],
            env={**os.environ, "MALLOC_PERTURB_": fill},
            capture_output=True,
            check=True,
        ).stdout
        for fill in ("1", "170")
    }
    assert len(outs) == 1


def test_a_jump_of_the_time_stamps_is_no_time(tmp_path):
    path = write_video(tmp_path / "a.mkv", num_frames=6, pts=[0, 1, 2, 50_000_000, 50_000_001, 50_000_002])
    seconds = read_frames(encode(path, EncodeOptions()).data, np.arange).pts_seconds
    assert seconds[3] == pytest.approx(3600.08, abs=0.01)
    assert np.diff(seconds)[[0, 1, 3, 4]] == pytest.approx(0.04, abs=0.001)


@pytest.mark.parametrize("change", [{"short_side_px": 255}, {"group_of_pictures": 0}, {"quality": 52}])
def test_encode_options_are_checked(change):
    with pytest.raises(ConfigError):
        EncodeOptions(**change)


# The folder


def test_lists_come_out_as_they_went_in(data, folder):
    assert [*list_names(folder)] == ["train.txt", "val.txt"]
    for name in ("train.txt", "val.txt"):
        before, after = read_manifest(data, list_name=name), read_manifest(folder, list_name=name)
        lost = {"broken.mp4", "gone.mp4"}
        assert after.labels == before.labels
        assert [(i.path, i.label) for i in after.items] == [
            (i.path, i.label) for i in before.items if i.path not in lost
        ]
    assert read_manifest(folder, list_name="val.txt").fingerprint() == before.fingerprint()
    assert after.name == "all/val.txt"
    assert after.missing() == []


def test_every_video_is_the_one_of_its_path(data, folder):
    for item in read_manifest(folder, list_name="train.txt").items:
        original = read_frames(data / "videos" / item.path, np.arange).data
        frames = item.media.read(np.arange, FrameSize())
        assert frames.shape == original.shape
        assert psnr(frames, original) > 30


def test_each_video_is_packed_once_in_shards_of_bounded_size(folder):
    videos = read_index(folder)
    assert len({video.path for video in videos}) == len(videos) == 13
    assert [video.member for video in videos] == sorted(video.member for video in videos)
    shards = sorted((folder / "shards").iterdir())
    assert len(shards) > 3
    for number, shard in enumerate(shards):
        inside = [video for video in videos if video.shard == number]
        assert shard.stat().st_size <= SMALL_SHARDS.shard_bytes or len(inside) == 1
        with tarfile.open(shard, "r:") as archive:
            for video, info in zip(inside, archive, strict=True):
                assert (info.name, info.offset_data, info.size) == (
                    video.member,
                    video.offset_bytes,
                    video.size_bytes,
                )
                assert (info.uid, info.gid, info.mtime, info.uname) == (0, 0, 0, "")
                assert hashlib.sha256(archive.extractfile(info).read()).hexdigest() == video.sha256


def test_the_order_is_shuffled_by_the_seed(data, folder, tmp_path):
    packed(data, tmp_path / "other", replace(SMALL_SHARDS, seed=1))
    first, other = ([video.path for video in read_index(f)] for f in (folder, tmp_path / "other"))
    assert first != other
    assert sorted(first) == sorted(other)


def test_what_is_left_out_is_listed_with_its_reason(folder):
    reasons = dict(read_left_out(folder))
    assert reasons.keys() == {"broken.mp4", "gone.mp4"}
    assert "not a video" in reasons["broken.mp4"]
    assert "no such file" in reasons["gone.mp4"]


def test_the_number_of_processes_changes_no_byte(data, folder, tmp_path):
    summary = packed(data, tmp_path / "again", num_processes=1)
    assert content(tmp_path / "again") == content(folder)
    assert (summary.num_videos, summary.num_left_out, summary.num_encoded) == (13, 2, 15)
    assert summary.lists == {"train.txt": 14, "val.txt": 3}


def test_a_finished_packing_is_left_alone(data, folder):
    before = content(folder)
    assert packed(data, folder).num_encoded == 0
    assert content(folder) == before


def test_another_packing_and_foreign_folders_are_refused(data, folder, tmp_path):
    with pytest.raises(InputError, match="holds another packing: its quality is 20, not 30"):
        packed(data, folder, replace(SMALL_SHARDS, encode=EncodeOptions(quality=30)))
    (tmp_path / "data").symlink_to(data)
    shutil.copytree(data, tmp_path / "copy")
    with pytest.raises(InputError, match="holds another packing: its data is"):
        packed(tmp_path / "copy", folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds no packing, but thesis\.tex"):
        packed(data, tmp_path / "mine")
    with pytest.raises(InputError, match="is not a folder"):
        packed(data, tmp_path / "mine" / "thesis.tex")


def test_two_processes_do_not_pack_into_one_folder(data, tmp_path):
    steps = pack(read_data_set(data), tmp_path / "out", SMALL_SHARDS, 1)
    next(steps)
    with pytest.raises(InputError, match="another process packs into"):
        packed(data, tmp_path / "out")
    with pytest.raises(InputError, match="is not finished"):
        read_manifest(tmp_path / "out", list_name="val.txt")
    steps.close()
    packed(data, tmp_path / "out")


def test_a_flipped_byte_is_found_and_spoils_one_clip(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    video = read_index(copy)[2]
    with shard_path(copy, video.shard).open("r+b") as file:
        file.seek(video.offset_bytes + 100)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    assert [problem for video in read_index(copy) if (problem := damage(copy, video))] == [
        f"{video.path}: its bytes in {shard_path(copy, video.shard)} do not match the checksum in the index. "
        "Download the tar again"
    ]
    assert run(["pack", "--verify", str(copy)]) == 1
    assert run(["pack", "--verify", str(folder)]) == 0
    items = {item.path: item for item in read_manifest(copy, list_name="train.txt").items}
    with pytest.raises(VideoError, match="do not match the checksum"):
        items.pop(video.path).media.read(np.arange, FrameSize())
    for item in items.values():
        item.media.read(lambda _: np.array([0]), FrameSize())


def test_a_shard_that_is_cut_or_gone_is_a_clear_error(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    videos = read_index(copy)
    last = videos[-1]
    with shard_path(copy, last.shard).open("r+b") as file:
        file.truncate(last.offset_bytes + 10)
    shard_path(copy, 0).unlink()
    with pytest.raises(VideoError, match=r"ends in the middle"):
        last.media(copy).open()
    with pytest.raises(VideoError, match=r"00000\.tar cannot be read"):
        videos[0].media(copy).open()
    assert videos[0].media(copy).is_missing()
    assert not last.media(copy).is_missing()


def test_reading_names_what_is_wrong(folder, tmp_path):
    with pytest.raises(InputError, match=r"Say which list .*: train\.txt, val\.txt"):
        read_manifest(folder)
    with pytest.raises(InputError, match=r"There is no list test\.txt"):
        read_manifest(folder, list_name="test.txt")
    with pytest.raises(InputError, match="leave the media root out"):
        read_manifest(folder, list_name="val.txt", media_root=tmp_path)
    assert read_manifest(folder, list_name="val.txt", labels="one, two").labels == ("one", "two")
    with pytest.raises(InputError, match="is not a packed folder"):
        read_index(tmp_path)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "index.jsonl").write_text((copy / "index.jsonl").read_text()[:-20])
    with pytest.raises(InputError, match="line 13 is damaged"):
        read_manifest(copy, list_name="val.txt")


def test_a_packed_folder_can_be_packed_again(folder, tmp_path):
    summary = packed(folder, tmp_path / "small", PackOptions(encode=EncodeOptions(short_side_px=16)))
    assert (summary.num_videos, summary.num_left_out) == (13, 0)
    for name in ("train.txt", "val.txt"):
        assert (
            read_manifest(tmp_path / "small", list_name=name).fingerprint()
            == read_manifest(folder, list_name=name).fingerprint()
        )


def test_class_folders_rendered_clips_and_single_lists(data, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        write_video(tmp_path / "classes" / name / "1.mp4", num_frames=5)
    packed(tmp_path / "classes", tmp_path / "one")
    manifest = read_manifest(tmp_path / "one")
    assert [(i.path, i.label) for i in manifest.items] == [("a/1.mp4", 0), ("b/1.mp4", 1)]
    packed(data / "val.txt", tmp_path / "two")
    assert len(read_manifest(tmp_path / "two", list_name="val.txt").items) == 3
    shapes = read_data_set(Path("moving-shapes"), ["few-test"])
    (clips,) = shapes.lists.values()
    few = replace(shapes, lists={"few-test": replace(clips, items=clips.items[:2])})
    finished(pack(few, tmp_path / "three", None, 1))
    assert isinstance(read_manifest(tmp_path / "three").items[0].media, TarMember)


def test_the_videos_of_a_tar(data, tmp_path):
    with tarfile.open(tmp_path / "videos.tar", "w") as archive:
        archive.add(data / "videos" / "x", "x")
    (tmp_path / "labels.csv").write_text("id,name\n0,waves\n")
    (tmp_path / "some.txt").write_text("x/1.mp4 0\nx/9.mp4 0\n")
    data_set = read_data_set(tmp_path / "some.txt", media_root=tmp_path / "videos.tar")
    summary = finished(pack(data_set, tmp_path / "out", None, 1))
    assert (summary.num_videos, summary.num_left_out) == (1, 1)
    assert "no such member" in read_left_out(tmp_path / "out")[0][1]


def test_lists_with_other_labels_are_refused(data, tmp_path, monkeypatch):
    real = packing.read_manifest

    def other(path: Path, **options):
        manifest = real(path, **options)
        return replace(manifest, labels=("a", "b")) if options["list_name"] == "val.txt" else manifest

    monkeypatch.setattr(packing, "read_manifest", other)
    with pytest.raises(InputError, match="have different labels"):
        read_data_set(data)


def test_official_lists_are_found(tmp_path):
    (tmp_path / "classInd.txt").write_text("1 Archery\n")
    for name in ("trainlist01.txt", "testlist02.txt"):
        (tmp_path / name).write_text("Archery/a.avi\n")
    assert [*list_names(tmp_path)] == ["test2", "train1"]
    assert read_data_set(tmp_path).labels == ("archery",)


@pytest.mark.parametrize(
    ("text", "expected"), [("256MB", 256_000_000), ("1.5GB", 1_500_000_000), ("2KiB", 2048), ("77", 77)]
)
def test_sizes_in_bytes(text, expected):
    assert parse_bytes("--shard-size", text) == expected


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1TB", "1 iB"])
def test_other_sizes_are_refused(text):
    with pytest.raises(InputError, match="--shard-size must be a size"):
        parse_bytes("--shard-size", text)


# Processes that die


def _square_or_die(number: int) -> int:
    if number in (3, 4):
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_a_job_whose_process_dies_takes_no_other_with_it():
    assert [*in_order(_square_or_die, range(6), 2, crashed=-1)] == [0, 1, 4, -1, -1, 25]


# Training and evaluating


@pytest.fixture(scope="module")
def brightness(tmp_path_factory) -> tuple[Path, Path]:
    """Eight videos, four of them bright and four dark, and the same packed in several shards."""
    original = tmp_path_factory.mktemp("brightness") / "original"
    original.mkdir()
    lines = []
    for i in range(8):
        levels = np.linspace(10, 90, 10) + 140 * (i % 2)
        noise = np.random.default_rng(i).integers(-15, 15, size=(48, 64, 3))
        frames = [(level + noise).clip(0, 255).astype(np.uint8) for level in levels]
        write_video(original / f"{i}.mp4", frames=frames)
        lines.append(f"{i}.mp4 {i % 2}\n")
    (original / "labels.csv").write_text("id,name\n0,dark\n1,bright\n")
    (original / "train.txt").write_text("".join(lines))
    (original / "val.txt").write_text("".join(lines[:2]))
    folder = original.with_name("packed")
    finished(pack(read_data_set(original), folder, PackOptions(shard_bytes=20_000), 1))
    return original, folder


CONFIG = TrainConfig(
    recipe="test",
    model=TINY,
    num_frames=TINY.num_frames,
    data=DataConfig(train_list="train.txt", val_list="val.txt", num_workers=0, jitter_probability=0),
    optim=OptimConfig(
        epochs=30, learning_rate=1e-4, batch_size=4, warmup_epochs=1, factors=LearningRates(new=10, visual=1)
    ),
    mix=MixConfig(mixup_alpha=0, cutmix_alpha=0),
    precision="float32",
    seed=7,
)


def losses(output: Path) -> list[float]:
    rows = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [row["mean_loss"] for row in rows if "mean_loss" in row]


def test_a_packed_folder_trains_and_evaluates_like_the_original(brightness, tmp_path, capsys):
    original, folder = brightness
    for name, data in (("original", original), ("packed", folder)):
        train(CONFIG, data, tmp_path / name)
    first, again = losses(tmp_path / "original"), losses(tmp_path / "packed")
    assert again[-1] < again[0] - 0.2, again
    assert again[:5] == pytest.approx(first[:5], abs=0.05)  # pixels differ by a level or two
    top1 = []
    for data in (original, folder):
        arguments = ["evaluate", "supervised", "--model", str(tmp_path / "packed"), "--data", str(data)]
        assert run([*arguments, "--list", "train.txt", "--json"]) == 0
        top1.append(json.loads(capsys.readouterr().out)["models"][0]["figures"]["top-1"])
    assert top1[0] == top1[1] >= 0.75


def test_where_clips_are_augmented_changes_no_weight(brightness, tmp_path):
    for augment in ("workers", "device"):
        data = replace(CONFIG.data, augment=augment, order="shards", val_list=None)
        config = replace(CONFIG, data=data, optim=replace(CONFIG.optim, epochs=2))
        train(config, brightness[1], tmp_path / augment)
    first, other = (
        load_file(tmp_path / name / "last" / "model.safetensors") for name in ("workers", "device")
    )
    assert all(torch.equal(first[name], other[name]) for name in first)


def test_a_spoiled_clip_is_left_out_of_a_training(brightness, tmp_path):
    copy = Path(shutil.copytree(brightness[1], tmp_path / "copy"))
    video = read_index(copy)[0]
    with shard_path(copy, video.shard).open("r+b") as file:
        file.seek(video.offset_bytes + 50)
        file.write(bytes(20))
    config = replace(CONFIG, optim=replace(CONFIG.optim, epochs=1), data=replace(CONFIG.data, val_list=None))
    state = train(config, copy, tmp_path / "run")
    assert len(state.unreadable) == 1
    assert "do not match the checksum" in state.unreadable[0]


# The command, interrupted


def command(data: Path, output: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "openxclip",
        "pack",
        str(data),
        "--output",
        str(output),
        "--shard-size",
        "30KB",
        *more,
    ]


def test_the_command_says_what_it_did(data, tmp_path, capsys):
    assert run(command(data, tmp_path / "out", "--json", "--processes", "1")[3:]) == 1
    summary = json.loads(capsys.readouterr().out)
    assert (summary["num_videos"], summary["num_left_out"]) == (13, 2)
    assert run(command(data, tmp_path / "val", "--list", "val.txt", "--processes", "1")[3:]) == 0
    out = capsys.readouterr().out
    assert "2 videos" in out
    assert "list val.txt: 3 videos" in out
    assert run(["pack", str(data)]) == 2
    assert run(command(data, tmp_path / "new", "--short-side", "7")[3:]) == 2
    assert "even number" in capsys.readouterr().err


def test_the_defaults_of_the_command_are_those_of_the_library():
    assert _how(PackArguments(data=Path("any"))) == PackOptions()


def _kills(folder: Path, data: Path, num_kills: int) -> Iterator[int]:
    """Kill the command again and again, each time once it has written some more lines -> lines that were there."""
    rng = random.Random(0)
    journal = folder / "unfinished" / "journal.jsonl"
    for _ in range(num_kills):
        process = subprocess.Popen(command(data, folder), stderr=subprocess.DEVNULL, start_new_session=True)
        before = len(journal.read_bytes()) if journal.exists() else 0
        while process.poll() is None and (not journal.exists() or len(journal.read_bytes()) <= before):
            time.sleep(0.005)
        time.sleep(rng.random() * 0.1)
        process.kill()
        process.wait()
        yield len(journal.read_bytes().splitlines()) if journal.exists() else -1


@pytest.mark.slow
def test_killed_five_times_the_bytes_are_those_of_an_undisturbed_run(data, folder, tmp_path):
    lines = [*_kills(tmp_path / "out", data, 5)]
    assert len({*lines}) >= 2, lines
    assert subprocess.run(command(data, tmp_path / "out"), stderr=subprocess.DEVNULL).returncode == 1
    assert content(tmp_path / "out") == content(folder)


@pytest.mark.parametrize(
    ("num_done", "damage"),
    [
        (0, "none"),
        (4, "none"),
        (14, "none"),
        (15, "none"),
        (9, "half a line"),
        (9, "bytes of the shard lost"),
    ],
)
def test_a_packing_goes_on_from_any_state(data, folder, tmp_path, num_done, damage):
    """Every state that a killed process can leave, and one of a machine that lost power."""
    steps = pack(read_data_set(data), tmp_path / "out", SMALL_SHARDS, 1)
    for _ in range(num_done):
        next(steps)
    steps.close()
    unfinished = tmp_path / "out" / "unfinished"
    if damage == "half a line" and num_done:
        with (unfinished / "journal.jsonl").open("a") as file:
            file.write('{"path": "x/1')
    if damage == "bytes of the shard lost":
        for shard in unfinished.glob("*.tar"):
            os.truncate(shard, shard.stat().st_size // 2)
    packed(data, tmp_path / "out", num_processes=1)
    assert content(tmp_path / "out") == content(folder)


def test_a_finished_shard_that_is_gone_is_named(data, tmp_path):
    steps = pack(read_data_set(data), tmp_path / "out", SMALL_SHARDS, 1)
    for _ in range(14):
        next(steps)
    steps.close()
    shard_path(tmp_path / "out", 0).unlink()
    with pytest.raises(InputError, match=r"00000\.tar is missing; delete .* and pack again"):
        packed(data, tmp_path / "out")
