"""Moving shapes: every clip shows what its name says, no single frame tells opposites apart, no list overlaps."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openxclip.data.manifest import read_manifest
from openxclip.data.media import Manifest
from openxclip.data.moving_shapes import LIST_FILE, shapes_manifest, write_shapes
from openxclip.errors import InputError
from openxclip.shapes.captions import MOTION_SHARE, all_words, captioned_image
from openxclip.shapes.clip import NUM_FRAMES, VIDEO_SIDE_PX, ShapesClip
from openxclip.shapes.render import render
from openxclip.shapes.scene import (
    OTHER_BACKGROUNDS,
    USUAL_BACKGROUNDS,
    Background,
    Moments,
    Scene,
    Thing,
    draw_scene,
    path,
)
from openxclip.shapes.splits import LISTS, WORLD, WORLDS
from openxclip.shapes.words import (
    ALL_CLASSES,
    COLOURS,
    MOTIONS,
    OPPOSITES,
    PARAPHRASES,
    SHAPES,
    SYNONYMS,
    ShapesClass,
)
from openxclip.video.decode import read_frames

STAR = ShapesClass("red", "star", "moving left")
ALL_TIMES = np.linspace(0, 1, 33)
kinds = st.sampled_from(ALL_CLASSES)
keys = st.text(st.characters(codec="utf-8"), max_size=8)


def bare(motion: str, shape: str = "bar") -> Scene:
    """A white thing that starts in the middle of a black stage, upright, with nothing else on it."""
    black = (0.0, 0.0, 0.0)
    return replace(
        draw_scene(ShapesClass("white", shape, motion), np.random.default_rng(0), ("plain",)),
        thing=Thing(shape=shape, colour=(255.0, 255.0, 255.0), x=0.5, y=0.5, radius=0.2, angle=0.0),
        reach=0.8,
        moments=Moments(0.0, 0.0, 0.0, 0.0),
        phase=0.0,
        direction=1,
        distractors=(),
        background=Background(kind="plain", first=black, second=black, angle=0.0, period=1.0),
    )


# What a clip shows


@given(kinds, keys, st.booleans())
def test_equal_clips_show_the_same_at_any_time_and_size(kind, key, other_background):
    clip = ShapesClip(kind=kind, key=key, other_background=other_background)
    same = ShapesClip(kind=kind, key=key, other_background=other_background)
    assert clip.scene() == same.scene()
    frames = clip.frames(lambda length: np.array([3, length - 1]), 16)
    assert np.array_equal(frames, same.frames(lambda length: np.array([3, length - 1]), 16))
    assert (frames.shape, frames.dtype) == ((2, 16, 16, 3), np.uint8)
    alone = same.frames(lambda length: np.array([3]), 16)
    assert np.array_equal(frames[:1], alone), "a frame does not depend on which others are asked for"


def test_clips_of_other_keys_and_classes_differ():
    clips = [ShapesClip(kind=kind, key=key) for kind in ALL_CLASSES[:20] for key in ("train_0", "test_0")]
    shown = {hashlib.sha256(clip.frames(np.arange, 16).tobytes()).digest() for clip in clips}
    assert len(shown) == len(clips)


@given(kinds, keys)
def test_another_background_leaves_the_foreground_as_it_is(kind, key):
    usual = ShapesClip(kind=kind, key=key).scene()
    other = ShapesClip(kind=kind, key=key, other_background=True).scene()
    assert replace(other, background=usual.background) == usual
    assert usual.background.kind in USUAL_BACKGROUNDS
    assert other.background.kind in OTHER_BACKGROUNDS
    for before, after in zip(path(usual, ALL_TIMES), path(other, ALL_TIMES), strict=True):
        assert np.array_equal(before, after)


def test_the_usual_and_the_other_backgrounds_have_nothing_in_common():
    assert set(USUAL_BACKGROUNDS).isdisjoint(OTHER_BACKGROUNDS)


def test_all_that_can_be_drawn_is_drawn():
    rng = np.random.default_rng(0)
    scenes = [draw_scene(STAR, rng, USUAL_BACKGROUNDS) for _ in range(300)]
    assert {scene.background.kind for scene in scenes} == set(USUAL_BACKGROUNDS)
    assert {len(scene.distractors) for scene in scenes} == {1, 2, 3, 4}
    assert {thing.shape for scene in scenes for thing in scene.distractors} == set(SHAPES)
    assert {scene.direction for scene in scenes} == {-1, 1}


@pytest.mark.parametrize("kind", ALL_CLASSES[::23], ids=lambda kind: kind.name)
def test_the_thing_has_its_colour_and_stays_in_sight(kind):
    """Pixels nearer to the class's colour than to any other's are many in every frame."""
    palette = np.array(list(COLOURS.values()), float)
    clip = ShapesClip(kind=kind, key="sight")
    frames = clip.frames(np.arange, 48)
    bright = frames.max(axis=-1) > 0.55 * max(COLOURS[kind.colour])  # no background and no distractor
    directions = palette / np.linalg.norm(palette, axis=1, keepdims=True)
    nearest = (frames @ directions.T / np.maximum(np.linalg.norm(frames, axis=-1), 1)[..., None]).argmax(-1)
    index = list(COLOURS).index(kind.colour)
    area = (bright & (nearest == index)).mean(axis=(1, 2))
    assert area.min() > 0.01


# Shapes, read off the pixels


def covered(shape: str, share_of_radius: float) -> np.ndarray:
    """Whether each of 720 places on a circle around the thing's middle lies on the thing."""
    scene = bare("moving left", shape)
    where = path(scene, np.array([0.5]))
    frame = render(scene, np.array([0.5]), 512)[0].mean(axis=-1)
    turns = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    radius = share_of_radius * where.radius[0]
    x, y = where.x[0] + radius * np.cos(turns), where.y[0] + radius * np.sin(turns)
    return frame[(y * 512).astype(int), (x * 512).astype(int)] > 100


def num_arcs(on: np.ndarray) -> int:
    return int((on & ~np.roll(on, 1)).sum())


@pytest.mark.parametrize(
    ("shape", "arcs"), [("star", 5), ("cross", 4), ("triangle", 3), ("bar", 2), ("circle", 0), ("ring", 0)]
)
def test_a_circle_through_the_outer_part_crosses_each_tip_once(shape, arcs):
    assert num_arcs(covered(shape, 0.9)) == arcs


def test_only_the_ring_has_a_hole():
    for shape in SHAPES:
        assert covered(shape, 0.05).any() != (shape == "ring"), shape
    assert covered("ring", 0.9).all()
    assert covered("circle", 0.9).all()
    assert not covered("circle", 1.05).any()


# Motions, read off the pixels


def track(motion: str) -> dict[str, np.ndarray]:
    """Middle and area of the thing over time, and which way its darker half lies (all (T,))."""
    frames = render(bare(motion), ALL_TIMES, 128).mean(axis=-1)
    y, x = np.mgrid[:128, :128]
    found: dict[str, list[float]] = {"x": [], "y": [], "area": [], "angle": []}
    for frame in frames:
        bright, dark = frame > 210, (frame > 80) & (frame <= 210)
        thing = bright | dark
        found["x"].append(x[thing].mean())
        found["y"].append(y[thing].mean())
        found["area"].append(thing.sum())
        away = (y[dark].mean() - y[bright].mean(), x[dark].mean() - x[bright].mean())
        found["angle"].append(np.arctan2(*away))
    return {name: np.array(values) for name, values in found.items()} | {
        "angle": np.unwrap(np.array(found["angle"]))
    }


@pytest.mark.parametrize(
    ("motion", "what", "sign"),
    [
        ("moving left", "x", -1),
        ("moving right", "x", 1),
        ("rising", "y", -1),  # y counts downwards
        ("falling", "y", 1),
        ("growing", "area", 1),
        ("shrinking", "area", -1),
        ("spinning clockwise", "angle", 1),  # and so angles run clockwise
        ("spinning anticlockwise", "angle", -1),
    ],
)
def test_a_directed_motion_changes_one_thing_steadily(motion, what, sign):
    found = track(motion)
    steps = sign * np.diff(found[what])
    assert steps.min() > -1e-3 * abs(found[what]).max()
    assert steps.sum() > 0.15 * (np.ptp(found[what]) + abs(found[what]).mean())
    for other in {"x", "y", "angle"} - {what}:
        tolerance = 0.2 if other == "angle" else 1.5
        assert np.ptp(found[other]) < tolerance, f"{motion} changes {other}, too"


def num_turning_points(values: np.ndarray) -> int:
    steps = np.sign(np.diff(values))
    steps = steps[steps != 0]
    return int((steps[1:] != steps[:-1]).sum())


def test_undirected_motions():
    bouncing, zigzagging, orbiting = (path(bare(m), ALL_TIMES) for m in MOTIONS[-3:])
    assert num_turning_points(bouncing.y) >= 3
    assert np.ptp(bouncing.x) == 0
    assert num_turning_points(zigzagging.x) == 0
    assert num_turning_points(zigzagging.y) >= 3
    turned = np.unwrap(np.arctan2(orbiting.y - 0.5, orbiting.x - 0.5))
    assert abs(turned[-1] - turned[0]) >= 2 * np.pi
    assert num_turning_points(turned) == 0
    assert MOTIONS[-3:] == ("bouncing", "zigzagging", "orbiting")


# What a single frame tells


@given(st.sampled_from(sorted(OPPOSITES.items())), keys)
def test_opposites_are_each_others_reverse(pair, key):
    motion, opposite = pair
    scene = ShapesClip(kind=replace(STAR, motion=motion), key=key).scene()
    forwards, backwards = path(scene, ALL_TIMES), path(replace(scene, motion=opposite), 1 - ALL_TIMES)
    np.testing.assert_allclose(np.stack(forwards), np.stack(backwards), atol=1e-12)
    assert np.ptp(np.stack(forwards), axis=1).max() > 0


def poses(motion: str, seed: int, num_scenes: int = 1500) -> np.ndarray:
    """(N, 5) x, y, radius, angle of random scenes at random moments, and one product for their dependence."""
    rng = np.random.default_rng(seed)
    kind = replace(STAR, motion=motion)
    rows = []
    for _ in range(num_scenes):
        where = np.concatenate(path(draw_scene(kind, rng, ("plain",)), rng.uniform(0, 1, size=1)))
        rows.append([*where, (where[0] - 0.5) * (where[1] - 0.5)])
    return np.array(rows)


def largest_gap(first: np.ndarray, second: np.ndarray) -> float:
    """Kolmogorov and Smirnov's statistic: between the shares below a value, in two samples."""
    places = np.concatenate([first, second])
    below = [
        np.searchsorted(np.sort(sample), places, side="right") / len(sample) for sample in (first, second)
    ]
    return float(abs(below[0] - below[1]).max())


def test_a_single_frame_does_not_tell_directed_motions_apart():
    """Not opposites and not the four pairs either: whatever stands still stands as if it had moved.

    1.95 is the statistic's 99.9 % point; the seeds are fixed, so the test gives the same every time.
    """
    directed = [motion for pair in OPPOSITES.items() for motion in pair]
    samples = {motion: poses(motion, seed) for seed, motion in enumerate(directed)}
    limit = 1.95 * (2 / 1500) ** 0.5
    for first, second in combinations(directed, 2):
        gaps = [largest_gap(a, b) for a, b in zip(samples[first].T, samples[second].T, strict=True)]
        assert max(gaps) < limit, f"{first} and {second}: {gaps}"


def test_the_statistic_notices_what_is_different():
    bouncing, rising = poses("bouncing", 0, 500), poses("rising", 1, 500)
    assert largest_gap(bouncing[:, 1], rising[:, 1]) > 1.95 * (2 / 500) ** 0.5


# Words


def test_the_world_is_large_enough():
    assert (len(COLOURS), len(SHAPES), len(MOTIONS)) == (8, 6, 11)
    assert len(set(ALL_CLASSES)) == len({kind.name for kind in ALL_CLASSES}) == 528
    assert {kind.name for kind in ALL_CLASSES if kind.colour == "red" and kind.shape == "star"} == {
        f"red star {motion}" for motion in MOTIONS
    }


def test_every_class_has_another_name_of_its_own():
    others = [kind.paraphrase for kind in ALL_CLASSES]
    assert len(set(others)) == len(others)
    names = {kind.name for kind in ALL_CLASSES}
    assert names.isdisjoint(others)


def test_no_synonym_means_two_things():
    words = [word for alternatives in SYNONYMS.values() for word in alternatives]
    assert len(set(words)) == len(words)
    assert set(SYNONYMS) == {*COLOURS, *SHAPES}
    assert all(alternatives[0] == word for word, alternatives in SYNONYMS.items())
    assert set(PARAPHRASES) == set(MOTIONS)


def read_caption(text: str) -> tuple[str, str, list[str]]:
    """Which colour, shape and motions a caption names."""
    text = f" {text} "
    (colour,) = {c for c in COLOURS for word in SYNONYMS[c] if f" {word} " in text}
    (shape,) = {s for s in SHAPES for word in SYNONYMS[s] if f" {word} " in text}
    return colour, shape, [m for m in MOTIONS for phrase in (m, PARAPHRASES[m]) if f" {phrase} " in text]


def test_both_captions_of_a_still_name_what_it_shows_and_often_its_motion():
    rng = np.random.default_rng(0)
    num_with_motion, num_alike, texts, images = 0, 0, set(), set()
    for i in range(600):
        kind = ALL_CLASSES[i % len(ALL_CLASSES)]
        image, captions = captioned_image(kind, 16, rng)
        for caption in captions:
            colour, shape, motions = read_caption(caption)
            assert (colour, shape) == (kind.colour, kind.shape), caption
            assert motions in ([], [kind.motion]), caption
            num_with_motion += len(motions)
        assert (image.shape, image.dtype) == ((16, 16, 3), np.uint8)
        num_alike += captions[0] == captions[1]
        texts |= set(captions)
        images.add(image.tobytes())
    assert abs(num_with_motion / 1200 - MOTION_SHARE) < 0.05
    assert num_alike < 30, "two people, two captions"
    assert len(texts) > 1000
    assert len(images) == 600


def test_a_tokenizer_can_learn_from_every_word_of_the_captions():
    known = {word for text in all_words() for word in text.split()}
    rng = np.random.default_rng(0)
    captions = [c for i in range(300) for c in captioned_image(ALL_CLASSES[i], 8, rng).captions]
    names = [name for kind in ALL_CLASSES for name in (kind.name, kind.paraphrase)]
    assert {word for text in (*captions, *names) for word in text.split()} - known - {"over"} == set()


# Lists


worlds = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)


def looks(kinds: Sequence[ShapesClass]) -> set[tuple[str, str]]:
    """The colour-shape pairs among classes."""
    return {(kind.colour, kind.shape) for kind in kinds}


@worlds
def test_base_validation_and_novel_classes_are_all_and_share_no_colour_shape_pair(world):
    parts = [world.base, world.validation, world.novel]
    every = {kind for kind in ALL_CLASSES if kind.colour in world.colours and kind.shape in world.shapes}
    assert set().union(*parts) == every
    assert sum(map(len, parts)) == len(every)
    for first, second in combinations(parts, 2):
        assert looks(first).isdisjoint(looks(second))


@worlds
def test_every_colour_and_every_shape_is_trained_in_every_motion(world):
    assert {(kind.colour, kind.motion) for kind in world.base} == set(product(world.colours, MOTIONS))
    assert {(kind.shape, kind.motion) for kind in world.base} == set(product(world.shapes, MOTIONS))


@worlds
@pytest.mark.parametrize("part", ["base", "validation", "novel", "few_shot"])
def test_all_motions_of_a_colour_shape_pair_are_candidates_together(world, part):
    kinds = getattr(world, part)
    assert set(kinds) == {ShapesClass(*look, motion) for look in looks(kinds) for motion in MOTIONS}


@worlds
def test_novel_and_validation_classes_have_each_shape_once(world):
    for kinds in (world.novel, world.validation):
        assert sorted(shape for _, shape in looks(kinds)) == sorted(world.shapes)


def test_the_small_world_is_a_part_of_the_full_one():
    assert (WORLDS["full"].colours, WORLDS["full"].shapes) == (tuple(COLOURS), SHAPES)
    assert set(WORLDS["small"].colours) <= set(COLOURS)
    assert set(WORLDS["small"].shapes) < set(SHAPES)


@pytest.mark.parametrize(
    ("prefix", "num_base", "num_held_out", "num_base_clips"), [("", 396, 66, 2), ("small-", 198, 33, 2)]
)
def test_the_lists_have_these_numbers_of_classes_and_clips(prefix, num_base, num_held_out, num_base_clips):
    expected = {
        "train": (num_base, 100),
        "val": (num_held_out, 4),
        "test-base": (num_base, num_base_clips),
        "test-base-other-background": (num_base, num_base_clips),
        "test-novel": (num_held_out, 8),
        "test-novel-1": (num_held_out * 2 // 3, 8),
        "test-novel-2": (num_held_out * 2 // 3, 8),
        "test-novel-3": (num_held_out * 2 // 3, 8),
        "test-novel-other-background": (num_held_out, 8),
        "test-novel-paraphrased": (num_held_out, 8),
        "few-train": (33, 16),
        "few-val": (33, 8),
        "few-test": (33, 8),
    }
    names = [name for name in LISTS if name.startswith("small-") == (prefix == "small-")]
    assert names == [prefix + name for name in expected]
    for name, (num_classes, num_clips) in zip(names, expected.values(), strict=True):
        clips = shapes_manifest(name)
        assert (len(clips.labels), len(clips.items)) == (num_classes, num_classes * num_clips), name


@pytest.mark.parametrize("name", LISTS)
def test_a_list_has_clips_of_every_class_under_its_label(name):
    clips = shapes_manifest(name)
    assert clips.name == f"{WORLD}/{name}"
    assert len({item.path for item in clips.items}) == len(clips.items)
    assert len(set(Counter(item.label for item in clips.items).values())) == 1
    for item in clips.items:
        kind = item.media.kind
        expected = kind.paraphrase if name.endswith("paraphrased") else kind.name
        assert clips.labels[item.label] == expected
        assert item.media.other_background == name.endswith("other-background")


def sources(name: str) -> list[ShapesClip]:
    return [item.media for item in shapes_manifest(name).items]


prefixes = pytest.mark.parametrize("prefix", ["", "small-"])


@prefixes
def test_no_clip_is_in_two_lists_that_must_not_share_any(prefix):
    """Over any background: the scene, not the file, is what must not be known."""
    scenes = {
        name: {(clip.kind, clip.key) for clip in sources(prefix + name)}
        for name in ("train", "val", "test-base", "test-novel", "few-train", "few-val", "few-test")
    }
    for first, second in combinations(scenes, 2):
        assert scenes[first].isdisjoint(scenes[second]), f"{first} and {second}"


@prefixes
def test_lists_over_other_backgrounds_show_the_same_scenes_in_the_same_order(prefix):
    for name in (f"{prefix}test-base", f"{prefix}test-novel"):
        other = shapes_manifest(f"{name}-other-background")
        assert other.labels == shapes_manifest(name).labels
        assert [replace(clip, other_background=True) for clip in sources(name)] == [
            item.media for item in other.items
        ]


@prefixes
def test_paraphrased_clips_are_the_same_clips(prefix):
    assert sources(f"{prefix}test-novel-paraphrased") == sources(f"{prefix}test-novel")


@prefixes
def test_three_parts_of_the_novel_classes(prefix):
    parts = [set(shapes_manifest(f"{prefix}test-novel-{number}").labels) for number in (1, 2, 3)]
    novel = set(shapes_manifest(f"{prefix}test-novel").labels)
    assert all(part < novel for part in parts)
    assert len(set(map(frozenset, parts))) == 3


@worlds
def test_few_shot_classes_are_three_looks_that_are_not_novel(world):
    assert Counter(kind.motion for kind in world.few_shot) == dict.fromkeys(MOTIONS, 3)
    assert looks(world.few_shot).isdisjoint(looks(world.novel))


@pytest.mark.parametrize("name", ["test", None])
def test_a_list_that_is_none_is_refused_with_all_that_are(name):
    with pytest.raises(InputError, match=r"one of train, val, test-base, .*few-test") as error:
        read_manifest(Path(WORLD), list_name=name)
    assert ("Say which list" if name is None else "There is no list 'test'") in str(error.value)


def test_the_worlds_name_stands_for_its_lists_unless_there_is_such_a_folder(tmp_path, monkeypatch):
    assert read_manifest(Path(WORLD), list_name="val") == shapes_manifest("val")
    monkeypatch.chdir(tmp_path)
    (tmp_path / WORLD / "ski").mkdir(parents=True)
    (tmp_path / WORLD / "ski" / "a.mp4").touch()
    assert read_manifest(Path(WORLD)).labels == ("ski",)


# Files


def part_of(name: str, num_classes: int = 3) -> Manifest:
    """One clip of each of the first classes of a list."""
    whole = shapes_manifest(name)
    first = [next(item for item in whole.items if item.label == label) for label in range(num_classes)]
    return replace(whole, labels=whole.labels[:num_classes], items=tuple(first))


def test_a_video_file_shows_what_was_rendered():
    for item in part_of("test-novel", 4).items:
        rendered = item.media.frames(np.arange, VIDEO_SIDE_PX).astype(float)
        decoded = read_frames(item.media.encode(), np.arange).data.transpose(0, 2, 3, 1)
        assert decoded.shape == (NUM_FRAMES, VIDEO_SIDE_PX, VIDEO_SIDE_PX, 3)
        off = abs(decoded - rendered).mean(axis=(1, 2, 3))
        assert off.max() < 4  # of 255: H.264 keeps colours at half the resolution
        shuffled = abs(decoded - rendered[::-1]).mean()
        assert shuffled > off.mean(), "and in this order"


def test_written_clips_are_read_as_the_same_list(tmp_path):
    clips, told = part_of("test-novel-paraphrased"), []
    write_shapes(clips, tmp_path / "novel", lambda: told.append(None))
    read = read_manifest(tmp_path / "novel", list_name=LIST_FILE)
    assert read.labels == clips.labels
    assert [(item.path, item.label) for item in read.items] == [
        (item.path, item.label) for item in clips.items
    ]
    assert read.fingerprint() == clips.fingerprint()
    assert read.missing() == []
    assert len(told) == len(clips.items)
    for written, rendered in zip(read.items, clips.items, strict=True):
        assert written.media.path.read_bytes() == rendered.media.encode(), "the same clip gives the same file"


def test_an_interrupted_writing_leaves_nothing(tmp_path):
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shapes(part_of("val"), tmp_path / "val", interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [{"labels": "a, b"}, {"media_root": Path("videos")}])
def test_the_world_takes_no_labels_or_files_of_others(given):
    with pytest.raises(InputError, match="leave labels and media root out"):
        read_manifest(Path("moving-shapes"), list_name="val", **given)
