"""Image-caption pairs: a still of a clip and a caption that a person might write.

As in web captions, motion words occur although a still hardly distinguishes motions, and the grammar is careless:
"a emerald ring", "a orange star going to the left".
"""

from typing import NamedTuple

import numpy as np

from openxclip.shapes.render import render
from openxclip.shapes.scene import USUAL_BACKGROUNDS, Scene, draw_scene, path
from openxclip.shapes.words import MOTIONS, PARAPHRASES, SYNONYMS, ShapesClass

OPENINGS = ("", "", "a ", "a photo of a ", "a picture of a ", "an image with a ", "look, a ")
MOTION_SHARE = 0.75
"""Share of captions that describe the motion."""


class CaptionedImage(NamedTuple):
    """A still and two captions of it."""

    image: np.ndarray
    """uint8 (S, S, 3)."""
    captions: tuple[str, str]


def captioned_image(kind: ShapesClass, side_px: int, rng: np.random.Generator) -> CaptionedImage:
    """One random moment of a random clip of the class."""
    scene = draw_scene(kind, rng, USUAL_BACKGROUNDS)
    time = rng.uniform(0, 1, size=1)
    captions = (caption(kind, scene, time, rng), caption(kind, scene, time, rng))
    return CaptionedImage(render(scene, time, side_px)[0], captions)


def caption(kind: ShapesClass, scene: Scene, time: np.ndarray, rng: np.random.Generator) -> str:
    """A caption: always colour and shape; sometimes size, place, background and motion."""
    where = path(scene, time)
    words = [str(rng.choice(SYNONYMS[kind.colour])), str(rng.choice(SYNONYMS[kind.shape]))]
    if rng.random() < 0.5 and (size := _size(float(where.radius[0]))):
        words.insert(0, size)
    if rng.random() < MOTION_SHARE:
        words.append(str(rng.choice((kind.motion, PARAPHRASES[kind.motion]))))
    if rng.random() < 0.7 and (place := _place(float(where.x[0]), float(where.y[0]))):
        words.append(place)
    if rng.random() < 0.3:
        words.append(f"over {_BACKGROUND_WORDS[scene.background.kind]}")
    return str(rng.choice(OPENINGS)) + " ".join(words)


def all_words() -> list[str]:
    """Texts with every word of captions and class names, to train a tokenizer on."""
    words = [word for alternatives in SYNONYMS.values() for word in alternatives]
    return [
        *words,
        *MOTIONS,
        *PARAPHRASES.values(),
        *OPENINGS[2:],
        *_SIZES,
        *_PLACES,
        *_BACKGROUND_WORDS.values(),
    ]


_SIZES = ("small", "big")
_PLACES = ("at the top", "at the bottom", "on the left", "on the right", "in the middle")
_BACKGROUND_WORDS = {
    "plain": "a plain background",
    "gradient": "a soft background",
    "stripes": "stripes",
    "checks": "a chessboard",
}


def _size(radius: float) -> str | None:
    if radius < 0.2:
        return "small"
    return "big" if radius > 0.27 else None


def _place(x: float, y: float) -> str | None:
    if max(abs(x - 0.5), abs(y - 0.5)) < 0.08:
        return "in the middle"
    if abs(abs(x - 0.5) - abs(y - 0.5)) < 0.05:
        return None
    if abs(x - 0.5) > abs(y - 0.5):
        return "on the left" if x < 0.5 else "on the right"
    return "at the top" if y < 0.5 else "at the bottom"
