"""`openxclip info`: facts about a model."""

import json
from typing import Annotated, Any

import tyro

from openxclip.cli.options import Json


def info(
    source: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(
            help="any source of a model, or a preset, for which nothing is loaded: "
            "B/32-8, B/32-16, B/16-8, B/16-16, B/16-32, L/14-8, L/14@336-16"
        ),
    ],
    print_json: Json = False,
) -> int:
    """Show configuration, parameters, multiply-adds and frames of a model."""
    from openxclip.models.config import PRESETS
    from openxclip.models.flops import count_cost

    facts: dict[str, Any] = {"source": source}
    if source in PRESETS:
        config = PRESETS[source]
    else:
        from openxclip.checkpoints.load import read_model
        from openxclip.checkpoints.source import ModelSource

        loaded, report = read_model(ModelSource(source=source, device="cpu", dtype="float32"))
        config = loaded.model.config
        facts |= {
            "format": report.format,
            "is_image_model": report.is_image_model,
            "notes": report.notes,
        }
        facts["preprocessor"] = loaded.preprocess.to_dict()
    cost = count_cost(config)
    facts |= {
        "num_parameters": cost.num_parameters,
        "gmacs_per_view": round(cost.macs / 1e9, 1),
        "num_labels_counted": cost.num_labels,
        "num_frames": config.num_frames,
        "config": config.to_dict(),
    }
    print(json.dumps(facts) if print_json else _text(facts))
    return 0


def _text(facts: dict[str, Any], indent: str = "") -> str:
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", _text(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name:{24 - len(indent)}} {_readable(name, value)}")
    return "\n".join(lines)


def _readable(name: str, value: Any) -> str:
    if value is None:
        return "left out" if name in ("integration", "prompting") else "default"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
