"""Renders scenes: signed distances, anti-aliased, at any size and any times.

Shapes: T frames, S side in pixels.
"""

import numpy as np

from openxclip.shapes.scene import Background, Scene, Thing, path

DARK_SIDE = 0.65
"""Brightness of one half of each object, which shows its orientation."""


def render(scene: Scene, times: np.ndarray, side_px: int) -> np.ndarray:
    """Frames uint8 (T, S, S, 3) at `times` (T,) in 0..1."""
    still = stage(scene, side_px)
    x, y = _grid(side_px)
    where = path(scene, times)
    frames = [_paint(still, scene.thing, x, y, *pose) for pose in zip(*where, strict=True)]
    return np.stack(frames).round().astype(np.uint8)


def stage(scene: Scene, side_px: int) -> np.ndarray:
    """The static part of a scene, float32 (S, S, 3)."""
    x, y = _grid(side_px)
    still = _background(scene.background, x, y)
    for thing in scene.distractors:
        still = _paint(still, thing, x, y, thing.x, thing.y, thing.radius, thing.angle)
    return still


def paint_scene(canvas: np.ndarray, scene: Scene, time: float) -> np.ndarray:
    """A copy of the canvas (S, S, 3) with the moving object of a scene at a time in 0..1."""
    x, y = _grid(canvas.shape[0])
    ((centre_x, centre_y, radius, angle),) = zip(*path(scene, np.array([time])), strict=True)
    return _paint(canvas, scene.thing, x, y, centre_x, centre_y, radius, angle)


def _grid(side_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the pixels: x (1, S) and y (S, 1)."""
    ticks = ((np.arange(side_px) + 0.5) / side_px).astype(np.float32)
    return ticks[None, :], ticks[:, None]


def _paint(
    canvas: np.ndarray,
    thing: Thing,
    x: np.ndarray,
    y: np.ndarray,
    centre_x: float,
    centre_y: float,
    radius: float,
    angle: float,
) -> np.ndarray:
    """A copy of the canvas (S, S, 3) with an object on it, one half of it darker."""
    side_px = canvas.shape[0]
    reach = 1.5 * radius + 1 / side_px  # only its bounding box is rendered
    top, bottom = _pixels(centre_y, reach, side_px)
    left, right = _pixels(centre_x, reach, side_px)
    canvas = canvas.copy()
    if top >= bottom or left >= right:  # it is entirely outside the picture
        return canvas
    dx, dy = (x[:, left:right] - centre_x) / radius, (y[top:bottom] - centre_y) / radius
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    cover = _coverage(_DISTANCES[thing.shape](u, v), radius * side_px)[..., None]
    light = DARK_SIDE + (1 - DARK_SIDE) * _coverage(v, radius * side_px)[..., None]
    box = canvas[top:bottom, left:right]
    canvas[top:bottom, left:right] = box + cover * (light * np.array(thing.colour, np.float32) - box)
    return canvas


def _pixels(centre: float, reach: float, side_px: int) -> tuple[int, int]:
    return max(0, int((centre - reach) * side_px)), min(side_px, int((centre + reach) * side_px) + 1)


def _coverage(distance: np.ndarray, px: float) -> np.ndarray:
    """Coverage of each pixel, from signed distances and the number of pixels per unit."""
    return np.clip(0.5 - distance * np.float32(px), 0, 1)


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 0.95


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(x, y) - 0.72) - 0.26


def _bar(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x) - 0.32, np.abs(y) - 1.15)


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.float32(0.866) * np.abs(x) - 0.5 * y, y) - 0.6


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A star with five points: the angle is folded into one tenth, where the outline is a straight line."""
    tenth = np.pi / 5
    around = np.abs((np.arctan2(x, -y) + tenth) % (2 * tenth) - tenth)
    away = np.hypot(x, y)
    tip, notch = 1.25, 0.5
    end = np.array([notch * np.cos(tenth) - tip, notch * np.sin(tenth)])
    along, across = end / np.hypot(*end)
    return np.float32(across) * (away * np.cos(around) - tip) - np.float32(along) * (away * np.sin(around))


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - 1.05, y - 0.32), np.maximum(x - 0.32, y - 1.05))


_DISTANCES = {
    "circle": _circle,
    "ring": _ring,
    "bar": _bar,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
}


def _background(background: Background, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The empty stage, float32 (S, S, 3)."""
    cos, sin = np.float32(np.cos(background.angle)), np.float32(np.sin(background.angle))
    u, v = cos * x + sin * y, cos * y - sin * x
    first, second = np.array(background.first, np.float32), np.array(background.second, np.float32)
    return first + _PATTERNS[background.kind](u, v, background.period)[..., None] * (second - first)


def _plain(u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    return np.zeros_like(u)


def _gradient(u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    return (u - u.min()) / (u.max() - u.min())


def _stripes(u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    return (np.sin(2 * np.pi / period * u) > 0).astype(np.float32)


def _checks(u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    return ((np.sin(2 * np.pi / period * u) > 0) ^ (np.sin(2 * np.pi / period * v) > 0)).astype(np.float32)


def _dots(u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    return (np.hypot(u % period - period / 2, v % period - period / 2) < 0.3 * period).astype(np.float32)


def _waves(u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(2 * np.pi / period * (u + 0.06 * np.sin(2 * np.pi / period * v)))


_PATTERNS = {
    "plain": _plain,
    "gradient": _gradient,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "waves": _waves,
}
