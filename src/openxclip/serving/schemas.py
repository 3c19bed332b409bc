"""The bodies of requests and answers, as they stand in the OpenAPI description."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import File, Form, UploadFile
from pydantic import BaseModel, Field, StringConstraints

from openxclip.serving.uploads import MAX_PATH_LETTERS

TopK = Annotated[int, Form(ge=1, le=1000, description="labels to give, best first")]


PathField = Annotated[str, StringConstraints(max_length=MAX_PATH_LETTERS)]


@dataclass
class VideoFields:
    """Which video: exactly one of the two."""

    video: Annotated[UploadFile | None, File(description="the video as a file")] = None
    path: Annotated[
        PathField | None, Form(description="or the path of one in the folder that the server allows")
    ] = None


@dataclass
class LabelFields:
    """What to choose from: labels or a named set, and the sentences they are written into."""

    labels: Annotated[
        list[str] | None,
        Form(
            description="the labels: repeat the field, or give one value with commas",
            examples=[["surfing", "playing piano"]],
        ),
    ] = None
    label_set: Annotated[
        str | None, Form(description="or a built-in set, see /v1/models", examples=["kinetics400"])
    ] = None
    templates: Annotated[
        list[str] | None,
        Form(
            description="a built-in name, see /v1/models, or own sentences with {} for the label",
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
    detail: str = Field(examples=["it is damaged, incomplete or no video"])


class BatchItem(BaseModel):
    """One video of several: its scores, or its problem."""

    scores: list[ScoreBody] | None = None
    problem: ProblemBody | None = None


class BatchBody(BaseModel):
    """The best labels of several videos: uploads first, then paths, each in the order sent."""

    model: str
    results: list[BatchItem]


class EmbedBody(BaseModel):
    """Embeddings of unit length."""

    model: str
    video: list[float] | None = Field(None, description="of the video, before any prompting")
    texts: list[list[float]] | None = Field(None, description="of each text")


class LabelExplanationBody(BaseModel):
    """Why a label got its score; see docs/explaining.md for the members."""

    label: str
    probability: float
    prompt_attention: list[list[float]] | None
    sensitivity: list[list[list[float]]]
    frame_relevance: list[float]
    words: list[tuple[str, float]]


class ExplainBody(BaseModel):
    """Why labels got their scores."""

    model: str
    frames: list[str] = Field(
        description="the sampled frames as the model sees them: data URIs of JPEG pictures"
    )
    message_attention: list[list[float]] | None
    labels: list[LabelExplanationBody]


class LimitsBody(BaseModel):
    """What a request may cost."""

    max_bytes: int
    max_seconds: float
    max_frame_px: int
    max_labels: int
    max_label_letters: int
    max_views: int
    max_batch: int
    deadline_seconds: float


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
    """What is served, and what may be asked for."""

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
        (401, "a key is needed"),
        (403, "the path may not be read"),
        (404, "there is no such video"),
        (408, "the request came too slowly"),
        (413, "the request is too large"),
        (422, "a field or the video cannot be used"),
        (503, "busy: try again after the seconds of Retry-After"),
    )
}
