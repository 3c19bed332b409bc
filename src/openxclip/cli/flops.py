"""`openxclip flops`: what X-CLIP's models cost, beside the paper's figures and other published models."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from openxclip.cli.options import Json

if TYPE_CHECKING:
    from openxclip.reports.table import Table

OURS = "counted"
THEIRS = "published"


def flops(
    print_json: Json = False,
    plot: Annotated[
        Path | None,
        tyro.conf.arg(help="also draw accuracy against cost, a .png file (needs the extra [train])"),
    ] = None,
) -> int:
    """Multiply-adds of the seven presets as we count them and as published, beside other models as published."""
    from openxclip.cli.output_file import check_output_file

    if plot is not None:
        check_output_file(plot, "--plot", ".png")

        import openxclip.reports.cost_plot  # noqa: F401  a missing extra is said before the work

    facts = {OURS: _counted(), THEIRS: _published()}
    if plot is not None:
        _draw(plot, facts)
    if print_json:
        print(json.dumps(facts))
    else:
        print(_table_of_ours(facts[OURS]).text(), _table_of_others(facts[THEIRS]).text(), sep="\n\n")
    return 0


def _counted() -> list[dict[str, Any]]:
    from openxclip.cli.costs import count_costs
    from openxclip.evaluation.published_costs import XCLIP_COSTS
    from openxclip.models.config import PRESETS

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


def _published() -> list[dict[str, Any]]:
    from openxclip.evaluation.published_costs import OTHER_COSTS

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


def _table_of_ours(rows: list[dict[str, Any]]) -> "Table":
    from openxclip.reports.table import Table

    return Table(
        title="X-CLIP: G multiply-adds of one view, and top-1 on Kinetics-400 as published",
        command="openxclip flops",
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


def _table_of_others(rows: list[dict[str, Any]]) -> "Table":
    from openxclip.reports.table import Table

    return Table(
        title="Other models on Kinetics-400: every figure as published, none counted or measured by us",
        command="openxclip flops",
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


def _draw(path: Path, facts: dict[str, list[dict[str, Any]]]) -> None:
    from openxclip.reports.cost_plot import Point, plot_costs

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
