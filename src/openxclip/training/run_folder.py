"""The folder of a run: its resolved config, its log, and the checkpoints `last`, `best` and `average`.

    config.json            the TrainConfig, the data and their labels; reproduces the run
    log.jsonl              a line for each step and each epoch, and one at each start with missing videos
    last/, best/           model folders, loadable as they are; `last` also holds
        optimizer.safetensors, training_state.json, extras.safetensors   state for resuming
        optimizer/                                                       instead of the first, if sharded
    average/               model folder of the mean weights, if averaging is on
    start/                 model folder of the image model, if each step uses it: `init` may change

Everything except the log is written under a temporary name first, so files under final names are complete. The log is
appended to; lines of work lost in an interruption are dropped when the run is resumed. Only the first process of a run
writes, except for a sharded optimizer, of which each process writes its own shard.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint import CheckpointException

from openxclip.configuration import flatten, from_dict
from openxclip.errors import ConfigError, InputError, TrainingError
from openxclip.files import atomic_folder, atomic_write, held, read_json, recover_folder
from openxclip.processes import Processes, current
from openxclip.training.tensors import cut_like, full, load_optimizer, save_optimizer

LOCK_FILE = ".lock"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Progress of a run."""

    epoch: int = 0
    """Epochs done."""
    step: int = 0
    """Optimizer steps done."""
    best_top1: float | None = None
    """Best validation accuracy so far."""
    unreadable: tuple[str, ...] = ()
    """Errors of the clips that could not be read so far."""


class RunFolder:
    """Reads and writes one run."""

    def __init__(self, path: Path, processes: Processes | None = None) -> None:
        """
        Args:
            path: the folder.
            processes: the processes of the run; by default all.
        """
        self.path = path
        self.processes = processes or current()
        self.last = path / "last"
        self.best = path / "best"
        self.average = path / "average"
        self.start = path / "start"
        self.log_path = path / "log.jsonl"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against processes of other runs.

        Raises:
            InputError: another process holds the lock, or the folder holds something other than a run.
        """
        if not self.processes.is_first:
            yield
            return
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file; choose another --output")
        self.path.mkdir(parents=True, exist_ok=True)
        others = any(not file.name.startswith(".") for file in self.path.iterdir())
        if others and not (self.path / "config.json").exists():
            raise InputError(f"{self.path} is not empty and holds no run; choose another --output")
        refusal = f"another process is training in {self.path}; wait for it, or choose another --output"
        with held(self.path / LOCK_FILE, refusal):
            yield

    def begin(self, config: Any, about: Mapping[str, Any] | None = None) -> TrainingState:
        """Start a run here, or resume the same one.

        A run of an earlier version lacks newer settings. Each counts as its default, which must therefore be the
        behaviour before the setting existed; newer entries of `about` cannot be compared.

        Args:
            config: configuration of the run, a dataclass.
            about: other values that identify the run, as plain values.

        Raises:
            InputError: the folder holds a run with other settings.
        """
        others = (self.best, self.average, self.start)
        for folder in (self.last, *others):
            recover_folder(folder)
        known = _plain(about or {})
        settings = known | _plain({"config": dataclasses.asdict(config)})
        path = self.path / "config.json"
        state = self.state()
        if state.step > 0:  # a run without a checkpoint may start over with other settings
            self._check_same(known | _with_defaults(read_json(path), type(config)), settings)
        else:
            for folder in others:  # of a run that died before its first `last`
                shutil.rmtree(folder, ignore_errors=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=2))
        self._forget_log_after(state)
        return state

    def _check_same(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        before, now = flatten(old), flatten(new)
        changed = [name for name in before | now if before.get(name) != now.get(name)]
        if changed:
            differences = "; ".join(f"{n}: was {before.get(n)!r}, now {now.get(n)!r}" for n in changed[:5])
            raise InputError(
                f"{self.path} holds a run with other settings ({differences}); "
                "give the same settings to resume it, or choose another --output"
            )

    def state(self) -> TrainingState:
        """Progress of the run; zero if nothing was saved yet."""
        path = self.last / "training_state.json"
        return from_dict(TrainingState, read_json(path)) if path.exists() else TrainingState()

    def save_last(
        self,
        write_model: Callable[[Path], None],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: TrainingState,
        extras: nn.Module | None = None,
    ) -> None:
        """Replace the last checkpoint, at once or not at all; every process calls this.

        Args:
            write_model: writes the model into a folder.
            model: whose parameters the optimizer trains.
            optimizer: its state is kept.
            state: how far the run has come.
            extras: other modules of the training, trained or not; saved, but not in a model folder.

        Raises:
            TrainingError: it cannot be written.
        """
        processes = self.processes
        beside = (
            {} if extras is None else {name: full(tensor) for name, tensor in extras.state_dict().items()}
        )
        with (
            _writing(self.last),
            atomic_folder(self.last) if processes.is_first else nullcontext(self.last) as own,
        ):
            folder = processes.from_first(lambda: own)
            save_optimizer(folder, _optimizer_tensors(model, optimizer, extras))
            if processes.is_first:
                write_model(folder)
                if beside:
                    tensors = {name: tensor.cpu().contiguous() for name, tensor in beside.items()}
                    save_file(tensors, folder / "extras.safetensors")
                (folder / "training_state.json").write_text(json.dumps(dataclasses.asdict(state)))
            processes.wait()

    def save_model(self, path: Path, write_model: Callable[[Path], None]) -> None:
        """Replace one of the other model folders atomically."""
        if self.processes.is_first:
            with _writing(path), atomic_folder(path) as folder:
                write_model(folder)

    def load_optimizer(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, extras: nn.Module | None = None
    ) -> None:
        """Restore the state of an optimizer and the extras from `save_last`."""
        for _, parameter in _trained(model, extras):
            moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device), **moments}
        load_optimizer(self.last, _optimizer_tensors(model, optimizer, extras))
        if extras is not None and extras.state_dict():
            saved = load_file(self.last / "extras.safetensors")
            for name, tensor in extras.state_dict().items():
                tensor.copy_(cut_like(saved[name], tensor))

    def log(self, **row: Any) -> None:
        """Append one line to the log."""
        if self.processes.is_first:
            with self.log_path.open("a") as file:
                file.write(json.dumps(row) + "\n")

    def losses(self, epoch: int) -> list[float]:
        """Losses of the steps of an epoch (from 1) in the log."""
        rows = (json.loads(line) for line in self.log_path.read_text().splitlines())
        return [row["loss"] for row in rows if row.get("epoch") == epoch and "loss" in row]

    def _forget_log_after(self, state: TrainingState) -> None:
        """Drop the lines of work that was lost in an interruption and will be repeated."""
        if not self.log_path.exists():
            return
        rows = [line for line in self.log_path.read_text().splitlines() if _is_kept(line, state)]
        with atomic_write(self.log_path) as temporary:
            temporary.write_text("".join(row + "\n" for row in rows))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Context for writing a checkpoint, which turns failures into one error.

    Raises:
        TrainingError: the disk is full, for example.
    """
    try:
        yield
    except CheckpointException as error:  # not an Exception in torch
        reasons = {str(reason) for reason, _ in error.failures.values()}
        raise TrainingError(_unwritten(path, "; ".join(sorted(reasons)))) from error
    except (SafetensorError, OSError) as error:
        raise TrainingError(_unwritten(path, str(error))) from error


def _unwritten(path: Path, reason: str) -> str:
    return (
        f"{path} cannot be written ({reason}); the previous one is kept, and the same command resumes from it"
    )


def _is_kept(line: str, state: TrainingState) -> bool:
    """Whether a line of the log is complete, and of a finished step or epoch."""
    try:
        row = json.loads(line)
        return row["step"] <= state.step and not ("mean_loss" in row and row["epoch"] > state.epoch)
    except (ValueError, TypeError, KeyError):  # the line that was being written when the run was interrupted
        return False


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as read back from a JSON file."""
    return json.loads(json.dumps(values))


def _with_defaults(saved: dict[str, Any], kind: type) -> dict[str, Any]:
    """The saved facts of a run, its config with newer settings added."""
    try:
        config: Any = from_dict(kind, saved.get("config", {}))
    except ConfigError:  # another kind, or with removed settings: differences are shown as saved
        return saved
    return saved | _plain({"config": dataclasses.asdict(config)})


def _trained(model: nn.Module, extras: nn.Module | None) -> list[tuple[str, nn.Parameter]]:
    named = chain(model.named_parameters(), () if extras is None else extras.named_parameters("extras"))
    return [(name, parameter) for name, parameter in named if parameter.requires_grad]


def _optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, extras: nn.Module | None
) -> dict[str, Tensor]:
    return {
        f"{name}:{key}": value
        for name, parameter in _trained(model, extras)
        for key, value in optimizer.state[parameter].items()
    }
