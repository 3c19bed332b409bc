"""Draw the figures of docs/concepts.md: cross-frame communication, multi-frame integration and prompting."""

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from openxclip.files import atomic_write

FOLDER = Path(__file__).parents[1] / "docs" / "assets"
INK, GREY = "#0f172a", "#64748b"
MESSAGE, CLASS, PATCH, TEXT, LAYER, VIDEO = "#fde68a", "#a5b4fc", "#e2e8f0", "#fbcfe8", "#f8fafc", "#86efac"
STYLE = {"svg.hashsalt": "openxclip", "font.family": "DejaVu Sans"}  # the same bytes each time


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty drawing whose units are inches, the origin at the upper left."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, fill: str) -> None:
    """A rounded box with its upper left corner at (x, y)."""
    shape = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.06", fc=fill, ec=INK, lw=0.8
    )
    axes.add_patch(shape)
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8, color=INK)


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], bend: float = 0.0, both: bool = False
) -> None:
    """An arrow, straight unless bent, with a head at one or both ends."""
    style = "<|-|>" if both else "-|>"
    line = FancyArrowPatch(
        start, end, arrowstyle=style, mutation_scale=8, lw=1.0, color=GREY, shrinkA=2, shrinkB=2,
        connectionstyle=f"arc3,rad={bend}",
    )  # fmt: skip
    axes.add_patch(line)


def note(axes: Axes, x: float, y: float, text: str, align: str = "left") -> None:
    """Small grey text whose middle is at height y."""
    axes.text(x, y, text, ha=align, va="center", fontsize=7.5, color=GREY)


def cross_frame_communication() -> Figure:
    """One block of the image tower over three frames: messages across frames, then attention within each."""
    figure, axes = canvas(7.6, 4.0)
    for frame in range(3):
        left = 1.5 + 2.1 * frame
        middle = left + 0.85
        axes.text(
            middle, 0.2, f"frame {frame + 1}", ha="center", va="center", fontsize=9, weight="bold", color=INK
        )
        box(axes, left, 0.4, 0.5, 0.32, "class", CLASS)
        for patch in range(3):
            box(axes, left + 0.58 + 0.4 * patch, 0.4, 0.34, 0.32, f"p{patch + 1}", PATCH)
        box(axes, left, 1.35, 0.8, 0.32, "message", MESSAGE)
        arrow(axes, (left + 0.25, 0.72), (left + 0.35, 1.35))
        if frame:
            arrow(axes, (left - 1.3, 1.51), (left, 1.51), both=True)
        box(axes, left - 0.05, 2.35, 1.85, 0.42, "attention within the frame", LAYER)
        arrow(axes, (left + 0.4, 1.67), (left + 0.55, 2.35))
        arrow(axes, (left + 1.15, 0.72), (left + 1.25, 2.35))
        box(axes, left, 3.3, 0.5, 0.32, "class", CLASS)
        for patch in range(3):
            box(axes, left + 0.58 + 0.4 * patch, 3.3, 0.34, 0.32, f"p{patch + 1}", PATCH)
        arrow(axes, (middle, 2.77), (middle, 3.3))
    arrow(axes, (1.9, 1.33), (6.1, 1.33), bend=-0.16, both=True)
    note(axes, 0.1, 0.56, "tokens in")
    note(axes, 0.1, 1.51, "cross-frame\nfusion attention")
    note(axes, 0.1, 2.56, "intra-frame\ndiffusion attention")
    note(axes, 0.1, 3.04, "MLP; messages\nare dropped")
    note(axes, 0.1, 3.46, "tokens out")
    return figure


def multi_frame_integration() -> Figure:
    """Frame features become the video's: time positions, a transformer over the frames, the mean."""
    figure, axes = canvas(7.6, 3.3)
    for frame in range(4):
        left = 1.7 + 1.25 * frame
        box(axes, left, 0.3, 1.0, 0.34, f"feature {frame + 1}", CLASS)
        box(axes, left, 0.98, 1.0, 0.34, f"+ position {frame + 1}", MESSAGE)
        arrow(axes, (left + 0.5, 0.64), (left + 0.5, 0.98))
        arrow(axes, (left + 0.5, 1.32), (left + 0.5, 1.62))
        arrow(axes, (left + 0.5, 2.0), (left + 0.5, 2.3))
    box(axes, 1.6, 1.62, 4.95, 0.38, "transformer: every frame attends to every frame", LAYER)
    box(axes, 1.6, 2.3, 4.95, 0.34, "add the features that came in, then the mean over frames", LAYER)
    box(axes, 3.4, 2.86, 1.35, 0.34, "video feature", VIDEO)
    arrow(axes, (4.07, 2.64), (4.07, 2.86))
    arrow(axes, (6.45, 0.47), (6.55, 2.47), bend=-0.55)
    note(axes, 0.1, 0.47, "of each frame's\nclass token")
    note(axes, 0.1, 1.15, "which frame\ncomes when")
    note(axes, 7.05, 1.47, "residual")
    return figure


def video_specific_prompting() -> Figure:
    """A class name's feature reads the video's patches, and is then compared with the video's feature."""
    figure, axes = canvas(7.6, 3.5)
    box(axes, 0.2, 0.3, 1.9, 0.38, "“surfing” → text tower", TEXT)
    box(axes, 0.2, 1.0, 1.9, 0.34, "text feature", TEXT)
    arrow(axes, (1.15, 0.68), (1.15, 1.0))
    box(axes, 5.2, 0.3, 2.2, 0.38, "patch tokens of all frames", PATCH)
    box(axes, 5.2, 1.0, 2.2, 0.34, "mean over frames: context", PATCH)
    arrow(axes, (6.3, 0.68), (6.3, 1.0))
    box(axes, 2.85, 0.9, 1.6, 0.54, "cross-attention,\nthen MLP; twice", LAYER)
    arrow(axes, (2.1, 1.17), (2.85, 1.17))
    arrow(axes, (5.2, 1.17), (4.45, 1.17))
    note(axes, 2.47, 1.02, "query", "center")
    note(axes, 4.83, 1.02, "keys, values", "center")
    box(axes, 2.85, 1.78, 1.6, 0.34, "times alpha, learned", MESSAGE)
    arrow(axes, (3.65, 1.44), (3.65, 1.78))
    box(axes, 0.2, 2.3, 4.25, 0.38, "text feature + alpha * prompt: the name as this video sees it", TEXT)
    arrow(axes, (1.15, 1.34), (1.15, 2.3))
    arrow(axes, (3.65, 2.12), (3.65, 2.3))
    box(axes, 5.2, 2.3, 2.2, 0.38, "video feature", VIDEO)
    box(axes, 3.0, 3.0, 2.6, 0.36, "cosine times scale: logit", LAYER)
    arrow(axes, (2.3, 2.68), (3.4, 3.0))
    arrow(axes, (6.3, 2.68), (5.2, 3.0))
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "cross-frame-communication.svg": cross_frame_communication,
    "multi-frame-integration.svg": multi_frame_integration,
    "video-specific-prompting.svg": video_specific_prompting,
}


def draw(folder: Path) -> None:
    """Write the figures as SVG."""
    with matplotlib.rc_context(STYLE):
        for name, figure in FIGURES.items():
            with atomic_write(folder / name) as temporary:
                figure().savefig(temporary, format="svg", metadata={"Date": None}, facecolor="white")


def main() -> None:
    """Read from the command line where the figures go."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=FOLDER, help="the folder to write into")
    draw(parser.parse_args().output)


if __name__ == "__main__":
    main()
