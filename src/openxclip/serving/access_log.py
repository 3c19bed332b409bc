"""One JSON line on stderr for each request: no file contents, no file names, no labels, no query strings."""

import json
import logging
import time
import uuid

from h11 import LocalProtocolError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openxclip.serving.metrics import Metrics
from openxclip.serving.problems import Problem

logger = logging.getLogger("openxclip.access")
errors = logging.getLogger("openxclip.serving")


class AccessLog:
    """Logs and counts every request, and gives it an id: the response's X-Request-ID is in the log."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, routes: frozenset[str]) -> None:
        self.app = app
        self.metrics = metrics
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log the outcome."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = _Request()

        async def counted_receive() -> Message:
            message = await receive()
            request.num_bytes += len(message.get("body", b""))
            return message

        async def noted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request.name.encode())]
            await send(message)

        try:
            await self.app(scope, counted_receive, noted_send)
        except (
            LocalProtocolError
        ):  # the client broke off, or does not speak HTTP; the library has reported it
            pass
        except Exception:  # noqa: BLE001 logged, and the client gets a response
            errors.exception("request %s ended in an error", request.name)
            if not request.status:
                detail = "this is an error of the server, not of your request; see its log"
                await Problem("internal-error", detail).response()(scope, receive, noted_send)
        finally:
            self._note(scope, request)

    def _note(self, scope: Scope, request: "_Request") -> None:
        seconds = time.perf_counter() - request.started
        # The route pattern, not the URL: metrics must not grow with made-up URLs.
        route = getattr(scope.get("route"), "path", None)
        if route is None:  # refused before routing
            route = scope["path"] if scope["path"] in self.routes else "(none)"
        self.metrics.requests.labels(route, str(request.status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "id": request.name,
            "client": (scope.get("client") or ("", 0))[0],
            "method": scope["method"],
            "route": route,
            "status": request.status,
            "bytes": request.num_bytes,
            "ms": round(1000 * seconds, 1),
        }
        logger.info(json.dumps(line))


class _Request:
    """The facts about a request so far."""

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex[:16]
        self.started = time.perf_counter()
        self.status = 0  # no response was sent: the client left, or the server was stopped
        self.num_bytes = 0
