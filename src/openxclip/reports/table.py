"""Tables of results, written as JSON, Markdown, or lines for the terminal."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from openxclip.errors import InputError
from openxclip.files import atomic_write

Cell = str | int | float


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of results and the command that reproduces them."""

    title: str
    """Description of the measurement."""
    command: str
    """The command that reproduces the table."""
    columns: tuple[str, ...]
    """Headings."""
    rows: tuple[tuple[Cell, ...], ...]
    """A cell for each column; numbers are written as they are, so round them or give text."""
    notes: tuple[str, ...] = ()
    """Remarks that a reader needs besides the numbers."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise InputError(
                    f"table {self.title!r}: {row} has {len(row)} cells; give one for each of {self.columns}"
                )

    def save(self, path: Path) -> None:
        """Write the table as one JSON file."""
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1))

    def markdown(self) -> str:
        """Title, table, notes and command, for a document."""
        head = [self._markdown_row(self.columns), "|" + "---|" * len(self.columns)]
        notes = [f"\n{note}" for note in self.notes]
        body = [*head, *(self._markdown_row(row) for row in self.rows), *notes]
        return "\n".join([f"**{self.title}**\n", *body, f"\n```bash\n{self.command}\n```"])

    def text(self) -> str:
        """Aligned columns for the terminal: the first left-aligned, the others, mostly numbers, right-aligned."""
        cells = [self.columns, *([str(cell) for cell in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in cells
        ]
        return "\n".join([self.title, "", *lines, *(f"\n{note}" for note in self.notes)])

    @staticmethod
    def _markdown_row(cells: tuple[Cell, ...]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; None for a single value, which has no spread."""
    if not values:
        raise InputError("a mean needs at least one value")
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5


def percent(values: Sequence[float]) -> str:
    """Shares in 0..1 as "71.3 ± 0.8" in percent, or "71.3" if there is only one."""
    mean, std = mean_std(values)
    return f"{mean:.1%}"[:-1] + ("" if std is None else f" ± {100 * std:.1f}")
