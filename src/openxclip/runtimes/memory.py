"""The most memory that this process has held."""

import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_bytes() -> int | None:
    """As Linux counts it, else as the system's own count has it; None on Windows and where nobody counts.

    Not getrusage on Linux: its figure begins with that of the process this one was started from.
    """
    if STATUS.is_file():
        lines = [line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(lines[0].split()[1]) * 1024 if lines else None  # some sandboxes do not count
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
