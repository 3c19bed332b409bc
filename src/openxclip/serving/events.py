"""Responses as server-sent events: `progress` during the work, then one `result`, or one `error`."""

import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openxclip.serving.problems import ClientGoneError, Problem

MEDIA_TYPE = "text/event-stream"

errors = logging.getLogger("openxclip.serving")


def is_wanted(accept: str) -> bool:
    """Whether a client explicitly accepts events; one that accepts anything gets JSON."""
    kinds = (kind.partition(";")[0].strip().lower() for kind in accept.split(","))
    return MEDIA_TYPE in kinds


def event(name: str, data: str) -> bytes:
    """One event; the data is JSON, joined into one line."""
    line = "".join(line.strip() for line in data.split("\n"))
    return f"event: {name}\ndata: {line}\n\n".encode()


class EventStream(Response):
    """Sends events as they come. An error on the way becomes the last event, since the status is already sent."""

    media_type = MEDIA_TYPE

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._events) as events:
            try:
                async for data in events:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            except ClientGoneError:
                scope["app"].state.house.metrics.gone.inc()
            except Problem as problem:
                await _send_error(send, problem.body())
            except Exception:  # noqa: BLE001 logged, and the client gets a response
                errors.exception("an answer ended in an error")
                detail = "this is an error of the server, not of your request; see its log"
                await _send_error(send, Problem("internal-error", detail).body())
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_error(send: Send, problem: Mapping[str, Any]) -> None:
    body = event("error", json.dumps(problem))
    await send({"type": "http.response.body", "body": body, "more_body": True})
