"""A file that a command is asked to write: checked before the work that fills it."""

from pathlib import Path

from openxclip.errors import InputError


def check_output_file(path: Path, option: str, suffix: str) -> None:
    """Whether a file of that kind can be written there.

    Raises:
        InputError: it is a folder, has another suffix, or its folder does not exist.
    """
    if path.is_dir():
        raise InputError(f"{option} {path} is a folder; give the name of the {suffix} file to write")
    if path.suffix != suffix:
        raise InputError(f"{option} {path}: this writes a {suffix} file; give a name that ends in {suffix}")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: there is no folder {path.parent}; create it, or choose another")
