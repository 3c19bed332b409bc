"""Graphs and calibrations kept on disk: writing them takes longer than most videos take to be recognised."""

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from filelock import FileLock

from openxclip.caches import cache_folder
from openxclip.files import atomic_folder
from openxclip.models import XCLIP
from openxclip.video.transforms import Preprocessor

VERSION = "1"  # of what is written for the same model
MAX_KEPT = 16
"""Folders; of more, the one that was used the longest ago is removed."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A folder with what was written."""

    folder: Path
    owner: TemporaryDirectory[str] | None = None
    """Holds the folder where there is no cache; it ends with this object."""


def kept(kind: str, key: str, write: Callable[[Path], None]) -> Kept:
    """The folder of a key, written if it is not there; of several processes one writes and the others wait.

    Args:
        kind: of what is kept, a folder of the cache.
        key: names all that it depends on.
        write: fills an empty folder.
    """
    cache = cache_folder()
    folder = None if cache is None else cache / kind / key
    if folder is not None and not _usable(folder.parent):
        folder = None
    if folder is None:
        owner = TemporaryDirectory(prefix="openxclip-")
        write(Path(owner.name))
        return Kept(folder=Path(owner.name), owner=owner)
    with FileLock(folder.with_name(f"{key}.lock"), mode=0o666):
        if not folder.is_dir():
            with atomic_folder(folder) as temporary:
                write(temporary)
            _forget_oldest(folder.parent)
    with suppress(OSError):  # a folder of another user
        os.utime(folder)
    return Kept(folder=folder)


def _usable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _forget_oldest(parent: Path) -> None:
    folders = sorted(
        (path for path in parent.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
    )
    for folder in folders[:-MAX_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)


def video_key(model: XCLIP, preprocess: Preprocessor, *others: object) -> str:
    """Names all that a model's video features in float32 depend on, and other plain values.

    The same weights have one name in whatever type they are held.
    """
    digest = hashlib.blake2b(VERSION.encode(), digest_size=16)
    digest.update(repr((model.config, preprocess, others)).encode())
    for name, tensor in model.state_dict().items():
        if not name.startswith(("text.", "logit_", "discrete.")):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
