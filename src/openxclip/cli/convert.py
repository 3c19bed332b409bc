"""`openxclip convert`: convert a model to another format, and upload it to the hub."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from openxclip.cli.options import TokenizerSource

if TYPE_CHECKING:
    from openxclip.checkpoints.card import Origin
    from openxclip.checkpoints.load import Loaded


def convert(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(help="any source of a model")],
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="folder to write; must not exist")],
    to: Annotated[Literal["openxclip", "huggingface"], tyro.conf.arg(help="format to write")] = "openxclip",
    tokenizer: TokenizerSource = None,
    repo_id: Annotated[
        str | None,
        tyro.conf.arg(
            name="push",
            metavar="OWNER/NAME",
            help="also upload the folder, with a model card, to this repository of the Hugging Face hub",
        ),
    ] = None,
    private: Annotated[
        bool, tyro.conf.arg(help="with --push: if the repository is created, make it private")
    ] = False,
    licence: Annotated[
        str | None,
        tyro.conf.arg(
            help="with --push: licence of the weights for the model card, such as mit; not needed for published models"
        ),
    ] = None,
) -> int:
    """Read a model in any known format and write it in OpenXCLIP's or Hugging Face's format."""
    from openxclip.errors import InputError

    if output.exists():
        raise InputError(f"{output} exists; choose another folder, or remove it first")
    if repo_id is None and (private or licence is not None):
        raise InputError("--private and --licence need --push; also give --push owner/name")
    if repo_id is not None:
        from openxclip.checkpoints.push import check_push

        check_push(repo_id)

    from openxclip.checkpoints.load import read_model
    from openxclip.checkpoints.save import save_as
    from openxclip.checkpoints.source import ModelSource

    loaded, report = read_model(
        ModelSource(source=source, device="cpu", dtype="float32", tokenizer=tokenizer)
    )
    save_as(output, *loaded, format=to)
    print(f"{report.format} -> {to}: {output}", file=sys.stderr)
    if repo_id is not None:
        _push(output, loaded, repo_id, _origin(source, to, licence), private)
    return 0


def _origin(source: str, format: str, licence: str | None) -> "Origin":
    from openxclip.checkpoints.card import Origin, known_licence
    from openxclip.checkpoints.runs import training_labels

    labels = training_labels(source)
    return Origin(source=source, format=format, licence=licence or known_licence(source), labels=labels)


def _push(folder: Path, loaded: "Loaded", repo_id: str, origin: "Origin", private: bool) -> None:
    from openxclip.checkpoints.card import CARD_FILE, model_card
    from openxclip.checkpoints.push import push

    (folder / CARD_FILE).write_text(model_card(repo_id, loaded, origin), encoding="utf-8")
    print(f"{folder} -> {push(folder, repo_id, private=private)}", file=sys.stderr)
