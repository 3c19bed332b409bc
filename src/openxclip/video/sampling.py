"""Frame sampling: pure index arithmetic, without access to the video.

T (`num_samples`) frames make a clip. Every sampler but `dense` splits the video into T equal segments and
takes one frame of each, so that a clip always spans the whole video.
"""

import numpy as np

from openxclip.errors import InputError


def centred(num_frames: int, num_samples: int) -> np.ndarray:
    """(T,) int64, the middle frame of each segment, ascending, as in the published tests.

    floor(i * interval + interval / 2) with interval = num_frames / T. A video shorter than T repeats frames.
    """
    return multi_view(num_frames, num_samples, 1)[0]


def multi_view(num_frames: int, num_samples: int, num_clips: int) -> np.ndarray:
    """(num_clips, T) int64: clip k takes the position (k + 0.5) / num_clips of each segment.

    Deterministic, and one clip is `centred`. Rows are ascending.
    """
    _check(num_frames=num_frames, num_samples=num_samples, num_clips=num_clips)
    segment = np.arange(num_samples, dtype=np.int64)
    clip = np.arange(num_clips, dtype=np.int64)[:, None]
    # (segment + (clip + 1/2) / num_clips) * num_frames / num_samples, in whole numbers: a rounding error must
    # not step over the border between two frames.
    return (2 * num_clips * segment + 2 * clip + 1) * num_frames // (2 * num_clips * num_samples)


def sparse_train(num_frames: int, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """(T,) int64, a random frame of each segment, in order.

    Segments are floor(num_frames / T) frames long, as published: the rest at the end is never drawn. A video
    shorter than T is spaced evenly, round(i * num_frames / T); one of T / 2 frames or fewer would overshoot at its
    end and has its first frame there, as released.
    """
    _check(num_frames=num_frames, num_samples=num_samples)
    segment = np.arange(num_samples, dtype=np.int64)
    interval = num_frames // num_samples
    if interval == 0:
        return np.around(segment * num_frames / num_samples).astype(np.int64) % num_frames
    return segment * interval + rng.integers(interval, size=num_samples)


def multi_view_random(
    num_frames: int, num_samples: int, num_clips: int, rng: np.random.Generator
) -> np.ndarray:
    """(num_clips, T) int64: each clip drawn like a training clip.

    This is how the published 4 x 3 views were made, kept to compare with them; `multi_view` gives the same
    score on every run.
    """
    _check(num_clips=num_clips)
    return np.stack([sparse_train(num_frames, num_samples, rng) for _ in range(num_clips)])


def dense(
    num_frames: int, num_samples: int, stride: int, rng: np.random.Generator | None = None
) -> np.ndarray:
    """(T,) int64, ascending: every `stride`-th frame of a window.

    The window is drawn at random or, without `rng`, is in the middle. A video shorter than the window is sampled
    from its start, and its last frame is repeated.
    """
    _check(num_frames=num_frames, num_samples=num_samples, stride=stride)
    slack = max(num_frames - ((num_samples - 1) * stride + 1), 0)
    start = slack // 2 if rng is None else int(rng.integers(slack + 1))
    return np.minimum(start + stride * np.arange(num_samples, dtype=np.int64), num_frames - 1)


def dense_views(num_frames: int, num_samples: int, stride: int, num_clips: int) -> np.ndarray:
    """(num_clips, T) int64: `dense` windows for a test. Deterministic, and one clip is the window in the middle.

    With several, clip k begins at k / num_clips of the range of possible starts, as in the tests of Open-VCLIP
    and FROSTER (SlowFast's code).
    """
    _check(num_clips=num_clips)
    middle = dense(num_frames, num_samples, stride)
    if num_clips == 1:
        return middle[None]
    slack = max(num_frames - ((num_samples - 1) * stride + 1), 0)
    starts = slack * np.arange(num_clips, dtype=np.int64) // num_clips
    return np.minimum(starts[:, None] + stride * np.arange(num_samples), num_frames - 1)


def _check(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"{name} is {value}; it must be 1 or greater")
