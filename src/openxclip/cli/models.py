"""`openxclip models`: list the models that can be loaded by name."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from openxclip.cli.options import Json

if TYPE_CHECKING:
    from openxclip.models.config import XCLIPConfig
    from openxclip.models.flops import Cost
    from openxclip.reports.table import Table

COLUMNS = ("model", "family", "parameters, M", "GMACs a view", "frames x px", "licence", "paper")


def models(print_json: Json = False) -> int:
    """List models that can be loaded by name: parameters, multiply-adds, input, licence, paper. Downloads nothing."""
    rows = model_rows()
    print(json.dumps(rows) if print_json else models_table(rows).text())
    return 0


def model_rows() -> list[dict[str, Any]]:
    """Facts about every model."""
    from openxclip.checkpoints.catalogue import known_families

    families = known_families()
    costs = count_costs(config for family in families for config in family.models.values())
    return [
        {
            "source": source,
            "family": family.name,
            "num_parameters": costs[config].num_parameters,
            "gmacs_per_view": round(costs[config].macs / 1e9, 1),
            "num_labels_counted": costs[config].num_labels,
            "num_frames": config.num_frames,
            "image_size_px": config.vision.image_size_px,
            "is_image_model": config.is_image_model,
            "licence": family.licence,
            "paper": family.paper,
        }
        for family in families
        for source, config in family.models.items()
    ]


def models_table(rows: list[dict[str, Any]]) -> "Table":
    """A row for each model."""
    from openxclip.reports.table import Table

    return Table(
        title="Models that can be loaded by name",
        command="openxclip models",
        columns=COLUMNS,
        rows=tuple(
            (
                row["source"],
                row["family"],
                f"{row['num_parameters'] / 1e6:.1f}",
                f"{row['gmacs_per_view']:.1f}",
                f"{row['num_frames']} x {row['image_size_px']}",
                row["licence"],
                row["paper"],
            )
            for row in rows
        ),
        notes=(
            "Parameters are those of the whole model, including the text tower. GMACs are 10⁹ multiply-adds of one "
            f"view compared with {rows[0]['num_labels_counted']} texts whose features are precomputed, by our own "
            "count. An image model has no frame count of its own: 8 frames are counted.",
            "The licence is the one named on the models' hub pages; read it there before you use the weights. "
            "OpenAI's pages name none; its code has the MIT licence.",
        ),
    )


def count_costs(configs: "Iterable[XCLIPConfig]") -> "dict[XCLIPConfig, Cost]":
    """The cost of each configuration; repeated ones are counted once."""
    from openxclip.models.flops import count_cost
    from openxclip.progress import progress_bar

    distinct = tuple(dict.fromkeys(configs))
    costs = {}
    with progress_bar() as bar:
        task = bar.add_task("counting", total=len(distinct), note="")
        for config in distinct:
            costs[config] = count_cost(config)
            bar.advance(task)
    return costs
