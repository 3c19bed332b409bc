"""`openxclip benchmark`: which runtime is fastest on this machine."""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from openxclip.cli.options import Json, LoadOptions, Model

if TYPE_CHECKING:
    from openxclip.reports.table import Table
    from openxclip.runtimes.choice import Measurements


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Options of `openxclip benchmark`."""

    model: tyro.conf.Positional[Model]
    labels: Annotated[
        str,
        tyro.conf.arg(help="label set for comparing best labels: a file, a list, or a built-in name"),
    ] = "kinetics400"
    calibration: Annotated[
        Path | None,
        tyro.conf.arg(
            help="list or folder of videos for measuring agreement and calibrating int8; by default, moving shapes "
            "are rendered"
        ),
    ] = None
    batch_sizes: Annotated[tuple[int, ...], tyro.conf.arg(help="videos per batch")] = (1, 8)
    merge_tokens: Annotated[int, tyro.conf.arg(help="as in predict")] = 0
    num_threads: Annotated[
        int | None, tyro.conf.arg(help="maximum number of threads; by default one per core")
    ] = None
    print_json: Json = False
    load: LoadOptions = field(default_factory=LoadOptions)


def benchmark(
    options: Annotated[BenchmarkOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")],
) -> int:
    """Measure runtimes x precisions x batch sizes for a model on this machine, and store the choice of --runtime auto.

    Each combination runs in its own process. Noise is how far rounding moves video features, as a share of the
    distance between them; auto takes the fastest combination with at most 0.05.
    """
    from openxclip.caches import keep_compiled_code

    keep_compiled_code()

    from openxclip.errors import InputError

    if not options.batch_sizes or min(options.batch_sizes) < 1:
        raise InputError(f"--batch-sizes must be numbers of at least 1, got {options.batch_sizes}")
    measurements = _measured(options)
    if options.print_json:
        print(json.dumps(_facts(measurements)))
    else:
        print(_table(options, measurements).text())
    print(
        "openxclip: --runtime auto will use these measurements for this model and these options",
        file=sys.stderr,
    )
    return 0


def _measured(options: BenchmarkOptions) -> "Measurements":
    from openxclip.checkpoints.load import load
    from openxclip.models.merging import check_merging
    from openxclip.progress import progress_bar
    from openxclip.runtimes.calibration_clips import calibration_clips
    from openxclip.runtimes.choice import Measurements, choice_key, remember
    from openxclip.runtimes.measuring import Apart, measure_apart
    from openxclip.runtimes.on_cpu import check_cpu
    from openxclip.runtimes.options import RuntimeOptions
    from openxclip.runtimes.runtime import check_options
    from openxclip.runtimes.ways import ways
    from openxclip.text.labels import parse_labels

    labels = parse_labels(options.labels)
    runtime = RuntimeOptions(
        runtime="auto",
        calibration=options.calibration,
        merge_tokens=options.merge_tokens,
        num_threads=options.num_threads,
    )
    check_options(runtime)
    source = options.load.source(options.model)
    model, tokenizer, preprocess = load(source)
    check_cpu(model, "openxclip benchmark")
    check_merging(options.merge_tokens, model.config.vision)
    clips = calibration_clips(options.calibration, preprocess, model.config.num_frames)
    tokens = None if model.text is None else tokenizer(labels)
    rows = []
    with progress_bar() as bar:
        task = bar.add_task("runtimes", total=len(ways(model)), note="")
        for row in measure_apart(
            Apart(source, runtime, clips.numpy(), options.batch_sizes), model, preprocess, tokens
        ):
            rows.append(row)
            bar.update(task, advance=1, note=row.way.name)
    measurements = Measurements(batch_sizes=options.batch_sizes, rows=tuple(rows))
    measurements.fastest(1)  # raises if no runtime works
    remember(choice_key(model, preprocess, runtime), measurements)
    return measurements


def _facts(measurements: "Measurements") -> dict[str, Any]:
    from openxclip.runtimes.choice import chosen_names

    chosen = {str(size): name for size, name in chosen_names(measurements)}
    rows = [{"name": row.way.name} | asdict(row) for row in measurements.rows]
    return {"batch_sizes": measurements.batch_sizes, "rows": rows, "auto": chosen}


def _table(options: BenchmarkOptions, measurements: "Measurements") -> "Table":
    from openxclip.reports.table import Table
    from openxclip.runtimes.choice import chosen_names

    columns = (
        "runtime",
        *(f"batch {size}" for size in measurements.batch_sizes),
        "noise",
        "same best",
        "memory",
    )
    rows, notes = [], []
    for row in measurements.rows:
        if row.problem is not None:
            rows.append((row.way.name, *("failed" for _ in columns[1:])))
            notes.append(f"{row.way.name}: {row.problem}")
            continue
        times = (f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s" for seconds in row.seconds)
        same = "" if row.same_best is None else f"{row.same_best:.1%}"
        memory = "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:,.0f} MiB"
        rows.append((row.way.name, *times, f"{row.noise:.4f}", same, memory))
    notes += [f"--runtime auto, batches of {size}: {name}" for size, name in chosen_names(measurements)]
    return Table(
        title=f"{options.model} on this machine",
        command=f"openxclip benchmark {options.model}",
        columns=columns,
        rows=tuple(rows),
        notes=tuple(notes),
    )
