"""Videos with labels, and where they are: a file, a member of a plain .tar, or a rendered clip, behind one protocol."""

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from openxclip.configuration import from_dict
from openxclip.errors import InputError, VideoError
from openxclip.shapes.clip import ShapesClip
from openxclip.video.convert import FrameSize
from openxclip.video.decode import read_frames
from openxclip.video.source import VideoLimits, VideoSource

Choose = Callable[[int], np.ndarray]
"""The length of a video in frames -> the wanted indices."""


class Media(Protocol):
    """A video, independent of its storage. Equal values are the same video; safe in any thread and process."""

    def read(
        self, choose: Choose, size: FrameSize, *, num_threads: int = 1, limits: VideoLimits | None = None
    ) -> np.ndarray:
        """Frames uint8 (T, 3, H, W) of the requested size.

        Raises:
            VideoError: the video cannot be read.
        """

    def source(self) -> VideoSource:
        """A video file, as a path or its bytes.

        Raises:
            VideoError: there is none.
        """

    def is_missing(self) -> bool:
        """Whether there is no such file or tar member."""

    def facts(self) -> dict[str, Any]:
        """Its location as plain values; `media_from` is the inverse."""


@dataclass(frozen=True)
class FileMedia:
    """A video file."""

    path: Path

    def read(
        self, choose: Choose, size: FrameSize, *, num_threads: int = 1, limits: VideoLimits | None = None
    ) -> np.ndarray:
        """Frames uint8 (T, 3, H, W)."""
        return read_frames(self.path, choose, size, num_threads=num_threads, limits=limits).data

    def source(self) -> VideoSource:
        """The path."""
        return self.path

    def is_missing(self) -> bool:
        """Whether there is no such file."""
        return not self.path.is_file()

    def facts(self) -> dict[str, Any]:
        """The absolute path."""
        return {"file": str(self.path.resolve())}


@dataclass(frozen=True, kw_only=True)
class TarMember:
    """A file inside a plain .tar, read by its offset: nothing is extracted and nothing stays open."""

    name: str
    tar: Path
    offset_bytes: int
    size_bytes: int
    sha256: str | None = None
    """Checksum of the file, if known; each read then verifies it."""

    def read(
        self, choose: Choose, size: FrameSize, *, num_threads: int = 1, limits: VideoLimits | None = None
    ) -> np.ndarray:
        """Frames uint8 (T, 3, H, W)."""
        return read_frames(self.open(), choose, size, num_threads=num_threads, limits=limits).data

    def open(self) -> bytes:
        """The bytes of the file.

        Raises:
            VideoError: the .tar cannot be read, is cut short, or holds different bytes than expected.
        """
        try:
            with self.tar.open("rb") as file:
                file.seek(self.offset_bytes)
                data = file.read(self.size_bytes)
        except OSError as error:
            raise VideoError(self.name, f"{self.tar} cannot be read ({error.strerror})") from error
        if len(data) < self.size_bytes:
            raise VideoError(self.name, f"{self.tar} ends in the middle of it. Download the tar again")
        if self.sha256 not in (None, hashlib.sha256(data).hexdigest()):
            raise VideoError(
                self.name,
                f"its bytes in {self.tar} do not match the checksum in the index. Download the tar again",
            )
        return data

    def source(self) -> VideoSource:
        """The bytes of the file."""
        return self.open()

    def is_missing(self) -> bool:
        """Whether the .tar is gone; the member was found in it."""
        return not self.tar.is_file()

    def facts(self) -> dict[str, Any]:
        """None: it is not a separate file."""
        return {"file": None}


@dataclass(frozen=True)
class MissingMedia:
    """A listed video that its .tar does not hold."""

    name: str

    def read(
        self, choose: Choose, size: FrameSize, *, num_threads: int = 1, limits: VideoLimits | None = None
    ) -> np.ndarray:
        """Always raises VideoError."""
        raise self._error()

    def _error(self) -> VideoError:
        return VideoError(self.name, "the tar has no such member. Correct the list or the media root")

    def source(self) -> VideoSource:
        """Always raises VideoError."""
        raise self._error()

    def is_missing(self) -> bool:
        """It is."""
        return True

    def facts(self) -> dict[str, Any]:
        """There is no file."""
        return {"file": None}


def media_from(facts: Mapping[str, Any], name: str) -> Media:
    """The video that `Media.facts` describes; `name` is for error messages.

    Raises:
        VideoError: the facts do not give the location of the video.
    """
    if facts.get("clip") is not None:
        return from_dict(ShapesClip, facts["clip"])
    if facts.get("file") is None:
        raise VideoError(name, "the evaluation does not say which file this video is")
    return FileMedia(Path(facts["file"]))


@dataclass(frozen=True, kw_only=True)
class Item:
    """One video and its label."""

    path: str
    """The path as written in the list."""
    label: int
    """Index into the labels of the manifest."""
    media: Media
    """The video itself."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Videos with labels. It is not yet known whether the files exist and can be decoded."""

    name: str
    """Name in messages and reports."""
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
                    f"{self.name}: {item.path} has label {item.label}; allowed are 0 to "
                    f"{len(self.labels) - 1}. Count ids from 0, and give the labels of this list."
                )

    def fingerprint(self) -> str:
        """A digest of all labels, paths and assignments; equal lists have equal ones."""
        rows = [[item.path, item.label] for item in self.items]
        return hashlib.sha256(json.dumps([self.labels, rows]).encode()).hexdigest()[:16]

    def missing(self) -> list[str]:
        """Paths, as written in the list, of the missing videos. Checks every file."""
        return [item.path for item in self.items if item.media.is_missing()]


@dataclass(frozen=True, kw_only=True)
class MediaRoot:
    """A folder or plain .tar of videos."""

    root: Path
    """The folder, or the .tar."""
    members: dict[str, TarMember] | None
    """The members of the .tar, by name; None for a folder."""

    def media(self, name: str) -> Media:
        """A listed video; this does not check whether a folder really has it."""
        if self.members is None:
            return FileMedia(self.root / name)
        return self.members.get(_member_key(name)) or MissingMedia(name)

    def folders(self) -> set[str]:
        """Names of the folders directly under the root."""
        if self.members is None:
            return {entry.name for entry in os.scandir(self.root) if entry.is_dir()}
        return {name.partition("/")[0] for name in self.members if "/" in name}


def find_media(folder: Path, media_root: Path | None) -> MediaRoot:
    """The videos of a list in `folder`; reads the headers of a .tar once."""
    root = find_media_root(folder, media_root)
    return MediaRoot(root=root, members=_tar_members(root) if root.is_file() else None)


def find_media_root(folder: Path, media_root: Path | None) -> Path:
    """The folder or .tar with the videos of a list in `folder`; by default `videos/` there, if it exists."""
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
    """Position of each regular file of a tar. Reads only the headers, once per manifest."""
    try:
        with tarfile.open(tar, "r:") as archive:
            return {
                _member_key(info.name): TarMember(
                    name=info.name, tar=tar, offset_bytes=info.offset_data, size_bytes=info.size
                )
                for info in archive
                if info.isreg() and not info.issparse()
            }
    except (OSError, tarfile.TarError) as error:
        raise InputError(
            f"Media root {tar} is neither a folder nor a plain .tar: {error}. Unpack it if it is compressed."
        ) from error
