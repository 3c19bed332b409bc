"""The vocabulary of moving shapes: colours, shapes and motions, and their names."""

from dataclasses import dataclass

# sRGB, far enough apart to survive a video codec's coarse colours.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 35, 35),
    "orange": (245, 140, 20),
    "yellow": (240, 225, 40),
    "green": (40, 170, 60),
    "cyan": (50, 215, 225),
    "blue": (40, 70, 225),
    "purple": (150, 45, 200),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "ring", "bar", "triangle", "cross", "star")
MOTIONS = (
    "moving left",
    "moving right",
    "rising",
    "falling",
    "growing",
    "shrinking",
    "spinning clockwise",
    "spinning anticlockwise",
    "bouncing",
    "zigzagging",
    "orbiting",
)
OPPOSITES = {
    "moving left": "moving right",
    "rising": "falling",
    "growing": "shrinking",
    "spinning clockwise": "spinning anticlockwise",
}
"""Motions that are each other's reverse: the same frames in another order."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange", "amber"),
    "yellow": ("yellow", "lemon"),
    "green": ("green", "emerald"),
    "cyan": ("cyan", "turquoise"),
    "blue": ("blue", "navy"),
    "purple": ("purple", "violet"),
    "white": ("white", "snowy"),
    "circle": ("circle", "disc"),
    "ring": ("ring", "hoop"),
    "bar": ("bar", "stick"),
    "triangle": ("triangle", "pyramid"),
    "cross": ("cross", "plus sign"),
    "star": ("star", "pentagram"),
}
"""Synonyms in image captions; the first is used in class names."""

PARAPHRASES: dict[str, str] = {
    "moving left": "going to the left",
    "moving right": "going to the right",
    "rising": "moving up",
    "falling": "moving down",
    "growing": "getting bigger",
    "shrinking": "getting smaller",
    "spinning clockwise": "turning clockwise",
    "spinning anticlockwise": "turning anticlockwise",
    "bouncing": "hopping up and down",
    "zigzagging": "moving in a zigzag",
    "orbiting": "going round and round",
}
"""Other names of the motions; never used with training videos."""


@dataclass(frozen=True)
class ShapesClass:
    """One class: a colour, a shape and a motion."""

    colour: str
    shape: str
    motion: str

    @property
    def name(self) -> str:
        """The class name, e.g. "red star moving left"."""
        return f"{self.colour} {self.shape} {self.motion}"

    @property
    def paraphrase(self) -> str:
        """Another name of the class, e.g. "crimson pentagram going to the left"."""
        return f"{SYNONYMS[self.colour][1]} {SYNONYMS[self.shape][1]} {PARAPHRASES[self.motion]}"


ALL_CLASSES = tuple(ShapesClass(c, s, m) for m in MOTIONS for s in SHAPES for c in COLOURS)
"""Every combination, 528 of them."""


def shapes_descriptions() -> dict[str, tuple[str, ...]]:
    """Descriptions of every class of moving shapes, in the words of the captions."""
    return {kind.name: _described(kind) for kind in ALL_CLASSES}


def _described(kind: ShapesClass) -> tuple[str, ...]:
    """Two names of the object with two of the motion; always the same texts."""
    things = [f"{SYNONYMS[kind.colour][i]} {SYNONYMS[kind.shape][i]}" for i in (0, 1)]
    return tuple(
        f"a {thing} {motion}" for thing in things for motion in (kind.motion, PARAPHRASES[kind.motion])
    )
