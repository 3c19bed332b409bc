"""`openxclip export`: write a model as graphs for other programs."""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from openxclip.cli.options import Json
from openxclip.runtimes.export_options import ExportOptions

if TYPE_CHECKING:
    from openxclip.reports.table import Table
    from openxclip.runtimes.calibration import Calibration
    from openxclip.runtimes.export import Exported


@dataclass(frozen=True, kw_only=True)
class ExportCommandOptions:
    """Options of `openxclip export`."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help="any source of a model")]
    output: Annotated[Path, tyro.conf.arg(help="folder to write; must not exist")]
    labels: Annotated[
        str | None,
        tyro.conf.arg(
            help='class names for text.npy and the metadata: "a, b, c", a file, or a built-in name'
        ),
    ] = None
    num_frames: Annotated[
        int | None, tyro.conf.arg(name="frames", help="frames of a clip, if different from training")
    ] = None
    print_json: Json = False
    tokenizer: Annotated[str | None, tyro.conf.arg(help="tokenizer for weights that come without one")] = None
    graphs: ExportOptions = field(default_factory=ExportOptions)


def export(
    options: Annotated[ExportCommandOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")],
) -> int:
    """Write video encoder, text encoder and scorer as graphs, and run them as a check.

    The folder also holds the tokenizer, metadata.json and, with --labels, their features in text.npy. Each graph's
    deviation from torch in float32 is printed; a deviation that matters is an error. With --int8, a line for each layer
    says how it is rounded and what that changes.
    """
    from openxclip.checkpoints.load import load
    from openxclip.checkpoints.source import ModelSource
    from openxclip.errors import InputError
    from openxclip.runtimes.export import export as write
    from openxclip.text.labels import parse_labels

    options.graphs.check()  # before loading a large model
    if options.output.exists():
        raise InputError(f"{options.output} exists; choose another folder, or remove it first")
    names = [] if options.labels is None else parse_labels(options.labels)
    loaded = load(
        ModelSource(
            source=options.source,
            device="cpu",
            dtype="float32",
            num_frames=options.num_frames,
            tokenizer=options.tokenizer,
        )
    )
    written = write(loaded, options.output, options.graphs, source=options.source, labels=names)
    if options.print_json:
        print(json.dumps(_facts(options, written)))
        return 0
    if written.calibration is not None:
        print(_layers(options.source, written.calibration).text(), end="\n\n")
    for name, difference in written.differences.items():
        print(f"{name}: at most {difference:.1e} from torch in float32")
    print(f"noise of the video features: {written.noise:.1e}")
    print(f"openxclip: wrote {options.output}", file=sys.stderr)
    return 0


def _facts(options: ExportCommandOptions, written: "Exported") -> dict[str, Any]:
    facts: dict[str, Any] = {
        "output": str(options.output),
        "format": options.graphs.format,
        "largest_differences": written.differences,
        "noise": written.noise,
    }
    if written.calibration is not None:
        facts["int8_layers"] = [asdict(layer) for layer in written.calibration.layers]
    return facts


def _layers(source: str, calibration: "Calibration") -> "Table":
    from openxclip.reports.table import Table

    rows = [
        (
            layer.path,
            "float" if layer.in_float else "int8",
            f"{layer.smoothing:g}",
            f"{layer.share:.0%}",
            f"{layer.error:.2%}",
            "" if layer.noise is None else f"{layer.noise:.4f}",
        )
        for layer in calibration.layers
    ]
    return Table(
        title=f"Layers of {source}: noise {calibration.noise:.4f} on clips that no range was measured on",
        command=f"openxclip export {source} --int8",
        columns=("layer", "products", "smoothing", "range", "change of its output", "noise it adds"),
        rows=tuple(rows),
    )
