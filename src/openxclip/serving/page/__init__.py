"""The web page: files of this folder, served as they are. It fetches nothing from outside, and its policy says so."""

from importlib import resources

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
FILES = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "heat.js": "text/javascript; charset=utf-8",
    "share.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

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
    if name not in FILES:
        raise Problem("not-found", "the page has no such file")
    content = resources.files(__name__).joinpath(name).read_bytes()
    return Response(content, media_type=FILES[name], headers=HEADERS)
