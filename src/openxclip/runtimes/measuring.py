"""Measures speed and accuracy of each way to compute an image tower on this machine.

Shapes: B clips, T frames, S input side, K labels, E joint embedding.
"""

import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from openxclip.checkpoints.load import load
from openxclip.checkpoints.source import ModelSource
from openxclip.errors import InputError
from openxclip.models import XCLIP, VideoFeatures
from openxclip.runtimes.calibration import noise_between
from openxclip.runtimes.calibration_file import kept_calibration
from openxclip.runtimes.memory import peak_bytes
from openxclip.runtimes.options import RuntimeOptions
from openxclip.runtimes.runtime import build_runtime
from openxclip.runtimes.ways import Way, ways
from openxclip.video.transforms import Preprocessor

MAX_SECONDS = 4.0  # for the rounds of one batch; at least MIN_ROUNDS
MIN_ROUNDS = 3


class Run(NamedTuple):
    """Raw measurements of one way."""

    seconds: tuple[float, ...]
    """Median time of a batch, for each size."""
    features: VideoFeatures
    """Features of the clips, in float32."""
    peak_bytes: int | None = None
    """Peak memory of its process; None if the process also did other work."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The table row of one way."""

    way: Way
    seconds: tuple[float, ...] = ()
    """Median time of a batch, for each size."""
    noise: float | None = None
    """Deviation of its video features from torch in float32: see `calibration.py`."""
    same_best: float | None = None
    """Share of the clips with the same best label as with torch in float32."""
    peak_bytes: int | None = None
    """Peak memory of its process."""
    problem: str | None = None
    """Why it was not measured."""


def run_way(
    way: Way,
    model: XCLIP,
    preprocess: Preprocessor,
    options: RuntimeOptions,
    clips: Tensor,
    batch_sizes: Sequence[int],
) -> Run:
    """Build and time one way.

    Args:
        way: the way to measure.
        model: as loaded, on the CPU; it is not changed.
        preprocess: of the model.
        options: calibration, token merging and threads.
        clips: uint8 (B, T, 3, S, S).
        batch_sizes: clips at once.
    """
    runtime = build_runtime(way.model(model), preprocess, way.options(options))
    batches = [_batch(clips, size) for size in batch_sizes]
    seconds = tuple(_seconds(partial(runtime.encode_video, batch)) for batch in batches)
    parts = [runtime.encode_video(clip[None]) for clip in clips]
    video = torch.cat([part.video.float() for part in parts])
    patches = [part.patches.float() for part in parts if part.patches is not None]
    return Run(seconds, VideoFeatures(video, torch.cat(patches) if patches else None))


def _batch(clips: Tensor, size: int) -> Tensor:
    """This many clips, repeated from the start if there are too few."""
    return clips[torch.arange(size) % len(clips)].contiguous()


def _seconds(step: Callable[[], object]) -> float:
    step()  # compilers compile, caches fill
    found: list[float] = []
    while len(found) < MIN_ROUNDS or sum(found) < MAX_SECONDS:
        started = time.perf_counter()
        step()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def calibrate_first(model: XCLIP, preprocess: Preprocessor, options: RuntimeOptions) -> None:
    """Calibrate in advance for the ways of this machine, so that progress is visible."""
    if any(way.int8 and way.runtime != "torch" for way in ways(model)):
        kept_calibration(model, preprocess, options.calibration)


def measure_here(
    model: XCLIP, preprocess: Preprocessor, options: RuntimeOptions, clips: Tensor, batch_sizes: Sequence[int]
) -> Iterator[Measured]:
    """All ways in this process, one after another, compared with the first."""
    reference: VideoFeatures | None = None
    for way in ways(model):
        try:
            run = run_way(way, model, preprocess, options, clips, batch_sizes)
        except Exception as error:  # noqa: BLE001 -- whatever a runtime raises, the others may work
            _check_reference(way, reference, _first_line(error))
            yield Measured(way=way, problem=_first_line(error))
            continue
        reference = reference or run.features
        yield compared(way, run, reference)


def _check_reference(way: Way, reference: VideoFeatures | None, problem: str) -> None:
    """
    Raises:
        InputError: this is the reference for the others.
    """
    if reference is None:
        raise InputError(f"{way.name}, the reference for the others, cannot be measured: {problem}")


class Apart(NamedTuple):
    """The input of the process that runs a way."""

    source: ModelSource
    options: RuntimeOptions
    clips: np.ndarray
    """A pickled array: a tensor would go through shared memory, which containers have little of."""
    batch_sizes: tuple[int, ...]


def measure_apart(
    work: Apart, model: XCLIP, preprocess: Preprocessor, tokens: Tensor | None
) -> Iterator[Measured]:
    """Measure all ways, each in a separate process, so that peak memory is its own.

    Args:
        work: input of the processes.
        model: the same that they load, on the CPU.
        preprocess: of the model.
        tokens: (K, C) of labels, among which the best are compared; None if the model has no texts.
    """
    calibrate_first(model, preprocess, work.options)
    model = copy.deepcopy(model).float()
    with torch.inference_mode():
        text = None if tokens is None else model.encode_text(tokens)
    reference: VideoFeatures | None = None
    for way in ways(model):
        run = _run_apart(way, work)
        if isinstance(run, Run):
            reference = reference or run.features
            yield compared(way, run, reference, model, text)
        else:
            _check_reference(way, reference, run)
            yield Measured(way=way, problem=run)


def _run_apart(way: Way, work: Apart) -> Run | str:
    """The result of a separate process, or why it ended."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_load_and_run, way, work).result()
        except BrokenProcessPool:
            return "its process was ended; memory may have run out"
        except Exception as error:  # noqa: BLE001 -- whatever a runtime raises, the others may work
            return _first_line(error)


def _load_and_run(way: Way, work: Apart) -> Run:
    model, _, preprocess = load(work.source)
    run = run_way(way, model, preprocess, work.options, torch.from_numpy(work.clips), work.batch_sizes)
    return run._replace(peak_bytes=peak_bytes())


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def compared(
    way: Way, run: Run, reference: VideoFeatures, model: XCLIP | None = None, text: Tensor | None = None
) -> Measured:
    """A way's row, against the features of torch in float32; with a float32 model and texts (K, E) also best labels."""
    same = None
    if model is not None and text is not None:
        with torch.inference_mode():
            best = [model.logits(features, text).argmax(dim=1) for features in (run.features, reference)]
        same = (best[0] == best[1]).float().mean().item()
    found, expected = (F.normalize(features.video, dim=-1) for features in (run.features, reference))
    return Measured(
        way=way,
        seconds=run.seconds,
        noise=noise_between(found, expected),
        same_best=same,
        peak_bytes=run.peak_bytes,
    )
