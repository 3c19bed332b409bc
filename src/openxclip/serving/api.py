"""The HTTP API: routes and their handlers."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Depends, FastAPI, File, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from openxclip import __version__
from openxclip.serving import events, page
from openxclip.serving.access_log import AccessLog
from openxclip.serving.gate import Gate
from openxclip.serving.metrics import Metrics
from openxclip.serving.options import ServeOptions
from openxclip.serving.places import Places
from openxclip.serving.problems import ClientGoneError, Problem, of_status
from openxclip.serving.schemas import (
    PROBLEMS,
    TIMELINE_ANSWERS,
    BatchBody,
    BatchItem,
    EmbedBody,
    ExampleBody,
    ExplainBody,
    LabelFields,
    LabelSetBody,
    LimitsBody,
    ModelBody,
    ModelsBody,
    PathField,
    PredictBody,
    ProblemBody,
    ScoreBody,
    TimelineBody,
    TimelineFields,
    TopK,
    VideoFields,
    ViewsField,
)
from openxclip.serving.service import (
    Score,
    Service,
    check_texts,
    label_texts,
    parse_views,
    pictures_of,
)
from openxclip.serving.timelines import Progress, timeline_wish
from openxclip.serving.uploads import open_allowed
from openxclip.shapes.examples import EXAMPLE_LABELS, example_clips
from openxclip.text.labels import BUILT_IN_LABEL_SETS, built_in_labels
from openxclip.text.templates import BUILT_IN_TEMPLATES
from openxclip.timelines.formats import json_text

DESCRIPTION = """Recognise anything you can name, in any video.

Send a video and labels in your own words; get the labels ranked. Errors are problem details (RFC 9457)."""

CLOSE_SECONDS = 3.0  # for work still running when every request has been answered
MAX_EXPLAINED = 10  # labels per request


@dataclass
class House:
    """State shared by all requests."""

    service: Service
    options: ServeOptions
    places: Places
    metrics: Metrics
    is_closing: bool = False
    examples: dict[str, bytes] = field(default_factory=dict)
    """Examples rendered so far."""

    def __post_init__(self) -> None:
        self.timelines = Places(self.options.max_timelines)
        """Slots of running timelines, in addition to those of their requests."""


def build_app(service: Service, metrics: Metrics) -> FastAPI:
    """Build the application around a service."""
    options = service.options
    house = House(service, options, Places(options.max_queue), metrics)
    metrics.gauge("openxclip_places", "Maximum number of concurrent requests", lambda: options.max_queue)
    metrics.gauge("openxclip_places_taken", "Concurrent requests", lambda: house.places.num_taken)
    metrics.gauge("openxclip_timelines", "Timelines in progress", lambda: house.timelines.num_taken)
    metrics.gauge("openxclip_label_sets", "Encoded label sets in the cache", lambda: len(service.label_sets))
    metrics.gauge(
        "openxclip_label_set_hits", "Requests whose label set was cached", lambda: service.label_sets.num_hits
    )
    metrics.gauge("openxclip_label_set_misses", "Label sets encoded", lambda: service.label_sets.num_misses)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        house.is_closing = True
        # In a daemon thread: the remaining work may take longer than the process has.
        closing = threading.Thread(target=service.close, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_SECONDS)

    app = FastAPIOffline(
        docs_url="/docs",
        redoc_url=None,
        title="OpenXCLIP",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        # Above our own limits, which have their own responses.
        form_limits={"max_fields": options.max_labels + 200, "max_files": options.max_batch + 50},
    )
    app.state.house = house
    app.include_router(videos)
    app.include_router(information)
    app.include_router(page.build_router(options.allow_frames))
    for error, handler in HANDLERS.items():
        app.add_exception_handler(error, handler)
    app.add_middleware(Gate, options=options, places=house.places)
    routes = frozenset(path for router in (videos, information) for path in paths_of(router))
    # The outermost: it counts what the gate refuses.
    app.add_middleware(AccessLog, metrics=metrics, routes=routes)
    return app


def paths_of(router: APIRouter) -> list[str]:
    """The route patterns of a router."""
    return [route.path for route in router.routes if isinstance(route, APIRoute)]


def _house(request: Request) -> House:
    return request.app.state.house


HouseOf = Annotated[House, Depends(_house)]
videos = APIRouter(prefix="/v1", responses=PROBLEMS, tags=["videos"])
information = APIRouter(tags=["information"])


@videos.post("/predict")
async def predict(
    request: Request,
    house: HouseOf,
    video: Annotated[VideoFields, Depends()],
    labels: Annotated[LabelFields, Depends()],
    top_k: TopK = 5,
    views: ViewsField = "1x1",
) -> PredictBody:
    """Rank labels for a video."""
    texts, parsed = label_texts(labels, house.options), parse_views(views, house.options)
    async with opened(house, video) as file:
        scores = await house.service.predict(file, texts, parsed, top_k, request.is_disconnected)
    return PredictBody(model=house.service.model_id, scores=_score_bodies(scores))


@videos.post("/predict/batch")
async def predict_batch(
    request: Request,
    house: HouseOf,
    labels: Annotated[LabelFields, Depends()],
    videos: Annotated[list[UploadFile] | None, File(description="videos as files")] = None,
    paths: Annotated[
        list[PathField] | None, Form(description="paths of further videos on the server")
    ] = None,
    top_k: TopK = 5,
    views: ViewsField = "1x1",
) -> BatchBody:
    """Rank the same labels for several videos. A video that cannot be read gets a problem instead of scores."""
    texts, parsed = label_texts(labels, house.options), parse_views(views, house.options)
    wanted = [VideoFields(video=one) for one in videos or ()] + [VideoFields(path=one) for one in paths or ()]
    if not wanted:
        raise Problem("invalid-request", "send videos, or paths of videos on the server")
    if len(wanted) > (most := house.options.largest_batch):
        detail = f"{len(wanted)} videos are more than this server's {most}; send fewer at once"
        raise Problem("too-many-videos", detail, limit=most)

    async def one(fields: VideoFields) -> BatchItem:
        try:
            async with opened(house, fields) as file:
                found = await house.service.predict(file, texts, parsed, top_k, request.is_disconnected)
        except Problem as problem:
            if problem.status_code >= 500:  # a server error concerns all of them
                raise
            return BatchItem(problem=ProblemBody(**problem.body()))
        return BatchItem(scores=_score_bodies(found))

    with house.places.taken(len(wanted) - 1, is_arriving=False):  # in addition to the slot of the request
        results = await _all_of([one(fields) for fields in wanted])
    return BatchBody(model=house.service.model_id, results=results)


@videos.post("/embed")
async def embed(
    request: Request,
    house: HouseOf,
    video: Annotated[VideoFields, Depends()],
    texts: Annotated[list[str] | None, Form(description="texts to embed, with or without a video")] = None,
    views: ViewsField = "1x1",
) -> EmbedBody:
    """Embeddings of a video, of texts, or of both, in one space; each has unit length."""
    parsed = parse_views(views, house.options)
    has_video = video.video is not None or video.path is not None
    if not has_video and not texts:
        raise Problem("invalid-request", "send a video, its path, or texts")
    check_texts(texts or [], house.options)
    async with _maybe_opened(house, video if has_video else None) as file:
        of_video, of_texts = await house.service.embed(file, texts or [], parsed, request.is_disconnected)
    return EmbedBody(model=house.service.model_id, video=of_video, texts=of_texts)


@videos.post("/explain")
async def explain(
    request: Request,
    house: HouseOf,
    video: Annotated[VideoFields, Depends()],
    labels: Annotated[LabelFields, Depends()],
    explain: Annotated[list[str] | None, Form(description="labels to explain; by default the best")] = None,
    top_k: Annotated[int, Form(ge=1, le=MAX_EXPLAINED, description="number of best labels to explain")] = 3,
) -> ExplainBody:
    """Explain the scores of labels: where the model looks, and which frames and words the score depends on."""
    texts = label_texts(labels, house.options)
    if explain is not None and len(explain) > MAX_EXPLAINED:
        raise Problem("too-many-labels", f"{len(explain)} labels to explain are more than {MAX_EXPLAINED}")
    async with opened(house, video) as file:
        found = await house.service.explain(file, texts, explain, top_k, request.is_disconnected)
    numbers = found.numbers()
    frames = await asyncio.to_thread(pictures_of, found)
    return ExplainBody(
        model=house.service.model_id,
        frames=frames,
        message_attention=numbers["message_attention"],
        labels=numbers["labels"],
    )


@videos.post("/timeline", response_model=TimelineBody, responses=TIMELINE_ANSWERS)
async def timeline(
    request: Request,
    house: HouseOf,
    video: Annotated[VideoFields, Depends()],
    labels: Annotated[LabelFields, Depends()],
    fields: Annotated[TimelineFields, Depends()],
) -> Response:
    """Find what happens when in a video: scores of windows, and the resulting segments."""
    wish = timeline_wish(fields, house.options)
    texts = label_texts(labels, house.options, takes_one=wish.is_own_background)
    written = partial(json_text, thumbnails=fields.thumbnails)

    async def steps() -> AsyncGenerator[Progress | str]:
        """Progress, then the timeline as JSON."""
        with house.timelines.taken(is_arriving=False):
            async with opened(house, video) as file:
                found = house.service.timeline(file, texts, wish, request.is_disconnected)
                async with aclosing(found):
                    async for step in found:
                        yield step if isinstance(step, Progress) else await asyncio.to_thread(written, step)

    made = steps()
    first = await anext(made)  # early errors still have their own status
    if events.is_wanted(request.headers.get("accept", "")):
        return events.EventStream(_as_events(first, made))
    last = first
    async for step in made:
        last = step
    return Response(last, media_type="application/json")


async def _as_events(first: Progress | str, others: AsyncGenerator[Progress | str]) -> AsyncGenerator[bytes]:
    async with aclosing(others):
        yield _event(first)
        async for step in others:
            yield _event(step)


def _event(step: Progress | str) -> bytes:
    if isinstance(step, str):
        return events.event("result", step)
    share = None if step.share is None else round(step.share, 4)
    told = {"seconds_seen": step.seconds_seen, "seconds_total": step.seconds_total, "share": share}
    return events.event("progress", json.dumps(told))


@information.get("/v1/models", responses={401: PROBLEMS[401]})
async def models(house: HouseOf) -> ModelsBody:
    """The served model, its label sets and templates, and the limits of a request."""
    model, options = house.service.engine.model, house.options
    vision = model.config.vision
    return ModelsBody(
        version=__version__,
        models=[
            ModelBody(
                id=house.service.model_id,
                num_frames=model.config.num_frames,
                input_size_px=vision.image_size_px,
                patch_size_px=vision.patch_size_px,
                embed_dim=model.config.embed_dim,
                num_parameters=sum(parameter.numel() for parameter in model.parameters()),
                device=str(model.logit_scale.device),
                dtype=str(model.logit_scale.dtype).removeprefix("torch."),
            )
        ],
        label_sets=[
            LabelSetBody(name=name, num_labels=len(built_in_labels(name))) for name in BUILT_IN_LABEL_SETS
        ],
        templates=list(BUILT_IN_TEMPLATES),
        accepts_paths=options.allow_paths is not None,
        limits=LimitsBody(
            **{name: getattr(options, name) for name in LimitsBody.model_fields if name != "max_batch"},
            max_batch=options.largest_batch,
        ),
    )


@information.get("/v1/examples", responses={401: PROBLEMS[401]})
async def examples() -> list[ExampleBody]:
    """Rendered example clips to try the server: moving shapes, which openxclip-tiny knows."""
    names = [clip.kind.name for clip in example_clips()]
    return [
        ExampleBody(name=name, url=f"v1/examples/{name.replace(' ', '-')}.mp4", labels=list(EXAMPLE_LABELS))
        for name in names
    ]


@information.get(
    "/v1/examples/{name}.mp4",
    response_class=Response,
    responses={200: {"content": {"video/mp4": {}}}, 401: PROBLEMS[401], 404: PROBLEMS[404]},
)
async def example(name: str, house: HouseOf) -> Response:
    """An example clip."""
    clips = {clip.kind.name.replace(" ", "-"): clip for clip in example_clips()}
    if name not in clips:
        raise Problem("not-found", "there is no such example; /v1/examples lists them")
    if name not in house.examples:
        house.examples[name] = await asyncio.to_thread(clips[name].encode)
    return Response(house.examples[name], media_type="video/mp4", headers={"Cache-Control": "max-age=3600"})


@information.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """Liveness: the process responds."""
    return "ok\n"


@information.get(
    "/readyz", response_class=PlainTextResponse, responses={503: {"description": "do not send requests"}}
)
async def readyz(house: HouseOf) -> PlainTextResponse:
    """Readiness: the model is loaded and its thread runs."""
    is_ready = house.service.online.is_alive and not house.is_closing
    return PlainTextResponse("ready\n" if is_ready else "not ready\n", 200 if is_ready else 503)


@information.get("/metrics", response_class=PlainTextResponse, responses={401: PROBLEMS[401]})
async def metrics(house: HouseOf) -> PlainTextResponse:
    """Metrics for Prometheus."""
    return PlainTextResponse(house.metrics.text(), media_type="text/plain; version=0.0.4")


@asynccontextmanager
async def opened(house: House, fields: VideoFields) -> AsyncIterator[BinaryIO]:
    """The video of a request, uploaded or in the allowed folder."""
    if (fields.video is None) == (fields.path is None):
        raise Problem("invalid-request", "send either video (a file) or path (of a video on the server)")
    if fields.video is not None:  # the framework closes it with the request, which deletes it
        yield fields.video.file
        return
    assert fields.path is not None
    with await asyncio.to_thread(open_allowed, house.options.allow_paths, fields.path) as file:
        yield file


@asynccontextmanager
async def _maybe_opened(house: House, fields: VideoFields | None) -> AsyncIterator[BinaryIO | None]:
    if fields is None:
        yield None
        return
    async with opened(house, fields) as file:
        yield file


def _score_bodies(scores: Sequence[Score]) -> list[ScoreBody]:
    return [ScoreBody(label=label, probability=probability) for label, probability in scores]


async def _all_of(answers: Sequence[Awaitable[BatchItem]]) -> list[BatchItem]:
    """Await all results; the first error cancels the others."""
    async with AsyncExitStack() as stack:
        tasks = [asyncio.ensure_future(answer) for answer in answers]
        for task in tasks:
            stack.callback(task.cancel)
        return await asyncio.gather(*tasks)


async def _problem(_: Request, error: Any) -> Response:
    return error.response()


async def _framework_error(_: Request, error: Any) -> Response:
    return of_status(error.status_code, str(error.detail)).response(error.headers)


async def _invalid_request(_: Request, error: Any) -> Response:
    errors = [
        {"field": ".".join(map(str, one["loc"][1:])), "message": one["msg"]} for one in error.errors()[:20]
    ]
    named = "; ".join(f"{one['field'] or 'body'}: {one['message']}" for one in errors[:3])
    return Problem("invalid-request", named, errors=errors).response()


async def _client_gone(request: Request, _: Any) -> Response:
    _house(request).metrics.gone.inc()
    return JSONResponse(None, ClientGoneError().status_code)


HANDLERS: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
    Problem: _problem,
    HTTPException: _framework_error,
    RequestValidationError: _invalid_request,
    ClientGoneError: _client_gone,
}
