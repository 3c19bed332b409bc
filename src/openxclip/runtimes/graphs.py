"""Disk cache of graphs and calibrations: writing them takes longer than recognising most videos."""

import hashlib
import importlib.metadata
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from filelock import FileLock

from openxclip import __version__
from openxclip.caches import cache_folder
from openxclip.files import atomic_folder
from openxclip.models import XCLIP
from openxclip.video.transforms import Preprocessor

logger = logging.getLogger(__name__)

MAX_KEPT = 16
"""Maximum number of folders; beyond it, the least recently used one is removed."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A folder with written files."""

    folder: Path
    owner: TemporaryDirectory[str] | None = None
    """The temporary folder if there is no cache; it is removed with this object."""


def kept(kind: str, key: str, write: Callable[[Path], None]) -> Kept:
    """The folder of a key, written if missing; one process writes and the others wait.

    Args:
        kind: what is cached; a folder of the cache.
        key: identifies everything that the content depends on.
        write: fills an empty folder.
    """
    cache = cache_folder()
    folder = None if cache is None else cache / kind / key
    if folder is not None and not _usable(folder.parent):
        folder = None
    if folder is None:
        logger.warning(
            "there is no writable cache, so %s are created again in each run; set $OPENXCLIP_CACHE to a "
            "folder",
            kind,
        )
        owner = TemporaryDirectory(prefix="openxclip-")
        write(Path(owner.name))
        return Kept(folder=Path(owner.name), owner=owner)
    with FileLock(folder.with_name(f"{key}.lock"), mode=0o666):
        if not folder.is_dir():
            with atomic_folder(folder) as temporary:
                write(temporary)
            _forget_oldest(folder.parent)
    with suppress(OSError):  # the folder belongs to another user
        os.utime(folder)
    return Kept(folder=folder)


def _usable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _forget_oldest(parent: Path) -> None:
    """Remove old folders. Other processes may do the same, and other users' files stay: neither is an error."""
    ages: list[tuple[float, Path]] = []
    for path in parent.iterdir():
        with suppress(OSError):
            if path.is_dir() and not path.name.startswith("."):
                ages.append((path.stat().st_mtime, path))
    for _, folder in sorted(ages)[:-MAX_KEPT]:
        with suppress(OSError):  # renamed first: an existing folder is always complete
            shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}.old")), ignore_errors=True)


def versions(*packages: str) -> tuple[tuple[str, str | None], ...]:
    """Versions of packages, for keys; None for one that is not installed."""
    found: list[tuple[str, str | None]] = []
    for package in packages:
        try:
            found.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            found.append((package, None))
    return tuple(found)


def video_key(model: XCLIP, preprocess: Preprocessor, *others: object) -> str:
    """A key from everything that a model's float32 video features depend on, this package's version, and other values.

    The same weights give the same key in every dtype.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((__version__, model.config, preprocess, others)).encode())
    for name, tensor in model.state_dict().items():
        if not name.startswith(("text.", "logit_", "discrete.")):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
