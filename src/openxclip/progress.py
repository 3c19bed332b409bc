"""One progress bar, with remaining time, on stderr: stdout is for data."""

import os
import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class _Bar(Progress):
    def stop(self) -> None:
        """Stop; a bar without a task leaves no empty line, so that an error stays the only output."""
        if self.tasks:
            super().stop()
        else:
            self.live.stop()


def progress_bar() -> Progress:
    """A bar that shows count, elapsed and remaining time, followed by a task's `note` field.

    Under torchrun, only the first process shows it.
    """
    is_first = os.environ.get("RANK", "0") == "0"
    return _Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        disable=not is_first,
        # Redirected output must stay on stdout; it goes around the bar only on a shared terminal.
        redirect_stdout=sys.stdout.isatty(),
    )
