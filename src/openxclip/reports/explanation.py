"""Pictures of an explanation: one sheet, and an animation for each label. Importing this needs matplotlib.

Shapes: T frames, H x W pixels, h x w patches of a frame.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from openxclip.inference.explain import Explanation, LabelExplanation
from openxclip.reports.pictures import write_animation
from openxclip.reports.plots import drawable_fonts, new_figure, save_png  # first: reports a missing extra
from openxclip.video.sampling import centred  # isort: split

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

MAX_FRAMES = 8  # side by side; more would be too small to see
MAX_WORDS = 8
MAX_LETTERS = 60
STRENGTH = 0.75  # opacity of the hottest patch
WIDTH, LABEL_HEIGHT, MESSAGE_HEIGHT = 13.0, 4.4, 3.2  # inches

INK, QUIET, GAIN, LOSS = "#0f172a", "#64748b", "#1d4ed8", "#b91c1c"


def heat_over(frame: np.ndarray, heat: Tensor, hottest: float) -> np.ndarray:
    """A frame uint8 (H, W, 3) with heat (h, w) over it; `hottest` gets the strongest colour -> uint8 (H, W, 3)."""
    share = (heat / max(hottest, 1e-12)).clamp(0, 1)[None, None].float()
    smooth = F.interpolate(share, frame.shape[:2], mode="bicubic")[0, 0].clamp(0, 1).numpy()
    colour = 255 * np.asarray(colormaps["inferno"](smooth))[..., :3]
    opacity = STRENGTH * smooth[..., None]
    return np.round(frame * (1 - opacity) + colour * opacity).astype(np.uint8)


def overlays(frames: Tensor, heat: Tensor) -> np.ndarray:
    """Frames uint8 (T, 3, H, W) with heat (T, h, w), or (h, w) for all, over them -> uint8 (T, H, W, 3)."""
    of_each = heat if heat.ndim == 3 else heat.expand(len(frames), -1, -1)
    pictures, hottest = frames.permute(0, 2, 3, 1).numpy(), float(of_each.max())
    return np.stack(
        [heat_over(picture, own, hottest) for picture, own in zip(pictures, of_each, strict=True)]
    )


def write_film(path: Path, frames: Tensor, label: LabelExplanation, seconds_per_frame: float = 0.4) -> None:
    """Write the sampled frames as an animation (.webp or .mp4), overlaid with the sensitivity of a label's score."""
    write_animation(path, overlays(frames, label.sensitivity), seconds_per_frame)


def write_explanation(path: Path, explanation: Explanation) -> None:
    """Write a PNG: for each label, its maps over the frames and the contributions of frames and words."""
    has_messages = explanation.message_attention is not None
    heights = [LABEL_HEIGHT] * len(explanation.labels) + [MESSAGE_HEIGHT] * has_messages
    figure = new_figure(WIDTH, sum(heights) + 0.5, facecolor="white", layout="constrained")
    figure.suptitle(_short(explanation.path), color=QUIET, fontsize=10, parse_math=False)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, label in zip(parts, explanation.labels, strict=False):
        _draw_label(part, explanation.frames, label)
    if explanation.message_attention is not None:
        _draw_messages(parts[-1], explanation.message_attention)
    save_png(figure, path)


def _draw_label(part: SubFigure, frames: Tensor, label: LabelExplanation) -> None:
    title = f"{_short(label.label)}   {label.probability:.1%}"
    fonts = list(drawable_fonts())
    part.suptitle(title, color=INK, weight="bold", x=0.01, ha="left", parse_math=False, fontfamily=fonts)
    left, right = part.subfigures(1, 2, width_ratios=(3.6, 1), squeeze=False)[0]
    shown = centred(len(frames), MAX_FRAMES) if len(frames) > MAX_FRAMES else np.arange(len(frames))
    maps = [
        ("what its prompt reads", label.prompt_attention),
        ("what its score depends on", label.sensitivity),
    ]
    rows = [(name, heat) for name, heat in maps if heat is not None]
    grid = left.add_gridspec(len(rows) + 1, 1, height_ratios=[1.0] * len(rows) + [0.6])
    for y, (name, heat) in enumerate(rows):
        strip = np.concatenate(list(overlays(frames, heat)[shown]), axis=1)
        axes = left.add_subplot(grid[y])
        axes.imshow(strip)
        axes.set_title(name, fontsize=8.5, color=QUIET, loc="left")
        axes.axis("off")
    names = [str(t + 1) for t in range(len(frames))]
    _bars(
        left.add_subplot(grid[-1]),
        names,
        label.frame_relevance.tolist(),
        "what each frame is worth (log-odds)",
    )
    _draw_words(right.add_subplot(), label.words)


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], title: str) -> None:
    axes.bar(range(len(names)), values, color=[GAIN if value >= 0 else LOSS for value in values])
    axes.axhline(0, color=QUIET, linewidth=0.8)
    axes.set_xticks(range(len(names)), names, fontsize=7)
    axes.set_xlim(-0.5, len(names) - 0.5)
    _plain(axes, title)


def _draw_words(axes: Axes, words: Sequence[tuple[str, float]]) -> None:
    if not words:
        axes.text(0.5, 0.5, "a single word:\nnothing to leave out", ha="center", color=QUIET, fontsize=8.5)
        axes.axis("off")
        return
    strongest = sorted(words, key=lambda word: -abs(word[1]))[:MAX_WORDS]
    kept = [word for word in words if word in strongest][:MAX_WORDS]
    values = [value for _, value in kept]
    axes.barh(range(len(kept)), values, color=[GAIN if value >= 0 else LOSS for value in values])
    axes.axvline(0, color=QUIET, linewidth=0.8)
    names = [_short(word, 16) for word, _ in kept]
    axes.set_yticks(
        range(len(kept)), names, fontsize=8.5, parse_math=False, fontfamily=list(drawable_fonts())
    )
    axes.invert_yaxis()
    _plain(axes, "what each word is worth (log-odds)")


def _draw_messages(part: SubFigure, attention: Tensor) -> None:
    axes = part.subplots()
    axes.imshow(attention.numpy(), cmap="Blues", vmin=0)
    places = range(0, len(attention), max(1, len(attention) // 16))
    axes.set_xticks(places, [str(t + 1) for t in places], fontsize=7)
    axes.set_yticks(places, [str(t + 1) for t in places], fontsize=7)
    axes.set_xlabel("is read", fontsize=8.5, color=QUIET)
    axes.set_ylabel("frame reads", fontsize=8.5, color=QUIET)
    axes.set_title("messages between frames, the same for all labels", fontsize=8.5, color=QUIET)


def _plain(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=8.5, color=QUIET, loc="left")
    axes.tick_params(axis="both", labelsize=7, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _short(text: str, max_letters: int = MAX_LETTERS) -> str:
    line = " ".join(text.split())
    return line if len(line) <= max_letters else line[: max_letters - 1] + "…"
