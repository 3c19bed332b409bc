"""Write docs/models.md and docs/results/flops.png, and print what X-CLIP's models cost beside published figures.

python scripts/cost_page.py
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from published_costs import OTHER_COSTS, XCLIP_COSTS

from openxclip.cli.models import count_costs, model_rows, models_table
from openxclip.files import atomic_write
from openxclip.models.config import PRESETS
from openxclip.reports.plots import new_figure, save_png
from openxclip.reports.table import Table

DOCS = Path(__file__).parents[1] / "docs"
OURS = "counted"
THEIRS = "published"

PAGE = """# Models

`openxclip.load`, every `--model` and `--set init=...` of a training take these models by name; weights are downloaded
once. Model folders, training runs, official `.pth` and OpenAI `.pt` files of the same designs also load
([checkpoints](checkpoints.md)).

The families OpenXCLIP and X-CLIP were trained on video. All others are language-image models: they recognise by the
mean over frames, and a training's `expansion` puts the parts for video around them.

{table}

What accuracy costs, beside other published models (`python scripts/cost_page.py`):

![Top-1 on Kinetics-400 against the multiply-adds of a video](results/flops.png)
"""


def models_page() -> str:
    """The whole of docs/models.md."""
    return PAGE.format(table=models_table(model_rows()).markdown())


def counted() -> list[dict[str, Any]]:
    """X-CLIP's models as we count them, beside the paper's figures."""
    costs = count_costs(PRESETS.values())
    rows = []
    for paper in XCLIP_COSTS:
        cost = costs[PRESETS[paper.name]]
        gmacs = cost.macs / 1e9
        rows.append(
            {
                "preset": paper.name,
                "num_parameters": cost.num_parameters,
                "gmacs_per_view": round(gmacs, 1),
                "num_labels_counted": cost.num_labels,
                "published_gmacs_per_view": paper.gflops_per_view,
                "difference_percent": round(100 * (gmacs / paper.gflops_per_view - 1), 1),
                "published_views": paper.views,
                "gmacs_per_video": round(gmacs * paper.num_clips * paper.num_crops),
                "published_top1": paper.top1,
                "source": paper.source,
            }
        )
    return rows


def published() -> list[dict[str, Any]]:

    return [
        {
            "name": model.name,
            "pretraining": model.pretraining,
            "published_gmacs_per_view": model.gflops_per_view,
            "published_views": model.views,
            "gmacs_per_video": model.gflops_per_video,
            "published_top1": model.top1,
            "source": model.source,
        }
        for model in OTHER_COSTS
    ]


def table_of_ours(rows: list[dict[str, Any]]) -> Table:

    return Table(
        title="X-CLIP: G multiply-adds of one view, and top-1 on Kinetics-400 as published",
        command="python scripts/cost_page.py",
        columns=(
            "model",
            "parameters, M",
            "counted, G",
            "paper, G",
            "difference",
            "views",
            "top-1 (published)",
        ),
        rows=tuple(
            (
                row["preset"],
                f"{row['num_parameters'] / 1e6:.1f}",
                f"{row['gmacs_per_view']:.1f}",
                f"{row['published_gmacs_per_view']:g}",
                f"{row['difference_percent']:+.1f} %",
                row["published_views"],
                row["published_top1"] or "none",
            )
            for row in rows
        ),
        notes=(f"Counted with {rows[0]['num_labels_counted']} texts whose features are there already.",),
    )


def table_of_others(rows: list[dict[str, Any]]) -> Table:

    return Table(
        title="Other models on Kinetics-400: every figure as published, none counted or measured by us",
        command="python scripts/cost_page.py",
        columns=("model", "pretraining", "G a view", "views", "G a video", "top-1", "source"),
        rows=tuple(
            (
                row["name"],
                row["pretraining"],
                f"{row['published_gmacs_per_view']:g}",
                row["published_views"],
                f"{row['gmacs_per_video']:g}",
                row["published_top1"],
                row["source"],
            )
            for row in rows
        ),
    )


def draw(path: Path, facts: dict[str, list[dict[str, Any]]]) -> None:

    points = {
        kind: [
            Point(
                name=row.get("preset") or row["name"],
                gmacs=row["gmacs_per_video"],
                top1=row["published_top1"],
            )
            for row in rows
            if row["published_top1"] is not None
        ]
        for kind, rows in facts.items()
    }
    plot_costs(path, "What accuracy costs on Kinetics-400", points[OURS], points[THEIRS])


@dataclass(frozen=True, kw_only=True)
class Point:
    """One model."""

    name: str
    """Written beside the point."""
    gmacs: float
    """10⁹ multiply-adds of all views of a video."""
    top1: float
    """Percent."""


def plot_costs(path: Path, title: str, ours: Sequence[Point], others: Sequence[Point]) -> None:
    """Write a PNG with a point for each model, cost on a logarithmic axis; ours are filled and joined."""
    figure = new_figure(8.6, 5.4, layout="constrained")
    axes = figure.add_subplot()
    ours = sorted(ours, key=lambda point: point.gmacs)
    axes.plot(*_xy(ours), "o-", color="#c2410c", label="X-CLIP: cost counted by us, accuracy published")
    axes.plot(*_xy(others), "o", color="#64748b", markerfacecolor="none", label="others, as published")
    for point in ours:  # above and to the left, where their own line does not run
        _write_name(axes, point, "#c2410c", offset=(-6, 5), align="right")
    for point in others:
        _write_name(axes, point, "#475569", offset=(6, -10 if _is_below_another(point, others) else 4))
    axes.set_xscale("log")
    axes.margins(x=0.2, y=0.08)
    axes.set_title(title, parse_math=False)
    axes.set_xlabel("multiply-adds of all views of a video (G)")
    axes.set_ylabel("top-1 on Kinetics-400 (%)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left")
    save_png(figure, path)


def _xy(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.gmacs for point in points], [point.top1 for point in points]


def _is_below_another(point: Point, points: Sequence[Point]) -> bool:
    """Whether a name above this point would run into that of a point close above it."""
    return any(
        0 < other.top1 - point.top1 < 0.4 and abs(math.log10(other.gmacs / point.gmacs)) < 0.1
        for other in points
    )


def _write_name(
    axes: Axes, point: Point, color: str, offset: tuple[float, float], align: str = "left"
) -> None:
    axes.annotate(
        point.name,
        (point.gmacs, point.top1),
        xytext=offset,
        textcoords="offset points",
        horizontalalignment=align,
        fontsize=7.5,
        color=color,
        parse_math=False,
    )


def main() -> None:
    """Write the page and the picture, print the tables."""
    with atomic_write(DOCS / "models.md") as temporary:
        temporary.write_text(models_page(), encoding="utf-8")
    facts = {OURS: counted(), THEIRS: published()}
    draw(DOCS / "results" / "flops.png", facts)
    print(table_of_ours(facts[OURS]).text(), table_of_others(facts[THEIRS]).text(), sep="\n\n")


if __name__ == "__main__":
    main()
