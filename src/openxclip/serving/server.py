"""Runs the application until a signal: what was taken by then is finished, and the exit status is 0."""

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

GRACE_SECONDS = 5.0  # beyond what a request may take
WRITE_SECONDS = 15.0  # without anything being read


def serve(engine: Engine, model_id: str, options: ServeOptions) -> bool:
    """Serve until SIGTERM or Ctrl-C -> whether the address could be listened on.

    Raises:
        TokenizerError: the model has no tokenizer, and so cannot read labels.
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
        except SystemExit:  # the address is taken, or is none of this machine; the log has said so
            service.close()
            return False
    if not service.is_closed:  # something that nobody waits for does not end: every answer has been given
        sys.stderr.flush()
        os._exit(0)
    return True


class _ImpatientProtocol(H11Protocol):
    """Hangs up on a client that does not read its answer: it would keep its place for ever."""

    _hang_up: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """The client reads no more for now."""
        super().pause_writing()
        self._hang_up = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        if self._hang_up is not None:
            self._hang_up.cancel()
        super().resume_writing()


class _Server(uvicorn.Server):
    """Says where it listens in a line for people."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list | None = None) -> None:
        """Answer what was taken."""
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
    """The server raises the signal that stopped it once more when it is done; then nobody need die of it."""

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
    """While the server runs: access lines as bare JSON on stderr, other messages only where they are errors.

    The levels are the process's own: they are put back, for it may go on after the server.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    access = logging.getLogger("openxclip.access")
    # Warnings of the text rooms quote labels, which are nobody's business.
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
