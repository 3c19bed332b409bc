"""`openxclip models`: what can be loaded by name."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from openxclip.cli.options import Json

if TYPE_CHECKING:
    from openxclip.checkpoints.catalogue import Family
    from openxclip.reports.table import Table

COLUMNS = ("model", "family", "parameters, M", "GMACs a view", "frames x px", "licence", "paper")

PAGE = """# Models

`openxclip.load`, every `--model` and `--set init=...` of a training take these by their name; weights are downloaded
once. A model folder, a training run, an official `.pth` and an OpenAI `.pt` of the same designs work too (see the
[README](../README.md#checkpoints)).

The families OpenXCLIP and X-CLIP were trained on video. All others are language-image models: they recognise at once
by the mean over frames, and a training's `expansion` puts the parts for video around them.

{table}

What accuracy costs, beside other published models (`openxclip flops --plot docs/results/flops.png`):

![Top-1 on Kinetics-400 against the multiply-adds of a video](results/flops.png)
"""


def models(
    print_json: Json = False,
    output: Annotated[Path | None, tyro.conf.arg(help="also write the table as a page, a .md file")] = None,
) -> int:
    """Models that can be loaded by name: parameters, multiply-adds, input, licence and paper. Downloads nothing."""
    from openxclip.cli.output_file import check_output_file
    from openxclip.files import atomic_write

    if output is not None:
        check_output_file(output, "--output", ".md")

    from openxclip.checkpoints.catalogue import known_families

    rows = _rows(known_families())
    table = _table(rows)
    if output is not None:
        with atomic_write(output) as temporary:
            temporary.write_text(PAGE.format(table=table.markdown()), encoding="utf-8")
    print(json.dumps(rows) if print_json else table.text())
    return 0


def _rows(families: "tuple[Family, ...]") -> list[dict[str, Any]]:
    """One object a model."""
    from openxclip.cli.costs import count_costs

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


def _table(rows: list[dict[str, Any]]) -> "Table":
    from openxclip.reports.table import Table

    return Table(
        title="Models that can be loaded by name",
        command="openxclip models --output docs/models.md",
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
            "Parameters are those of the whole model, the text tower included. GMACs are 10⁹ multiply-adds of one "
            f"view compared with {rows[0]['num_labels_counted']} texts whose features are there already, as we count "
            "them. An image model has no frame count of its own: 8 frames are counted.",
            "The licence is the one that the models' pages on the hub name; read it there before you use weights. "
            "OpenAI's pages name none; the licence of its code is MIT.",
        ),
    )
