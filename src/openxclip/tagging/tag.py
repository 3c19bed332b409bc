"""A tagging job: list the inputs, compute the remaining ones, write them part by part."""

import math
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from openxclip.checkpoints.source import ModelSource
from openxclip.errors import InputError
from openxclip.inference.engine import Engine
from openxclip.inference.options import InferenceOptions
from openxclip.inference.views import Views
from openxclip.tagging.decoding import Plan
from openxclip.tagging.identity import label_set_id, model_id
from openxclip.tagging.local import TagRow, tag_runner
from openxclip.tagging.options import RowOptions, RunOptions
from openxclip.tagging.output import Output, Part
from openxclip.tagging.rows import SCHEMA_VERSION, Layout, by_input, extra_columns, table, with_extra
from openxclip.tagging.runner import Finished, Runner
from openxclip.tagging.sources import Source, absolute, extra_table, list_sources
from openxclip.tagging.workers import Decoders
from openxclip.text.label_texts import LabelTexts
from openxclip.video.source import VideoLimits
from openxclip.workers import num_cores


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a job, after each input."""

    num_done: int
    """Finished inputs, including those of earlier runs."""
    num_inputs: int
    num_errors: int
    """Errors of this run."""
    videos_per_second: float
    """Rate of this run."""
    video_hours_per_hour: float
    """Rate of this run."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Summary of a job."""

    output: str
    num_inputs: int
    num_rows: int
    num_errors: int
    """Errors of all inputs."""
    errors: dict[str, int]
    """Kind -> number of errors, of this run."""
    num_computed: int
    """Inputs computed in this run."""
    seconds: float
    """Duration of this run."""
    videos_per_second: float
    video_hours_per_hour: float


@dataclass
class _Tally:
    started: float = field(default_factory=time.perf_counter)
    num_computed: int = 0
    num_rows: int = 0
    video_seconds: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)

    def add(self, finished: Finished[TagRow]) -> None:
        self.num_computed += 1
        self.video_seconds += finished.seconds
        if finished.error_kind is not None:
            self.errors[finished.error_kind] = self.errors.get(finished.error_kind, 0) + 1

    def add_part(self, num_inputs: int, video_seconds: float, errors: dict[str, int]) -> None:
        self.num_computed += num_inputs
        self.video_seconds += video_seconds
        for kind, count in errors.items():
            self.errors[kind] = self.errors.get(kind, 0) + count

    @property
    def seconds(self) -> float:
        return max(1e-9, time.perf_counter() - self.started)

    @property
    def num_errors(self) -> int:
        return sum(self.errors.values())


class Job:
    """A tagging job: inputs, settings and an output. Iterate over `run`, then get the `summary`."""

    def __init__(
        self,
        engine: Engine,
        source: ModelSource,
        texts: LabelTexts,
        output: str,
        rows: RowOptions | None = None,
        run: RunOptions | None = None,
        limits: VideoLimits | None = None,
    ) -> None:
        self.engine, self.source, self.texts = engine, source, texts
        self.rows, self.options = rows or RowOptions(), run or RunOptions()
        self.rows.check()
        self.options.check()
        self.output = Output(output)
        self.limits = limits or VideoLimits()
        self._model_id = model_id(source.source, engine.model)
        self._tally = _Tally()
        self._parts: list[Part] = []

    def run(self, inputs: str | Sequence[Source]) -> Iterator[Progress]:
        """Compute the remaining inputs.

        Args:
            inputs: an address (see `list_sources`), or sources.

        Raises:
            InputError: there are no inputs, or the output holds another job.
        """
        sources = list_sources(inputs) if isinstance(inputs, str) else [absolute(source) for source in inputs]
        layout = self._layout(sources)
        with self.output.alone():
            yield from self._run(sources, layout)

    def _run(self, sources: Sequence[Source], layout: Layout) -> Iterator[Progress]:
        self.output.begin(self._question(layout), overwrite=self.options.overwrite)
        self._parts = self.output.parts(sources, self.options.part_size)
        self.output.clean()
        done = self.output.done()
        to_do = [part for part in self._parts if part.name not in done]
        if self.options.retry_errors:
            failed = set(self.output.with_errors(sorted(done)))
            to_do += [part for part in self._parts if part.name in failed]
        num_before = sum(len(part.sources) for part in self._parts if part.name in done)
        self._tally = _Tally()
        if not to_do:
            return
        if self.options.engine == "ray":
            yield from self._run_on_ray(to_do, done, layout, num_before)
            return
        num_decoders = self.options.decoders or num_cores()
        label_set = self.engine.label_set(self.texts)
        with Decoders(self.plan(), num_decoders, self.options.decode_seconds) as decoders:
            runner = tag_runner(self.engine, label_set, layout, decoders)
            for part in to_do:
                yield from self._run_part(runner, layout, part, num_before, is_retry=part.name in done)

    def _run_on_ray(
        self, parts: Sequence[Part], done: Container[str], layout: Layout, num_before: int
    ) -> Iterator[Progress]:
        """Compute parts; only the errors of existing ones."""
        from openxclip.tagging.ray_engine import Cluster, Work, run_parts

        options = self.options
        least, most = options.num_models
        work = Work(
            model=self.source,
            inference=self.engine.options,
            texts=self.texts,
            layout=replace(layout, extra=()),
            plan=self.plan(),
            decode_seconds=options.decode_seconds,
            num_threads=options.model_threads or max(1, math.ceil(options.model_cpus)),
        )
        cluster = Cluster(
            address=options.address,
            min_models=least,
            max_models=most,
            model_cpus=options.model_cpus,
            model_gpus=options.model_gpus,
            num_decoders=options.decoders,
        )
        only = {part.number: self._numbers_of_errors(part) for part in parts if part.name in done}
        for computed in run_parts(parts, work, cluster, only):
            part = computed.part
            rows = by_input(with_extra(layout, computed.table, extra_table(part.sources)))
            kept = self._kept_rows(part) if part.number in only else {}
            with self.output.writing(part, layout.schema()) as writer:
                for number in range(len(part.sources)):
                    writer.add(number, rows[number] if number in rows else kept[number])
            self._tally.add_part(len(rows), computed.video_seconds, computed.errors)
            yield self._progress(num_before)

    def _numbers_of_errors(self, part: Part) -> list[int]:
        """Numbers of a part's inputs that ended in an error."""
        kept = self._kept_rows(part)
        return [number for number in range(len(part.sources)) if number not in kept]

    def _run_part(
        self, runner: Runner[TagRow], layout: Layout, part: Part, num_before: int, *, is_retry: bool
    ) -> Iterator[Progress]:
        """Compute a part, or only the errors of an existing one, and write it."""
        kept = self._kept_rows(part) if is_retry else {}
        missing = [i for i in range(len(part.sources)) if i not in kept]
        extra = extra_table(part.sources)
        with self.output.writing(part, layout.schema()) as writer:
            for number in list(kept):
                writer.add(number, kept.pop(number))
            for finished in runner.run([part.sources[i] for i in missing]):
                number = missing[finished.number]
                # Directly as a table: Python numbers take ten times the memory.
                rows = table(layout, {number: finished.rows})
                writer.add(number, with_extra(layout, rows, extra))
                self._tally.add(finished)
                yield self._progress(num_before)

    def _kept_rows(self, part: Part) -> dict[int, Any]:
        """Tables of a part's inputs without errors, by the number of the input."""
        rows = self.output.read(part)
        return by_input(rows.filter(rows["error_kind"].is_null()))

    def _progress(self, num_before: int) -> Progress:
        tally = self._tally
        return Progress(
            num_done=min(self.num_inputs, num_before + tally.num_computed),
            num_inputs=self.num_inputs,
            num_errors=tally.num_errors,
            videos_per_second=tally.num_computed / tally.seconds,
            video_hours_per_hour=tally.video_seconds / tally.seconds,
        )

    @property
    def num_inputs(self) -> int:
        """Inputs of the job, including those of earlier runs."""
        return sum(len(part.sources) for part in self._parts)

    def summary(self) -> Summary:
        """The summary of the job, from its output.

        Raises:
            InputError: the job is not finished: its parts hold fewer inputs than listed.
        """
        tally = self._tally
        self.output.check_complete(self._parts)
        num_rows, num_errors = self.output.count(part.name for part in self._parts)
        return Summary(
            output=self.output.address,
            num_inputs=self.num_inputs,
            num_rows=num_rows,
            num_errors=num_errors,
            errors=tally.errors,
            num_computed=tally.num_computed,
            seconds=tally.seconds,
            videos_per_second=tally.num_computed / tally.seconds,
            video_hours_per_hour=tally.video_seconds / tally.seconds,
        )

    def _layout(self, sources: Sequence[Source]) -> Layout:
        rows = self.rows
        return Layout(
            labels=tuple(self.texts.labels),
            model_id=self._model_id,
            label_set_id=label_set_id(self.texts),
            top_k=rows.top_k,
            embed_dim=self.engine.model.config.embed_dim if rows.embedding else None,
            all_scores=rows.all_scores,
            content_hash=rows.content_hash,
            extra=extra_columns(sources),
        )

    def _question(self, layout: Layout) -> dict[str, Any]:
        """The settings that a resumed run must share. Messages name the differing ones."""
        runtime = self.engine.runtime_options
        return {
            "schema_version": SCHEMA_VERSION,
            "model": layout.model_id,
            "label_set": layout.label_set_id,
            "labels": list(layout.labels),
            "precision": str(self.engine.model.logit_scale.dtype).removeprefix("torch."),
            "frames": self.engine.model.config.num_frames,
            "shortlist": self.engine.options.shortlist,
            "int8": runtime.int8,
            "runtime": runtime.runtime,
            "merge_tokens": runtime.merge_tokens,
            "calibration": None if runtime.calibration is None else str(runtime.calibration),
            "max_seconds": self.limits.max_seconds,
            "max_frame_px": self.limits.max_frame_px,
            "columns": [[name, str(kind)] for name, kind in layout.extra],
            **asdict(self.rows),
        }

    def plan(self) -> Plan:
        """Which frames of each video to decode, and how."""
        return Plan(
            preprocess=self.engine.preprocess,
            num_frames=self.engine.model.config.num_frames,
            views=Views.parse(self.rows.views),
            window_seconds=self.rows.window_seconds,
            stride_seconds=self.rows.stride_seconds,
            content_hash=self.rows.content_hash,
            limits=self.limits,
        )


def tag(
    inputs: str,
    labels: LabelTexts | Sequence[str],
    output: str,
    model: str | ModelSource = "microsoft/xclip-base-patch32",
    *,
    rows: RowOptions | None = None,
    run: RunOptions | None = None,
    inference: InferenceOptions | None = None,
    limits: VideoLimits | None = None,
) -> Summary:
    """Tag every video of `inputs`, or resume, and write the rows as a Parquet dataset.

    Decoders are processes that import the main module: call this under `if __name__ == "__main__":`.

    Args:
        inputs: a folder, a manifest, tar shards; a path or a URL such as s3://bucket/videos.
        labels: class names, or `LabelTexts` for templates and descriptions.
        output: a folder or a URL.
        model: what `openxclip.load` takes.
        rows: content of a row.
        run: how the job runs.
        inference: how the model runs.
        limits: videos beyond them become error rows.

    Raises:
        InputError: there are no inputs, the output holds another job, or decoders do not start.
    """
    source = model if isinstance(model, ModelSource) else ModelSource(source=str(model))
    texts = labels if isinstance(labels, LabelTexts) else LabelTexts(labels=labels)
    if isinstance(labels, str):
        raise InputError(f"labels must be a list, got {labels!r}")
    job = Job(Engine.load(source, inference), source, texts, output, rows, run, limits)
    for _ in job.run(inputs):
        pass
    return job.summary()
