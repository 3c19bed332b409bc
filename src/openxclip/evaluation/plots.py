"""Pictures of results."""

from collections.abc import Sequence
from pathlib import Path

from openxclip.errors import MissingExtraError
from openxclip.files import atomic_write


def plot_confusion(confusion: Sequence[Sequence[int]], labels: Sequence[str], path: Path) -> None:
    """Write a confusion matrix (row: true class, column: predicted) as a PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    side = max(4.0, 0.35 * len(labels) + 2)
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = [[count / max(1, sum(row)) for count in row] for row in confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(labels) <= 30:  # more would not be legible
        for y, row in enumerate(confusion):
            for x, count in enumerate(row):
                if count:
                    axes.text(
                        x,
                        y,
                        str(count),
                        ha="center",
                        va="center",
                        color="white" if shares[y][x] > 0.5 else "black",
                    )
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
