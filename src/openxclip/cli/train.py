"""`openxclip train`: fine-tune a model on your clips."""

import json
import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from openxclip.cli.options import Device, Labels, MediaRoot, TokenizerSource
from openxclip.errors import InputError
from openxclip.launching import Launch, are_many, num_started
from openxclip.training.options import Sharding, TrackerName

if TYPE_CHECKING:
    from openxclip.signals import Stop
    from openxclip.training.config import TrainConfig
    from openxclip.training.run_folder import TrainingState


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options that do not change the result; a run can be resumed with others."""

    processes: Annotated[
        int,
        tyro.conf.arg(
            help="processes on this machine that share each batch; for more machines, use torchrun"
        ),
    ] = 1
    shard: Annotated[
        Sharding,
        tyro.conf.arg(help="blocks: each process keeps a shard of the weights (FSDP2), for large models"),
    ] = "none"
    tracker: Annotated[
        tuple[TrackerName, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(
            help="also report the run there; its log and the first clips of each epoch are in its folder"
        ),
    ] = ()
    profile: Annotated[bool, tyro.conf.arg(help="write a profile of the step time, and a trace")] = False
    dry_run: Annotated[
        bool,
        tyro.conf.arg(
            help="print what would be done (settings, steps, memory) and read some clips, but train nothing"
        ),
    ] = False
    save_minutes: Annotated[
        float, tyro.conf.arg(help="minutes between checkpoints, in addition to those of each epoch")
    ] = 15.0


def train(
    recipe: Annotated[
        str,
        tyro.conf.arg(
            help="name of a recipe, see docs/published.md and src/openxclip/recipes/; a wrong name lists all"
        ),
    ],
    data: Annotated[
        Path, tyro.conf.arg(help="list of `path label_id` lines, or a folder with labels.csv and lists")
    ],
    output: Annotated[Path, tyro.conf.arg(help="folder of the run; an unfinished run there is resumed")],
    settings: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(name="set", help="change a setting of the recipe, e.g. --set optim.epochs=10"),
    ] = (),
    labels: Labels = None,
    media_root: MediaRoot = None,
    tokenizer: TokenizerSource = None,
    device: Device = "auto",
    run: Annotated[RunOptions, tyro.conf.OmitArgPrefixes] = RunOptions(),
) -> int | Launch:
    """Train a model with a recipe; predict and evaluate take the run folder as --model.

    Clips that cannot be read are left out and named; the exit status is then 1. If interrupted, it saves first; run
    the same command to resume: it ends in the same weights, with any number of processes.
    """
    _check(run)
    if run.profile:  # before torch is imported: its profiler prints to stdout when it starts
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")

    from openxclip.recipes import check_start

    config = _config(recipe, settings, tokenizer)
    if run.dry_run or not (output / "last").exists():  # a resumed run does not need its initial weights
        check_start(config)
    if run.dry_run:
        return _show(config, data, labels, media_root, device, run)
    if run.processes > 1 and not are_many():
        return Launch(run.processes)

    from openxclip.signals import stopped_by_signals
    from openxclip.training import options
    from openxclip.training.train import train as train_

    with stopped_by_signals() as stop:
        how = options.RunOptions(
            sharding=run.shard,
            save_minutes=run.save_minutes,
            trackers=run.tracker,
            profile=run.profile,
            stop=stop,
        )
        state = train_(config, data, output, labels=labels, media_root=media_root, device=device, options=how)
    return _told(state, config, output, stop)


def _told(state: "TrainingState", config: "TrainConfig", output: Path, stop: "Stop") -> int:
    """Print the result of a finished run -> exit status."""
    if state.epoch < config.optim.epochs:
        told = f"openxclip: stopped after step {state.step}; run the same command to resume"
        print(told, file=sys.stderr)
        return 128 + (stop.number or signal.SIGTERM)
    best = "" if state.best_top1 is None else f", best validation top-1 {state.best_top1:.1%}"
    print(f"trained {state.epoch} epochs, {state.step} steps{best}: {output}", file=sys.stderr)
    return int(bool(state.unreadable))


def _check(run: RunOptions) -> None:
    if run.processes < 1:
        raise InputError(f"--processes must be at least 1, got {run.processes}")
    if run.processes > 1 and are_many() and run.processes != num_started():
        raise InputError(
            f"torchrun started {num_started()} processes, so --processes {run.processes} starts none; leave it out"
        )
    if not run.save_minutes >= 0:
        raise InputError(f"--save-minutes must be 0 or more, got {run.save_minutes}")


def _config(name: str, settings: tuple[str, ...], tokenizer: str | None) -> "TrainConfig":
    """The recipe with the settings."""
    from openxclip.configuration import with_overrides
    from openxclip.recipes import recipe

    config = with_overrides(recipe(name), settings)
    return config if tokenizer is None else replace(config, tokenizer=tokenizer)


def _show(
    config: "TrainConfig",
    data: Path,
    labels: str | None,
    media_root: Path | None,
    device: str,
    run: RunOptions,
) -> int:
    """Print what would be done: the settings as JSON to stdout, the rest to stderr."""
    from openxclip.training.dry_run import dry_run

    found = dry_run(
        config,
        data,
        labels=labels,
        media_root=media_root,
        device=device,
        num_processes=max(run.processes, num_started()),
        sharding=run.shard,
    )
    print(found.text(), file=sys.stderr)
    print(json.dumps(found.to_dict(), indent=2))
    return int(any(sample.error is not None for sample in found.samples))
