"""The tagging stages on Ray Data: CPU actors decode, actors with the model compute rows.

Needs ray. A part goes in; its decoded pieces travel in bundles of bounded size; its rows come out. Ray Data limits the
data between stages and retries work lost when a process or node dies, without a limit: the bundles of a part are the
same each time.

Decoding runs in separate processes here as well, so that most videos that kill their decoder do not kill a Ray worker.
For those that do, and for workers that the kernel or Ray kills to free memory, a journal outside the workers records
what each one decodes. An input that was decoded when its worker died is decoded once more while no other decoder
of that machine works, and never a third time.
"""

import fcntl
import logging
import os
import pickle
import re
import socket
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openxclip.checkpoints.source import ModelSource
from openxclip.errors import InputError, MissingExtraError, OpenXCLIPError, VideoError
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
)  # of decoded pixels; a default part, 256 whole videos of 8 frames of 224 x 224 pixels, is one bundle
DECODER_CPUS = (
    0.999  # not that of a model: Ray Data fuses stages with equal resources and runs them sequentially
)
MAX_DEATHS = 2  # of workers while decoding the same input
MAX_LOST = 5  # restarts of the same work for an unknown reason, such as a dead node
CONNECT_SECONDS = 10.0
DECODERS_PER_JOURNAL = 16  # each makes a few dozen calls per second


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The cluster of a job, and its resources there."""

    address: str | None = None
    """Address of a cluster, such as "auto" or ray://host:10001; None starts one on this machine."""
    min_models: int = 1
    max_models: int = 1
    """Limits on the number of actors with the model, which scales with the work."""
    model_cpus: float = 1.0
    """Cores reserved per actor; may be a fraction."""
    model_gpus: float = 0.0
    """GPUs per actor; a fraction lets several share one."""
    num_decoders: int | None = None
    """Maximum number of decoding actors; None for as many as useful and possible, also on nodes that join later."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Settings for every actor."""

    model: ModelSource
    inference: InferenceOptions
    texts: LabelTexts
    layout: Layout
    plan: Plan
    decode_seconds: float
    num_threads: int
    """Threads of a model replica."""


@dataclass(frozen=True)
class PartDone:
    """A computed part."""

    part: Part
    table: Any
    """Its rows."""
    video_seconds: float
    errors: dict[str, int]
    """Kind -> count."""


@dataclass
class _Bundle:
    """Decoded pieces, for a `Runner` instead of `Decoders`."""

    part: int
    number: int
    """Number among the bundles of its part."""
    is_last: bool = False
    pieces: list[Piece] = field(default_factory=list)
    pixels: dict[tuple[int, int], np.ndarray | VideoError] = field(default_factory=dict)
    """Input and first window -> uint8 (W * V, T, 3, S, S)."""
    facts: dict[tuple[int, int], Facts] = field(default_factory=dict)
    num_bytes: int = 0
    num_decoders: int = 1

    def add(self, piece: Piece, pixels: np.ndarray | VideoError, facts: Facts | None) -> None:
        """Add a piece, with its facts if it was read."""
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
    """The result of a bundle."""

    part: int
    number: int
    is_last: bool
    table: Any
    seconds: dict[int, float]
    """Input -> length of its video."""
    errors: dict[int, str]
    """Input -> kind."""


def run_parts(
    parts: Sequence[Part],
    work: Work,
    cluster: Cluster,
    only: Mapping[int, Sequence[int]] | None = None,
) -> Iterator[PartDone]:
    """Compute parts, in any order.

    Args:
        parts: what to compute.
        work: settings of the work.
        cluster: where to run.
        only: number of a part -> numbers of its inputs to compute, in order; all inputs of other parts.

    Raises:
        InputError: there is no such cluster, or it is too small.
        OpenXCLIPError: workers die for a reason other than a video.
    """
    connect(cluster.address)
    free_cores = _free_cores(cluster)
    if not parts:
        return
    numbers = {part.number: range(len(part.sources)) for part in parts} | dict(only or {})
    by_number = {part.number: part for part in parts}
    waiting: dict[int, list[_BundleRows]] = {}
    for row in _pipeline(parts, numbers, work, cluster, free_cores).iter_rows():
        bundle: _BundleRows | OpenXCLIPError = pickle.loads(row["done"])
        if isinstance(bundle, OpenXCLIPError):
            raise bundle
        if bundle.part not in by_number:
            continue
        waiting.setdefault(bundle.part, []).append(bundle)
        if _are_all(waiting[bundle.part]):
            part = by_number.pop(bundle.part)
            yield _joined(part, waiting.pop(bundle.part), numbers[part.number])
    if by_number:
        raise OpenXCLIPError(
            f"{len(by_number)} parts did not come back from the cluster; run the same command again to compute them"
        )


def _pipeline(
    parts: Sequence[Part],
    numbers: Mapping[int, Sequence[int]],
    work: Work,
    cluster: Cluster,
    free_cores: int,
) -> Any:
    """The stages, not yet started."""
    max_decoders = min(cluster.num_decoders or len(parts), len(parts))
    journals = [_RemoteJournal.start() for _ in range(-(-free_cores // DECODERS_PER_JOURNAL))]
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the job has a progress bar of its own
    ray.data.DataContext.get_current().enable_progress_bars = False
    # Our values travel as bytes: Arrow has no such types.
    items = [{"part": pickle.dumps((part, numbers[part.number]))} for part in parts]
    data: Any = ray.data.from_items(items, override_num_blocks=len(items))
    # Ray Data retries tasks and actors whose process or node dies.
    decoded = data.flat_map(
        _Decoder,
        fn_constructor_kwargs={"work": work, "journals": journals},
        num_cpus=DECODER_CPUS,
        # Nodes may leave and join: idle actors make room for a model, and new cores get actors.
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=max_decoders, initial_size=min(free_cores, max_decoders)
        ),
    )
    return decoded.map(
        _Model,
        fn_constructor_kwargs={"work": work, "journals": journals},
        compute=ray.data.ActorPoolStrategy(min_size=cluster.min_models, max_size=cluster.max_models),
        num_cpus=cluster.model_cpus,
        num_gpus=cluster.model_gpus,
    )


def connect(address: str | None) -> None:
    """Connect to a cluster, or start one on this machine.

    Raises:
        InputError: no cluster responds at this address.
    """
    if ray.is_initialized():
        return
    if address in (None, "auto"):  # as Ray itself does
        address = os.environ.get("RAY_ADDRESS") or address or "local"
    advice = "start one (`ray start --head`), or correct --address"
    try:
        found = _found_by_ray() if address == "auto" else address
        _check_that_something_listens(found)
        ray.init(address=found, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError) as error:
        raise InputError(f"no Ray cluster answers at {address} ({error}); {advice}") from error


def _found_by_ray() -> str:
    """The address of this machine's newest cluster; one that was killed leaves its address behind.

    Raises:
        ConnectionError: there is none.
    """
    from ray._private.services import canonicalize_bootstrap_address  # Ray has no public way to ask

    return str(canonicalize_bootstrap_address("auto"))


def _check_that_something_listens(address: str) -> None:
    """Ray itself keeps trying for minutes.

    Raises:
        ConnectionError: the address has a port, and nothing listens there.
    """
    if match := re.fullmatch(r"(?:ray://)?\[?(.+?)\]?:(\d+)", address):
        try:
            socket.create_connection((match[1], int(match[2])), CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise ConnectionError(str(error)) from error


def _are_all(bundles: Sequence[_BundleRows]) -> bool:
    """Whether these are all bundles of a part; they come in any order."""
    last = next((bundle.number for bundle in bundles if bundle.is_last), None)
    return last is not None and len({bundle.number for bundle in bundles}) == last + 1


def _joined(part: Part, bundles: Sequence[_BundleRows], numbers: Sequence[int]) -> PartDone:
    """The rows of these inputs of a part. For an input that ended in an error, only the error is kept.

    Raises:
        OpenXCLIPError: an input has no rows.
    """
    bundles = sorted(bundles, key=lambda bundle: bundle.number)
    seconds: dict[int, float] = {}
    errors: dict[int, str] = {}
    for bundle in bundles:
        seconds.update(bundle.seconds)
        errors.update(bundle.errors)
    rows = pa.concat_tables([bundle.table for bundle in bundles])
    number = rows["input_number"].to_numpy()
    keep = ~np.isin(number, list(errors)) | rows["error_kind"].is_valid().to_numpy()
    if missing := sorted(set(numbers) - set(number[keep].tolist())):
        raise OpenXCLIPError(
            f"part {part.number}: {len(missing)} inputs have no rows, {part.sources[missing[0]].path} first. Run the "
            "same command again; if that does not help, use --engine local"
        )
    return PartDone(part, rows.filter(pa.array(keep)), sum(seconds.values()), dict(Counter(errors.values())))


def _free_cores(cluster: Cluster) -> int:
    """Cores left for decoding after the models' share.

    Raises:
        InputError: none are left: the job would wait forever.
    """
    resources = ray.cluster_resources()
    cores, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    if cluster.min_models * cluster.model_gpus > gpus:
        raise InputError(
            f"the cluster has {gpus:g} GPUs; {cluster.min_models} models need {cluster.model_gpus:g} each. Lower "
            "--models or --model-gpus"
        )
    free = int(cores - cluster.min_models * cluster.model_cpus)
    if free < 1:
        raise InputError(
            f"the cluster has {cores:g} cores; {cluster.min_models} models of {cluster.model_cpus:g} leave none for "
            "decoding. Lower --models or --model-cpus"
        )
    return free


class _Journal:
    """The current work of each worker, and how often a worker died of it. Lives in a separate actor."""

    def __init__(self) -> None:
        self._current: dict[str, tuple[str, int]] = {}  # worker -> work, input
        self._deaths: dict[str, Counter[int]] = {}
        self._num_begun: Counter[str] = Counter()
        self._work: dict[str, str] = {}  # of each worker

    def begin_work(self, worker: str, work: str) -> tuple[dict[int, int], int]:
        """A worker starts a part or a bundle -> deaths of workers per input; other restarts of this work.

        Work has one worker at a time, so another worker recorded for it is dead. A worker that starts other work has
        finished its previous one.
        """
        finished = self._work.get(worker)
        if finished not in (None, work):
            self._deaths.pop(finished, None)
            self._num_begun.pop(finished, None)
        self._work[worker] = work
        deaths = self._deaths.setdefault(work, Counter())
        for other, (of_other, number) in list(self._current.items()):
            if of_other == work and other != worker:
                deaths[number] += 1
                del self._current[other]
        num_before = self._num_begun[work]
        self._num_begun[work] += 1
        return dict(deaths), num_before - deaths.total()

    def begin(self, worker: str, work: str, number: int) -> None:
        """The worker starts decoding an input."""
        self._current[worker] = work, number

    def end(self, worker: str) -> None:
        """The worker has decoded the input."""
        self._current.pop(worker, None)


@dataclass(frozen=True)
class _RemoteJournal:
    """A `_Journal` in an actor. If its node dies, it restarts empty."""

    actor: Any

    @staticmethod
    def start() -> "_RemoteJournal":
        """Start the actor; it ends with its last handle."""
        remote = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Journal)
        return _RemoteJournal(remote.remote())

    def begin_work(self, worker: str, work: str) -> tuple[dict[int, int], int]:
        """See `_Journal`."""
        return ray.get(self.actor.begin_work.remote(worker, work))

    def begin(self, worker: str, work: str, number: int) -> None:
        """See `_Journal`; it is recorded when this returns."""
        ray.get(self.actor.begin.remote(worker, work, number))

    def end(self, worker: str) -> None:
        """See `_Journal`; it does not wait for the record."""
        self.actor.end.remote(worker)


class _Machine:
    """The decoders of this machine and user: many at once, or one alone.

    Uses locks on two files, which the kernel frees when a process closes them or dies.
    """

    def __init__(self) -> None:
        folder = Path(tempfile.gettempdir())
        self._door = folder / f"openxclip-{os.getuid()}-decoding-door.lock"
        self._room = folder / f"openxclip-{os.getuid()}-decoding-room.lock"

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Decode in parallel with others."""
        with self._room.open("a") as room:
            with self._door.open("a") as door:
                fcntl.flock(door, fcntl.LOCK_EX)
                fcntl.flock(room, fcntl.LOCK_SH)
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Block newcomers, and wait until the others are done."""
        with self._door.open("a") as door, self._room.open("a") as room:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX)
            yield


class _Decoder:
    """An actor: decodes the pieces of a part sequentially in its own long-lived process."""

    def __init__(self, work: Work, journals: Sequence[_Journal | _RemoteJournal]) -> None:
        self.decoders = Decoders(work.plan, 1, work.decode_seconds)
        self.journals = journals
        self.machine = _Machine()
        self.name = uuid.uuid4().hex

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        try:
            for bundle in self._bundles(*pickle.loads(row["part"])):
                yield {"bundle": pickle.dumps(bundle)}
        except InputError as error:  # decoders do not start
            yield {"bundle": pickle.dumps(error)}

    def _bundles(self, part: Part, numbers: Sequence[int]) -> Iterator[_Bundle | OpenXCLIPError]:
        """The pieces of these inputs of a part; an error if it cannot continue."""
        journal, work = self.journals[part.number % len(self.journals)], f"part {part.number}"
        deaths, num_lost = journal.begin_work(self.name, work)
        if num_lost > MAX_LOST:
            yield _given_up(work, num_lost)
            return
        bundle = _Bundle(part.number, 0)
        for number in numbers:
            note = _Note(journal, self.name, work, number, deaths.get(number, 0))
            for piece, pixels, facts in self._pieces(Piece(number=number, source=part.sources[number]), note):
                if bundle.num_bytes >= BUNDLE_BYTES:
                    yield bundle
                    bundle = _Bundle(part.number, bundle.number + 1)
                bundle.add(piece, pixels, facts)
        bundle.is_last = True
        yield bundle

    def _pieces(
        self, piece: Piece, note: "_Note"
    ) -> Iterator[tuple[Piece, np.ndarray | VideoError, Facts | None]]:
        """An input, piece by piece, up to the first unreadable one."""
        num_windows = 1
        while piece.first_window < num_windows:
            try:
                pixels = self._read(piece, note)
            except VideoError as error:
                yield piece, error, None
                return
            facts = self.decoders.facts_of(piece)
            yield piece, pixels, facts
            num_windows = facts.num_windows
            piece = replace(piece, first_window=piece.first_window + WINDOWS_AT_ONCE)

    def _read(self, piece: Piece, note: "_Note") -> np.ndarray:
        """Pixels of a piece. If it killed a worker or, twice, its decoder, it is retried once, alone on the machine."""
        if note.num_deaths >= MAX_DEATHS:
            raise VideoError(piece.source.path, "the worker that decoded it died, twice", kind="crashed")
        if not note.num_deaths:
            try:
                return self._read_in(self.machine.shared(), piece, note)
            except VideoError as error:
                if error.kind != "crashed":
                    raise
        return self._read_in(self.machine.alone(), piece, note)

    def _read_in(self, turn: AbstractContextManager[None], piece: Piece, note: "_Note") -> np.ndarray:
        with turn, note.written():
            return self.decoders.read(piece).numpy()


@dataclass(frozen=True)
class _Note:
    """The record that a worker decodes an input."""

    journal: _Journal | _RemoteJournal
    worker: str
    work: str
    number: int
    """Of the input in its part."""
    num_deaths: int
    """Deaths of workers that decoded it before."""

    @contextmanager
    def written(self) -> Iterator[None]:
        """Keep the record in the journal during the block, and afterwards if the worker dies."""
        self.journal.begin(self.worker, self.work, self.number)
        try:
            yield
        finally:
            self.journal.end(self.worker)


def _given_up(work: str, num_lost: int) -> OpenXCLIPError:
    return OpenXCLIPError(
        f"the workers of {work} died {num_lost} times, but not because of a video. Check their memory (try a smaller "
        "--part-size or --batch-size, or larger --model-cpus) and Ray's logs, then run the same command again"
    )


class _Model:
    """An actor: loads the model once, then computes the rows of bundles."""

    def __init__(self, work: Work, journals: Sequence[_Journal | _RemoteJournal]) -> None:
        # Ray counts cores and gives a process one thread per core; sums with another number of threads differ in the
        # last bits.
        torch.set_num_threads(work.num_threads)
        self.layout = work.layout
        runtime = replace(work.inference.runtime, num_threads=work.num_threads)
        self.engine = Engine.load(work.model, replace(work.inference, runtime=runtime))
        self.label_set = self.engine.label_set(work.texts)
        self.journals = journals
        self.name = uuid.uuid4().hex

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        bundle: _Bundle | OpenXCLIPError = pickle.loads(row["bundle"])
        if isinstance(bundle, OpenXCLIPError):
            return {"done": row["bundle"]}
        work = f"part {bundle.part}, bundle {bundle.number}"
        _, num_lost = self.journals[bundle.part % len(self.journals)].begin_work(self.name, work)
        if num_lost > MAX_LOST:
            return {"done": pickle.dumps(_given_up(work, num_lost))}
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
