"""Atomic outputs: files and folders are written under a temporary name, then renamed.

This guards against an interrupted process, not against power loss. Only one writer per name at a time. Permissions
follow the umask, even if a library would make the file readable by its owner only.
"""

import glob
import json
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from openxclip.errors import CheckpointError, InputError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it becomes `path` on success and is removed on failure."""
    temporary = _beside(path)
    temporary.touch()
    mode = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def held(lock_file: Path, refusal: str) -> Iterator[None]:
    """Hold a lock shared by the processes of this machine; the folder of its file must exist.

    Raises:
        InputError: another process holds it; `refusal` is the message.
    """
    # A generator may be driven from one thread and closed from another.
    lock = FileLock(lock_file, mode=0o666, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(refusal) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; it becomes `path` on success and is removed on failure.

    A folder cannot replace another in one step: an old `path` is first moved to `.NAME.previous` beside it. If the
    process dies between the two renames, only that is left, and `recover_folder` (or the next write) restores it.
    """
    recover_folder(path)
    temporary, previous = _beside(path), _previous(path)
    temporary.mkdir(parents=True)
    mode = stat.S_IMODE(temporary.stat().st_mode) & 0o666
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                file.chmod(mode)
        if path.exists():
            path.rename(previous)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if previous.exists():
        shutil.rmtree(previous)


def recover_folder(path: Path) -> None:
    """Undo an interrupted `atomic_folder`: the old folder gets its name back if that is free.

    Only for the single writer of that name: unfinished temporary folders are removed.
    """
    for abandoned in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}"):
        if abandoned.is_dir():
            shutil.rmtree(abandoned)
    previous = _previous(path)
    if not previous.exists():
        return
    if path.exists():
        shutil.rmtree(previous)
    else:
        previous.rename(path)


def existing_folder(path: Path) -> Path | None:
    """The folder, or the copy that an interrupted `atomic_folder` left; None if neither exists. Changes nothing."""
    if path.exists():
        return path if path.is_dir() else None
    previous = _previous(path)
    return previous if previous.is_dir() else None


POINTER = b"version https://git-lfs.github.com/spec/"
"""First bytes of the pointer file that git-lfs uses for a file that has not been fetched."""


def refuse_pointer(path: Path) -> None:
    """Refuse a file that git-lfs has not fetched yet.

    Raises:
        CheckpointError: it is a pointer; the message says how to get the file.
    """
    try:
        with path.open("rb") as file:
            is_pointer = file.read(len(POINTER)) == POINTER
    except OSError:
        return  # the reader of the file reports the problem
    if is_pointer:
        raise CheckpointError(
            f"{path} is only a git-lfs pointer to a file that has not been fetched: run `git lfs install` and "
            "`git lfs pull` in its folder, or download the file itself"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: the file is missing or holds something else.
    """
    refuse_pointer(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not a {type(values).__name__}")
    return values


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 text file; a byte order mark and Windows line ends are allowed.

    Raises:
        InputError: it cannot be read as such.
    """
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as UTF-8 text: {error}. Give a readable text file."
        ) from error


def is_file(text: str) -> bool:
    """Whether an argument names an existing file."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # a long list of labels exceeds the maximum file name length
        return False


def write_json(path: Path, values: dict[str, Any]) -> None:
    """JSON with indentation, for people."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")


def _previous(path: Path) -> Path:
    return path.with_name(f".{path.name}.previous")
