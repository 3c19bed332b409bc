"""Errors of requests as RFC 9457 problem details; each kind has its own type and status.

A problem states what happened, the value, what is allowed and what to do; it never includes file contents.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from openxclip.errors import VideoError, VideoLimitError

MEDIA_TYPE = "application/problem+json"

KINDS: dict[str, tuple[int, str]] = {
    "bad-request": (400, "The request cannot be read"),
    "unauthorized": (401, "An API key is required"),
    "foreign-origin": (403, "Cross-site requests are not allowed"),
    "path-not-allowed": (403, "This path may not be read"),
    "not-found": (404, "Not found"),
    "no-such-video": (404, "There is no such video"),
    "method-not-allowed": (405, "Method not allowed"),
    "receive-timeout": (408, "The request arrived too slowly"),
    "too-many-bytes": (413, "The request is too large"),
    "invalid-request": (422, "A field is missing or invalid"),
    "invalid-labels": (422, "The labels are invalid"),
    "too-many-labels": (422, "There are too many labels"),
    "label-too-long": (422, "A label is too long"),
    "too-many-views": (422, "There are too many views"),
    "too-many-videos": (422, "There are too many videos"),
    "too-many-windows": (422, "There are too many windows"),
    "video-unreadable": (422, "The video cannot be read"),
    "video-too-long": (422, "The video is too long"),
    "video-too-large": (422, "The frames of the video are too large"),
    "internal-error": (500, "Internal server error"),
    "queue-full": (503, "The server is busy"),
    "deadline-exceeded": (503, "The answer took too long"),
    "server-stopping": (503, "The server is being stopped"),
}
"""Kind -> status and title."""

RETRY_AFTER_SECONDS = {"queue-full": 1, "deadline-exceeded": 5, "server-stopping": 5}


class Problem(HTTPException):
    """An error response. An HTTPException, so that the framework lets it through wherever it is raised."""

    def __init__(self, kind: str, detail: str, **facts: Any) -> None:
        """
        Args:
            kind: one of `KINDS`.
            detail: what is wrong with this request, and what to do.
            ***facts: further members of the response, such as the limit.
        """
        status, title = KINDS[kind]
        super().__init__(status, detail)
        self.kind = kind
        self.title = title
        self.facts = facts

    def body(self) -> dict[str, Any]:
        """The members of the response."""
        return {
            "type": f"urn:openxclip:problem:{self.kind}",
            "title": self.title,
            "status": self.status_code,
            "detail": self.detail,
            **self.facts,
        }

    def response(self, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """The answer."""
        own = dict(headers or {})
        if self.kind in RETRY_AFTER_SECONDS:
            own["Retry-After"] = str(RETRY_AFTER_SECONDS[self.kind])
        if self.kind == "unauthorized":
            own["WWW-Authenticate"] = 'Bearer realm="openxclip"'
        return JSONResponse(self.body(), self.status_code, own, MEDIA_TYPE)


class ClientGoneError(HTTPException):
    """The client no longer waits for its response. An HTTPException for the same reason; nobody reads it."""

    def __init__(self) -> None:
        super().__init__(499)  # as in nginx's log


def of_video(error: VideoError) -> Problem:
    """The problem of a video that cannot be read. It does not contain the upload's file name."""
    if isinstance(error, VideoLimitError):
        detail = f"{error.found} is over this server's limit of {error.allowed:g}; send a smaller video"
        return Problem(f"video-{error.kind}", detail, limit=error.allowed)
    return Problem("video-unreadable", error.reason)


def of_status(status: int, detail: str) -> Problem:
    """The problem for an error status of the framework."""
    kinds = {404: "not-found", 405: "method-not-allowed", 400: "bad-request"}
    if "Too many fields" in detail:  # the framework's own limit, which is above ours
        return Problem("too-many-labels", "the request has too many fields; send fewer labels")
    if status in kinds:
        return Problem(kinds[status], detail)
    kind = "bad-request" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal-error"
    problem = Problem(kind, detail)
    problem.status_code = status
    return problem
