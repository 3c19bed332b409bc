"""An index of videos: a LanceDB table of windows that can be updated and searched. Needs lancedb.

A search has two stages. The first finds the embeddings nearest to the text's. The second rescores these candidates
with video-specific prompts (section 3.3): a prompted text depends on the video, so no table can be sorted by it.

Shapes: M candidates, N patches, E joint embedding.
"""

import json
import logging
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from openxclip.durations import seconds_of
from openxclip.errors import InputError, MissingExtraError, VideoError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtraError(str(error.name), "search") from error

from openxclip.inference.engine import Engine
from openxclip.inference.label_set import label_features
from openxclip.inference.views import Views
from openxclip.models import VideoFeatures
from openxclip.search.changes import GONE, Look, listed, look_at, print_of, root_of
from openxclip.search.embedding import IndexRow, index_runner
from openxclip.search.settings import (
    Settings,
    is_same_model,
    read_settings,
    unreachable,
    write_settings,
)
from openxclip.search.table import (
    alone,
    batch_of,
    drop_copies,
    drop_others,
    drop_paths,
    make_table,
    open_table,
    quoted,
    readable,
    rows_of,
    schema,
)
from openxclip.steps import finished
from openxclip.tagging.decoding import WINDOWS_AT_ONCE, Piece, Plan, decode
from openxclip.tagging.output import JOB
from openxclip.tagging.runner import Finished, Runner
from openxclip.tagging.sources import Source, file_system, is_remote, source_at
from openxclip.tagging.workers import Decoders
from openxclip.video.source import VideoLimits
from openxclip.workers import num_cores

logger = logging.getLogger(__name__)

INPUTS_AT_ONCE = 64  # inputs whose rows are added together: the most that an interrupted update repeats
ROW_BYTES_AT_ONCE = (
    64 << 20
)  # and the bytes of their embeddings and contexts; those of a longer video are buffered on disk
MIN_ROWS_OF_ANN = (
    2_000_000  # below, comparing with every row takes at most 1.5 s, on two cores with 512 numbers per row
)
NUM_PROMPTERS = 16  # videos that prompt a text for the first stage
NEAR_DUPLICATE = 0.99  # cosine from which two windows count as near duplicates

FACTS = ("path", "start_seconds", "end_seconds", "duration_seconds", "fps", "width", "height", "codec")


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A search result: a window."""

    path: str
    start_seconds: float
    end_seconds: float
    duration_seconds: float
    score: float
    """The cosine of the video with the prompted text, or with the other video: comparable among hits of one search that
    are either all prompted or all not. Only roughly comparable across searches: some texts are nearer to all videos."""
    is_prompted: bool = False
    """Whether the score is that of the prompted text. A candidate that could not be read again has the score of the
    bare text, which is not comparable, and ranks behind the others."""
    is_near_duplicate: bool = False
    """Whether it is a near duplicate of the query video."""


@dataclass(frozen=True, kw_only=True)
class Update:
    """Summary of an update, in videos."""

    num_added: int
    num_changed: int
    num_deleted: int
    num_unchanged: int
    num_rows: int
    """Rows of the whole index, afterwards."""
    errors: dict[str, str]
    """Videos that cannot be read, and why; the next update tries them again. Their old rows stay, unless they are
    deleted."""


@dataclass
class _Tally:
    """Progress of an update, by path."""

    added: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    errors: dict[str, str] = field(default_factory=dict)


class Index:
    """An open index and its model."""

    def __init__(
        self, address: str, engine: Engine, settings: Settings, table: Any, limits: VideoLimits | None = None
    ) -> None:
        self.address, self.engine, self.settings = address.rstrip("/"), engine, settings
        self.limits = limits or VideoLimits()
        self._table = table

    @classmethod
    def open(
        cls,
        address: str,
        engine: Engine,
        model_name: str,
        *,
        windows: str | None = None,
        stride: str | None = None,
        keep_context: bool = True,
        limits: VideoLimits | None = None,
    ) -> Self:
        """Open an index for updates, or create it.

        Args:
            address: folder of the index; a path, or an address of an object store.
            engine: the model.
            model_name: the model's name as given, for `read_settings`.
            windows: length of a window, such as "4s"; None for whole videos.
            stride: from one window to the next.
            keep_context: store the context for prompts; without it a search decodes its candidates again.
            limits: videos beyond them are left out.

        Raises:
            InputError: the index was created with another model or other windows.
            OpenXCLIPError: the index cannot be read or written.
        """
        wanted = Settings.of(engine, model_name, windows=windows, stride=stride, keep_context=keep_context)
        settings, table = read_settings(address), None
        if settings is not None:
            settings.check_same(wanted, address)
            table = open_table(address)
        if settings is None or table is None:
            with alone(address):
                settings = read_settings(address)  # another process may have created it meanwhile
                if settings is None:
                    write_settings(address, wanted)
                    settings = wanted
                settings.check_same(wanted, address)
                table = open_table(address) or make_table(address, settings)
        return cls(address, engine, settings, table, limits)

    @classmethod
    def for_search(cls, address: str, engine: Engine) -> Self:
        """Open an existing index with any windows.

        Raises:
            InputError: there is no index, or it was created with another model.
            OpenXCLIPError: the index cannot be read.
        """
        settings = read_settings(address)
        table = None if settings is None else open_table(address)
        if settings is None or table is None:
            raise InputError(f"there is no index at {address}; create one with openxclip index")
        settings.check_model(engine, address)
        return cls(address, engine, settings, table)

    @property
    def num_rows(self) -> int:
        """Number of windows in the index."""
        with readable(self.address):
            return self._table.count_rows()

    # --- updates --------------------------------------------------------------------------------------------------

    def update(self, inputs: str, num_decoders: int | None = None) -> Update:
        """Add new videos, read changed ones again, drop those deleted from `inputs`.

        A row is replaced once the new one is written. Rows of an unreachable video stay.

        Raises:
            InputError: there are no inputs, or another process updates the index.
            OpenXCLIPError: the index cannot be written.
        """
        return finished(self.update_in_steps(inputs, num_decoders))

    def update_in_steps(
        self, inputs: str, num_decoders: int | None = None
    ) -> Generator[tuple[int, int], None, Update]:
        """`update` as a generator that yields (done, all) before the first video and after each, for a progress bar."""
        with alone(self.address):
            return (yield from self._update(inputs, num_decoders))

    def _update(self, inputs: str, num_decoders: int | None) -> Generator[tuple[int, int], None, Update]:
        root = root_of(inputs)
        known = self._known()
        of_root = _paths_of(root, known)
        sources = listed(inputs, was_indexed=bool(of_root))
        look = look_at(sources, inputs)
        tally = _Tally(errors=look.unknown | dict.fromkeys(look.gone, GONE))
        self._drop_gone(of_root.difference(source.path for source in sources), look, known, tally)
        prints = look.prints
        unchanged = {path for path in prints if prints[path] in known.get(path, {})}
        with readable(self.address):  # a killed update may have left replaced rows
            drop_others(self._table, {path: prints[path] for path in unchanged if len(known[path]) > 1})
        to_read = [source for source in sources if source.path in prints and source.path not in unchanged]
        yield 0, len(to_read)
        if to_read:
            with Decoders(self._plan(), num_decoders or num_cores(), 300.0) as decoders:
                yield from self._add_videos(decoders, to_read, root, prints, known, tally)
        if tally.added or tally.changed or tally.deleted:
            self._optimise()
        return self._summary(tally, len(unchanged))

    def _drop_gone(self, unlisted: set[str], look: Look, known: "_Known", tally: _Tally) -> None:
        """Delete rows that are no longer among the inputs. A local file that cannot be checked may still exist."""
        unlisted = {path for path in unlisted if not look.may_hold(path)}
        again = look_at([Source(path) for path in unlisted if not is_remote(path)])
        tally.errors.update(again.unknown)
        tally.deleted |= (unlisted - again.unknown.keys()) | (look.gone & known.keys())
        with readable(self.address):
            drop_paths(self._table, sorted(tally.deleted))

    def _add_videos(
        self,
        decoders: Decoders,
        sources: Sequence[Source],
        root: str,
        prints: Mapping[str, str],
        known: "_Known",
        tally: _Tally,
    ) -> Iterator[tuple[int, int]]:
        """Read videos and add their rows in batches: either all of a video's rows are added or none."""
        runner = index_runner(self.engine, decoders, with_context=self.settings.num_context > 0)
        pieces = [Piece(number=number, source=source) for number, source in enumerate(sources)]
        max_rows = max(1, ROW_BYTES_AT_ONCE // (2 * (self.settings.embed_dim + self.settings.num_context)))
        rows: list[IndexRow] = []
        waiting: dict[str, str] = {}
        for number, done in enumerate(runner.run_pieces(pieces), start=1):
            source = sources[done.number]
            marks = {"root": root, "fingerprint": prints[source.path]}
            if done.error is not None:
                tally.errors[source.path] = done.error
            elif done.num_windows > WINDOWS_AT_ONCE:
                self._add_long_video(runner, done, source, marks, known, tally)
            else:
                rows += [row | marks for row in done.rows]
                waiting[source.path] = prints[source.path]
            if len(waiting) >= INPUTS_AT_ONCE or len(rows) >= max_rows or number == len(sources):
                self._store(batch_of(rows, self.settings) if rows else None, waiting, known, tally)
                rows, waiting = [], {}
            yield number, len(sources)

    def _add_long_video(
        self,
        runner: Runner[IndexRow],
        first: Finished[IndexRow],
        source: Source,
        marks: dict[str, str],
        known: "_Known",
        tally: _Tally,
    ) -> None:
        """Rows of a video of any length: they are buffered on disk until complete, and are then added together."""
        starts = range(WINDOWS_AT_ONCE, first.num_windows, WINDOWS_AT_ONCE)
        rest = runner.run_pieces(
            [Piece(number=first.number, source=source, first_window=at) for at in starts]
        )
        folder = None if is_remote(self.address) else file_system(self.address)[1]
        with tempfile.TemporaryFile(dir=folder) as file:
            with pa.ipc.new_stream(file, schema(self.settings)) as writer:
                for done in chain([first], rest):
                    if done.error is not None:
                        tally.errors[source.path] = done.error
                        return
                    writer.write_batch(batch_of([row | marks for row in done.rows], self.settings))
            file.seek(0)
            self._store(pa.ipc.open_stream(file), {source.path: marks["fingerprint"]}, known, tally)

    def _store(self, rows: Any, prints: Mapping[str, str], known: "_Known", tally: _Tally) -> None:
        """Add the rows of some videos, in Arrow, and then drop the rows that they replace."""
        before = {path: mark for path, mark in prints.items() if path in known or path in tally.added}
        with readable(self.address):
            if rows is not None:
                self._table.add(rows)
            drop_others(self._table, before)
        tally.changed |= before.keys() & known.keys()
        tally.added |= prints.keys() - before.keys()

    def update_from_tags(self, output: str) -> Update:
        """Add the output of `openxclip tag --embedding`, part by part; changed parts are read again.

        Prompts need more than a tag output holds: the index must be created with `keep_context=False`.

        Raises:
            InputError: the output holds no embeddings, or those of another model; or the index stores context.
            OpenXCLIPError: the output cannot be read, or the index not be written.
        """
        if self.settings.num_context:
            raise InputError(
                "a tag output holds no context for prompts; create the index without it (--no-context)"
            )
        with alone(self.address):
            return self._update_from_tags(output)

    def _update_from_tags(self, output: str) -> Update:
        system, root, prints = self._parts(output)
        known, tally = self._known(), _Tally()
        of_root = _paths_of(root, known)
        marks = {mark for path in of_root for mark in known[path]}
        num_errors = 0
        for name in (name for name in prints if prints[name] not in marks):
            rows, errors = self._tag_rows(system, name)
            num_errors += errors
            of_part = dict.fromkeys((row["path"] for row in rows), prints[name])
            rows = [{**row, "root": root, "fingerprint": prints[name]} for row in rows]
            self._store(batch_of(rows, self.settings) if rows else None, of_part, known, tally)
        with readable(self.address):
            for mark in marks.difference(prints.values()):
                self._table.delete(f"root = {quoted(root)} and fingerprint = {quoted(mark)}")
        if tally.added or tally.changed or marks.difference(prints.values()):
            self._optimise()
        after = self._known()
        tally.deleted = known.keys() - after.keys()
        if num_errors:
            tally.errors[output] = f"{num_errors} rows are errors"
        return self._summary(tally, len(_paths_of(root, after) - tally.added - tally.changed))

    def _parts(self, output: str) -> tuple[Any, str, dict[str, str]]:
        """The file system of a tag output, its name in the index, and the fingerprint of each part.

        Raises:
            InputError: it is not a tag output, or has other windows.
        """
        try:
            system, folder = file_system(output.rstrip("/"))
            system.invalidate_cache()
            parts = sorted(system.glob(f"{folder}/part-*.parquet"))
            prints = {name: f"{name.rpartition('/')[2]} {print_of(system.info(name))}" for name in parts}
            job = json.loads(system.cat_file(f"{folder}/{JOB}")) if parts else {}
        except Exception as error:  # each store has its own errors
            raise unreachable(output, error) from error
        if not parts:
            raise InputError(f"{output} holds no parts of a tag output")
        if (job.get("windows"), job.get("stride")) != (self.settings.windows, self.settings.stride):
            raise InputError(
                f"{output} has windows {job.get('windows')} and stride {job.get('stride')}, the index "
                f"{self.settings.windows} and {self.settings.stride}; create the index with those of the output"
            )
        return system, f"tags {system.unstrip_protocol(folder)}", prints

    def _tag_rows(self, system: Any, name: str) -> tuple[list[IndexRow], int]:
        """Rows of a part, each window of a path once, and the number of error rows."""
        try:
            with system.open(name, "rb") as file:
                table = pq.read_table(file)
        except Exception as error:  # each store has its own errors
            raise unreachable(name, error) from error
        if "embedding" not in table.column_names:
            raise InputError(f"{name} holds no embeddings; tag with --embedding")
        rows = table.to_pylist()
        good = [row for row in rows if row["error_kind"] is None]
        for other in {row["model_id"] for row in good}:
            if not is_same_model(other, self.settings.model_id):
                raise InputError(
                    f"{name} was tagged with {other}, but the index is for {self.settings.model_id}"
                )
        kept = {
            (row["path"], row["start_seconds"]): {key: row[key] for key in FACTS}
            | {"embedding": np.array(row["embedding"])}
            for row in good
        }
        return list(kept.values()), len(rows) - len(good)

    def add_rows(self, rows: Sequence[IndexRow]) -> None:
        """Add rows from `index_runner`, with `root` and `fingerprint`."""
        if rows:
            with readable(self.address):
                self._table.add(batch_of(rows, self.settings))

    def _known(self) -> "_Known":
        """The current table, including changes by other processes."""
        known: _Known = {}
        with readable(self.address):
            self._table.checkout_latest()
            drop_copies(self._table)
            table = rows_of(self._table, ["path", "fingerprint", "root"])
        columns = (table[name].to_pylist() for name in ("path", "fingerprint", "root"))
        for path, fingerprint, root in zip(*columns, strict=True):
            known.setdefault(path, {})[fingerprint] = root
        return known

    def _summary(self, tally: _Tally, num_unchanged: int) -> Update:
        return Update(
            num_added=len(tally.added),
            num_changed=len(tally.changed),
            num_deleted=len(tally.deleted),
            num_unchanged=num_unchanged,
            num_rows=self.num_rows,
            errors=dict(sorted(tally.errors.items())),
        )

    def _optimise(self) -> None:
        """Merge small files; beyond `MIN_ROWS_OF_ANN` rows, build a vector index."""
        with readable(self.address):
            self._table.optimize()
            if self.num_rows >= MIN_ROWS_OF_ANN and not self._table.list_indices():
                self.build_ann()

    def _num_probes(self) -> int:
        """Number of partitions that a search probes in a vector index: a tenth of them."""
        return max(20, round(self.num_rows**0.5 / 10))

    def build_ann(self) -> None:
        """Build a vector index, so that a search need not compare every row."""
        partitions = max(1, round(self.num_rows**0.5))
        self._table.create_index(
            metric="cosine",
            vector_column_name="embedding",
            index_type="IVF_FLAT",
            num_partitions=partitions,
            replace=True,
        )

    # --- searching ------------------------------------------------------------------------------------------------

    def search(self, text: str, *, top_k: int = 10, rerank: int = 100, where: str | None = None) -> list[Hit]:
        """Windows that match a text, best first.

        Args:
            text: the query, in your own words.
            top_k: number of results.
            rerank: number of candidates to score with prompts; 0 for none.
            where: an SQL condition on the columns, such as "duration_seconds < 30 and path like '%cam2%'".

        Raises:
            InputError: a number or the condition is invalid.
        """
        feature = self._text_feature(text)
        with_prompts = rerank > 0 and self.engine.model.prompting is not None
        query = self._query(feature) if with_prompts else feature[0].numpy()
        found = self._nearest(query, max(top_k, rerank), where, with_context=with_prompts)
        scores, is_prompted = 1 - found["_distance"].to_numpy(), np.zeros(len(found), bool)
        if with_prompts and len(found):
            is_prompted, videos = self._to_prompt(found)
            if is_prompted.any():
                scores[is_prompted] = self._prompted(videos, feature)
        return _hits(found, scores, top_k, is_prompted=is_prompted)

    def similar(self, video: str, *, top_k: int = 10, where: str | None = None) -> list[Hit]:
        """Windows similar to a video, best first.

        Raises:
            VideoError: the video cannot be read.
            InputError: the condition is invalid.
        """
        feature = self._read(source_at(video), None)["embedding"]
        found = self._nearest(feature, top_k, where, with_context=False)
        return _hits(found, 1 - found["_distance"].to_numpy(), top_k, near_duplicate=NEAR_DUPLICATE)

    @torch.inference_mode()
    def _text_feature(self, text: str) -> Tensor:
        """The text feature (1, E) from the model, on the CPU in float32."""
        model = self.engine.model
        tokens = self.engine.tokenizer([text]).to(model.logit_scale.device)
        return label_features(model, tokens, [1]).float().cpu()

    @torch.inference_mode()
    def _query(self, text: Tensor) -> np.ndarray:
        """The query of the first stage (E,): the mean direction of the text prompted by some videos of the index.

        A model with prompting was trained to compare videos with prompted texts; the bare text is elsewhere in the
        embedding. Without stored context, the bare text is used.
        """
        if not self.settings.num_context or self.engine.model.prompting is None:
            return text[0].numpy()
        with readable(self.address):
            some = self._table.search().select(["context"]).limit(NUM_PROMPTERS).to_arrow()
        if not len(some):
            return text[0].numpy()
        weight = self.engine.model.logit_scale
        patches = torch.from_numpy(_matrix(some["context"])).to(weight.device, weight.dtype)
        patches = patches.unflatten(1, (-1, self.settings.embed_dim))
        prompted = self.engine.model.prompting(text.to(weight.device, weight.dtype), patches)[:, 0]  # (M, E)
        return torch.nn.functional.normalize(prompted.float(), dim=-1).mean(dim=0).cpu().numpy()

    def _nearest(self, vector: np.ndarray, count: int, where: str | None, *, with_context: bool) -> Any:
        """Rows as an Arrow table, nearest first."""
        if count < 1:
            raise InputError(f"top_k must be at least 1, got {count}")
        columns = [*FACTS, "embedding", *(["context"] if with_context and self.settings.num_context else [])]
        query = self._table.search(np.asarray(vector, np.float32), vector_column_name="embedding")
        query = query.distance_type("cosine").nprobes(self._num_probes()).select([*columns, "_distance"])
        with readable(self.address):
            if where is None:
                return query.limit(count).to_arrow()
            try:
                return query.where(f"({where})", prefilter=True).limit(count).to_arrow()
            except (ValueError, RuntimeError, OSError) as error:
                self._table.search().limit(1).to_arrow()  # a damaged table is not the filter's fault
                known, reason = ", ".join(FACTS), " ".join(str(error).split())
                raise InputError(f"the filter {where!r} is invalid: {reason}. Columns are {known}") from error

    def _to_prompt(self, found: Any) -> tuple[np.ndarray, VideoFeatures]:
        """Which candidates can be prompted (M,), and their features; without stored context they are decoded again."""
        if self.settings.num_context:
            readable_ones = np.ones(len(found), bool)
            embedding, context = (_matrix(found[name]) for name in ("embedding", "context"))
        else:
            places = zip(found["path"].to_pylist(), found["start_seconds"].to_pylist(), strict=True)
            rows = [self._read_again(*place) for place in places]
            readable_ones = np.array([row is not None for row in rows])
            if num_lost := int((~readable_ones).sum()):
                logger.warning(
                    "%d of %d candidates cannot be read again; they rank behind the others, by the bare text alone",
                    num_lost,
                    len(found),
                )
            embedding, context = (
                np.array([row[name] for row in rows if row is not None]) for name in ("embedding", "context")
            )
        weight = self.engine.model.logit_scale
        videos, flat = (
            torch.from_numpy(values).to(weight.device, weight.dtype) for values in (embedding, context)
        )
        config = self.engine.model.config
        patches = flat.reshape(len(flat), config.vision.num_patches, config.embed_dim)
        return readable_ones, VideoFeatures(videos, patches)  # (M, E), (M, N, E)

    @torch.inference_mode()
    def _prompted(self, videos: VideoFeatures, text: Tensor) -> np.ndarray:
        """Cosine of each candidate with its prompted text."""
        model = self.engine.model
        logits = model.logits(videos, text.to(videos.video.device, videos.video.dtype))[:, 0].float()
        bias = 0.0 if model.logit_bias is None else float(model.logit_bias)
        return ((logits - bias) / model.logit_scale.float().exp()).cpu().numpy()

    def _read_again(self, path: str, start_seconds: float) -> IndexRow | None:
        """A decoded candidate; None if it can no longer be read."""
        try:
            return self._read(source_at(path), start_seconds)
        except (VideoError, IndexError):
            return None

    def _read(self, source: Source, start_seconds: float | None) -> IndexRow:
        """Features of a window of a video, computed now; None for the whole video.

        Raises:
            VideoError: it cannot be read.
        """
        plan = self._plan(whole=start_seconds is None)
        number = 0
        if start_seconds is not None and plan.stride_seconds:
            number = round(start_seconds / plan.stride_seconds)
        pixels, _ = decode(Piece(number=0, source=source, first_window=number, max_windows=1), plan)
        video = self.engine.encode(torch.from_numpy(pixels[0]))
        patches = torch.empty(0) if video.patches is None else video.patches[0]
        context = patches.float().flatten().cpu().numpy()
        return {"embedding": video.video[0].float().cpu().numpy(), "context": context}

    def _plan(self, *, whole: bool = False) -> Plan:
        windows = None if whole else self.settings.windows
        length = None if windows is None else seconds_of("windows", windows)
        stride = length if self.settings.stride is None else seconds_of("stride", self.settings.stride)
        return Plan(
            preprocess=self.engine.preprocess,
            num_frames=self.settings.num_frames,
            views=Views(),
            window_seconds=length,
            stride_seconds=None if length is None else stride,
            content_hash=False,
            limits=self.limits,
        )


def _matrix(column: Any) -> np.ndarray:
    """A column of lists of equal length -> (M, length)."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1).astype(np.float32)


def _hits(
    found: Any,
    scores: np.ndarray,
    top_k: int,
    *,
    is_prompted: np.ndarray | None = None,
    near_duplicate: float = np.inf,
) -> list[Hit]:
    """The best rows, prompted ones first; a score of at least `near_duplicate` marks a near duplicate."""
    if is_prompted is None:
        is_prompted = np.zeros(len(scores), bool)
    best = np.lexsort((-scores, ~is_prompted))[:top_k]
    best = best[np.isfinite(scores[best])]
    facts = found.select(["path", "start_seconds", "end_seconds", "duration_seconds"]).take(best).to_pylist()
    return [
        Hit(
            **row,
            score=float(scores[i]),
            is_prompted=bool(is_prompted[i]),
            is_near_duplicate=bool(scores[i] >= near_duplicate),
        )
        for i, row in zip(best, facts, strict=True)
    ]


_Known = dict[str, dict[str, str]]
"""Path -> fingerprint -> root. Two fingerprints if an update was killed before it dropped replaced rows."""


def _paths_of(root: str, known: _Known) -> set[str]:
    """The videos of the index that came from these inputs."""
    return {path for path, rows in known.items() if root in rows.values()}
