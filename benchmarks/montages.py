"""Films of real clips with known cuts, and effects that look like cuts and are none.

A film is a stream of pictures (H, W, 3) uint8 RGB, each with whether a new shot begins with it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

Picture = np.ndarray
Film = Iterable[tuple[Picture, bool]]
Shot = list[Picture]

QUIET_X264 = {"preset": "veryfast", "x264-params": "log-level=none"}
SHOT_SECONDS = (2.0, 5.0)
FADE_SECONDS, DISSOLVE_SECONDS = 0.5, 0.6
FLASH_EVERY_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Format:
    """Of a film."""

    width: int
    height: int
    fps: int


@dataclass(frozen=True, kw_only=True)
class Written:
    """A film as a file."""

    path: Path
    format: Format
    cuts: tuple[int, ...]
    """Numbers of the frames with which a new shot begins, the first one left out."""
    num_frames: int


def write_film(
    path: Path, film: Film, format: Format, codec_options: dict[str, str] | None = None
) -> Written:
    """Encode a film as H.264."""
    cuts, num_frames = [], 0
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=format.fps, options=codec_options or QUIET_X264)
        stream.width, stream.height, stream.pix_fmt = format.width, format.height, "yuv420p"
        for picture, is_cut in film:
            if is_cut:
                cuts.append(num_frames)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            num_frames += 1
        container.mux(stream.encode(None))
    return Written(path=path, format=format, cuts=tuple(cuts), num_frames=num_frames)


def shots_of(
    paths: Iterable[Path],
    format: Format,
    rng: np.random.Generator,
    seconds: tuple[float, float] = SHOT_SECONDS,
) -> Iterator[Shot]:
    """A stretch of each clip, as long as the clip has it."""
    for path in paths:
        pictures = _pictures(path, format)
        wanted = round(rng.uniform(*seconds) * format.fps)
        start = int(rng.integers(max(1, len(pictures) - wanted + 1)))
        yield pictures[start : start + wanted]


def _pictures(path: Path, format: Format) -> Shot:
    """A whole clip at the rate of the film: frames are left out or repeated."""
    pictures: Shot = []
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate or format.fps)
        for i, frame in enumerate(container.decode(video=0)):
            num_wanted = int((i + 1) / rate * format.fps) - len(pictures)
            if num_wanted > 0:
                picture = frame.to_ndarray(width=format.width, height=format.height, format="rgb24")
                pictures += [picture] * num_wanted
    return pictures


# How one shot follows another


def cut(shots: Iterable[Shot], fps: int) -> Film:
    """Hard cuts."""
    del fps
    for i, shot in enumerate(shots):
        for j, picture in enumerate(shot):
            yield picture, i > 0 and j == 0


def blended_cut(shots: Iterable[Shot], fps: int) -> Film:
    """Hard cuts with one mixed frame, as a change of the frame rate makes them."""
    del fps
    for i, (shot, following) in enumerate(pairwise([*shots, []])):
        for j, picture in enumerate(shot[: len(shot) - bool(following)]):
            yield picture, i > 0 and j == 0
        if following:
            yield _mixed(shot[-1], following[0], 0.5), False


def fade(shots: Iterable[Shot], fps: int) -> Film:
    """Each shot comes out of black and goes back to it."""
    num_steps = max(2, round(FADE_SECONDS * fps))
    for shot in shots:
        black = np.zeros_like(shot[0])
        for j, picture in enumerate(shot):
            light = min(1.0, j / num_steps, (len(shot) - 1 - j) / num_steps)
            yield _mixed(black, picture, light), False


def dissolve(shots: Iterable[Shot], fps: int) -> Film:
    """Each shot turns into the next one."""
    num_steps = max(2, round(DISSOLVE_SECONDS * fps))
    before: Shot = []
    for shot in shots:
        for j, old in enumerate(before):
            yield _mixed(old, shot[j], (j + 1) / (len(before) + 1)), False
        for picture in shot[len(before) : -num_steps]:
            yield picture, False
        before = shot[-num_steps:]


# What happens to a film


def flashes(film: Film, fps: int, rng: np.random.Generator) -> Film:
    """Photo flashes: one or two bright frames, now and then."""
    num_left, wait = 0, int(FLASH_EVERY_SECONDS * fps)
    for picture, is_cut in film:
        wait -= 1
        if wait <= 0:
            num_left, wait = int(rng.integers(1, 3)), int(rng.uniform(0.7, 1.3) * FLASH_EVERY_SECONDS * fps)
        yield (_mixed(picture, np.full_like(picture, 255), 0.8) if num_left > 0 else picture), is_cut
        num_left -= 1


def noise(film: Film, fps: int, rng: np.random.Generator) -> Film:
    """A sensor at its limit."""
    del fps
    for picture, is_cut in film:
        grain = rng.normal(0, 30, picture.shape[:2])[..., None]
        yield (picture + grain).clip(0, 255).astype(np.uint8), is_cut


def dark(film: Film, fps: int, rng: np.random.Generator) -> Film:
    """Night: a fifth of the light."""
    del fps, rng
    for picture, is_cut in film:
        yield picture // 5, is_cut


def doubled(film: Film, fps: int, rng: np.random.Generator) -> Film:
    """Every frame twice."""
    del fps, rng
    for picture, is_cut in film:
        yield picture, is_cut
        yield picture, False


def gray(film: Film, fps: int, rng: np.random.Generator) -> Film:
    """No colour."""
    del fps, rng
    for picture, is_cut in film:
        yield picture.mean(axis=2, keepdims=True).repeat(3, axis=2).astype(np.uint8), is_cut


def still(film: Film, fps: int, rng: np.random.Generator) -> Film:
    """Slides: the first picture of each shot stands."""
    del fps, rng
    kept = None
    for picture, is_cut in film:
        kept = picture if is_cut or kept is None else kept
        yield kept, is_cut


def stutter(film: Film, fps: int, rng: np.random.Generator) -> Film:
    """A picture that stands still for up to half a second and jumps, again and again."""
    kept, num_left = None, 0
    for picture, is_cut in film:
        if num_left <= 0 or is_cut or kept is None:
            kept, num_left = picture, int(rng.uniform(0.1, 0.5) * fps)
        num_left -= 1
        yield kept, is_cut


def shake(film: Film, fps: int, rng: np.random.Generator) -> Film:
    """A hand-held camera that runs: the picture jumps by up to a tenth of its width."""
    del fps
    for picture, is_cut in film:
        height, width = picture.shape[:2]
        margin_x, margin_y = width // 10, height // 10
        x, y = rng.integers(2 * margin_x), rng.integers(2 * margin_y)
        part = picture[y : y + height - 2 * margin_y, x : x + width - 2 * margin_x]
        yield _scaled(part, height, width), is_cut


def whip_pan(shots: Iterable[Shot], fps: int) -> Film:
    """The camera swings over the first pictures of all shots side by side, by up to a tenth of its width a frame."""
    scene = np.concatenate([shot[0] for shot in shots], axis=1)
    height, width = scene.shape[0], round(scene.shape[0] * 4 / 3)
    end = scene.shape[1] - width
    num_frames = round(20 * fps)
    speeds = 0.1 * width * 25 / fps * np.sin(np.arange(num_frames) / fps * np.pi)
    places = np.abs(np.cumsum(np.abs(speeds)) % (2 * end) - end).astype(int)
    for x in places:
        yield _scaled(scene[:, x : x + width], height, width), False


Join = Callable[[Iterable[Shot], int], Film]
Effect = Callable[[Film, int, np.random.Generator], Film]


def _mixed(a: Picture, b: Picture, share: float) -> Picture:
    """This share of b."""
    return (a + share * (b.astype(np.float32) - a)).astype(np.uint8)


def _scaled(picture: Picture, height: int, width: int) -> Picture:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return frame.to_ndarray(width=width, height=height, format="rgb24")


def chosen(paths: Sequence[Path], num_shots: int, rng: np.random.Generator) -> list[Path]:
    """Clips in random order, no two of one recording side by side (v_CLASS_gGG_cCC.avi)."""
    order = [paths[i] for i in rng.permutation(len(paths))]
    kept: list[Path] = []
    for path in order:
        if not kept or kept[-1].stem.rpartition("_")[0] != path.stem.rpartition("_")[0]:
            kept.append(path)
    return kept[:num_shots]
