"""`openxclip report`: write an HTML page from a folder of results."""

from pathlib import Path
from typing import Annotated

import tyro


def report(
    folder: Annotated[
        Path,
        tyro.conf.Positional,
        tyro.conf.arg(help="folder of a training run, or the --output folder of evaluate or ablate"),
    ],
    output: Annotated[
        Path | None, tyro.conf.arg(help="HTML file to write; by default DIR/report.html")
    ] = None,
) -> int:
    """Write curves, tables, confusion and example clips of a run, an evaluation or an ablation as one HTML file.

    The page is self-contained, including its pictures, and fetches nothing. Prints its path.
    """
    from openxclip.errors import InputError

    if not folder.is_dir():
        raise InputError(
            f"There is no folder {folder}. Give the folder of a run, an evaluation or an ablation."
        )
    path = folder / "report.html" if output is None else output
    if path.is_dir():
        raise InputError(f"--output {path} is a folder; give the name of the file to write")
    if not path.parent.is_dir():
        raise InputError(f"--output {path}: there is no folder {path.parent}; create it, or choose another")

    from openxclip.reports.report import write_report

    write_report(folder, path)
    print(path)
    return 0
