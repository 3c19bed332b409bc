"""Videos with labels, and where their files are: in a folder or inside a plain .tar."""

import hashlib
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from openxclip.data.shapes.clip import ShapesClip
from openxclip.errors import InputError, VideoError


@dataclass(frozen=True, kw_only=True)
class TarMember:
    """A file inside a tar, read by its place there: nothing is extracted and nothing stays open."""

    tar: Path
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Item:
    """One video and its label."""

    path: str
    """The video as the list names it."""
    label: int
    """Index into the labels of the manifest."""
    source: Path | TarMember | ShapesClip | None
    """Where the video is, or what renders it; None if the tar has no such member."""

    def open(self) -> Path | bytes:
        """What the decoder reads: the path, or the bytes of a tar member or of a rendered file.

        Safe in any thread and process.
        """
        if self.source is None:
            raise VideoError(self.path, "the tar holds no such member. Correct the list or the media root")
        if isinstance(self.source, Path):
            return self.source
        if isinstance(self.source, ShapesClip):
            return self.source.encode()
        try:
            with self.source.tar.open("rb") as file:
                file.seek(self.source.offset_bytes)
                data = file.read(self.source.size_bytes)
        except OSError as error:
            raise VideoError(self.path, f"{self.source.tar} cannot be read ({error.strerror})") from error
        if len(data) < self.source.size_bytes:
            raise VideoError(self.path, f"{self.source.tar} ends in the middle of it. Get the tar again")
        return data

    def is_missing(self) -> bool:
        """Whether there is no such file or tar member."""
        return self.source is None or (isinstance(self.source, Path) and not self.source.is_file())


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Videos with labels. Whether the files are there and can be decoded is not known yet."""

    name: str
    """What messages and reports call it."""
    labels: tuple[str, ...]
    """Class names in the order of their ids."""
    items: tuple[Item, ...]
    """The videos in the order of the list."""

    def __post_init__(self) -> None:
        if not self.items:
            raise InputError(
                f"{self.name} holds no videos. Give a list with at least one line, or folders of videos."
            )
        for item in self.items:
            if not 0 <= item.label < len(self.labels):
                raise InputError(
                    f"{self.name}: {item.path} has label {item.label}, allowed are 0 to "
                    f"{len(self.labels) - 1}. Count ids from 0, and give the labels of this list."
                )

    def fingerprint(self) -> str:
        """Changes with any label, path or assignment; equal lists have equal ones."""
        rows = [[item.path, item.label] for item in self.items]
        return hashlib.sha256(json.dumps([self.labels, rows]).encode()).hexdigest()[:16]

    def missing(self) -> list[str]:
        """Paths, as the list names them, of the videos that are not there. Looks at every file."""
        return [item.path for item in self.items if item.is_missing()]


@dataclass(frozen=True, kw_only=True)
class Media:
    """A folder or plain .tar of videos."""

    root: Path
    """The folder, or the .tar."""
    members: dict[str, TarMember] | None
    """What the .tar holds, by name; None for a folder."""

    def source(self, name: str) -> Path | TarMember | None:
        """Where a listed video is, or would be: whether a folder has it is not looked up here."""
        return self.root / name if self.members is None else self.members.get(_member_key(name))

    def folders(self) -> set[str]:
        """Names of the folders directly below the root."""
        if self.members is None:
            return {entry.name for entry in os.scandir(self.root) if entry.is_dir()}
        return {name.partition("/")[0] for name in self.members if "/" in name}


def find_media(folder: Path, media_root: Path | None) -> Media:
    """The videos of a list that lies in `folder`; reads the headers of a .tar once."""
    root = find_media_root(folder, media_root)
    return Media(root=root, members=_tar_members(root) if root.is_file() else None)


def find_media_root(folder: Path, media_root: Path | None) -> Path:
    """The folder or .tar below which the videos of a list in `folder` are: `videos/` there, if none is given."""
    if media_root is None:
        return folder / "videos" if (folder / "videos").is_dir() else folder
    if not media_root.exists():
        raise InputError(
            f"There is no media root {media_root}. Give the folder or .tar that holds the videos."
        )
    return media_root


def _member_key(name: str) -> str:
    return str(PurePosixPath(name))  # tars made with `tar cf x.tar .` write ./name


def _tar_members(tar: Path) -> dict[str, TarMember]:
    """Where each regular file of a tar lies. Reads the headers only, once per manifest."""
    try:
        with tarfile.open(tar, "r:") as archive:
            return {
                _member_key(info.name): TarMember(
                    tar=tar, offset_bytes=info.offset_data, size_bytes=info.size
                )
                for info in archive
                if info.isreg() and not info.issparse()
            }
    except (OSError, tarfile.TarError) as error:
        raise InputError(
            f"Media root {tar} is neither a folder nor a plain .tar: {error}. Unpack it if it is compressed."
        ) from error
