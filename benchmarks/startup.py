"""How long one waits before anything happens."""

import subprocess
import sys
from collections.abc import Callable

from benchmarks.harness import interleave, speed_table
from benchmarks.options import Options
from benchmarks.report import Section

SUITE = "startup"
HELP = "openxclip --help"
COMMANDS = {
    HELP: ["-m", "openxclip", "--help"],
    "import openxclip": ["-c", "import openxclip"],
    "python alone": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
}
"""Name -> arguments of Python."""
WHO_IMPORTS_TORCH = """
import contextlib, io, sys
from openxclip.cli.main import run
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    run(["--help"])
print("torch" in sys.modules)
"""


def run(options: Options) -> Section:
    """Each command in a process of its own, in turns."""
    result = interleave(
        {name: _process(arguments) for name, arguments in COMMANDS.items()},
        range(options.num_rounds),
        "startup",
    )
    notes = (f"{HELP} imports {'torch' if help_imports_torch() else 'no torch'}.",)
    return Section(
        suite=SUITE,
        tables=(
            speed_table("A process from its start to its end", SUITE, result.timings, "import torch", notes),
        ),
        figures={"help": result.timings[HELP].median_seconds},
        timings=result.timings,
    )


def help_imports_torch() -> bool:
    """Whether the help has torch imported when it is shown."""
    return _python(["-c", WHO_IMPORTS_TORCH]).splitlines()[-1] == "True"


def _process(arguments: list[str]) -> Callable[[int], None]:
    def start(_: int) -> None:
        _python(arguments)

    return start


def _python(arguments: list[str]) -> str:
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)
    return done.stdout
