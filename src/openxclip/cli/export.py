"""`openxclip export`: a model as graphs for other programs."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from openxclip.cli.options import Json, Labels


def export(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(help="any source of a model")],
    output: Annotated[Path, tyro.conf.arg(help="folder to write; must not exist")],
    to: Annotated[
        Literal["onnx", "openvino", "torch-export"], tyro.conf.arg(name="format", help="of the graphs")
    ] = "onnx",
    labels: Labels = None,
    print_json: Json = False,
    tokenizer: Annotated[
        str | None, tyro.conf.arg(help="tokenizer for weights that come without one")
    ] = None,
) -> int:
    """Write video encoder, text encoder and scorer as graphs, in float32, and run what was written.

    The folder also holds the tokenizer and metadata.json. How far each graph is from torch is printed; a difference
    that matters is an error.
    """
    from openxclip.checkpoints.load import load
    from openxclip.checkpoints.source import ModelSource
    from openxclip.runtimes.export import export as write
    from openxclip.text.labels import parse_labels

    names = [] if labels is None else parse_labels(labels)
    loaded = load(ModelSource(source=source, device="cpu", dtype="float32", tokenizer=tokenizer))
    differences = write(loaded, output, to, source=source, labels=names)
    if print_json:
        print(json.dumps({"output": str(output), "format": to, "largest_differences": differences}))
    else:
        for name, difference in differences.items():
            print(f"{name}: at most {difference:.1e} from torch")
        print(f"openxclip: wrote {output}", file=sys.stderr)
    return 0
