"""Finds the folder or file of a source: a path, a run folder, the shipped model, or a hub id."""

from pathlib import Path

from openxclip.checkpoints.formats.registry import is_model_folder
from openxclip.checkpoints.hub import download_model, is_hub_id
from openxclip.checkpoints.runs import checkpoint_of
from openxclip.checkpoints.shipped import SHIPPED, shipped_folder
from openxclip.errors import CheckpointError
from openxclip.files import existing_folder

WEIGHTS_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")


SNAPSHOTS, MAIN = "snapshots", "refs/main"
"""In a repository's folder in the hub's cache: its downloaded revisions, and the name of the current one."""


def locate(source: str, revision: str | None = None) -> Path:
    """The model folder or weights file of a source, downloaded if necessary. Local paths take precedence.

    Raises:
        CheckpointError: there is no such source.
        HubError: it cannot be downloaded.
    """
    if not source:
        raise CheckpointError("the source of the model is empty; give a folder, a file or a hub id")
    path = Path(source)
    folder = existing_folder(path)
    if folder is not None:
        return folder if is_model_folder(folder) else checkpoint_of(folder) or snapshot_of(folder) or folder
    if path.exists():
        return path
    if str(path) in SHIPPED:
        return shipped_folder(str(path))
    if is_hub_id(source) and path.suffix not in WEIGHTS_SUFFIXES:  # else it names a missing file
        return download_model(source, revision)
    raise CheckpointError(
        f"{source} does not exist and is not a hub id; give a folder, a .pth or .pt file, or an id like owner/name"
    )


def snapshot_of(folder: Path) -> Path | None:
    """The current revision in a repository's folder in the hub's cache; None if the folder is something else.

    Raises:
        CheckpointError: it holds several revisions, and none is marked as the current one.
    """
    revisions = sorted(path for path in (folder / SNAPSHOTS).glob("*") if path.is_dir())
    if len(revisions) <= 1:
        return revisions[0] if revisions else None
    main = folder / MAIN
    current = main.read_text(encoding="utf-8").strip() if main.is_file() else ""
    for revision in revisions:
        if revision.name == current:
            return revision
    raise CheckpointError(
        f"{folder} holds {len(revisions)} revisions of a model; give one of them: {revisions[0]} ..."
    )
