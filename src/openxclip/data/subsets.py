"""Parts of a manifest, and manifests under other label lists. Class names are compared without regard to case."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace

from openxclip.data.media import Manifest
from openxclip.errors import InputError
from openxclip.text.labels import check_labels
from openxclip.wording import nearest

logger = logging.getLogger(__name__)


def without_missing(manifest: Manifest, skip_missing: bool) -> tuple[Manifest, list[str]]:
    """The existing videos, and the paths of the missing ones. Checks every file.

    Raises:
        InputError: all are missing, or some are and skipping is off.
    """
    missing = manifest.missing()
    if not missing:
        return manifest, []
    problem = missing_text(manifest, missing)
    if len(missing) == len(manifest.items):
        raise InputError(f"{problem}; say where they are with --media-root, or correct the list")
    if not skip_missing:
        raise InputError(
            f"{problem}; say where they are with --media-root, take them off the list, or train on the others with "
            "--set data.skip_missing=true"
        )
    logger.warning("%s; they are left out", problem)
    absent = set(missing)
    items = tuple(item for item in manifest.items if item.path not in absent)
    return replace(manifest, items=items), missing


def missing_text(manifest: Manifest, missing: Sequence[str]) -> str:
    """A message with the number of missing videos and the first of them."""
    total = len(manifest.items)
    return f"{manifest.name}: {len(missing)} of {total} videos are missing, the first is {missing[0]}"


def few_shot(manifest: Manifest, num_shots: int, seed: int) -> Manifest:
    """The same `num_shots` videos of each class for the same seed, independent of the other classes.

    The draw of a class depends only on the seed, its name and its paths; fewer shots are a subset of more.
    """
    if num_shots < 1:
        raise InputError(f"{manifest.name}: {num_shots} shots requested; at least 1 per class is needed.")
    ranked: list[list[tuple[bytes, int]]] = [[] for _ in manifest.labels]
    for place, item in enumerate(manifest.items):
        ranked[item.label].append((_rank(seed, manifest.labels[item.label], item.path), place))
    drawn: list[int] = []
    for name, candidates in zip(manifest.labels, ranked, strict=True):
        if len(candidates) < num_shots:
            raise InputError(
                f"{manifest.name}: {name!r} has {len(candidates)} videos, but {num_shots} shots are requested. "
                "Request fewer, or remove the class from the list."
            )
        drawn += [place for _, place in sorted(candidates)[:num_shots]]
    return replace(
        manifest,
        name=f"{manifest.name}, {num_shots} shots, seed {seed}",
        items=tuple(manifest.items[place] for place in sorted(drawn)),
    )


def restrict(manifest: Manifest, labels: Sequence[str]) -> Manifest:
    """Only the videos of these classes; ids and spelling are those of `labels`."""
    labels = check_labels(labels, f"classes of {manifest.name}")
    known = _ids(manifest.labels)
    for label in labels:
        _find(known, label, f"the labels of {manifest.name}")
    ids = _ids(labels)
    old_to_new = [ids.get(label.casefold()) for label in manifest.labels]
    return Manifest(
        name=f"{manifest.name}, {len(labels)} of {len(manifest.labels)} classes",
        labels=tuple(labels),
        items=tuple(
            replace(item, label=new) for item in manifest.items if (new := old_to_new[item.label]) is not None
        ),
    )


def with_labels(manifest: Manifest, labels: Sequence[str]) -> Manifest:
    """The same videos under a list of labels that contains all of theirs, and possibly more."""
    labels = check_labels(labels, f"labels for {manifest.name}")
    ids = _ids(labels)
    old_to_new = [_find(ids, label, "the given labels") for label in manifest.labels]
    return Manifest(
        name=f"{manifest.name}, among {len(labels)} labels",
        labels=tuple(labels),
        items=tuple(replace(item, label=old_to_new[item.label]) for item in manifest.items),
    )


def union(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    """The labels of both, the first list's before the second's; shared labels are spelt as in the first."""
    known = _ids(first)
    return (*first, *(label for label in second if label.casefold() not in known))


def _rank(seed: int, label: str, path: str) -> bytes:
    """A random rank of a video: the lowest of a class are drawn, independent of the list's order."""
    return hashlib.sha256(f"{seed}\n{label.casefold()}\n{path}".encode()).digest()


def _ids(labels: Sequence[str]) -> dict[str, int]:
    return {label.casefold(): i for i, label in enumerate(labels)}


def _find(ids: dict[str, int], label: str, among: str) -> int:
    if label.casefold() not in ids:
        raise InputError(
            f"{label!r} is not among {among} ({len(ids)}); the nearest is "
            f"{nearest(label, ids, cutoff=0.0)!r}. Correct the list of labels."
        )
    return ids[label.casefold()]
