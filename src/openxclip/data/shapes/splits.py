"""The fixed lists of moving shapes: which classes are trained, which choose the settings, which are tested.

Classes are split by composition: every colour, shape and motion occurs in the base classes, but six colour-shape
pairs do so in no training clip and no caption: they are the novel classes, and six others the validation classes. All
motions of a pair are among the candidates, so that a class is told only by all three words.

    train                   base classes, 100 clips of each
    val                     validation classes, 4 clips of each: settings are chosen on these
    test-base               base classes, 2 other clips of each
    test-novel              novel classes, 8 clips of each
    test-novel-1, -2, -3    three draws of two thirds of the novel classes
    test-novel-paraphrased  the clips of test-novel under other names
    ...-other-background    the same scenes over backgrounds that training never shows
    few-train, -val, -test  33 classes for few-shot training, three colour-shape pairs in every motion
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from openxclip.data.items import Item, Manifest
from openxclip.data.shapes.clip import ShapesClip
from openxclip.data.shapes.words import ALL_CLASSES, COLOURS, MOTIONS, SHAPES, ShapesClass
from openxclip.errors import InputError

WORLD = "moving-shapes"
"""What stands for these lists where the path of a data set is expected."""

FEW_SHOT_PAIRS = (("red", "star"), ("blue", "ring"), ("green", "cross"))


def _kinds(first_colour: int) -> tuple[ShapesClass, ...]:
    """Six colour-shape pairs, each shape once and no colour twice, in every motion."""
    colours = list(COLOURS)
    pairs = [(colours[(first_colour + 3 * i) % len(colours)], shape) for i, shape in enumerate(SHAPES)]
    return tuple(ShapesClass(colour, shape, motion) for colour, shape in pairs for motion in MOTIONS)


NOVEL = _kinds(0)
VALIDATION = _kinds(4)
BASE = tuple(kind for kind in ALL_CLASSES if kind not in {*NOVEL, *VALIDATION})
FEW_SHOT = tuple(ShapesClass(colour, shape, motion) for colour, shape in FEW_SHOT_PAIRS for motion in MOTIONS)


def shapes_manifest(list_name: str | None) -> Manifest:
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
    other_background: bool = False,
    label: Callable[[ShapesClass], str] = lambda kind: kind.name,
) -> Manifest:
    """`keys` names the scenes: lists of the same keys and classes show the same."""
    return Manifest(
        name=f"{WORLD}/{name}",
        labels=tuple(label(kind) for kind in kinds),
        items=tuple(
            Item(
                path=f"{kind.name.replace(' ', '_')}/{keys}_{i}.mp4",
                label=index,
                source=ShapesClip(kind=kind, key=f"{keys}_{i}", other_background=other_background),
            )
            for index, kind in enumerate(kinds)
            for i in range(clips_per_class)
        ),
    )


def _novel_part(number: int) -> tuple[ShapesClass, ...]:
    chosen = np.random.default_rng(number).permutation(len(NOVEL))[: len(NOVEL) * 2 // 3]
    return tuple(NOVEL[i] for i in sorted(chosen))


def _other(name: str, kinds: Sequence[ShapesClass], clips_per_class: int) -> Manifest:
    return _clips(f"{name}-other-background", kinds, clips_per_class, keys="test", other_background=True)


LISTS: dict[str, Callable[[], Manifest]] = {
    "train": lambda: _clips("train", BASE, 100, keys="train"),
    "val": lambda: _clips("val", VALIDATION, 4, keys="val"),
    "test-base": lambda: _clips("test-base", BASE, 2, keys="test"),
    "test-base-other-background": lambda: _other("test-base", BASE, 2),
    "test-novel": lambda: _clips("test-novel", NOVEL, 8, keys="test"),
    "test-novel-1": lambda: _clips("test-novel-1", _novel_part(1), 8, keys="test"),
    "test-novel-2": lambda: _clips("test-novel-2", _novel_part(2), 8, keys="test"),
    "test-novel-3": lambda: _clips("test-novel-3", _novel_part(3), 8, keys="test"),
    "test-novel-other-background": lambda: _other("test-novel", NOVEL, 8),
    "test-novel-paraphrased": lambda: _clips(
        "test-novel-paraphrased", NOVEL, 8, keys="test", label=lambda kind: kind.paraphrase
    ),
    "few-train": lambda: _clips("few-train", FEW_SHOT, 16, keys="few_train"),
    "few-val": lambda: _clips("few-val", FEW_SHOT, 8, keys="few_val"),
    "few-test": lambda: _clips("few-test", FEW_SHOT, 8, keys="few_test"),
}
"""Name of the list -> its clips."""


def is_world(path: Path) -> bool:
    """Whether a data path means the rendered world; a file or folder of that name goes before it."""
    return str(path) == WORLD and not path.exists()
