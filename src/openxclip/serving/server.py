"""Runs the application until a signal: what was taken by then is finished, and the exit status is 0."""

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from h11 import LocalProtocolError

from openxclip.inference.engine import Engine
from openxclip.serving.api import build_app
from openxclip.serving.metrics import Metrics
from openxclip.serving.options import ServeOptions
from openxclip.serving.service import Service

GRACE_SECONDS = 5.0  # beyond what a request may take


def serve(engine: Engine, model_id: str, options: ServeOptions) -> bool:
    """Serve until SIGTERM or Ctrl-C -> whether the address could be listened on."""
    metrics = Metrics()
    service = Service(engine, model_id, options, metrics.on_batch)
    service.warm_up()
    _log_lines()
    config = uvicorn.Config(
        build_app(service, metrics),
        host=options.host,
        port=options.port,
        http="h11",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(options.receive_seconds + options.deadline_seconds + GRACE_SECONDS),
    )
    server = _Server(config)
    with _calm_signals():
        try:
            server.run()
        except SystemExit:  # the address is taken, or is none of this machine; the log has said so
            service.close()
            return False
    return True


class _Server(uvicorn.Server):
    """Says where it listens in a line for people."""

    async def startup(self, sockets: list | None = None) -> None:
        await super().startup(sockets)
        for listener in self.servers if self.started else ():
            for socket in listener.sockets:
                host, port = socket.getsockname()[:2]
                host = f"[{host}]" if ":" in host else host
                print(
                    f"openxclip: serving on http://{host}:{port} (Ctrl-C stops)", file=sys.stderr, flush=True
                )


@contextmanager
def _calm_signals() -> Iterator[None]:
    """The server raises the signal that stopped it once more when it is done; then nobody need die of it."""

    def ignore(_: int, __: FrameType | None) -> None:
        pass

    previous = {number: signal.signal(number, ignore) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _log_lines() -> None:
    """Access lines are bare JSON on stderr; the server's own messages only where they are warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    access = logging.getLogger("openxclip.access")
    access.handlers, access.propagate = [handler], False
    access.setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.error").addFilter(_is_ours)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


def _is_ours(record: logging.LogRecord) -> bool:
    """Not an answer to a client that broke off or does not speak HTTP: the library has told it so already."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, LocalProtocolError)
