"""The fixed lists of moving shapes: training, validation and test classes.

Classes are split by composition: every colour, shape and motion occurs in the base classes, but some colour-shape
pairs occur in no training clip and no caption: they form the novel and the validation classes. All motions of a pair
are among the candidates. A novel pair has its colour and its shape to itself: among the novel names either of them
identifies it. With the training names among the candidates, all three words are needed.

    train                   base classes, 100 clips of each
    val                     validation classes, 4 clips of each: for choosing settings
    test-base               base classes, 2 other clips of each
    test-novel              novel classes, 8 clips of each
    test-novel-1, -2, -3    three draws of two thirds of the novel classes
    test-novel-paraphrased  the clips of test-novel under other names
    ...-other-background    the same scenes over backgrounds that training never shows
    few-train, -val, -test  33 classes for few-shot training, three colour-shape pairs in every motion
    small-...               the same with fewer words, for ablations: 198 base classes, 33 novel ones
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from openxclip.errors import InputError
from openxclip.shapes.clip import ShapesClip
from openxclip.shapes.words import ALL_CLASSES, COLOURS, MOTIONS, SHAPES, ShapesClass

WORLD = "moving-shapes"
"""The name that selects these lists instead of the path of a dataset."""


@dataclass(frozen=True)
class World:
    """The classes of some colours and shapes, and those that are never used for training."""

    colours: tuple[str, ...]
    shapes: tuple[str, ...]

    @property
    def novel(self) -> tuple[ShapesClass, ...]:
        """Classes for testing, never for training."""
        return self._pairs_in_every_motion(0)

    @property
    def validation(self) -> tuple[ShapesClass, ...]:
        """Classes for choosing settings, never for training."""
        return self._pairs_in_every_motion(len(self.colours) // 2)

    @property
    def base(self) -> tuple[ShapesClass, ...]:
        """Trained."""
        held_out = {*self.novel, *self.validation}
        known = [k for k in ALL_CLASSES if k.colour in self.colours and k.shape in self.shapes]
        return tuple(kind for kind in known if kind not in held_out)

    @property
    def few_shot(self) -> tuple[ShapesClass, ...]:
        """Three of the pairs that are not novel, in every motion."""
        return self._pairs_in_every_motion(1)[: 3 * len(MOTIONS)]

    def _pairs_in_every_motion(self, first_colour: int) -> tuple[ShapesClass, ...]:
        """Colour-shape pairs with each shape once; another `first_colour` gives other pairs."""
        pairs = [
            (self.colours[(first_colour + 3 * i) % len(self.colours)], shape)
            for i, shape in enumerate(self.shapes)
        ]
        return tuple(ShapesClass(colour, shape, motion) for colour, shape in pairs for motion in MOTIONS)


WORLDS = {
    "full": World(tuple(COLOURS), SHAPES),
    "small": World(tuple(COLOURS), ("ring", "bar", "star")),
}
"""The world with all words, and the one with few."""


class ShapesRow(NamedTuple):
    """One clip of a list."""

    path: str
    """File name of the clip."""
    label: int
    """Index into the labels of the list."""
    clip: ShapesClip


class ShapesList(NamedTuple):
    """Labelled clips."""

    name: str
    labels: tuple[str, ...]
    rows: tuple[ShapesRow, ...]


def shapes_list(list_name: str | None) -> ShapesList:
    """A list of moving shapes by name.

    Raises:
        InputError: there is no such list.
    """
    if list_name not in LISTS:
        problem = "Say which list" if list_name is None else f"There is no list {list_name!r}"
        raise InputError(f"{problem} of {WORLD}: one of {', '.join(LISTS)}.")
    return LISTS[list_name]()


def _clips(
    name: str,
    kinds: Sequence[ShapesClass],
    clips_per_class: int,
    *,
    keys: str,
    other_background: bool,
    label: Callable[[ShapesClass], str],
) -> ShapesList:
    """`keys` selects the scenes: lists with the same keys and classes show the same."""
    rows = tuple(
        ShapesRow(
            f"{kind.name.replace(' ', '_')}/{keys}_{i}.mp4",
            index,
            ShapesClip(kind=kind, key=f"{keys}_{i}", other_background=other_background),
        )
        for index, kind in enumerate(kinds)
        for i in range(clips_per_class)
    )
    return ShapesList(f"{WORLD}/{name}", tuple(label(kind) for kind in kinds), rows)


def _part(kinds: Sequence[ShapesClass], number: int) -> tuple[ShapesClass, ...]:
    places = np.random.default_rng(number).permutation(len(kinds))[: len(kinds) * 2 // 3]
    return tuple(kinds[i] for i in sorted(places))


def _lists(prefix: str, world: World, base_test_clips: int) -> dict[str, Callable[[], ShapesList]]:
    """Name of each list -> function that builds it."""

    def clips(
        name: str,
        kinds: tuple[ShapesClass, ...],
        clips_per_class: int,
        keys: str,
        other_background: bool = False,
        label: Callable[[ShapesClass], str] = lambda kind: kind.name,
    ) -> dict[str, Callable[[], ShapesList]]:
        name = prefix + name
        make = partial(
            _clips, name, kinds, clips_per_class, keys=keys, other_background=other_background, label=label
        )
        return {name: make}

    base, novel, few = world.base, world.novel, world.few_shot
    return {
        **clips("train", base, 100, "train"),
        **clips("val", world.validation, 4, "val"),
        **clips("test-base", base, base_test_clips, "test"),
        **clips("test-base-other-background", base, base_test_clips, "test", other_background=True),
        **clips("test-novel", novel, 8, "test"),
        **clips("test-novel-1", _part(novel, 1), 8, "test"),
        **clips("test-novel-2", _part(novel, 2), 8, "test"),
        **clips("test-novel-3", _part(novel, 3), 8, "test"),
        **clips("test-novel-other-background", novel, 8, "test", other_background=True),
        **clips("test-novel-paraphrased", novel, 8, "test", label=lambda kind: kind.paraphrase),
        **clips("few-train", few, 16, "few_train"),
        **clips("few-val", few, 8, "few_val"),
        **clips("few-test", few, 8, "few_test"),
    }


LISTS = {**_lists("", WORLDS["full"], 2), **_lists("small-", WORLDS["small"], 2)}
"""Name of the list -> its clips."""
