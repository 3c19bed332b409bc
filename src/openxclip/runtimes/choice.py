"""Chooses the fastest runtime on this machine and remembers it: `--runtime auto`."""

import json
import logging
import os
import platform
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from openxclip.caches import cache_folder
from openxclip.configuration import from_dict
from openxclip.errors import ConfigError, InputError
from openxclip.files import atomic_write
from openxclip.models import XCLIP
from openxclip.models.merging import check_merging
from openxclip.progress import progress_bar
from openxclip.runtimes.calibration import BOUND
from openxclip.runtimes.calibration_clips import calibration_clips
from openxclip.runtimes.calibration_file import identity
from openxclip.runtimes.graphs import versions, video_key
from openxclip.runtimes.measuring import Measured, calibrate_first, measure_here
from openxclip.runtimes.on_cpu import PACKAGES
from openxclip.runtimes.options import RuntimeOptions
from openxclip.runtimes.runtime import Runtime, build_runtime, check_options
from openxclip.runtimes.ways import Way, ways
from openxclip.video.transforms import Preprocessor
from openxclip.workers import num_cores

logger = logging.getLogger(__name__)

BATCH_SIZES = (1, 8)
CPU_INFO = Path("/proc/cpuinfo")
CPU_FIELDS = ("model name", "model", "flags", "CPU implementer", "CPU part", "Features")  # x86, then ARM


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Measurements of all ways to run one model on one machine."""

    batch_sizes: tuple[int, ...]
    rows: tuple[Measured, ...]

    def fastest(self, batch_size: int, bound: float = BOUND) -> Way:
        """The fastest way whose noise is within the bound, at the measured batch size nearest to this one.

        Raises:
            InputError: no way is within the bound.
        """
        place = min(range(len(self.batch_sizes)), key=lambda i: abs(self.batch_sizes[i] - batch_size))
        allowed = [row for row in self.rows if row.noise is not None and row.noise <= bound]
        if not allowed:
            problems = "; ".join(
                f"{row.way.name}: {row.problem or f'noise {row.noise}'}" for row in self.rows
            )
            raise InputError(
                f"no runtime can compute this model here; give --runtime torch, or fix one. {problems}"
            )
        return min(allowed, key=lambda row: row.seconds[place]).way


class Chosen(NamedTuple):
    """A runtime, and the options that name it."""

    runtime: Runtime
    options: RuntimeOptions
    """The given options, or the ones chosen by `auto`."""


def chosen_runtime(
    model: XCLIP, preprocess: Preprocessor, options: RuntimeOptions, batch_size: int
) -> Chosen:
    """The runtime named by the options; for `auto`, the fastest on this machine within the bound.

    On a GPU `auto` is torch: the others are for CPUs.

    Args:
        model: is not changed.
        preprocess: of the model.
        options: which and how.
        batch_size: usual number of clips per batch.

    Raises:
        InputError: the model's device cannot run it, or options of one runtime are given to another.
        MissingExtraError: its package is not installed.
    """
    check_options(options)
    if options.runtime == "auto" and model.logit_scale.device.type != "cpu":
        options = replace(options, runtime="torch", calibration=None)
    elif options.runtime == "auto":
        way = fastest_way(model, preprocess, options, batch_size)
        model, options = way.model(model), way.options(options)
    return Chosen(build_runtime(model, preprocess, options), options)


def fastest_way(model: XCLIP, preprocess: Preprocessor, options: RuntimeOptions, batch_size: int) -> Way:
    """The stored choice; measured now if there is none, which takes minutes for a large model."""
    check_merging(options.merge_tokens, model.config.vision)
    key = choice_key(model, preprocess, options)
    with _alone(key):  # one process measures, and the others wait for it
        found = recall(key)
        if found is None:
            found = _measured(model, preprocess, options)
            remember(key, found)
    return found.fastest(batch_size)


def _alone(key: str) -> AbstractContextManager[object]:
    path = _path(key)
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            if os.access(path.parent, os.W_OK):
                return FileLock(path.with_suffix(".lock"), mode=0o666)
    except OSError:
        pass  # nothing can be stored there; `remember` warns
    return nullcontext()


def _measured(model: XCLIP, preprocess: Preprocessor, options: RuntimeOptions) -> Measurements:
    logger.warning(
        "measuring which runtime is fastest for this model on this machine; this takes some minutes, once"
    )
    clips = calibration_clips(options.calibration, preprocess, model.config.num_frames)
    calibrate_first(model, preprocess, options)
    rows = []
    with progress_bar() as bar:
        task = bar.add_task("runtimes", total=len(ways(model)), note="")
        for row in measure_here(model, preprocess, options, clips, BATCH_SIZES):
            rows.append(row)
            bar.update(task, advance=1, note=row.way.name)
    return Measurements(batch_sizes=BATCH_SIZES, rows=tuple(rows))


def choice_key(model: XCLIP, preprocess: Preprocessor, options: RuntimeOptions) -> str:
    """A key from everything that a measurement depends on: model, settings, machine, and versions."""
    packages = versions(*(package for packages in PACKAGES.values() for package in packages))
    settings = (
        model.logit_scale.dtype,
        options.merge_tokens,
        options.num_threads,
        identity(options.calibration),
    )
    return video_key(model, preprocess, *settings, processor(), num_cores(), packages)


def processor() -> str:
    """The processor's name and features, which can differ between cloud machines of the same name."""
    if not CPU_INFO.is_file():
        return f"{platform.machine()} {platform.processor()}"
    text = CPU_INFO.read_text()
    lines = [re.search(rf"^{field}\s*:\s*(.*)$", text, re.MULTILINE) for field in CPU_FIELDS]
    return " ".join([platform.machine(), *(line[1] for line in lines if line is not None)])


def recall(key: str) -> Measurements | None:
    """The measurements stored under a key, if they can be read."""
    path = _path(key)
    if path is None:
        return None
    try:
        return from_dict(Measurements, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ConfigError):
        return None


def remember(key: str, measurements: Measurements) -> None:
    """Store the measurements for the next run; without a writable folder they are repeated."""
    path = _path(key)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(asdict(measurements), indent=1), encoding="utf-8")
    except OSError as error:
        logger.warning("the measurements cannot be stored in %s (%s)", path.parent, error)


def _path(key: str) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / "runtimes" / f"{key}.json"


def chosen_names(measurements: Measurements) -> Sequence[tuple[int, str]]:
    """Each measured batch size with the choice of `auto`."""
    return [(size, measurements.fastest(size).name) for size in measurements.batch_sizes]
