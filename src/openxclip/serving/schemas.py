"""The bodies of requests and responses, as in the OpenAPI description."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import File, Form, UploadFile
from pydantic import BaseModel, Field, StringConstraints

from openxclip.serving.uploads import MAX_PATH_LETTERS
from openxclip.timelines.options import SegmentRules, WindowOptions

TopK = Annotated[int, Form(ge=1, le=1000, description="number of labels to return, best first")]


_WINDOWS, _RULES = WindowOptions(), SegmentRules()

PathField = Annotated[str, StringConstraints(max_length=MAX_PATH_LETTERS)]


@dataclass
class VideoFields:
    """The video: exactly one of the two."""

    video: Annotated[UploadFile | None, File(description="the video as a file")] = None
    path: Annotated[
        PathField | None, Form(description="or the path of a video in the server's allowed folder")
    ] = None


@dataclass
class LabelFields:
    """Labels or a named set, and the prompt templates for them."""

    labels: Annotated[
        list[str] | None,
        Form(
            description="the labels: repeat the field, or give one comma-separated value",
            examples=[["surfing", "playing piano"]],
        ),
    ] = None
    label_set: Annotated[
        str | None, Form(description="or a built-in set, see /v1/models", examples=["kinetics400"])
    ] = None
    templates: Annotated[
        list[str] | None,
        Form(
            description="a built-in name, see /v1/models, or your own sentences with {} for the label",
            examples=[["a video of a person {}."]],
        ),
    ] = None


ViewsField = Annotated[
    str,
    Form(
        max_length=20,
        pattern=r"^ *[0-9]+x[0-9]+(@[0-9]+)? *$",
        description="temporal clips x spatial crops",
        examples=["4x3"],
    ),
]


LengthField = Annotated[str, StringConstraints(max_length=20)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


@dataclass
class TimelineFields:
    """Windows over a video, and rules for segments; the defaults are those of `openxclip timeline`."""

    window: Annotated[LengthField, Form(description="length of a window", examples=["4s"])] = _WINDOWS.window
    stride: Annotated[LengthField, Form(description="time from one window to the next", examples=["2s"])] = (
        _WINDOWS.stride
    )
    shots: Annotated[bool, Form(description="detect shot boundaries: no segment crosses one")] = (
        _WINDOWS.shots
    )
    enter: Annotated[Share, Form(description="score that a label must reach within a segment")] = _RULES.enter
    leave: Annotated[Share, Form(description="score below which a segment ends")] = _RULES.leave
    min_seconds: Annotated[Seconds, Form(description="shorter segments are dropped")] = _RULES.min_seconds
    close_gap_seconds: Annotated[
        Seconds, Form(description="segments of a label with a gap of at most this are merged")
    ] = _RULES.close_gap_seconds
    suppress: Annotated[
        Share | None,
        Form(
            description="drop a segment that overlaps this much (intersection over union) with a better one of "
            "another label"
        ),
    ] = _RULES.suppress
    background: Annotated[
        Literal["self"] | None,
        Form(description='self: the video is mostly quiet, which calibrates "none of these"'),
    ] = None
    thumbnails: Annotated[bool, Form(description="also return small pictures along the video")] = False


class ScoreBody(BaseModel):
    """A label and its probability."""

    label: str = Field(examples=["surfing"])
    probability: float = Field(examples=[0.97])


class PredictBody(BaseModel):
    """The best labels of a video."""

    model: str = Field(examples=["microsoft/xclip-base-patch32"])
    scores: list[ScoreBody] = Field(description="best first")


class ProblemBody(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = Field(examples=["urn:openxclip:problem:video-unreadable"])
    title: str = Field(examples=["The video cannot be read"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["it is damaged, incomplete or not a video"])


class BatchItem(BaseModel):
    """One of several videos: its scores, or its problem."""

    scores: list[ScoreBody] | None = None
    problem: ProblemBody | None = None


class BatchBody(BaseModel):
    """The best labels of several videos: uploads first, then paths, each in the order sent."""

    model: str
    results: list[BatchItem]


class EmbedBody(BaseModel):
    """Embeddings of unit length."""

    model: str
    video: list[float] | None = Field(None, description="embedding of the video, before any prompting")
    texts: list[list[float]] | None = Field(None, description="embedding of each text")


class LabelExplanationBody(BaseModel):
    """Explanation of a label's score; see docs/explaining.md for the members."""

    label: str
    probability: float
    prompt_attention: list[list[float]] | None
    sensitivity: list[list[list[float]]]
    frame_relevance: list[float]
    words: list[tuple[str, float]]


class ExplainBody(BaseModel):
    """Explanations of labels' scores."""

    model: str
    frames: list[str] = Field(
        description="the sampled frames as the model sees them: data URIs of JPEG pictures"
    )
    message_attention: list[list[float]] | None
    labels: list[LabelExplanationBody]


class SegmentBody(BaseModel):
    """A label and the time span in which it occurs."""

    label: str = Field(examples=["surfing"])
    start_seconds: float = Field(examples=[12.0])
    end_seconds: float = Field(examples=[31.0])
    score: float = Field(description="mean score of its windows", examples=[0.91])
    peak: float = Field(description="best score of its windows", examples=[0.98])


class WindowBody(BaseModel):
    """A window and its scores."""

    start_seconds: float
    end_seconds: float
    scores: list[float] | None = Field(description="score of each label; null if a frame was missing")
    none: float | None = Field(description='score of "none of these"; null without a background')


class BreakBody(BaseModel):
    """A stretch that could not be read, or a jump of the time stamps."""

    kind: str = Field(examples=["damage"])
    start_seconds: float
    end_seconds: float
    reason: str


class BackgroundBody(BaseModel):
    """The calibration of "none of these"."""

    ceilings: list[float] = Field(description="ceiling of each label's logit")
    strength: float
    num_windows: int
    conditions: str = Field(description="other settings that the values depend on")


class ThumbnailBody(BaseModel):
    """A small picture of one moment."""

    seconds: float
    image: str = Field(description="data URI of a JPEG", examples=["data:image/jpeg;base64,..."])


class TimelineBody(BaseModel):
    """A timeline: what happens when."""

    video: str
    model: str
    duration_seconds: float
    window_seconds: float
    stride_seconds: float
    labels: list[str]
    background: BackgroundBody | None
    cuts_seconds: list[float] = Field(description="shot boundaries, if requested")
    breaks: list[BreakBody]
    segments: list[SegmentBody] = Field(description="in order of time")
    windows: list[WindowBody]
    thumbnails: list[ThumbnailBody] = Field(default=[], description="in order of time, if requested")


EVENTS_EXAMPLE = """event: progress
data: {"seconds_seen": 36.0, "seconds_total": 60.0, "share": 0.6}

event: result
data: {"video": "the video", "model": "microsoft/xclip-base-patch32", "duration_seconds": 60.0, "segments": [...], ...}

"""
TIMELINE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the timeline; as server-sent events if `Accept` names `text/event-stream`: some "
        "`progress`, then one `result` with the same members, or one `error` with a problem",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": EVENTS_EXAMPLE}},
    }
}


class LimitsBody(BaseModel):
    """Limits of a request."""

    max_bytes: int
    max_seconds: float
    max_frame_px: int
    max_labels: int
    max_label_letters: int
    max_views: int
    max_batch: int
    max_windows: int
    deadline_seconds: float
    timeline_deadline_seconds: float


class ModelBody(BaseModel):
    """A model that is served."""

    id: str
    num_frames: int
    input_size_px: int
    patch_size_px: int
    embed_dim: int
    num_parameters: int
    device: str
    dtype: str


class LabelSetBody(BaseModel):
    """A built-in label set."""

    name: str
    num_labels: int


class ModelsBody(BaseModel):
    """The served models, built-in label sets and templates, and limits."""

    version: str
    models: list[ModelBody]
    label_sets: list[LabelSetBody]
    templates: list[str]
    accepts_paths: bool
    limits: LimitsBody


class ExampleBody(BaseModel):
    """A rendered clip to try the server on."""

    name: str
    url: str
    labels: list[str]


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "model": ProblemBody,
        "content": {"application/problem+json": {}},
        "description": description,
    }
    for status, description in (
        (400, "the request cannot be read"),
        (401, "a key is required"),
        (403, "the path may not be read"),
        (404, "there is no such video"),
        (408, "the request arrived too slowly"),
        (413, "the request is too large"),
        (422, "a field or the video is invalid"),
        (503, "busy: try again after the seconds in Retry-After"),
    )
}
