"""The same stages on Ray Data: actors on CPUs decode parts, actors that hold the model compute and write them.

Needs ray. A part is what travels. Ray tries it again when its process or node dies; a part that is computed twice is
the same both times and replaces itself. Decoding happens in processes of its own here as well, so that a video that
kills its decoder takes no Ray worker with it. Ray Data bounds what lies between the stages.
"""

import logging
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from openxclip.checkpoints.source import ModelSource
from openxclip.errors import InputError, MissingExtraError, VideoError
from openxclip.inference.engine import Engine
from openxclip.inference.options import InferenceOptions
from openxclip.tagging.decoding import WINDOWS_AT_ONCE, Facts, Piece, Plan
from openxclip.tagging.local import TagRow, tag_runner
from openxclip.tagging.output import Output, Part
from openxclip.tagging.rows import Layout, table
from openxclip.tagging.workers import Decoders
from openxclip.text.label_texts import LabelTexts

try:
    import ray
    import ray.data
except ImportError as error:
    raise MissingExtraError("ray[data]", "ray") from error


DECODER_CPUS = (
    0.999  # not that of a model: Ray Data runs stages as one that ask for the same, one after the other
)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where a job runs, and what it may take there."""

    address: str | None = None
    """Of a cluster, such as "auto" or ray://host:10001; None starts one on this machine."""
    min_models: int = 1
    max_models: int = 1
    """Actors that hold the model: as many as there is work for, between these."""
    model_cpus: float = 1.0
    """Cores that an actor is counted with; may be a fraction."""
    model_gpus: float = 0.0
    """GPUs of an actor; a fraction lets several share one."""
    num_decoders: int | None = None
    """Decoding actors; None for the cores that the models leave."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every actor needs to know."""

    model: ModelSource
    inference: InferenceOptions
    texts: LabelTexts
    layout: Layout
    plan: Plan
    output: str
    decode_seconds: float
    num_threads: int
    """Of a copy of the model."""


@dataclass(frozen=True)
class PartDone:
    """A part that was written."""

    number: int
    num_inputs: int
    video_seconds: float
    errors: dict[str, int]


@dataclass
class _Decoded:
    """Pieces that were decoded elsewhere, for a `Runner` in place of `Decoders`."""

    pixels: dict[tuple[int, int], Any] = field(default_factory=dict)
    """Piece -> uint8 (W * V, T, 3, S, S), or (reason, kind)."""
    facts: dict[tuple[int, int], Facts] = field(default_factory=dict)
    num_decoders: int = 1

    def read(self, piece: Piece) -> Tensor:
        found = self.pixels.pop((piece.number, piece.first_window))
        if isinstance(found, tuple):
            raise VideoError(piece.source.path, *found)
        return torch.from_numpy(found)

    def facts_of(self, piece: Piece) -> Facts:
        return self.facts.pop((piece.number, piece.first_window))


def run_parts(parts: Sequence[Part], work: Work, cluster: Cluster) -> Iterator[PartDone]:
    """Compute and write parts, in any order."""
    if not ray.is_initialized():
        ray.init(
            address=cluster.address, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR
        )
    num_decoders = min(_free_cores(cluster), cluster.num_decoders or len(parts))
    if not parts:
        return
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the job has a progress bar of its own
    ray.data.DataContext.get_current().enable_progress_bars = False
    # Values of ours travel as bytes: Arrow knows no such types.
    items = [{"part": pickle.dumps(part)} for part in parts]
    data: Any = ray.data.from_items(items, override_num_blocks=len(items))
    # Ray Data tries tasks and actors again whose process or node dies.
    decoded = data.map(
        _Decoder,
        fn_constructor_kwargs={"work": work},
        num_cpus=DECODER_CPUS,
        compute=ray.data.ActorPoolStrategy(size=num_decoders),
    )
    done = decoded.map(
        _Model,
        fn_constructor_kwargs={"work": work},
        compute=ray.data.ActorPoolStrategy(min_size=cluster.min_models, max_size=cluster.max_models),
        num_cpus=cluster.model_cpus,
        num_gpus=cluster.model_gpus,
    )
    for row in done.iter_rows():
        yield pickle.loads(row["done"])


def _free_cores(cluster: Cluster) -> int:
    """Cores that the models leave for decoding.

    Raises:
        InputError: none: the job would wait for ever.
    """
    resources = ray.cluster_resources()
    cores, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    if cluster.min_models * cluster.model_gpus > gpus:
        raise InputError(
            f"the cluster has {gpus:g} GPUs; {cluster.min_models} models want {cluster.model_gpus:g} each. Lower "
            "--models or --model-gpus"
        )
    free = int(cores - cluster.min_models * cluster.model_cpus)
    if free < 1:
        raise InputError(
            f"the cluster has {cores:g} cores; {cluster.min_models} models of {cluster.model_cpus:g} leave none for "
            "decoding. Lower --models or --model-cpus"
        )
    return free


class _Decoder:
    """An actor: decodes all pieces of a part, one after the other, in a process of its own that it keeps."""

    def __init__(self, work: Work) -> None:
        self.decoders = Decoders(work.plan, 1, work.decode_seconds)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        part, decoded = pickle.loads(row["part"]), _Decoded()
        for number, source in enumerate(part.sources):
            _decode_input(self.decoders, decoded, Piece(number=number, source=source))
        return {"part": row["part"], "decoded": pickle.dumps(decoded)}


def _decode_input(decoders: Decoders, decoded: _Decoded, piece: Piece) -> None:
    first = piece
    while True:
        key = piece.number, piece.first_window
        try:
            decoded.pixels[key] = decoders.read(piece).numpy()
        except VideoError as error:
            decoded.pixels[key] = (error.reason, error.kind)
            return
        decoded.facts[key] = decoders.facts_of(piece)
        following = piece.first_window + WINDOWS_AT_ONCE
        if following >= decoded.facts[key].num_windows:
            return
        piece = Piece(number=first.number, source=first.source, first_window=following)


class _Model:
    """An actor: loads the model once, then computes and writes parts."""

    def __init__(self, work: Work) -> None:
        # Ray counts cores, and gives a process one thread for each; sums of other numbers of threads differ in the
        # last bits.
        torch.set_num_threads(work.num_threads)
        self.work = work
        self.engine = Engine.load(self.work.model, self.work.inference)
        self.label_set = self.engine.label_set(self.work.texts)
        self.output = Output(self.work.output)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        part, layout = pickle.loads(row["part"]), self.work.layout
        runner = tag_runner(self.engine, self.label_set, layout, pickle.loads(row["decoded"]))
        rows: dict[int, tuple[TagRow, ...]] = {}
        seconds, errors = 0.0, dict[str, int]()
        for one in runner.run(part.sources):
            rows[one.number] = one.rows
            seconds += one.seconds
            if one.error_kind is not None:
                errors[one.error_kind] = errors.get(one.error_kind, 0) + 1
        self.output.write(part, table(layout, rows))
        return {"done": pickle.dumps(PartDone(part.number, len(part.sources), seconds, errors))}
