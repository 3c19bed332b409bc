"""Outputs appear whole or not at all."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from openxclip.files import atomic_folder, atomic_write, existing_folder, recover_folder


class InterruptionError(Exception):
    pass


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path):
    with atomic_write(tmp_path / "a.txt") as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("whole")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("started", [False, True])
def test_a_failed_write_leaves_the_old_file(started: bool, tmp_path: Path):
    (tmp_path / "a.txt").write_text("old")

    def write() -> None:
        with atomic_write(tmp_path / "a.txt") as temporary:
            if started:
                temporary.write_text("ha")
            raise InterruptionError

    with pytest.raises(InterruptionError):
        write()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_replaces_another_whole(tmp_path: Path):
    for content in ("first", "second"):
        with atomic_folder(tmp_path / "a") as temporary:
            (temporary / f"{content}.txt").write_text(content)
        assert names(tmp_path / "a") == [f"{content}.txt"]
    assert names(tmp_path) == ["a"]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path):
    with atomic_folder(tmp_path / "a") as temporary:
        (temporary / "old.txt").write_text("old")

    def write() -> None:
        with atomic_folder(tmp_path / "a") as temporary:
            (temporary / "new.txt").write_text("ha")
            raise InterruptionError

    with pytest.raises(InterruptionError):
        write()
    assert names(tmp_path / "a") == ["old.txt"]
    assert names(tmp_path) == ["a"]


def test_missing_parents_are_made(tmp_path: Path):
    with atomic_folder(tmp_path / "x" / "y"):
        pass
    assert (tmp_path / "x" / "y").is_dir()


def test_an_interruption_between_the_two_renames_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with atomic_folder(tmp_path / "a") as temporary:
        (temporary / "old.txt").write_text("old")
    rename, done = Path.rename, []

    def rename_once(self: Path, target: Path) -> Path:
        if done:
            raise InterruptionError
        done.append(target)
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename_once)
        with pytest.raises(InterruptionError), atomic_folder(tmp_path / "a"):
            pass
    assert names(tmp_path) == [".a.previous"]
    assert existing_folder(tmp_path / "a") == tmp_path / ".a.previous"
    assert names(tmp_path) == [".a.previous"]
    recover_folder(tmp_path / "a")
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["old.txt"]
    recover_folder(tmp_path / "a")  # with nothing to do it does nothing
    assert names(tmp_path / "a") == ["old.txt"]


def test_an_old_folder_left_beside_the_new_one_is_removed(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / ".a.previous").mkdir()
    recover_folder(tmp_path / "a")
    assert names(tmp_path) == ["a"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path):
    others = [".a", ".a.0123456", ".a.012345678", ".a.notes-00", ".b.01234567", ".a.x.01234567", "a.01234567"]
    for name in (".a.01234567", ".a.89abcdef", *others):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part.txt").write_text("half")
    (tmp_path / ".a.deadbeef").write_text("a file is not what a folder leaves")
    recover_folder(tmp_path / "a")
    assert names(tmp_path) == sorted([*others, ".a.deadbeef"])


def test_the_next_write_removes_what_a_killed_one_left(tmp_path: Path):
    command = (
        "import os, sys; from pathlib import Path; from openxclip.files import atomic_folder\n"
        "with atomic_folder(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", command, tmp_path / "[a]"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 1
    with atomic_folder(tmp_path / "[a]"):
        pass
    assert names(tmp_path) == ["[a]"]


def test_an_existing_folder_is_itself_and_what_is_none_is_none(tmp_path: Path):
    assert existing_folder(tmp_path) == tmp_path
    assert existing_folder(Path()) == Path()
    assert existing_folder(tmp_path / "a") is None
    (tmp_path / "a").write_text("a file")
    assert existing_folder(tmp_path / "a") is None


def test_permissions_are_those_of_any_new_file(tmp_path: Path):
    (tmp_path / "plain").mkdir()
    with atomic_folder(tmp_path / "a"):
        pass
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o007])
def test_modes_follow_the_umask(umask: int, tmp_path: Path):
    """Also of files that a library writes for its owner alone, as safetensors does."""
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_text("a")
            temporary.chmod(0o600)
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / "inner").mkdir()
            for path in (folder / "b.txt", folder / "inner" / "c.txt"):
                path.write_text("b")
                path.chmod(0o600)
    finally:
        os.umask(before)
    for name in ("a.txt", "folder/b.txt", "folder/inner/c.txt"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask, name
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask
