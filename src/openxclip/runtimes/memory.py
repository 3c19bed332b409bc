"""Peak memory of this process."""

import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_bytes() -> int | None:
    """Peak memory in bytes from /proc on Linux, otherwise from getrusage; None on Windows and if unavailable.

    Not getrusage on Linux: its value starts at that of the parent process.
    """
    if STATUS.is_file():
        lines = [line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(lines[0].split()[1]) * 1024 if lines else None  # some sandboxes do not count
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
