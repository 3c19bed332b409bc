"""The folder of a training run as a source of a model: its checkpoints, its start and its class names."""

from pathlib import Path
from typing import Any

from openxclip.checkpoints.checkpoint import CONFIG_FILE
from openxclip.checkpoints.shipped import SHIPPED, TRAINING_LABELS_FILE, shipped_folder
from openxclip.errors import InputError
from openxclip.files import existing_folder, read_json
from openxclip.text.labels import read_label_file

CHECKPOINTS_OF_A_RUN = ("average", "best", "last")
"""Model folders in a run folder; a run is loaded from the first that exists."""


def checkpoint_of(run: Path) -> Path | None:
    """The model folder that a run is loaded from; None if it has no checkpoint."""
    folders = (existing_folder(run / name) for name in CHECKPOINTS_OF_A_RUN)
    return next((folder for folder in folders if folder and (folder / CONFIG_FILE).exists()), None)


def run_of(folder: Path) -> Path | None:
    """The run folder that `folder` is, or is a checkpoint of; None if it belongs to no run."""
    places = dict.fromkeys((folder.absolute(), folder.resolve()))  # a symlink to a checkpoint counts as one
    candidates = [place for at in places for place in (at, *_run_around(at))]
    return next((candidate for candidate in candidates if _settings(candidate) is not None), None)


def _run_around(folder: Path) -> tuple[Path, ...]:
    """The parent folder, if this one has the name of a run's checkpoint."""
    return (folder.parent,) if folder.name in CHECKPOINTS_OF_A_RUN else ()


def training_labels(source: str) -> list[str] | None:
    """The class names that a model was trained on; None if they are unknown.

    Args:
        source: the shipped model or a copy of it, a run folder, or a checkpoint of a run.
    """
    folder = Path(source)
    if source in SHIPPED and not folder.exists():
        folder = shipped_folder(source)
    if (folder / TRAINING_LABELS_FILE).is_file():
        return read_label_file(folder / TRAINING_LABELS_FILE)
    run = run_of(folder)
    return None if run is None else (_settings(run) or {}).get("labels")


def start_of(run: str) -> str:
    """The model that a run was fine-tuned from.

    Raises:
        InputError: `run` is not a run folder, or the run started from scratch.
    """
    folder = run_of(Path(run))
    config = (_settings(folder) or {}).get("config") if folder is not None else None
    init = config.get("init") if isinstance(config, dict) else None
    if not isinstance(init, str):
        raise InputError(
            f"{run} does not say which image model it was fine-tuned from (it is not a run folder, or the run "
            "started from scratch); give it as image_model (on the command line --image-model)"
        )
    # It is recorded as given: a relative path may start at any parent folder of the run.
    places = (Path(init), *(folder / init for folder in Path(run).resolve().parents))
    return next((str(place) for place in places if place.exists()), init)


def _settings(folder: Path) -> dict[str, Any] | None:
    """The values of a run's config.json; None if the folder is not a run."""
    file = folder / CONFIG_FILE
    values = read_json(file) if file.is_file() else None
    is_model = values is None or "format" in values or "model_type" in values
    return None if is_model else values
