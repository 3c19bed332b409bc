"""What every request passes before it is read: key, size, time and a place. Plain ASGI: nothing is buffered here."""

import asyncio
import hmac
import time
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openxclip.serving.options import ServeOptions
from openxclip.serving.places import Places
from openxclip.serving.problems import Problem

# A client that is still sending would not see an answer that closes the connection: what it sends is read for a while.
DRAIN_SECONDS = 2.0


class Gate:
    """Refuses a request before its body is read, or while it is."""

    def __init__(self, app: ASGIApp, *, options: ServeOptions, places: Places) -> None:
        self.app = app
        self.options = options
        self.places = places
        self.keys = options.keys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it with its problem."""
        if scope["type"] != "http" or not scope["path"].startswith(("/v1/", "/metrics")):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            check_key(self.keys, headers)
            self._check_length(headers)
            if scope["method"] != "POST":
                await self.app(scope, receive, send)
                return
            with self.places.taken():
                await self._pass_on(scope, receive, send)
        except Problem as problem:
            if headers.get("expect", "").lower() != "100-continue":
                await drain(receive)
            await problem.response({"Connection": "close"})(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer; an answer before the end of the body waits for that, for a short while."""
        body = Body(receive, self.options)

        async def send_after_body(message: Message) -> None:
            if message["type"] == "http.response.start" and not body.is_complete:
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

    def __init__(self, receive: Receive, options: ServeOptions) -> None:
        self._receive = receive
        self._options = options
        self._num_bytes = 0
        self._until = time.monotonic() + options.receive_seconds
        self.is_complete = False

    async def receive(self) -> Message:
        """The next message.

        Raises:
            Problem: the body is too large, or took too long.
        """
        if self.is_complete:  # what comes now is the client's leave, at any time
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, self._until - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise Problem(
                "receive-timeout",
                f"the request was not complete after {self._options.receive_seconds:g} s; send it faster, or less",
                limit=self._options.receive_seconds,
            ) from None
        self._num_bytes += len(message.get("body", b""))
        self.is_complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
        if self._num_bytes > self._options.max_bytes:
            raise too_many_bytes(self._options)
        return message


async def drain(receive: Receive) -> None:
    """Read what a client still sends, for a short while, and drop it."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass
    except TimeoutError:
        pass  # it gets its answer all the same, if it reads one


def too_many_bytes(options: ServeOptions) -> Problem:
    """The problem of a request that is too large."""
    detail = f"the request is larger than {options.max_megabytes:g} MB; send a shorter or smaller video"
    return Problem("too-many-bytes", detail, limit=options.max_bytes)


def check_key(keys: Sequence[str], headers: Headers) -> None:
    """Compare the request's key with the accepted ones, in a time that does not depend on them.

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
