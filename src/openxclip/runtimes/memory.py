"""The most memory that this process has held."""

import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_bytes() -> int | None:
    """As Linux counts it, else as the system's own count has it; None on Windows, which keeps none that is easy to ask.

    Not getrusage on Linux: its figure begins with that of the process this one was started from.
    """
    if STATUS.is_file():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
