"""Manifests in their three forms, on real data, on generated files and out of a tar."""

import io
import pickle
import tarfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from paths import DATA, needs_data

from openxclip.data.checks import check_training_clips
from openxclip.data.manifest import VIDEO_SUFFIXES, read_manifest
from openxclip.data.media import FileMedia, Item, Manifest, TarMember
from openxclip.errors import InputError, VideoError
from openxclip.video.convert import FrameSize

UCF8 = DATA / "ucf8"
CONTENT = {
    "a/one clip.mp4": b"first",
    "a/two.mp4": b"second one",
    "b/three.avi": b"",
    "b/four.avi": b"x" * 5000,
}


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A folder with labels, two lists and no media."""
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "labels.csv").write_text("id,name\n0,archery\n1,surfing\n")
    lines = [f"{name} {'ab'.index(name[0])}" for name in CONTENT]
    (folder / "train.txt").write_bytes(("\ufeff" + "\r\n".join(lines) + "\r\n\r\n").encode())
    (folder / "test.txt").write_text("b/four.avi 1\n")
    return folder


def write_media(folder: Path) -> None:
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def write_tar(path: Path, prefix: str = "", mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in CONTENT.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@needs_data("ucf8")
@pytest.mark.parametrize(
    ("name", "per_class"), [("train_2shot.txt", 2), ("train_16shot.txt", 16), ("test.txt", 8)]
)
def test_real_lists(name: str, per_class: int) -> None:
    manifest = read_manifest(UCF8, list_name=name)
    assert manifest.name == f"ucf8/{name}"
    assert manifest.labels[0] == "archery"
    assert manifest.labels[7] == "push ups"
    assert Counter(item.label for item in manifest.items) == dict.fromkeys(range(8), per_class)
    assert manifest.missing() == []
    for item in manifest.items:  # the class is also in the file name
        assert f"v_{manifest.labels[item.label].replace(' ', '')}_" in item.path.lower()
    assert read_manifest(UCF8 / name) == manifest


def test_list_file(listed: Path) -> None:
    manifest = read_manifest(listed / "train.txt")
    assert manifest.name == "set/train.txt"
    assert manifest.labels == ("archery", "surfing")
    assert [(item.path, item.label) for item in manifest.items] == [
        ("a/one clip.mp4", 0),
        ("a/two.mp4", 0),
        ("b/three.avi", 1),
        ("b/four.avi", 1),
    ]
    assert manifest.items[0].media == FileMedia(listed / "a/one clip.mp4")
    assert manifest.missing() == list(CONTENT)
    write_media(listed)
    assert manifest.missing() == []
    assert manifest.items[0].media.facts() == {"file": str((listed / "a/one clip.mp4").resolve())}


def test_media_lie_in_videos_or_below_the_root(listed: Path, tmp_path: Path) -> None:
    write_media(listed / "videos")
    assert read_manifest(listed, list_name="train.txt").items[1].media == FileMedia(
        listed / "videos/a/two.mp4"
    )
    write_media(tmp_path / "elsewhere")
    manifest = read_manifest(listed, list_name="train.txt", media_root=tmp_path / "elsewhere")
    assert manifest.items[1].media == FileMedia(tmp_path / "elsewhere/a/two.mp4")
    assert manifest.missing() == []


def test_labels_can_be_given(listed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("bow\nboard\n")
    assert read_manifest(listed / "test.txt", labels=tmp_path / "mine.txt").labels == ("bow", "board")
    assert len(read_manifest(listed / "test.txt", labels="ucf101").labels) == 101
    (tmp_path / "one.txt").write_text("only one\n")
    with pytest.raises(InputError, match=r"four\.avi has label 1; allowed are 0 to 0.*from 0"):
        read_manifest(listed / "test.txt", labels=tmp_path / "one.txt")


def test_class_folders(tmp_path: Path) -> None:
    for name in (
        "surfing/b.MP4",
        "surfing/a.webm",
        "archery/c d.avi",
        "archery/notes.txt",
        "archery/._c d.avi",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.txt").write_text("not a list")
    manifest = read_manifest(tmp_path)
    assert manifest.name == tmp_path.name
    assert manifest.labels == ("archery", "surfing")
    assert [(item.path, item.label) for item in manifest.items] == [
        ("archery/c d.avi", 0),
        ("surfing/a.webm", 1),
        ("surfing/b.MP4", 1),
    ]
    assert manifest.missing() == []
    assert read_manifest(tmp_path, labels="surfing, archery").items[0].label == 1
    with pytest.raises(InputError, match="not labels: surfing"):
        read_manifest(tmp_path, labels="archery, diving")


def test_class_folders_below_videos_with_labels_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "videos" / "surfing").mkdir(parents=True)
    (tmp_path / "videos" / "surfing" / "a.mp4").touch()
    (tmp_path / "labels.csv").write_text("id,name\n0,diving\n1,surfing\n")
    manifest = read_manifest(tmp_path)
    assert manifest.labels == ("diving", "surfing")
    assert [(item.path, item.label) for item in manifest.items] == [("surfing/a.mp4", 1)]


def read_size(item: Item) -> int:
    return len(item.media.open())


@pytest.mark.parametrize("prefix", ["", "./"])
def test_media_in_a_tar(prefix: str, listed: Path, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "media.tar", prefix)
    manifest = read_manifest(listed / "train.txt", media_root=tar)
    assert manifest.missing() == []
    assert {item.path: item.media.open() for item in manifest.items} == CONTENT
    assert pickle.loads(pickle.dumps(manifest)) == manifest

    items = list(manifest.items) * 20
    expected = [len(CONTENT[item.path]) for item in items]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(read_size, items)) == expected
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        assert list(processes.map(read_size, items, chunksize=20)) == expected


@needs_data("ucf8")
def test_real_videos_in_a_tar(tmp_path: Path) -> None:
    """Bytes of a tar member are the bytes of the file."""
    plain = read_manifest(UCF8, list_name="train_2shot.txt")
    with tarfile.open(tmp_path / "media.tar", "w") as archive:
        for item in plain.items:
            archive.add(UCF8 / "videos" / item.path, arcname=item.path)
    packed = read_manifest(UCF8, list_name="train_2shot.txt", media_root=tmp_path / "media.tar")
    assert packed.missing() == []
    for one, other in zip(plain.items, packed.items, strict=True):
        assert one.media.path.read_bytes() == other.media.open()


def test_what_a_tar_lacks_is_missing(listed: Path, tmp_path: Path) -> None:
    tar = tmp_path / "media.tar"
    with tarfile.open(tar, "w") as archive:
        link = tarfile.TarInfo("a/two.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    manifest = read_manifest(listed / "train.txt", media_root=tar)
    assert manifest.missing() == list(CONTENT)
    with pytest.raises(VideoError, match=r"a/two\.mp4: the tar has no such member"):
        manifest.items[1].media.read(range, FrameSize())


def test_a_tar_that_shrank_or_went_is_reported(listed: Path, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "media.tar")
    item = read_manifest(listed / "test.txt", media_root=tar).items[0]
    assert isinstance(item.media, TarMember)
    tar.write_bytes(tar.read_bytes()[: item.media.offset_bytes + 10])
    with pytest.raises(VideoError, match=r"four\.avi: .*media\.tar ends in the middle"):
        item.media.read(range, FrameSize())
    tar.unlink()
    with pytest.raises(VideoError, match=r"four\.avi: .*media\.tar cannot be read"):
        item.media.read(range, FrameSize())


def test_media_roots_that_are_none(listed: Path, tmp_path: Path) -> None:
    zipped = write_tar(tmp_path / "media.tar.gz", mode="w:gz")
    for root, complaint in ((zipped, "neither a folder nor a plain"), (tmp_path / "absent", "no media root")):
        with pytest.raises(InputError, match=complaint):
            read_manifest(listed / "train.txt", media_root=root)
    (tmp_path / "clips" / "surfing").mkdir(parents=True)
    with pytest.raises(InputError, match=r"a \.tar needs a list"):
        read_manifest(tmp_path / "clips", media_root=write_tar(tmp_path / "media.tar"))


@pytest.mark.parametrize("line", ["a.mp4", "0", "a.mp4 x", "a.mp4 -1", "a.mp4 1.0", "a.mp4,1"])
def test_malformed_lines_are_named(line: str, listed: Path) -> None:
    (listed / "train.txt").write_text(f"a.mp4 0\n\n{line}\n")
    with pytest.raises(InputError, match=rf"train\.txt, line 3: expected .*{line}"):
        read_manifest(listed / "train.txt")


def test_a_label_beyond_the_set_is_named(listed: Path) -> None:
    (listed / "train.txt").write_text("a.mp4 0\nb.mp4 2\n")
    with pytest.raises(InputError, match=r"set/train\.txt: b\.mp4 has label 2; allowed are 0 to 1"):
        read_manifest(listed / "train.txt")


def test_empty_sets_are_refused(listed: Path, tmp_path: Path) -> None:
    (listed / "train.txt").write_text("\n \n")
    with pytest.raises(InputError, match=r"set/train\.txt holds no videos"):
        read_manifest(listed / "train.txt")
    (tmp_path / "folders" / "surfing").mkdir(parents=True)
    with pytest.raises(InputError, match=r"No class folder of .*folders holds a video: surfing"):
        read_manifest(tmp_path / "folders")
    with pytest.raises(InputError, match="has no class folders"):
        read_manifest(tmp_path / "folders" / "surfing")
    with pytest.raises(InputError, match="x holds no videos"):
        Manifest(name="x", labels=("a",), items=())


def test_wrong_paths_say_what_is_there(listed: Path) -> None:
    with pytest.raises(InputError, match=r"Say which list.*Lists found there: test\.txt, train\.txt"):
        read_manifest(listed)
    with pytest.raises(InputError, match=r"no list val\.txt.*Lists found there: test\.txt, train\.txt"):
        read_manifest(listed, list_name="val.txt")
    with pytest.raises(InputError, match=r"There is no .*absent"):
        read_manifest(listed / "absent")
    with pytest.raises(InputError, match="is already a list"):
        read_manifest(listed / "train.txt", list_name="test.txt")
    (listed / "labels.csv").unlink()
    with pytest.raises(InputError, match=r"train\.txt needs class names: put labels\.csv"):
        read_manifest(listed / "train.txt")


def test_suffixes_are_lower_case_with_a_dot() -> None:
    assert {".mp4", ".avi", ".mkv", ".mov", ".webm"} <= VIDEO_SUFFIXES
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in VIDEO_SUFFIXES)


def class_folders(root: Path, **files: list[str]) -> Path:
    """Class folders with files of these names; each file holds its own path."""
    for name, paths in files.items():
        (root / name).mkdir(parents=True)
        for path in paths:
            (root / name / path).parent.mkdir(exist_ok=True)
            (root / name / path).write_text(f"{name}/{path}")
    return root


def test_class_folders_without_a_video_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = class_folders(
        tmp_path, bow=["a.mp4", "b.GIF"], board=["deep/c.mp4"], sing=["d.heic", "e.xyz"], tai=[".hidden.mp4"]
    )
    manifest = read_manifest(root)
    assert [item.path for item in manifest.items] == ["bow/a.mp4", "bow/b.GIF"]
    assert caplog.messages == [
        f"3 class folders of {root} hold no video: board (its videos are in subfolders), "
        "sing (files that end in .heic, .xyz), tai (empty)"
    ]


def test_class_folders_without_any_video_are_refused(tmp_path: Path) -> None:
    root = class_folders(tmp_path, bow=["deep/a.mp4"], board=["b.xyz"])
    with pytest.raises(
        InputError, match=r"No class folder .* board \(files that end in \.xyz\), bow \(its videos"
    ):
        read_manifest(root)


def test_clips_of_one_class_are_refused(tmp_path: Path) -> None:
    root = class_folders(tmp_path, bow=["a.mp4", "b.mp4"], board=["c.xyz"])
    with pytest.raises(
        InputError, match="all 2 clips are of one class, 'bow', which leaves nothing to learn"
    ):
        check_training_clips(read_manifest(root))


def test_a_clip_under_two_labels_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = class_folders(tmp_path, bow=["a.mp4", "b.mp4"], board=["c.mp4", "d.mp4"])
    check_training_clips(read_manifest(root))
    assert caplog.messages == []
    (root / "board" / "c.mp4").write_text("bow/a.mp4")
    check_training_clips(read_manifest(root))
    (message,) = caplog.messages
    assert message.endswith("appear under two labels: board/c.mp4 (board) and bow/a.mp4 (bow)")
    caplog.clear()
    (tmp_path / "labels.csv").write_text("id,name\n0,x\n1,y\n")
    (tmp_path / "train.txt").write_text("bow/b.mp4 0\nboard/d.mp4 1\nbow/b.mp4 1\n")
    check_training_clips(read_manifest(tmp_path / "train.txt"))
    (message,) = caplog.messages
    assert (
        message
        == f"1 clips of {tmp_path.name}/train.txt appear under two labels: bow/b.mp4 (x) and bow/b.mp4 (y)"
    )


KINETICS_HEADER = "label,youtube_id,time_start,time_end,split"
KINETICS_ROWS = ("abseiling,0347ZoDXyP0,95,105,train", "surfing water,_dbcJuKJQNs,0,10,train")


def mutated(text: str, rng: np.random.Generator) -> str:
    """The text with one character changed, left out, doubled or put in."""
    at, other = int(rng.integers(len(text))), str(rng.choice(list("aX7 ,;:{[<'\t-\"")))
    return (
        text[:at] + other + text[at + 1 :],
        text[:at] + text[at + 1 :],
        text[:at] + text[at] + text[at:],
        text[:at] + other + text[at:],
    )[rng.integers(4)]


def outcome(path: Path) -> tuple[Manifest | None, str]:
    """The manifest, or the error."""
    try:
        return read_manifest(path), ""
    except InputError as error:
        return None, str(error)


def test_1000_damaged_headers_of_manifests_give_the_right_items_or_a_clear_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(500):
        header = mutated(KINETICS_HEADER, rng)
        path = tmp_path / "kinetics.csv"
        path.write_text("\n".join([header, *KINETICS_ROWS, ""]))
        manifest, error = outcome(path)
        if manifest is None:
            assert str(path) in error, header
            refused += 1
        else:
            assert manifest.labels == ("abseiling", "surfing water"), header
            assert [(item.path, item.label) for item in manifest.items] == [
                ("abseiling/0347ZoDXyP0_000095_000105.mp4", 0),
                ("surfing water/_dbcJuKJQNs_000000_000010.mp4", 1),
            ], header
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "train.txt").write_text("a b.mp4 1\nc.mp4 0\n")
    for _ in range(500):
        header = mutated("id,name", rng)
        (folder / "labels.csv").write_text(f"{header}\n0,abseiling\n1,surfing water\n")
        manifest, error = outcome(folder / "train.txt")
        if manifest is None:
            assert str(folder / "labels.csv") in error, header
            refused += 1
        else:
            assert manifest.labels == ("abseiling", "surfing water"), header
            assert [(item.path, item.label) for item in manifest.items] == [("a b.mp4", 1), ("c.mp4", 0)]
    assert 500 < refused < 1000
