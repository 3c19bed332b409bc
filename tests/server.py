"""A real server in a process of its own, on loopback."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_SECONDS = 120


class RunningServer:
    """`openxclip serve` on a free port; everything it writes to stderr is kept."""

    def __init__(self, scratch: Path, *arguments: str) -> None:
        self.scratch = scratch
        scratch.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "openxclip", "serve", "--port", "0", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._wait_for_url()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(iter(self.process.stderr.readline, ""))

    def _wait_for_url(self) -> str:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            for line in list(self.lines):
                if found := re.search(r"serving on (http://\S+)", line):
                    return found[1]
            time.sleep(0.05)
        self.process.kill()
        raise AssertionError("".join(self.lines))

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def log(self) -> list[dict[str, Any]]:
        """The access log so far."""
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    def resident_bytes(self) -> int:
        """Memory that the process holds."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self, timeout_seconds: float = 120) -> int:
        """SIGTERM -> exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout_seconds)
        self._reader.join(10)
        return status


@contextmanager
def running_server(scratch: Path, *arguments: str) -> Iterator[RunningServer]:
    """A server for as long as the block runs."""
    server = RunningServer(scratch, *arguments)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(30)
        if server.process.stderr is not None:
            server._reader.join(10)
            server.process.stderr.close()
