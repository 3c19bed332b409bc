"""The same stages on Ray Data: actors on CPUs decode, actors that hold the model compute rows.

Needs ray. A part goes in; its decoded pieces travel in bundles of a bounded size; its rows come out. Ray tries again
what was lost when a process or node dies: the bundles of a part are the same each time.
Decoding happens in processes of its own here as well, so that a video that kills its decoder takes no Ray worker with
it. Ray Data bounds what lies between the stages.
"""

import logging
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openxclip.checkpoints.source import ModelSource
from openxclip.errors import InputError, MissingExtraError, VideoError
from openxclip.inference.engine import Engine
from openxclip.inference.options import InferenceOptions
from openxclip.tagging.decoding import WINDOWS_AT_ONCE, Facts, Piece, Plan
from openxclip.tagging.local import TagRow, tag_runner
from openxclip.tagging.output import Part
from openxclip.tagging.rows import Layout, table
from openxclip.tagging.workers import Decoders
from openxclip.text.label_texts import LabelTexts

try:
    import pyarrow as pa
    import ray
    import ray.data
except ImportError as error:
    raise MissingExtraError("ray[data]", "ray") from error


BUNDLE_BYTES = (
    320 << 20
)  # of decoded pixels; 256 whole videos of 8 frames of 224 x 224 pixels, a part as it comes, are one bundle
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
    decode_seconds: float
    num_threads: int
    """Of a copy of the model."""


@dataclass(frozen=True)
class PartDone:
    """A part that is computed."""

    part: Part
    table: Any
    """Its rows."""
    video_seconds: float
    errors: dict[str, int]
    """Kind -> how many."""


@dataclass
class _Bundle:
    """Pieces that were decoded, for a `Runner` in place of `Decoders`."""

    part: int
    number: int
    """Among those of its part."""
    is_last: bool = False
    pieces: list[Piece] = field(default_factory=list)
    pixels: dict[tuple[int, int], np.ndarray | VideoError] = field(default_factory=dict)
    """Input and first window -> uint8 (W * V, T, 3, S, S)."""
    facts: dict[tuple[int, int], Facts] = field(default_factory=dict)
    num_bytes: int = 0
    num_decoders: int = 1

    def add(self, piece: Piece, pixels: np.ndarray | VideoError, facts: Facts | None) -> None:
        """Add a piece; facts of one that was read."""
        key = piece.number, piece.first_window
        self.pieces.append(piece)
        self.pixels[key] = pixels
        if isinstance(pixels, np.ndarray):
            self.num_bytes += pixels.nbytes
        if facts is not None:
            self.facts[key] = facts

    def read(self, piece: Piece) -> Tensor:
        """See `PieceReader`."""
        found = self.pixels.pop((piece.number, piece.first_window))
        if isinstance(found, VideoError):
            raise found
        return torch.from_numpy(found)

    def facts_of(self, piece: Piece) -> Facts:
        """See `PieceReader`."""
        return self.facts.pop((piece.number, piece.first_window))


@dataclass(frozen=True)
class _BundleRows:
    """What becomes of a bundle."""

    part: int
    number: int
    is_last: bool
    table: Any
    seconds: dict[int, float]
    """Input -> length of its video."""
    errors: dict[int, str]
    """Input -> kind."""


def run_parts(parts: Sequence[Part], work: Work, cluster: Cluster) -> Iterator[PartDone]:
    """Compute parts, in any order."""
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
    decoded = data.flat_map(
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
    by_number = {part.number: part for part in parts}
    waiting: dict[int, list[_BundleRows]] = {}
    for row in done.iter_rows():
        bundle: _BundleRows = pickle.loads(row["done"])
        waiting.setdefault(bundle.part, []).append(bundle)
        if _are_all(waiting[bundle.part]):
            yield _joined(by_number[bundle.part], waiting.pop(bundle.part))


def _are_all(bundles: Sequence[_BundleRows]) -> bool:
    """Whether these are the bundles of a whole part; they come in any order."""
    last = next((bundle.number for bundle in bundles if bundle.is_last), None)
    return last is not None and len(bundles) == last + 1


def _joined(part: Part, bundles: Sequence[_BundleRows]) -> PartDone:
    """The rows of a part. Of an input that ended in an error only the error stays."""
    bundles = sorted(bundles, key=lambda bundle: bundle.number)
    seconds: dict[int, float] = {}
    errors: dict[int, str] = {}
    for bundle in bundles:
        seconds.update(bundle.seconds)
        errors.update(bundle.errors)
    rows = pa.concat_tables([bundle.table for bundle in bundles])
    number = rows["input_number"].to_numpy()
    keep = ~np.isin(number, list(errors)) | rows["error_kind"].is_valid().to_numpy()
    return PartDone(part, rows.filter(pa.array(keep)), sum(seconds.values()), dict(Counter(errors.values())))


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
    """An actor: decodes the pieces of a part, one after the other, in a process of its own that it keeps."""

    def __init__(self, work: Work) -> None:
        self.decoders = Decoders(work.plan, 1, work.decode_seconds)

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        part: Part = pickle.loads(row["part"])
        bundle = _Bundle(part.number, 0)
        for number, source in enumerate(part.sources):
            for piece, pixels, facts in self._pieces(Piece(number=number, source=source)):
                if bundle.num_bytes >= BUNDLE_BYTES:
                    yield {"bundle": pickle.dumps(bundle)}
                    bundle = _Bundle(part.number, bundle.number + 1)
                bundle.add(piece, pixels, facts)
        bundle.is_last = True
        yield {"bundle": pickle.dumps(bundle)}

    def _pieces(self, piece: Piece) -> Iterator[tuple[Piece, np.ndarray | VideoError, Facts | None]]:
        """An input, piece by piece, up to one that cannot be read."""
        num_windows = 1
        while piece.first_window < num_windows:
            try:
                pixels = self.decoders.read(piece).numpy()
            except VideoError as error:
                yield piece, error, None
                return
            facts = self.decoders.facts_of(piece)
            yield piece, pixels, facts
            num_windows = facts.num_windows
            piece = replace(piece, first_window=piece.first_window + WINDOWS_AT_ONCE)


class _Model:
    """An actor: loads the model once, then computes the rows of bundles."""

    def __init__(self, work: Work) -> None:
        # Ray counts cores, and gives a process one thread for each; sums of other numbers of threads differ in the
        # last bits.
        torch.set_num_threads(work.num_threads)
        self.layout = work.layout
        self.engine = Engine.load(work.model, work.inference)
        self.label_set = self.engine.label_set(work.texts)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        bundle: _Bundle = pickle.loads(row["bundle"])
        runner = tag_runner(self.engine, self.label_set, self.layout, bundle)
        rows: dict[int, list[TagRow]] = {}
        seconds: dict[int, float] = {}
        errors: dict[int, str] = {}
        for done in runner.run_pieces(bundle.pieces):
            rows.setdefault(done.number, []).extend(done.rows)
            seconds[done.number] = done.seconds
            if done.error_kind is not None:
                errors[done.number] = done.error_kind
        made = table(self.layout, rows)
        found = _BundleRows(bundle.part, bundle.number, bundle.is_last, made, seconds, errors)
        return {"done": pickle.dumps(found)}
