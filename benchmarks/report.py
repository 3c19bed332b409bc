"""The report: one Markdown file to read and one JSON file with every measurement."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

from benchmarks.harness import Timing
from benchmarks.machine import Machine
from benchmarks.targets import TARGETS, target_table
from openxclip.errors import InputError
from openxclip.files import atomic_write
from openxclip.reports.table import Table


@dataclass(frozen=True, kw_only=True)
class Section:
    """What one suite found."""

    suite: str
    """Its name."""
    tables: tuple[Table, ...] = ()
    """To read."""
    figures: dict[str, float] = field(default_factory=dict)
    """Name of a target -> what was measured."""
    timings: dict[str, Timing] = field(default_factory=dict)
    """Every measurement, for the JSON file."""
    left_out: str | None = None
    """Why nothing was measured, if so."""

    def __post_init__(self) -> None:
        unknown = self.figures.keys() - TARGETS.keys()
        if unknown:
            raise InputError(f"suite {self.suite}: no target is called {sorted(unknown)}; add it to TARGETS")

    def markdown(self) -> str:
        """A heading and the tables."""
        parts = [
            f"## {self.suite.replace('_', ' ').capitalize()}",
            *(table.markdown() for table in self.tables),
        ]
        if self.left_out is not None:
            parts.append(f"Left out: {self.left_out}.")
        return "\n\n".join(parts)


def write_report(folder: Path, machine: Machine, sections: Sequence[Section], suites: str) -> Path:
    """Write `<machine>-<date>.md` and `.json` -> the former; the same suites on the same day replace them.

    Args:
        folder: where to.
        machine: what was measured on.
        sections: what the suites found.
        suites: the chosen suites, for the file name and the command; empty means all.
    """
    name = "-".join([machine.slug, date.today().isoformat(), *suites.split()])
    command = f"python -m benchmarks {suites}".strip()
    figures = {name: value for section in sections for name, value in section.figures.items()}
    overview = target_table(figures, command)
    parts = [f"# Benchmarks, {date.today().isoformat()}", machine.markdown(), overview.markdown()]
    parts += [section.markdown() for section in sections]
    everything = {
        "date": date.today().isoformat(),
        "machine": asdict(machine),
        "targets": {
            name: asdict(target) | {"measured": figures.get(name)} for name, target in TARGETS.items()
        },
        "sections": [asdict(section) for section in sections],
    }
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / f"{name}.json", json.dumps(everything, indent=1) + "\n")
    return _write(folder / f"{name}.md", "\n\n".join(parts) + "\n")


def _write(path: Path, text: str) -> Path:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
