"""Experiment trackers of a training, in addition to the log of its folder: TensorBoard, Weights & Biases, or your own
`Tracker`.
"""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from openxclip.errors import InputError, MissingExtraError
from openxclip.files import atomic_write
from openxclip.training.options import TrackerName


class Tracker(Protocol):
    """Receives numbers and pictures of a run."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Report numbers of a step, by name."""

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """A picture uint8 (H, W, 3)."""

    def close(self) -> None:
        """Finish at the end of the run."""


class TensorBoard:
    """Event files in a folder; `tensorboard --logdir FOLDER` shows them."""

    def __init__(self, folder: Path, first_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard", "train") from error
        # Steps lost in an interruption are repeated.
        self._writer = SummaryWriter(str(folder), purge_step=first_step + 1)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Report numbers of a step, by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """A picture uint8 (H, W, 3)."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Finish at the end of the run."""
        self._writer.close()


class WeightsAndBiases:
    """A run of the project `openxclip`; `wandb login` and WANDB_MODE set the destination."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingExtraError("wandb", "wandb") from error
        self._wandb = wandb
        self._run = wandb.init(
            project="openxclip",
            name=folder.parent.name,
            id=_id(folder),
            dir=str(folder),
            config=dict(config),
            resume="allow",
        )

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Report numbers of a step, by name."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """A picture uint8 (H, W, 3)."""
        self._run.log({name: self._wandb.Image(pixels)}, step=step)

    def close(self) -> None:
        """Finish at the end of the run."""
        self._run.finish()


def _id(folder: Path) -> str:
    """The run's id at Weights & Biases, stored in its folder so that a resumed run keeps it."""
    file = folder / "id"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as temporary:
            temporary.write_text(uuid.uuid4().hex[:16])
    return file.read_text()


def trackers(
    names: Sequence[TrackerName], folder: Path, config: Mapping[str, Any], first_step: int
) -> list[Tracker]:
    """The trackers of these names, for a run.

    Args:
        names: names of the trackers.
        folder: of the run; each tracker has a folder of its name there.
        config: of the run.
        first_step: steps done before this start.

    Raises:
        MissingExtraError: the package of one is not installed.
        InputError: a name is unknown.
    """
    made: list[Tracker] = []
    for name in names:
        if name == "tensorboard":
            made.append(TensorBoard(folder / name, first_step))
        elif name == "wandb":
            made.append(WeightsAndBiases(folder / name, config))
        else:
            raise InputError(f"there is no tracker {name!r}; choose tensorboard or wandb")
    return made


def sheet(clips: np.ndarray) -> np.ndarray:
    """Clips uint8 (B, T, 3, S, S) as one picture (B * S, T * S, 3): a row for each."""
    return np.concatenate([np.concatenate(list(frames), axis=-1) for frames in clips], axis=-2).transpose(
        1, 2, 0
    )
