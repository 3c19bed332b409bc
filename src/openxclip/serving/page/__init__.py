"""The web page: files of this folder, served as they are. It fetches nothing from outside, and its policy says so."""

from importlib import resources
from pathlib import Path

from fastapi import APIRouter, Response

from openxclip.serving.problems import Problem

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
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
"""What a browser is told; other files of the folder are not served."""

router = APIRouter(include_in_schema=False)


@router.get("/")
async def index() -> Response:
    """The page."""
    return _file("index.html")


@router.get("/page/{name}")
async def page_file(name: str) -> Response:
    """A file that belongs to the page."""
    return _file(name)


def _file(name: str) -> Response:
    folder = resources.files(__name__)
    kind = KINDS.get(Path(name).suffix)
    if kind is None or name not in {file.name for file in folder.iterdir()}:
        raise Problem("not-found", "the page has no such file")
    return Response(folder.joinpath(name).read_bytes(), media_type=kind, headers=HEADERS)
