"""The layer between HTTP and the model: turns requests into videos and label sets, and results into responses.

It is independent of routes and headers.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import torch
from torch import Tensor

from openxclip.errors import InputError, VideoError
from openxclip.inference.engine import Engine
from openxclip.inference.explain import Explanation, explain_in_steps
from openxclip.inference.label_set import LabelSet, embed_texts
from openxclip.inference.online import Online
from openxclip.inference.prediction import ranking
from openxclip.inference.reading import read_shown, read_video
from openxclip.inference.views import Views
from openxclip.serving.label_sets import LabelSets
from openxclip.serving.options import ServeOptions
from openxclip.serving.problems import ClientGoneError, Problem, of_video
from openxclip.serving.schemas import LabelFields
from openxclip.serving.timelines import Progress, Timelines, TimelineWish, Watching
from openxclip.serving.uploads import GuardedFile
from openxclip.text.label_texts import LabelTexts
from openxclip.text.labels import BUILT_IN_LABEL_SETS, built_in_labels
from openxclip.text.templates import BUILT_IN_TEMPLATES, SLOT
from openxclip.timelines.timeline import Timeline
from openxclip.video.jpeg import data_uri, jpeg
from openxclip.video.source import VideoLimits

Result = TypeVar("Result")
Score = tuple[str, float]
Embedded = tuple[list[float] | None, list[list[float]] | None]
"""Embeddings of a video, and of each text."""
HasLeft = Callable[[], Awaitable[bool]]
"""Whether the client of a request has gone away."""

MAX_TEMPLATES = 100
POLL_SECONDS = 0.25  # between checks whether the client is still there
TELL_SECONDS = 10.0  # progress is repeated after this time, even without news


class Service:
    """One model and everything that requests share."""

    def __init__(
        self, engine: Engine, model_id: str, options: ServeOptions, on_batch: Callable[[int, float], None]
    ) -> None:
        self.engine = engine
        self.model_id = model_id
        self.options = options
        self.online = Online(engine, num_decoders=options.decoders, on_batch=on_batch)
        self.label_sets = LabelSets(engine.label_set, options.max_label_sets)
        self.timelines = Timelines(engine, self.online, model_id, options, on_batch)
        self.stops_at = math.inf
        """On the event loop's clock: when unfinished work is given up."""
        self.is_closed = False
        self.limits = VideoLimits(max_seconds=options.max_seconds, max_frame_px=options.max_frame_px)

    def warm_up(self) -> None:
        """Run batches before the first request; this also compiles the model, if compilation is on.

        Batches have any size: a second size makes the compiler generate code for all sizes except 1.
        """
        preprocess, num_frames = self.engine.preprocess, self.engine.model.config.num_frames
        side = preprocess.input_size_px
        if self.engine.model.discrete is None:  # a missing tokenizer is detected now, not by a request
            embed_texts(self.engine.model, self.engine.tokenizer, ["a"])
        for size in (1, 2, 3) if self.engine.options.runtime.may_compile else (1,):
            pixels = torch.zeros(size, num_frames, 3, side, side, dtype=torch.uint8)
            self.online.call(partial(self.engine.encode, pixels)).result()

    def stop_soon(self) -> None:
        """The server is being stopped: from now on, a timeline has only as long as any other request."""
        self.stops_at = asyncio.get_running_loop().time() + self.options.deadline_seconds

    def close(self) -> None:
        """Finish accepted work, then stop."""
        self.label_sets.close()
        self.timelines.close()
        self.online.close()
        self.is_closed = True

    async def predict(
        self, file: BinaryIO, texts: LabelTexts, views: Views, top_k: int, has_left: HasLeft
    ) -> list[Score]:
        """The best labels of a video.

        Raises:
            Problem: the video or the labels are invalid, or there was not enough time.
            ClientGoneError: the client no longer waits.
        """

        async def answer(video: BinaryIO) -> list[Score]:
            labels = await self._labels(texts)
            future = self.online.score(self._reading(video, views), labels)
            return ranking(labels.labels, (await asyncio.wrap_future(future)).tolist(), top_k)

        return await self._with_video(file, answer, has_left)

    async def embed(
        self, file: BinaryIO | None, texts: Sequence[str], views: Views, has_left: HasLeft
    ) -> Embedded:
        """The embedding of a video, if there is one, and of each text. Raises what `predict` raises."""

        async def answer(video: BinaryIO) -> Embedded:
            vectors = await self._embed_texts(texts) if texts else None
            if file is None:
                return None, vectors
            future = self.online.embed(self._reading(video, views))
            return (await asyncio.wrap_future(future)).tolist(), vectors

        return await self._with_video(file or BytesIO(), answer, has_left)

    async def _embed_texts(self, texts: Sequence[str]) -> list[list[float]]:
        """Unit-length embeddings of texts as they are."""
        try:
            features = await self.label_sets.features(
                partial(embed_texts, self.engine.model, self.engine.tokenizer, texts)
            )
        except InputError as error:
            raise Problem("invalid-labels", str(error)) from error
        return features.tolist()

    async def explain(
        self, file: BinaryIO, texts: LabelTexts, chosen: Sequence[str] | None, top_k: int, has_left: HasLeft
    ) -> Explanation:
        """Explain the scores of labels for a video. Raises what `predict` raises."""
        ids = None if chosen is None else _ids(texts, chosen)

        async def answer(video: BinaryIO) -> Explanation:
            labels = await self._labels(texts)

            def read() -> tuple[Tensor, Tensor]:
                limits = self._limits_of(video)
                clip = read_video(self.engine, video, Views(), limits)[0]
                return clip, read_shown(self.engine, video, limits)

            def work(clips: tuple[Tensor, Tensor]) -> Generator[Any, None, Explanation]:
                clip, shown = clips
                steps = explain_in_steps(self.engine, texts, labels, clip, ids, top_k)
                messages, of_labels = yield from steps
                return Explanation(
                    path=GuardedFile.name, frames=shown, message_attention=messages, labels=of_labels
                )

            return await asyncio.wrap_future(self.online.after(read, work))

        return await self._with_video(file, answer, has_left)

    async def timeline(
        self, file: BinaryIO, texts: LabelTexts, wish: TimelineWish, has_left: HasLeft
    ) -> AsyncGenerator[Progress | Timeline]:
        """Find what happens when in a video: progress a few times per second, then the timeline.

        Raises what `predict` raises, at any time.
        """
        video = GuardedFile(file)
        try:
            labels = await self._in_time(self._labels(texts), has_left)
            watching = self.timelines.start(video, labels, wish)
            async with aclosing(self._progress_of(watching, has_left)) as steps:
                async for progress in steps:
                    yield progress
            yield watching.future.result()
        except VideoError as error:
            raise of_video(error) from error
        finally:
            video.end()

    async def _progress_of(self, watching: Watching, has_left: HasLeft) -> AsyncGenerator[Progress]:
        """Progress until a timeline is done; it is given up at its deadline, or once its client has left."""
        task = asyncio.wrap_future(watching.future)
        clock, seconds = asyncio.get_running_loop().time, self.options.timeline_deadline_seconds
        until, tell_at, told = clock() + seconds, 0.0, Progress()
        try:
            while not (await asyncio.wait({task}, timeout=POLL_SECONDS))[0]:
                if clock() >= until:
                    detail = f"there was no timeline after {seconds:g} s; use a longer stride, or send a shorter video"
                    raise Problem("deadline-exceeded", detail, limit=seconds)
                if clock() >= self.stops_at:
                    raise Problem(
                        "server-stopping", "the server stopped before the timeline was finished; try again"
                    )
                if await has_left():
                    raise ClientGoneError
                if watching.progress.seconds_seen and (watching.progress != told or clock() >= tell_at):
                    told, tell_at = watching.progress, clock() + TELL_SECONDS
                    yield told
        finally:
            task.cancel()
        if task.exception() is None:
            yield watching.progress

    def _reading(self, video: BinaryIO, views: Views) -> Callable[[], Tensor]:
        return partial(read_video, self.engine, video, views, self._limits_of(video))

    def _limits_of(self, video: BinaryIO) -> VideoLimits:
        """The server's limits, and the end of the request."""
        return replace(self.limits, is_over=cast(GuardedFile, video).is_over)

    async def _labels(self, texts: LabelTexts) -> LabelSet:
        try:
            return await self.label_sets.get(texts)
        except InputError as error:
            raise Problem("invalid-labels", str(error)) from error

    async def _with_video(
        self, file: BinaryIO, answer: Callable[[BinaryIO], Coroutine[Any, Any, Result]], has_left: HasLeft
    ) -> Result:
        """A response about a video; in any case, the decoder releases the file."""
        video = GuardedFile(file)
        try:
            return await self._in_time(answer(cast(BinaryIO, video)), has_left)
        except VideoError as error:
            raise of_video(error) from error
        finally:
            video.end()

    async def _in_time(self, answer: Coroutine[Any, Any, Result], has_left: HasLeft) -> Result:
        """The result, if it is ready before the deadline and while the client waits; otherwise it is given up."""
        task = asyncio.ensure_future(answer)
        clock, seconds = asyncio.get_running_loop().time, self.options.deadline_seconds
        until = clock() + seconds
        try:
            while not (await asyncio.wait({task}, timeout=min(POLL_SECONDS, max(0.0, until - clock()))))[0]:
                if clock() >= until:
                    detail = f"there was no result after {seconds:g} s; try again, or send less"
                    raise Problem("deadline-exceeded", detail, limit=seconds)
                if await has_left():
                    raise ClientGoneError
            return task.result()
        finally:
            task.cancel()


def label_texts(fields: LabelFields, options: ServeOptions, *, takes_one: bool = False) -> LabelTexts:
    """The requested label set, within the limits; a single label only if that is meaningful.

    Raises:
        Problem: there are none or too many, one is too long, or a name is unknown.
    """
    labels = _labels_of(fields)
    templates = _templates_of(fields.templates)
    if len(labels) == 1 and not takes_one:
        raise Problem("invalid-labels", "a single label has nothing to compare it to; send two or more")
    check_texts(labels, options)
    _check_lengths(templates, options)
    if len(labels) * len(templates) > options.max_sentences:
        raise Problem(
            "too-many-labels",
            f"{len(labels)} labels in {len(templates)} templates are more sentences than this server's "
            f"{options.max_sentences}; send fewer",
            limit=options.max_sentences,
        )
    try:
        return LabelTexts(labels=labels, templates=templates)
    except InputError as error:
        raise Problem("invalid-labels", str(error)) from error


def check_texts(texts: Sequence[str], options: ServeOptions) -> None:
    """Refuse more or longer labels, templates or other texts than are allowed.

    Raises:
        Problem: there are too many, or one is too long.
    """
    if len(texts) > options.max_labels:
        detail = f"{len(texts)} labels or texts are more than this server's {options.max_labels}; send fewer"
        raise Problem("too-many-labels", detail, limit=options.max_labels)
    _check_lengths(texts, options)


def _check_lengths(texts: Sequence[str], options: ServeOptions) -> None:
    longest = max(map(len, texts), default=0)
    if longest > options.max_label_letters:
        raise Problem(
            "label-too-long",
            f"a label, text or template of {longest} characters is over this server's limit of "
            f"{options.max_label_letters}; shorten it",
            limit=options.max_label_letters,
        )


def _labels_of(fields: LabelFields) -> list[str]:
    if (fields.labels is None) == (fields.label_set is None):
        raise Problem(
            "invalid-labels",
            "send the form field labels (repeated, or one value 'a, b') or label_set, and not both",
        )
    if fields.label_set is not None:
        if fields.label_set not in BUILT_IN_LABEL_SETS:
            known = ", ".join(BUILT_IN_LABEL_SETS)
            raise Problem("invalid-labels", f"there is no such label_set; it is one of {known}")
        return built_in_labels(fields.label_set)
    given = fields.labels or []
    return given[0].split(",") if len(given) == 1 else given


def _templates_of(given: Sequence[str] | None) -> tuple[str, ...]:
    if not given:
        return BUILT_IN_TEMPLATES["name"]
    if len(given) == 1 and SLOT not in given[0]:
        if given[0] not in BUILT_IN_TEMPLATES:
            known = ", ".join(BUILT_IN_TEMPLATES)
            raise Problem(
                "invalid-labels",
                f"templates is one of {known}, or your own sentences with {SLOT} for the label",
            )
        return BUILT_IN_TEMPLATES[given[0]]
    if len(given) > MAX_TEMPLATES:
        raise Problem("invalid-labels", f"{len(given)} templates are more than {MAX_TEMPLATES}; send fewer")
    return tuple(given)


def parse_views(text: str, options: ServeOptions) -> Views:
    """The requested views, within the limits.

    Raises:
        Problem: they cannot be read, or are too many.
    """
    try:
        views = Views.parse(text)
    except (InputError, ValueError) as error:
        raise Problem("invalid-request", str(error)) from error
    if (num_views := views.num_clips * views.num_crops) > options.max_views:
        detail = f"{num_views} views are more than this server's {options.max_views}; request fewer"
        raise Problem("too-many-views", detail, limit=options.max_views)
    return views


def pictures_of(explanation: Explanation) -> list[str]:
    """The sampled frames as data URIs of JPEG pictures."""
    frames = explanation.frames.permute(0, 2, 3, 1).numpy()
    return [data_uri(jpeg(frame)) for frame in frames]


def model_name(source: str) -> str:
    """The model's public name: its hub id, or the last part of a local path."""
    return Path(source).name if Path(source).exists() else source


def _ids(texts: LabelTexts, chosen: Sequence[str]) -> list[int]:
    places = {label.casefold(): k for k, label in enumerate(texts.labels)}
    wanted = [label.strip().casefold() for label in chosen]
    if unknown := [i for i, label in enumerate(wanted) if label not in places]:
        raise Problem(
            "invalid-labels",
            f"explain, number {unknown[0] + 1}: this is not one of the labels; send one of them",
        )
    return [places[label] for label in wanted]
