"""Pictures of results; importing this raises MissingExtraError where matplotlib is not installed."""

from collections.abc import Sequence
from pathlib import Path

from openxclip.errors import MissingExtraError
from openxclip.files import atomic_write

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingExtraError("matplotlib", "train") from error


# More are not legible, and a picture that had room for 400 of them took 12 GB of memory to draw.
MAX_NAMES = 100
MAX_NUMBERS = 30


def plot_confusion(confusion: Sequence[Sequence[int]], labels: Sequence[str], path: Path) -> None:
    """Write a confusion matrix (row: true class, column: predicted) as a PNG; of many classes the ids only."""
    side = max(4.0, 0.22 * min(len(labels), MAX_NAMES) + 2)
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = [[count / max(1, sum(row)) for count in row] for row in confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= MAX_NAMES:
        axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(len(labels)), labels, fontsize=8, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(labels) <= MAX_NUMBERS:
        for y, row in enumerate(confusion):
            for x, count in enumerate(row):
                if count:
                    axes.text(
                        x,
                        y,
                        str(count),
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="white" if shares[y][x] > 0.5 else "black",
                    )
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
