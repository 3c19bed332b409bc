"""Checks on every request before it is read: origin, key, size, time and a free slot. Plain ASGI, no buffering."""

import asyncio
import hmac
import re
import time
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openxclip.serving.options import ServeOptions
from openxclip.serving.places import Place, Places
from openxclip.serving.problems import ClientGoneError, Problem

# A client that is still sending would not see a response that closes the connection: read its data for a while.
DRAIN_SECONDS = 2.0

THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


class Gate:
    """Refuses a request before or while its body is read."""

    def __init__(self, app: ASGIApp, *, options: ServeOptions, places: Places) -> None:
        self.app = app
        self.options = options
        self.places = places
        self.keys = options.keys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit a request, or respond with a problem."""
        if scope["type"] != "http" or not scope["path"].startswith(("/v1/", "/metrics")):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            check_origin(self.options, bool(self.keys), headers)
            check_key(self.keys, headers)
            self._check_length(headers)
            if scope["method"] != "POST":
                await self.app(scope, receive, send)
                return
            with self.places.taken() as place:
                await self._pass_on(scope, receive, send, place)
        except Problem as problem:
            if headers.get("expect", "").lower() != "100-continue":
                await drain(receive)
            await problem.response({"Connection": "close"})(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, place: Place) -> None:
        """Let the application respond; a response before the end of the body waits for it briefly."""
        body = Body(receive, self.options, place)

        async def send_after_body(message: Message) -> None:
            if message["type"] == "http.response.start" and place.is_arriving:
                await drain(receive)
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self.app(scope, body.receive, send_after_body)

    def _check_length(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.options.max_bytes:
            raise too_many_bytes(self.options)


class Body:
    """The body of a request as it comes in, with a limit on its bytes and on its time."""

    def __init__(self, receive: Receive, options: ServeOptions, place: Place) -> None:
        self._receive = receive
        self._options = options
        self._place = place
        self._num_bytes = 0
        self._until = time.monotonic() + options.receive_seconds

    async def receive(self) -> Message:
        """The next message.

        Raises:
            Problem: the body is too large, took too long, or had to make room.
            ClientGoneError: the client left before it was complete.
        """
        if not self._place.is_arriving:  # the next message is the client's disconnect, at any time
            return await self._receive()
        message = await self._next()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        self._num_bytes += len(message.get("body", b""))
        if self._num_bytes > self._options.max_bytes:
            raise too_many_bytes(self._options)
        self._place.is_arriving = message.get("more_body", False)
        return message

    async def _next(self) -> Message:
        """The next message, unless time runs out or others need the slot."""
        arrival = asyncio.ensure_future(self._receive())
        leave = asyncio.ensure_future(self._place.must_leave.wait())
        try:
            seconds = max(0.0, self._until - time.monotonic())
            await asyncio.wait({arrival, leave}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if arrival.done():
                return arrival.result()
        finally:
            arrival.cancel()
            leave.cancel()
        if self._place.must_leave.is_set():
            detail = "the request arrived too slowly to keep its slot while others wait; send it faster, or send less"
            raise Problem("receive-timeout", detail)
        limit = self._options.receive_seconds
        detail = f"the request was not complete after {limit:g} s; send it faster, or send less"
        raise Problem("receive-timeout", detail, limit=limit)


async def drain(receive: Receive) -> None:
    """Read and discard what a client still sends, for a short while."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass
    except TimeoutError:
        pass  # it still gets its response, if it reads one


def too_many_bytes(options: ServeOptions) -> Problem:
    """The problem of a request that is too large."""
    detail = f"the request is larger than {options.max_megabytes:g} MB; send a shorter or smaller video"
    return Problem("too-many-bytes", detail, limit=options.max_bytes)


def check_origin(options: ServeOptions, has_keys: bool, headers: Headers) -> None:
    """Refuse cross-site requests from browsers. Other programs do not send these headers.

    Without keys, a server for this machine only also refuses foreign host names: a site could point one of its own
    names here (DNS rebinding), and the browser would then treat it as the same site.

    Raises:
        Problem: the request comes from another site.
    """
    host = headers.get("host", "")
    origin = headers.get("origin")
    is_foreign = origin is not None and origin.partition("://")[2].lower() != host.lower()
    if is_foreign or headers.get("sec-fetch-site") == "cross-site":
        raise Problem("foreign-origin", "pages of other sites may not use this server")
    name = re.sub(r":\d+$", "", host.lower()).strip("[]")
    if options.host in THIS_MACHINE and not has_keys and name not in (*THIS_MACHINE, *options.allow_hosts):
        raise Problem(
            "foreign-origin", "the request's host name is not allowed; allow it with --allow-hosts NAME"
        )


def check_key(keys: Sequence[str], headers: Headers) -> None:
    """Compare the request's key with the accepted ones, in constant time.

    Raises:
        Problem: it has none of them.
    """
    if not keys:
        return
    scheme, _, given = headers.get("authorization", "").partition(" ")
    key = given.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    matches = [hmac.compare_digest(key.encode(), known.encode()) for known in keys]
    if not any(matches):
        raise Problem(
            "unauthorized", "send a key of this server as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
        )
