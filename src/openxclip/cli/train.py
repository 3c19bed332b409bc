"""`openxclip train`: fine-tune on your clips."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from openxclip.cli.options import Device, Labels, MediaRoot, TokenizerSource


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
    output: Annotated[Path, tyro.conf.arg(help="folder of the run; an unfinished run there goes on")],
    settings: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(name="set", help="change a setting of the recipe, e.g. --set optim.epochs=10"),
    ] = (),
    labels: Labels = None,
    media_root: MediaRoot = None,
    tokenizer: TokenizerSource = None,
    device: Device = "auto",
) -> int:
    """Train a model with a recipe; the folder of the run can be given to predict and evaluate as --model.

    Clips that cannot be read are left out and named; the exit status is then 1. Interrupted? The same command
    goes on after the last whole epoch and ends in the same weights.
    """
    from openxclip.configuration import with_overrides
    from openxclip.recipes import check_start
    from openxclip.recipes import recipe as get_recipe

    config = with_overrides(get_recipe(recipe), settings)
    if tokenizer is not None:
        config = replace(config, tokenizer=tokenizer)
    if not (output / "last").exists():  # a run that goes on does not need its start
        check_start(config)

    from openxclip.training.train import train as run

    try:
        state = run(config, data, output, labels=labels, media_root=media_root, device=device)
    except KeyboardInterrupt:
        print("openxclip: interrupted; the same command goes on after the last whole epoch", file=sys.stderr)
        return 130
    best = "" if state.best_top1 is None else f", best validation top-1 {state.best_top1:.1%}"
    print(f"trained {state.epoch} epochs, {state.step} steps{best}: {output}", file=sys.stderr)
    return int(bool(state.unreadable))
