"""Detects new, changed and deleted videos by fingerprints from their file systems.

Deleted videos are distinguished from unreachable ones: an outage must not empty an index.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from openxclip.data.manifest import VIDEO_SUFFIXES
from openxclip.errors import InputError
from openxclip.tagging.sources import Source, file_system, is_remote, list_sources

REQUESTS_AT_ONCE = 16
GONE = "there is no such file"
HTTP_GONE = (404, 410)


@dataclass(frozen=True)
class Look:
    """The state of some inputs, by path."""

    prints: dict[str, str] = field(default_factory=dict)
    """Fingerprints of the existing files."""
    gone: set[str] = field(default_factory=set)
    unknown: dict[str, str] = field(default_factory=dict)
    """Why the state of a file, shard or folder is unknown: it may exist."""

    def may_hold(self, path: str) -> bool:
        """Whether a video is in a folder or shard whose state is unknown, entirely or in part."""
        return any(path.startswith((f"{place}/", f"{place}::")) for place in self.unknown)


def root_of(inputs: str) -> str:
    """Inputs as named in the index, independent of the current folder."""
    return inputs.rstrip("/") if is_remote(inputs) else file_system(inputs)[1]


def listed(inputs: str, *, was_indexed: bool) -> list[Source]:
    """The videos of inputs, each once; none for an indexed folder that is now empty.

    Raises:
        InputError: there are none, or they cannot be listed.
    """
    inputs = inputs if is_remote(inputs) else root_of(inputs)
    try:
        file_system(inputs)[0].invalidate_cache()  # a long-lived process must see new files
        sources = list_sources(inputs)
    except InputError:
        if was_indexed and _is_emptied(inputs):
            return []
        raise
    except ImportError as error:
        raise InputError(f"{inputs}: {error}") from error
    return list({source.path: source for source in sources}.values())


def _is_emptied(inputs: str) -> bool:
    """Whether this is a folder that can be listed and holds no videos. Web servers do not list empty folders."""
    system, name = file_system(inputs)
    if _is_web(system) or (not is_remote(inputs) and not system.isdir(name)):
        return False
    try:
        found = [PurePosixPath(path) for path in system.find(name)]
    except Exception:  # noqa: BLE001 each store has its own errors; it is not reachable
        return False
    return not any(
        path.suffix.lower() in (*VIDEO_SUFFIXES, ".tar") and not path.name.startswith(".") for path in found
    )


def look_at(sources: Sequence[Source], listed_in: str | None = None) -> Look:
    """Fingerprints of inputs. A shard with many members is checked once.

    Args:
        sources: the inputs.
        listed_in: the address where they were just listed; facts from that listing are reused.
    """
    look = Look()
    fresh = {id(file_system(listed_in)[0])} if listed_in is not None else set()
    places: dict[str, tuple[Any, str]] = {}
    facts: dict[str, dict[str, Any] | str | None] = {}
    for address in {source.address for source in sources if source.problem is None}:
        try:
            places[address] = file_system(address)
            system = places[address][0]
            if id(system) not in fresh:
                system.invalidate_cache()
                fresh.add(id(system))
        except Exception as error:  # noqa: BLE001 no file system understands the address
            facts[address] = _reason(error)
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        found = pool.map(lambda place: _facts(*place), places.values())
        facts.update(zip(places, found, strict=True))
    for source in sources:
        known = facts[source.address] if source.problem is None else source.problem
        if known is None:
            look.gone.add(source.path)
        elif isinstance(known, str):
            look.unknown[source.path] = known
        else:
            look.prints[source.path] = f"{print_of(known)} {source.offset_bytes} {source.size_bytes}"
    return look


def _facts(system: Any, name: str) -> dict[str, Any] | str | None:
    """The file system's facts about a file; a text with the reason if unknown; None if there is no file."""
    try:
        return system.info(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not _is_web(system) or getattr(error.__cause__, "status", None) in HTTP_GONE:
            return None
        return _reason(error.__cause__ or error)
    except Exception as error:  # noqa: BLE001 each store has its own errors
        return _reason(error)


def print_of(facts: dict[str, Any]) -> str:
    """A fingerprint that changes with the contents of a file."""
    names = ("ETag", "mtime", "LastModified", "Last-Modified", "Content-MD5", "Digest", "created")
    when = next((facts[name] for name in names if facts.get(name)), None)
    return f"{facts.get('size')} {when}"


def _is_web(system: Any) -> bool:
    """Whether each file needs its own request, and an unreachable file looks like a deleted one."""
    return "http" in system.protocol


def _reason(error: BaseException) -> str:
    return f"it is unreachable ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
