"""Decoder processes: one that dies or hangs affects only its own video.

Each works on one video at a time, so that it is known which video ended it. A video whose process died is tried once
more while no other is decoded: resources used by its neighbours, mainly memory, do not count against it. (On Ray an
actor has one process and no neighbours here; `ray_engine` retries it alone on the machine.) A process that does not
start is not a video's fault, and stops the job.
"""

import contextlib
import multiprocessing
import os
import queue
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Self

import numpy as np
import torch
from torch import Tensor

from openxclip.errors import InputError, VideoError
from openxclip.tagging.decoding import Facts, LastFile, Piece, Plan, decode
from openxclip.workers import START_HELP, end_with_parent

START_SECONDS = 120.0
START_TRIES = 3
"""For a process after others that did start."""

READY = "ready"

CRASH_HOOK = "OPENXCLIP_TEST_CRASH"
"""Name of a file whose decoder calls os.abort, for tests."""


class StartError(InputError):
    """A process did not start."""


class Decoders:
    """Decoder processes and their plan. Use it in a `with` statement."""

    def __init__(self, plan: Plan, num_decoders: int, max_seconds: float) -> None:
        self.num_decoders = num_decoders
        self._plan = plan
        self._max_seconds = max_seconds
        self._idle: queue.SimpleQueue[_Worker | StartError] = queue.SimpleQueue()
        self._has_started = False
        self._workers: list[_Worker] = []
        self._facts: dict[tuple[int, int], Facts] = {}
        self._lock = threading.Lock()
        self._turns = _Turns()
        for _ in range(num_decoders):
            self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.end()

    def read(self, piece: Piece) -> Tensor:
        """Views uint8 (W * V, T, 3, S, S) of a piece; its facts are kept for `facts_of`. For many threads.

        Raises:
            VideoError: the video cannot be read; or its decoder died twice, or took too long.
            InputError: decoders do not start.
        """
        try:
            with self._turns.among_others():
                pixels, facts = self._decode(piece)
        except EOFError:
            pixels, facts = self._decode_alone(piece)
        with self._lock:
            self._facts[piece.number, piece.first_window] = facts
        return torch.from_numpy(pixels).flatten(0, 1)

    def _decode_alone(self, piece: Piece) -> tuple[np.ndarray, Facts]:
        """The second attempt."""
        with self._turns.alone():
            try:
                return self._decode(piece)
            except EOFError:
                reason = "the process that decoded it died, twice"
                raise VideoError(piece.source.path, reason, kind="crashed") from None

    def _decode(self, piece: Piece) -> tuple[np.ndarray, Facts]:
        worker = self._ready_worker()
        try:
            answer = worker.decode(piece, self._max_seconds)
        except VideoError:
            self._idle.put(worker)
            raise
        except TimeoutError:
            self._replace(worker)
            reason = f"decoding took longer than {self._max_seconds:g} s"
            raise VideoError(piece.source.path, reason, kind="too-slow") from None
        except BaseException:  # the process died, or the pipe holds the rest of a response
            self._replace(worker)
            raise
        self._idle.put(worker)
        return answer

    def _ready_worker(self) -> "_Worker":
        """An idle process that has started. If one cannot be started, all waiting callers get the error."""
        for tries in range(1, START_TRIES + 1):
            worker = self._idle.get()
            if isinstance(worker, StartError):
                self._idle.put(worker)
                raise worker
            try:
                worker.wait_until_ready()
            except StartError as error:
                if not self._has_started or tries == START_TRIES:
                    self._idle.put(error)
                    raise
                self._replace(worker)
            except BaseException:
                self._replace(worker)
                raise
            else:
                self._has_started = True
                return worker
        raise AssertionError

    def facts_of(self, piece: Piece) -> Facts:
        """The facts about a piece that was read; can be taken once."""
        with self._lock:
            return self._facts.pop((piece.number, piece.first_window))

    def _start(self) -> None:
        worker = _Worker(self._plan)
        self._workers.append(worker)
        self._idle.put(worker)

    def _replace(self, worker: "_Worker") -> None:
        worker.end()
        with self._lock:
            self._workers.remove(worker)
            self._start()


class _Turns:
    """A lock: many hold it together, or one exclusively."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_working = 0
        self._is_reserved = False

    @contextlib.contextmanager
    def among_others(self) -> Iterator[None]:
        """Hold it together with others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_reserved)
            self._num_working += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_working -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until the others are done, and block newcomers."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_reserved)
            self._is_reserved = True
            self._changed.wait_for(lambda: self._num_working == 0)
        try:
            yield
        finally:
            with self._changed:
                self._is_reserved = False
                self._changed.notify_all()


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, plan: Plan) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, plan), daemon=True)
        self._process.start()
        theirs.close()
        self._is_ready = False

    def decode(self, piece: Piece, max_seconds: float) -> tuple[np.ndarray, Facts]:
        """Let the process decode a piece.

        Raises:
            VideoError: the video cannot be read.
            EOFError: the process died.
            TimeoutError: it took too long.
        """
        try:
            self._ours.send(piece)
            if not self._ours.poll(max_seconds):
                raise TimeoutError
            answer = self._ours.recv()
            if isinstance(answer, Exception):
                raise answer
            shape, facts = answer
            pixels = np.empty(shape, np.uint8)
            self._ours.recv_bytes_into(pixels.data.cast("B"))
        except (VideoError, TimeoutError):
            raise
        except OSError as error:  # pipe error: broken, reset, or closed within a message
            raise EOFError from error
        return pixels, facts

    def wait_until_ready(self) -> None:
        """Wait for the start, which has its own time limit.

        Raises:
            StartError: the process died before it was ready, or was not ready in time.
        """
        if self._is_ready:
            return
        try:
            if not self._ours.poll(START_SECONDS):
                raise StartError(f"a decoding process did not start within {START_SECONDS:g} s; {START_HELP}")
            self._is_ready = self._ours.recv() == READY
        except (EOFError, ConnectionError) as error:
            self._process.join(5)
            raise StartError(
                f"a decoding process ended before it was ready (exit status {self._process.exitcode}; see its "
                f"output above); {START_HELP}"
            ) from error

    def end(self) -> None:
        """Kill the process in any state."""
        self._ours.close()
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, plan: Plan) -> None:
    """The loop of a process: receives a piece; sends the shape of its pixels and its facts, then the pixels."""
    end_with_parent()
    torch.set_num_threads(1)
    connection.send(READY)
    last_file = LastFile()
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            piece: Piece = connection.recv()
            if os.environ.get(CRASH_HOOK) and piece.source.path.endswith(os.environ[CRASH_HOOK]):
                os.abort()
            try:
                pixels, facts = decode(piece, plan, last_file.open)
            except VideoError as error:
                connection.send(error)
                continue
            except (MemoryError, RuntimeError, ValueError, OSError) as error:
                reason = f"it cannot be decoded ({type(error).__name__}: {error})"
                connection.send(VideoError(piece.source.path, reason))
                continue
            connection.send((pixels.shape, facts))
            connection.send_bytes(pixels.data.cast("B"))
