"""Runs the application until a signal: accepted requests are finished, and the exit status is 0."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from openxclip.inference.engine import Engine
from openxclip.serving.api import build_app
from openxclip.serving.metrics import Metrics
from openxclip.serving.options import ServeOptions
from openxclip.serving.service import Service

GRACE_SECONDS = 5.0  # beyond a request's time limit
WRITE_SECONDS = 15.0  # without the client reading anything


def serve(engine: Engine, model_id: str, options: ServeOptions) -> bool:
    """Serve until SIGTERM or Ctrl-C -> whether listening on the address succeeded.

    Raises:
        TokenizerError: the model has no tokenizer, so it cannot read labels.
    """
    metrics = Metrics()
    service = Service(engine, model_id, options, metrics.on_batch)
    service.warm_up()
    config = uvicorn.Config(
        build_app(service, metrics),
        host=options.host,
        port=options.port,
        http=_ImpatientProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(options.receive_seconds + options.deadline_seconds + GRACE_SECONDS),
    )
    server = _Server(config, service)
    with _calm_signals(), _log_lines():
        try:
            server.run()
        except SystemExit:  # the address is in use, or not of this machine; the log says so
            service.close()
            return False
    if not service.is_closed:  # abandoned work does not end; every request has been answered
        sys.stderr.flush()
        os._exit(0)
    return True


class _ImpatientProtocol(H11Protocol):
    """Disconnects a client that does not read its response: it would keep its slot forever."""

    _hang_up: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """The client has stopped reading."""
        super().pause_writing()
        self._hang_up = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._hang_up is not None:
            self._hang_up.cancel()
        super().resume_writing()


class _Server(uvicorn.Server):
    """A server that prints its address in a readable line."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list | None = None) -> None:
        """Finish accepted requests."""
        self._service.stop_soon()
        await super().shutdown(sockets)

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
    """Ignore the signal that stopped the server: uvicorn raises it again when done."""

    def ignore(_: int, __: FrameType | None) -> None:
        pass

    previous = {number: signal.signal(number, ignore) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _log_lines() -> Iterator[None]:
    """While the server runs: access lines as bare JSON on stderr, other messages only if they are errors.

    The levels belong to the process: they are restored, because it may continue after the server.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    access = logging.getLogger("openxclip.access")
    # Warnings about texts quote labels, which are private.
    quiet = [logging.getLogger(name) for name in ("uvicorn", "python_multipart", "openxclip.text")]
    levels = {logger: logger.level for logger in (access, *quiet)}
    propagates = access.propagate
    access.addHandler(handler)
    access.propagate = False
    access.setLevel(logging.INFO)
    for logger in quiet:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        access.removeHandler(handler)
        access.propagate = propagates
        for logger, level in levels.items():
            logger.setLevel(level)
