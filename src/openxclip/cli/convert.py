"""`openxclip convert`: one format to another."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from openxclip.cli.options import TokenizerSource


def convert(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(help="any source of a model")],
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="folder to write; must not exist")],
    to: Annotated[Literal["openxclip", "huggingface"], tyro.conf.arg(help="format to write")] = "openxclip",
    tokenizer: TokenizerSource = None,
) -> int:
    """Read a model in any known format and write it as ours or as Hugging Face's."""
    from openxclip.errors import InputError

    if output.exists():
        raise InputError(f"{output} exists; choose another folder, or remove it first")

    from openxclip.checkpoints.load import read_model
    from openxclip.checkpoints.save import save_as
    from openxclip.checkpoints.source import ModelSource

    loaded, report = read_model(
        ModelSource(source=source, device="cpu", dtype="float32", tokenizer=tokenizer)
    )
    save_as(output, *loaded, format=to)
    print(f"{report.format} -> {to}: {output}", file=sys.stderr)
    return 0
