"""`python -m benchmarks`: run the suites and write the report."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro

from benchmarks.ffmpeg_libraries import restart_with_ffmpeg
from benchmarks.machine import Machine
from benchmarks.options import Options, UnavailableError
from benchmarks.report import Section, write_report
from openxclip.errors import MissingExtraError, OpenXCLIPError

Suite = Literal[
    "forward",
    "text",
    "end_to_end",
    "decoding",
    "loading",
    "packing",
    "training",
    "startup",
    "ceiling",
    "curves",
    "serving",
    "search",
    "tagging",
    "shots",
    "timelines",
    "runtimes",
    "parity",
    "int8",
    "merging",
    "gpu",
]
SUITES: tuple[Suite, ...] = (
    "startup",
    "text",
    "ceiling",
    "end_to_end",
    "decoding",
    "loading",
    "packing",
    "training",
    "curves",
    "serving",
    "search",
    "tagging",
    "shots",
    "timelines",
    "gpu",
    "runtimes",
    "parity",
    "int8",
    "merging",
    "forward",
)
"""In the order in which they run; the longest comes last."""

PEERS: dict[Suite, tuple[str, ...]] = {
    "decoding": ("cv2", "decord", "torchcodec"),
    "startup": (),
    "loading": (),
    "packing": (),
    "curves": (),
    "serving": ("fastapi",),
    "search": ("lancedb",),
    "shots": (),
    "runtimes": ("openvino", "onnxruntime", "onnxscript", "transformers"),
    "int8": (),
    "parity": ("openvino", "onnxruntime", "onnxscript"),
    "merging": ("openvino",),
}
"""What a suite compares with; where nothing is said, transformers alone."""

FFMPEG_LINKS = Path("build") / "ffmpeg"


def main(
    suites: Annotated[tuple[Suite, ...], tyro.conf.Positional] = (),
    /,
    *,
    output: Path = Path("benchmarks/results"),
    options: Annotated[Options, tyro.conf.arg(name="")] = Options(),  # noqa: B008 frozen
) -> None:
    """Measure ours against the alternatives, on this machine.

    Args:
        suites: which; all where none is named.
        output: folder of the report, <machine>-<date>.md and .json.
        options: how much is measured.
    """
    chosen = [suite for suite in SUITES if suite in suites] or list(SUITES)
    check_peers(chosen)
    if "decoding" in chosen:
        restart_with_ffmpeg(FFMPEG_LINKS.resolve())
    run(chosen, output, options, name=" ".join(chosen) if suites else "")


def check_peers(suites: Sequence[Suite]) -> None:
    """Find out before the first measurement what would be missing for the last.

    Raises:
        MissingExtraError: a package is not installed.
    """
    for suite in suites:
        for package in PEERS.get(suite, ("transformers",)):
            if find_spec(package) is None:
                raise MissingExtraError(package, "bench")


def run(suites: Sequence[Suite], output: Path, options: Options, name: str) -> list[Section]:
    """Run the suites; the report is written anew after each, so that a later one's failure costs nothing."""
    machine = Machine()
    sections: list[Section] = []
    for suite in suites:
        try:
            sections.append(import_module(f"benchmarks.{suite}").run(options))
        except UnavailableError as error:
            print(f"{suite} is left out: {error}", file=sys.stderr)
            sections.append(Section(suite=suite, left_out=str(error)))
        report = write_report(output, machine, sections, name)
        print("\n\n".join(table.text() for table in sections[-1].tables), end="\n\n")
    print(f"report: {report}")
    return sections


if __name__ == "__main__":
    try:
        tyro.cli(main, prog="python -m benchmarks")
    except OpenXCLIPError as error:
        sys.exit(f"benchmarks: {error}")
