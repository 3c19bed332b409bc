"""A scene: the content of a clip, drawn once from a random generator; time runs from 0 to 1.

Lengths are shares of the frame's side, angles are radians (clockwise on the screen), x grows to the right and y
downwards.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from openxclip.shapes.words import COLOURS, SHAPES, ShapesClass

USUAL_BACKGROUNDS = ("plain", "gradient", "stripes", "checks")
OTHER_BACKGROUNDS = ("dots", "waves")
"""Never used in training: for evaluating the same motion over another background."""

Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Background:
    """A still pattern of two dull colours."""

    kind: str
    first: Colour
    second: Colour
    angle: float
    period: float
    """Period of the pattern."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A shape and its rest position."""

    shape: str
    colour: Colour
    x: float
    y: float
    radius: float
    angle: float


class Moments(NamedTuple):
    """For each property, a moment of its movement, -0.5 to 0.5.

    Properties that a motion does not change are fixed at this moment of their movement. So positions, sizes and angles
    have the same distribution for the eight motions that have an opposite, and no single frame reveals which of these
    it is. Bouncing, zigzagging and orbiting favour some positions, so a frame reveals a little about them.
    """

    x: float
    y: float
    size: float
    angle: float


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A moving object among smaller still ones, over a background."""

    thing: Thing
    motion: str
    reach: float
    """The extent of movements, 0.6 to 1 of the largest. All take the same time, so this also sets their speed."""
    moments: Moments
    """Fixed values of the properties that do not move."""
    phase: float
    """Phase of a repeated motion at the start of the clip, 0 to 1."""
    direction: int
    """1 or -1, for motions that have no direction in their name."""
    distractors: tuple[Thing, ...]
    background: Background


class Path(NamedTuple):
    """Position of the moving object at each of T times."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray


def draw_scene(kind: ShapesClass, rng: np.random.Generator, backgrounds: tuple[str, ...]) -> Scene:
    """A random scene of a class.

    The background is drawn last: the same generator with other `backgrounds` gives the same foreground.
    """
    thing = Thing(
        shape=kind.shape,
        colour=_shade(COLOURS[kind.colour], rng),
        x=rng.uniform(0.42, 0.58),
        y=rng.uniform(0.42, 0.58),
        radius=rng.uniform(0.2, 0.27),
        angle=rng.uniform(-0.2, 0.2),
    )
    return Scene(
        thing=thing,
        motion=kind.motion,
        reach=rng.uniform(0.6, 1.0),
        moments=Moments(*rng.uniform(-0.5, 0.5, size=4).tolist()),
        phase=rng.uniform(0, 1),
        direction=int(rng.choice((-1, 1))),
        distractors=tuple(_distractor(rng) for _ in range(rng.integers(1, 5))),
        background=_background(rng, backgrounds),
    )


def path(scene: Scene, times: np.ndarray) -> Path:
    """The moving object at `times` (T,) in 0..1."""
    now = times - 0.5
    x, y, size, angle = (np.full_like(times, moment) for moment in scene.moments)
    turns, sign = times + scene.phase, scene.direction
    match scene.motion:
        case "moving left":
            x = -now
        case "moving right":
            x = now
        case "rising":
            y = -now
        case "falling":
            y = now
        case "growing":
            size = now
        case "shrinking":
            size = -now
        case "spinning clockwise":
            angle = now
        case "spinning anticlockwise":
            angle = -now
        case "bouncing":
            y = 0.5 - np.abs(np.sin(3 * np.pi * turns))
        case "zigzagging":
            x, y = sign * now, 0.4 * _triangle(2.5 * turns)
        case "orbiting":
            x, y = 0.45 * np.cos(sign * 2.2 * np.pi * turns), 0.45 * np.sin(sign * 2.2 * np.pi * turns)
        case _:
            raise AssertionError(scene.motion)
    thing, reach = scene.thing, scene.reach
    return Path(
        x=thing.x + 0.5 * reach * x,
        y=thing.y + 0.5 * reach * y,
        radius=thing.radius * np.exp(reach * size),
        angle=thing.angle + 1.8 * reach * angle,
    )


def _triangle(turns: np.ndarray) -> np.ndarray:
    """A triangle wave between -1 and 1, one period per turn."""
    return 4 * np.abs(turns % 1 - 0.5) - 1


def _shade(colour: tuple[int, int, int], rng: np.random.Generator) -> Colour:
    """A slightly changed colour: lighter or darker, and shifted."""
    r, g, b = np.clip(np.array(colour) * rng.uniform(0.85, 1.0) + rng.uniform(-12, 12, 3), 0, 255)
    return float(r), float(g), float(b)


def _dull(rng: np.random.Generator) -> Colour:
    r, g, b = rng.uniform(35, 130) + rng.uniform(-25, 25, 3)
    return float(r), float(g), float(b)


def _distractor(rng: np.random.Generator) -> Thing:
    return Thing(
        shape=str(rng.choice(SHAPES)),
        colour=_dull(rng),
        x=rng.uniform(0.05, 0.95),
        y=rng.uniform(0.05, 0.95),
        radius=rng.uniform(0.04, 0.08),
        angle=rng.uniform(0, 2 * np.pi),
    )


def _background(rng: np.random.Generator, kinds: tuple[str, ...]) -> Background:
    first = _dull(rng)
    r, g, b = np.clip(np.array(first) + rng.uniform(-40, 40) + rng.uniform(-10, 10, 3), 0, 255)
    return Background(
        first=first,
        second=(float(r), float(g), float(b)),
        angle=rng.uniform(0, 2 * np.pi),
        period=rng.uniform(0.2, 0.6),
        kind=str(rng.choice(kinds)),
    )
