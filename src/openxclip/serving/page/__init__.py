"""The web page: files of this folder, served as they are. Its content security policy forbids external requests."""

from importlib import resources
from pathlib import Path

from fastapi import APIRouter, Response

from openxclip.serving.problems import Problem

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors {frames}"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=()",
    "Cache-Control": "no-cache",
}
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Content types by suffix; other files of the folder are not served."""


def build_router(allow_frames: str | None) -> APIRouter:
    """The page at /; `allow_frames` is the site that may show it in a frame."""
    router = APIRouter(include_in_schema=False)
    policy = POLICY.format(frames=allow_frames or "'none'")

    @router.get("/")
    async def index() -> Response:
        return _file("index.html", policy)

    @router.get("/page/{name}")
    async def page_file(name: str) -> Response:
        return _file(name, policy)

    return router


def _file(name: str, policy: str) -> Response:
    """A file of this folder."""
    folder = resources.files(__name__)
    kind = KINDS.get(Path(name).suffix)
    if kind is None or name not in {file.name for file in folder.iterdir()}:
        raise Problem("not-found", "the page has no such file")
    headers = HEADERS | {"Content-Security-Policy": policy}
    return Response(folder.joinpath(name).read_bytes(), media_type=kind, headers=headers)
