"""Parts of a manifest: few-shot draws, classes, and other label lists."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import DATA, needs_data

from openxclip.data.manifest import read_manifest
from openxclip.data.media import Item, Manifest, MissingMedia
from openxclip.data.subsets import few_shot, restrict, union, with_labels
from openxclip.errors import InputError

LABELS = ("archery", "surfing", "Tai Chi")


def make(labels: tuple[str, ...], videos_per_class: int) -> Manifest:
    """Videos of the classes taken in turn, each named by its class."""
    items = [
        Item(path=f"{label}/{number}.mp4", label=i, media=MissingMedia(""))
        for number in range(videos_per_class)
        for i, label in enumerate(labels)
    ]
    return Manifest(name="set/list.txt", labels=labels, items=tuple(items))


def paths(manifest: Manifest) -> list[str]:
    return [item.path for item in manifest.items]


@given(seed=st.integers(0, 2**40), num_shots=st.integers(1, 6))
def test_a_draw_is_of_one_size_repeats_and_nests(seed: int, num_shots: int) -> None:
    manifest = make(LABELS, 12)
    drawn = few_shot(manifest, num_shots, seed)
    assert Counter(item.label for item in drawn.items) == dict.fromkeys(range(3), num_shots)
    assert paths(drawn) == [path for path in paths(manifest) if path in set(paths(drawn))]  # the list's order
    assert few_shot(manifest, num_shots, seed) == drawn
    assert set(paths(drawn)) < set(paths(few_shot(manifest, 2 * num_shots, seed)))
    assert (drawn.labels, drawn.name) == (LABELS, f"set/list.txt, {num_shots} shots, seed {seed}")


@given(order=st.permutations(range(36)), extra=st.lists(st.sampled_from("xyz"), unique=True))
def test_a_class_draws_the_same_whatever_stands_around_it(order: list[int], extra: list[str]) -> None:
    manifest = make(LABELS, 12)
    labels = (*extra, *reversed(LABELS))
    other = make(tuple(extra), 12).items if extra else ()
    moved = [replace(item, label=len(labels) - 1 - item.label) for item in manifest.items]
    shuffled = Manifest(name="other", labels=labels, items=(*other, *(moved[i] for i in order)))
    expected = set(paths(few_shot(manifest, 4, seed=1)))
    assert {path for path in paths(few_shot(shuffled, 4, seed=1)) if path[0] not in "xyz"} == expected


def test_every_video_can_be_drawn_and_seeds_differ() -> None:
    manifest = make(LABELS, 12)
    draws = [frozenset(paths(few_shot(manifest, 4, seed))) for seed in range(40)]
    assert len(set(draws)) == 40
    assert frozenset.union(*draws) == set(paths(manifest))


def test_a_video_listed_twice_counts_as_listed() -> None:
    manifest = make(("archery",), 1)
    twice = replace(manifest, items=manifest.items * 2)
    assert len(few_shot(twice, 1, seed=0).items) == 1
    assert len(few_shot(twice, 2, seed=0).items) == 2


def test_too_few_videos_are_named() -> None:
    manifest = make(LABELS, 4)
    fewer = replace(manifest, items=tuple(item for item in manifest.items if item.path != "surfing/0.mp4"))
    with pytest.raises(InputError, match=r"set/list\.txt: 'surfing' has 3 videos, but 4 shots are requested"):
        few_shot(fewer, 4, seed=0)
    with pytest.raises(InputError, match="0 shots requested; at least 1"):
        few_shot(manifest, 0, seed=0)


def test_restrict_keeps_classes_in_the_given_order_and_spelling() -> None:
    part = restrict(make(LABELS, 2), ["tai chi", "archery"])
    assert part.labels == ("tai chi", "archery")
    assert [(item.path, item.label) for item in part.items] == [
        ("archery/0.mp4", 1),
        ("Tai Chi/0.mp4", 0),
        ("archery/1.mp4", 1),
        ("Tai Chi/1.mp4", 0),
    ]
    assert part.name == "set/list.txt, 2 of 3 classes"


def test_restrict_names_what_it_does_not_know() -> None:
    with pytest.raises(InputError, match=r"'serfing' is not among the labels of set/list\.txt.*'surfing'"):
        restrict(make(LABELS, 2), ["archery", "serfing"])
    with pytest.raises(InputError, match="occur more than once"):
        restrict(make(LABELS, 2), ["archery", "Archery"])


def test_with_labels_looks_ids_up() -> None:
    manifest = make(LABELS, 2)
    wide = with_labels(manifest, ["diving", "surfing", "tai chi", "archery"])
    assert [item.label for item in wide.items] == [3, 1, 2, 3, 1, 2]
    assert paths(wide) == paths(manifest)
    assert (wide.name, len(wide.labels)) == ("set/list.txt, among 4 labels", 4)
    with pytest.raises(InputError, match="'surfing' is not among the given labels"):
        with_labels(manifest, ["archery", "tai chi"])


def test_union_keeps_each_name_once() -> None:
    assert union(["b", "Tai Chi"], ["tai chi", "a", "B", "c"]) == ("b", "Tai Chi", "a", "c")


def test_restricting_what_was_widened_gives_it_back() -> None:
    manifest = make(LABELS, 3)
    back = restrict(with_labels(manifest, union(["diving"], LABELS)), LABELS)
    assert (back.items, back.labels) == (manifest.items, manifest.labels)


@needs_data("ucf8")
def test_real_lists() -> None:
    manifest = read_manifest(DATA / "ucf8", list_name="train_16shot.txt")
    assert few_shot(manifest, 16, seed=3).items == manifest.items
    assert len(few_shot(manifest, 2, seed=3).items) == 16
    assert few_shot(manifest, 2, seed=3).missing() == []
