"""A client of a server: the same results as a local `Recognizer`, without loading a model. Needs httpx2."""

import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

from openxclip.errors import InputError, MissingExtraError, ServerError, VideoError
from openxclip.inference.prediction import Prediction
from openxclip.timelines.options import SegmentRules, WindowOptions

try:
    import httpx2
except ImportError as error:
    raise MissingExtraError("httpx2", "client") from error

EVENTS = "text/event-stream"
MAX_TRIES = 5  # for a request while the server is busy


class ServerPath(str):
    """The path of a video on the server, in its allowed folder."""


ClientVideo = str | Path | bytes | ServerPath
OnProgress = Callable[[float, float | None], None]
"""Called with the seconds seen so far, and the length of the video if known."""
_Sent = Sequence[tuple[str, str, ClientVideo]]
"""(name of an upload, name of a path, video)"""


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Result of `Client.embed`; each vector has unit length."""

    video: list[float] | None
    """Embedding of the video, if one was given."""
    texts: list[list[float]] | None
    """Embedding of each text."""


class Client:
    """A client for a server run by `openxclip serve`. Use it in a `with` statement, or close it."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout_seconds: float = 180.0,
    ) -> None:
        """
        Args:
            url: URL of the server.
            api_key: the server's key, if it requires one.
            timeout_seconds: how long to wait for a response.
        """
        self.url = url
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=timeout_seconds, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def models(self) -> dict[str, Any]:
        """The served model, its label sets and limits."""
        return self._json("GET", "/v1/models", {}, [])

    def predict(
        self,
        video: ClientVideo,
        labels: Sequence[str] | str,
        *,
        templates: Sequence[str] | str | None = None,
        top_k: int = 5,
        views: str = "1x1",
    ) -> Prediction:
        """The best labels of a video.

        Args:
            video: a local path, the bytes of a video, or a `ServerPath`.
            labels: class names, or the name of a built-in set.
            templates: sentences with {} for the class name, or a built-in name.
            top_k: number of labels.
            views: clips x crops, such as "4x3".

        Raises:
            VideoError: the video cannot be read, here or there.
            ServerError: the server does not answer, or refuses the request for another reason.
        """
        fields = {**_labels(labels), **_list("templates", templates), "top_k": str(top_k), "views": views}
        answer = self._json("POST", "/v1/predict", fields, [("video", "path", video)])
        return Prediction(path=_name(video), scores=_scores(answer["scores"]))

    def predict_batch(
        self,
        videos: Sequence[ClientVideo],
        labels: Sequence[str] | str,
        *,
        templates: Sequence[str] | str | None = None,
        top_k: int = 5,
        views: str = "1x1",
    ) -> list[Prediction]:
        """The best labels of several videos, in order, in one request; an unreadable one has its `error` set."""
        fields = {**_labels(labels), **_list("templates", templates), "top_k": str(top_k), "views": views}
        uploads = [video for video in videos if not isinstance(video, ServerPath)]
        on_server = [video for video in videos if isinstance(video, ServerPath)]
        sent = [("videos", "paths", video) for video in (*uploads, *on_server)]
        results = iter(self._json("POST", "/v1/predict/batch", fields, sent)["results"])
        of_uploads = [next(results) for _ in uploads]
        of_each = {True: iter(results), False: iter(of_uploads)}
        return [_prediction(video, next(of_each[isinstance(video, ServerPath)])) for video in videos]

    def embed(
        self, video: ClientVideo | None = None, texts: Sequence[str] | None = None, *, views: str = "1x1"
    ) -> Embeddings:
        """Embeddings of a video, of texts, or of both. Raises what `predict` raises."""
        sent = [] if video is None else [("video", "path", video)]
        answer = self._json("POST", "/v1/embed", {**_list("texts", texts), "views": views}, sent)
        return Embeddings(video=answer["video"], texts=answer["texts"])

    def explain(
        self,
        video: ClientVideo,
        labels: Sequence[str] | str,
        *,
        templates: Sequence[str] | str | None = None,
        explain: Sequence[str] | None = None,
        top_k: int = 3,
    ) -> dict[str, Any]:
        """Explain the scores of labels: the response of /v1/explain. Raises what `predict` raises."""
        fields = {**_labels(labels), **_list("templates", templates), **_list("explain", explain)}
        return self._json("POST", "/v1/explain", {**fields, "top_k": str(top_k)}, [("video", "path", video)])

    def timeline(
        self,
        video: ClientVideo,
        labels: Sequence[str] | str,
        *,
        templates: Sequence[str] | str | None = None,
        windows: WindowOptions | None = None,
        rules: SegmentRules | None = None,
        background: Literal["self"] | None = None,
        thumbnails: bool = False,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """Find what happens when in a video: the values of `openxclip timeline --formats json`.

        Args:
            video: a local path, the bytes of a video, or a `ServerPath`.
            labels: class names, or the name of a built-in set.
            templates: sentences with {} for the class name, or a built-in name.
            windows: length and stride of the windows; one view of each window.
            rules: when a segment begins and ends.
            background: "self" if the video is mostly quiet; this calibrates "none of these".
            thumbnails: whether `thumbnails` holds small pictures along the video, as data URIs.
            on_progress: called a few times per second.

        Raises:
            InputError: more than one view is requested.
            VideoError: the video cannot be read, here or there.
            ServerError: the server does not answer, or refuses the request for another reason.
        """
        wanted = windows or WindowOptions()
        if wanted.views != "1x1":
            raise InputError(f"views {wanted.views}: a server scores one view per window; leave views at 1x1")
        settings = {"window": wanted.window, "stride": wanted.stride, "shots": str(wanted.shots).lower()}
        thresholds = {
            name: str(value) for name, value in vars(rules or SegmentRules()).items() if value is not None
        }
        fields = {**_labels(labels), **_list("templates", templates), **_list("background", background)}
        fields["thumbnails"] = str(thumbnails).lower()
        sent = [("video", "path", video)]
        with self._response(
            "POST", "/v1/timeline", {**fields, **settings, **thresholds}, sent, EVENTS
        ) as response:
            result = _result_of(response, self.url, sent, on_progress)
        return {**result, "video": _name(video)}

    def _json(self, method: str, path: str, fields: dict[str, Any], videos: _Sent) -> dict[str, Any]:
        with self._response(method, path, fields, videos, "application/json") as response:
            return json.loads(self._read(response))

    @contextmanager
    def _response(
        self, method: str, path: str, fields: dict[str, Any], videos: _Sent, accept: str
    ) -> Iterator["httpx2.Response"]:
        """Send a request, and retry while the server is busy -> its response, not read yet."""
        for attempt in range(MAX_TRIES):
            response = self._send(method, path, fields, videos, accept)
            try:
                if response.status_code == 200:
                    yield response
                    return
                self._read(response)
            finally:
                response.close()
            if response.status_code != 503 or attempt == MAX_TRIES - 1:
                raise _error_of(response, self.url, videos)
            time.sleep(min(30.0, float(response.headers.get("Retry-After", "1"))))

    def _send(
        self, method: str, path: str, fields: dict[str, Any], videos: _Sent, accept: str
    ) -> "httpx2.Response":
        if method == "GET":
            return self._request(method, path, accept)
        data = {name: value if isinstance(value, list) else [value] for name, value in fields.items()}
        with ExitStack() as files:
            # A form without a file would be sent in another encoding; a field that is not a file has no file name.
            parts: list[tuple[str, tuple[str | None, Any]]] = [
                (name, (None, text)) for name, values in data.items() for text in values
            ]
            for upload, on_server, video in videos:
                if isinstance(video, ServerPath):
                    parts.append((on_server, (None, str(video))))
                else:
                    parts.append((upload, ("video", files.enter_context(_open(video)))))
            return self._request(method, path, accept, parts)

    def _request(self, method: str, path: str, accept: str, parts: Any = None) -> "httpx2.Response":
        request = self._http.build_request(method, path, files=parts, headers={"Accept": accept})
        with _http_errors(self.url):
            return self._http.send(request, stream=True)

    def _read(self, response: "httpx2.Response") -> bytes:
        with _http_errors(self.url):
            return response.read()


@contextmanager
def _http_errors(url: str) -> Iterator[None]:
    """Turn connection errors into a ServerError."""
    try:
        yield
    except httpx2.HTTPError as error:
        raise ServerError(
            f"{url} does not answer ({type(error).__name__}: {error}); is the server running?", 0, ""
        ) from error


def _result_of(
    response: "httpx2.Response", url: str, videos: _Sent, on_progress: OnProgress | None
) -> dict[str, Any]:
    """The result at the end of a stream of events."""
    for name, data in _events(response, url):
        if name == "progress" and on_progress is not None:
            on_progress(data["seconds_seen"], data["seconds_total"])
        elif name == "error":
            raise _error(data, url, videos)
        elif name == "result":
            return data
    raise ServerError(f"{url} sent no result: the server was stopped; try again", 0, "")


def _events(response: "httpx2.Response", url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and data of each event; ours have one line of data."""
    rest = b""
    chunks = response.iter_bytes()
    while True:
        with _http_errors(url):
            chunk = next(chunks, None)
        if chunk is None:
            return
        *blocks, rest = (rest + chunk).split(b"\n\n")
        for block in blocks:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
            yield fields[b"event"].decode(), json.loads(fields[b"data"])


def _open(video: ClientVideo) -> BinaryIO:
    if isinstance(video, bytes):
        return io.BytesIO(video)
    try:
        return Path(video).open("rb")
    except OSError as error:
        raise VideoError(str(video), f"it cannot be read ({error.strerror})") from error


def _labels(labels: Sequence[str] | str) -> dict[str, Any]:
    if isinstance(labels, str):
        return {"label_set": labels}
    return {"labels": list(labels)}


def _list(name: str, values: Sequence[str] | str | None) -> dict[str, Any]:
    if values is None:
        return {}
    return {name: [values] if isinstance(values, str) else list(values)}


def _name(video: ClientVideo) -> str:
    return "<bytes>" if isinstance(video, bytes) else str(video)


def _scores(scores: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(score["label"], score["probability"]) for score in scores]


def _prediction(video: ClientVideo, result: dict[str, Any]) -> Prediction:
    if result["problem"] is not None:
        return Prediction(path=_name(video), scores=[], error=result["problem"]["detail"])
    return Prediction(path=_name(video), scores=_scores(result["scores"]))


def _error_of(response: "httpx2.Response", url: str, videos: _Sent) -> ServerError | VideoError:
    try:
        return _error(response.json(), url, videos)
    except (ValueError, KeyError, TypeError, AttributeError):
        return ServerError(
            f"{url} answered {response.status_code} without problem details; is it an OpenXCLIP server?",
            response.status_code,
            "",
        )


def _error(problem: dict[str, Any], url: str, videos: _Sent) -> ServerError | VideoError:
    """The error that problem details describe."""
    kind, detail = problem["type"].rpartition(":")[2], problem["detail"]
    if kind.startswith("video-") or kind == "no-such-video":
        return VideoError(_name(videos[0][2]), detail)
    return ServerError(f"{url} refuses this ({problem['title']}): {detail}", problem["status"], kind)
