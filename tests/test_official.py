"""The data sets' own files: the real lists as published, and small ones with their faults."""

import csv
import io
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import DATA, needs_data

from openxclip.data.manifest import read_manifest
from openxclip.data.media import Manifest
from openxclip.data.official import read_zero_shot_labels
from openxclip.data.subsets import few_shot, restrict
from openxclip.errors import InputError
from openxclip.text.labels import built_in_labels, read_label_file

SPLITS = DATA / "splits"
HEADER = "label,youtube_id,time_start,time_end,split\n"
KINETICS = HEADER + (
    "surfing water,-3B32lodo2M,59,69,val\n"
    '"abseiling",0347ZoDXyP0,95,105,train\n'
    "surfing water,_dbcJuKJQNs,0,10,train\n"
)


def paths(manifest: Manifest) -> list[str]:
    return [item.path for item in manifest.items]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@needs_data("splits")
@pytest.mark.parametrize(
    ("split", "num_train", "num_test"), [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)]
)
def test_ucf101_as_published(split: int, num_train: int, num_test: int) -> None:
    train = read_manifest(SPLITS / "ucf101", list_name=f"train{split}")
    test = read_manifest(SPLITS / "ucf101", list_name=f"test{split}")
    assert (len(train.items), len(test.items)) == (num_train, num_test)
    assert len(set(paths(train)) | set(paths(test))) == 13320
    assert {item.label for item in train.items} == {item.label for item in test.items} == set(range(101))
    lines = (SPLITS / "ucf101" / f"trainlist0{split}.txt").read_text().split("\n")
    listed = [(line.split()[0], int(line.split()[1]) - 1) for line in lines if line]
    assert [(item.path, item.label) for item in train.items] == listed  # the ids of the file, from 0


@needs_data("splits")
def test_ucf101_labels_are_the_built_in_ones_and_xclips() -> None:
    manifest = read_manifest(SPLITS / "ucf101", list_name="test1")
    assert list(manifest.labels) == built_in_labels("ucf101")
    theirs = read_label_file(SPLITS / "labels" / "ucf_101_labels.csv")
    assert [label.replace(" ", "") for label in manifest.labels] == [name.lower() for name in theirs]
    assert manifest.name == "ucf101/test1"
    given = read_manifest(SPLITS / "ucf101", list_name="test1", labels=SPLITS / "labels/ucf_101_labels.csv")
    assert (given.labels, given.items) == (tuple(theirs), manifest.items)


@needs_data("splits")
@pytest.mark.parametrize("split", [1, 2, 3])
def test_hmdb51_as_published(split: int) -> None:
    train = read_manifest(SPLITS / "hmdb51", list_name=f"train{split}")
    test = read_manifest(SPLITS / "hmdb51", list_name=f"test{split}")
    assert Counter(item.label for item in train.items) == dict.fromkeys(range(51), 70)
    assert Counter(item.label for item in test.items) == dict.fromkeys(range(51), 30)
    assert set(paths(train)).isdisjoint(paths(test))
    assert list(train.labels) == read_label_file(SPLITS / "labels" / "hmdb_51_labels.csv")
    for item in train.items:
        assert item.path.split("/")[0].replace("_", " ") == train.labels[item.label]
    assert len(few_shot(train, 16, seed=0).items) == 51 * 16


@needs_data("splits")
def test_the_zero_shot_splits_of_kinetics600() -> None:
    splits = read_zero_shot_labels(SPLITS / "k600_zero_shot")
    assert [len(labels) for labels in splits] == [160, 160, 160]
    assert len(set(splits)) == 3
    for labels in splits:
        assert set(labels) <= set(built_in_labels("kinetics600"))
        assert set(labels).isdisjoint(built_in_labels("kinetics400"))
    assert len(set().union(*splits)) == 217  # of the 220 classes that the paper counts as new


@needs_data("splits")
def test_a_zero_shot_split_of_a_validation_list(tmp_path: Path) -> None:
    """Two videos of each of the 600 classes, in the form of the published list."""
    with (tmp_path / "kinetics600_val.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER.strip().split(","))
        for number, label in enumerate(built_in_labels("kinetics600") * 2):
            writer.writerow([label, f"id{number:09d}", number, number + 10, "validate"])
    manifest = read_manifest(tmp_path / "kinetics600_val.csv", list_name="validate")
    assert list(manifest.labels) == built_in_labels("kinetics600")
    for labels in read_zero_shot_labels(SPLITS / "k600_zero_shot"):
        part = restrict(manifest, labels)
        assert part.labels == labels
        assert Counter(item.label for item in part.items) == dict.fromkeys(range(160), 2)
        assert all(item.path.startswith(f"{labels[item.label]}/") for item in part.items)


@pytest.fixture
def ucf(tmp_path: Path) -> Path:
    folder = tmp_path / "ucf"
    folder.mkdir()
    (folder / "classInd.txt").write_bytes(b"1 YoYo\r\n2 TaiChi\r\n")
    (folder / "trainlist01.txt").write_bytes(
        b"TaiChi/v_TaiChi_g08_c01.avi 2\r\nYoYo/v_YoYo_g08_c01.avi 1\r\n"
    )
    (folder / "testlist01.txt").write_text("YoYo/v_YoYo_g01_c01.avi\n")
    return folder


def test_ucf101_lists_of_its_own_classes(ucf: Path) -> None:
    train = read_manifest(ucf, list_name="train1")
    assert train.labels == ("yo yo", "tai chi")
    assert [item.label for item in train.items] == [1, 0]
    assert train.missing() == paths(train)
    touch(ucf / "videos", "TaiChi/v_TaiChi_g08_c01.avi")
    assert read_manifest(ucf, list_name="train1").missing() == ["YoYo/v_YoYo_g08_c01.avi"]


@needs_data("ucf8")
def test_real_videos_below_class_folders(ucf: Path, tmp_path: Path) -> None:
    real = next((DATA / "ucf8" / "videos").glob("v_Archery_g01*.avi"))
    (ucf / "classInd.txt").write_text("1 Archery\n")
    (ucf / "testlist01.txt").write_text(f"Archery/{real.name}\nArchery/v_Archery_g99_c01.avi\n")
    with tarfile.open(tmp_path / "UCF-101.tar", "w") as archive:
        archive.add(real, arcname=f"./Archery/{real.name}")
    manifest = read_manifest(ucf, list_name="test1", media_root=tmp_path / "UCF-101.tar")
    assert manifest.missing() == ["Archery/v_Archery_g99_c01.avi"]
    assert manifest.items[0].media.open() == real.read_bytes()


def test_ucf101_faults_are_named(ucf: Path) -> None:
    with pytest.raises(InputError, match=r"Say which list of .*ucf to read\. Its lists: test1, train1"):
        read_manifest(ucf)
    with pytest.raises(InputError, match=r"There is no list test2"):
        read_manifest(ucf, list_name="test2")
    with pytest.raises(InputError, match=r"has 2 classes, but 3 labels are given"):
        read_manifest(ucf, list_name="test1", labels="yo yo, tai chi, bow")
    (ucf / "testlist01.txt").write_text("YoYo/a.avi\nSurfing/b.avi\n")
    with pytest.raises(InputError, match=r"testlist01\.txt, line 2: 'Surfing' is not a class"):
        read_manifest(ucf, list_name="test1")
    (ucf / "testlist01.txt").unlink()
    with pytest.raises(InputError, match=r"There is no list test1 of .*Its lists: train1\."):
        read_manifest(ucf, list_name="test1")
    (ucf / "classInd.txt").write_text("0 YoYo\n1 TaiChi\n")
    with pytest.raises(InputError, match=r"classInd\.txt: expected lines of `id name`, the ids 1 to 2"):
        read_manifest(ucf, list_name="train1")


@pytest.fixture
def hmdb(tmp_path: Path) -> Path:
    folder = tmp_path / "hmdb"
    folder.mkdir()
    (folder / "kick_test_split1.txt").write_text("a name.avi 1 \nb.avi 2 \nc.avi 0 \n")
    (folder / "kick_ball_test_split1.txt").write_text("d#%[]&;!.avi 1 \n\n")
    (folder / "kick_test_split2.txt").write_text("c.avi 1 \n")
    return folder


def test_hmdb51_flags(hmdb: Path) -> None:
    train = read_manifest(hmdb, list_name="train1")
    assert {item.path: train.labels[item.label] for item in train.items} == {
        "kick/a name.avi": "kick",
        "kick_ball/d#%[]&;!.avi": "kick ball",
    }
    assert paths(read_manifest(hmdb, list_name="test1")) == ["kick/b.avi"]
    assert paths(read_manifest(hmdb, list_name="train2")) == ["kick/c.avi"]
    assert len(train.labels) == 51  # a folder that lacks classes does not make the choice easier
    touch(hmdb / "videos", "kick/a name.avi")
    assert read_manifest(hmdb, list_name="train1").missing() == ["kick_ball/d#%[]&;!.avi"]


def test_hmdb51_faults_are_named(hmdb: Path) -> None:
    with pytest.raises(InputError, match=r"There is no list test3.*Its lists: test1, test2, train1, train2"):
        read_manifest(hmdb, list_name="test3")
    with pytest.raises(InputError, match=r"hmdb/test2 holds no videos"):
        read_manifest(hmdb, list_name="test2")
    (hmdb / "kick_test_split1.txt").write_text("a.avi 1\nb.avi 3\n")
    with pytest.raises(InputError, match=r"kick_test_split1\.txt, line 2: expected `name\.avi flag`"):
        read_manifest(hmdb, list_name="train1")
    (hmdb / "kick_test_split1.txt").rename(hmdb / "kicking_test_split1.txt")
    with pytest.raises(InputError, match="'kicking' is not a class of HMDB-51"):
        read_manifest(hmdb, list_name="train1")


@pytest.fixture
def kinetics(tmp_path: Path) -> Path:
    folder = tmp_path / "annotations"
    folder.mkdir()
    (folder / "all.csv").write_text(KINETICS)
    return folder / "all.csv"


def test_kinetics_lists(kinetics: Path) -> None:
    train = read_manifest(kinetics, list_name="train")
    assert train.labels == ("abseiling", "surfing water")
    assert [(item.path, item.label) for item in train.items] == [
        ("abseiling/0347ZoDXyP0_000095_000105.mp4", 0),
        ("surfing water/_dbcJuKJQNs_000000_000010.mp4", 1),
    ]
    assert train.name == "annotations/all.csv, train"
    for name in ("val", "validate"):  # both have been published
        assert [item.label for item in read_manifest(kinetics, list_name=name).items] == [1]
    full = read_manifest(kinetics, list_name="train", labels="kinetics400")
    assert [full.labels[item.label] for item in full.items] == ["abseiling", "surfing water"]
    assert len(full.labels) == 400


def test_a_kinetics_list_with_one_split_needs_no_name(kinetics: Path) -> None:
    kinetics.with_name("train.csv").write_text(
        HEADER.strip() + ",is_cc\r\nsurfing water,_dbcJuKJQNs,0,10,train,1\r\n"
    )
    expected = ["surfing water/_dbcJuKJQNs_000000_000010.mp4"]
    assert paths(read_manifest(kinetics.with_name("train.csv"))) == expected
    assert paths(read_manifest(kinetics.parent, list_name="train.csv")) == expected  # a folder of lists
    with pytest.raises(InputError, match=r"Say which list of .*all\.csv to read: train, val\."):
        read_manifest(kinetics)
    with pytest.raises(InputError, match=r"There is no list test in .*Its lists: train, val\."):
        read_manifest(kinetics, list_name="test")


def test_kinetics_videos_in_class_folders_or_flat_or_in_a_tar(kinetics: Path, tmp_path: Path) -> None:
    names = ["0347ZoDXyP0_000095_000105.mp4", "_dbcJuKJQNs_000000_000010.mp4"]
    touch(tmp_path / "flat", *names)
    touch(tmp_path / "folders", f"abseiling/{names[0]}", f"surfing water/{names[1]}")
    with tarfile.open(tmp_path / "media.tar", "w") as archive:
        for name in (f"abseiling/{names[0]}", names[1]):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    for root in ("flat", "folders", "media.tar"):
        manifest = read_manifest(kinetics, list_name="train", media_root=tmp_path / root)
        assert manifest.missing() == []
        assert manifest.fingerprint() == read_manifest(kinetics, list_name="train").fingerprint()
    (tmp_path / "flat" / names[1]).unlink()
    assert read_manifest(kinetics, list_name="train", media_root=tmp_path / "flat").missing() == [
        f"surfing water/{names[1]}"
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("youtube_id,time_start,time_end,split\nabc,1,11,test\n", "lacks the columns label; test lists"),
        (HEADER + ",abc,1,11,test\n", r"line 2: expected values of label, youtube_id"),
        (HEADER + "surfing,abc,1,11,test\n\nsurfing,abc,1.5,11,test\n", r"line 4: expected"),
        (HEADER + "surfing,abc,1\n", r"line 2: expected"),
        (HEADER, "holds no videos"),
        (HEADER + '"' + "x" * 200_000 + '",abc,1,11,test\n', "is not valid CSV: field larger"),
    ],
)
def test_kinetics_faults_are_named(text: str, complaint: str, kinetics: Path) -> None:
    kinetics.write_text(text)
    with pytest.raises(InputError, match=rf"all\.csv.*{complaint}"):
        read_manifest(kinetics)


def test_labels_that_lack_a_class_are_refused(kinetics: Path) -> None:
    with pytest.raises(InputError, match=r"1 of its classes are not among the 2 labels, the first 'surfing"):
        read_manifest(kinetics, list_name="train", labels="abseiling, surfing")


@given(words=st.lists(st.from_regex(r"[A-Z][a-z]{1,5}", fullmatch=True), min_size=1, max_size=4))
def test_class_names_become_words(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("ucf")
    name = "".join(words)
    (folder / "classInd.txt").write_text(f"1 {name}\n")
    (folder / "testlist01.txt").write_text(f"{name}/a.avi\n")
    assert read_manifest(folder, list_name="test1").labels == (" ".join(words).lower(),)
