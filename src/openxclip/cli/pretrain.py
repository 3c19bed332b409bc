"""`openxclip pretrain`: language-image pretraining of a small CLIP on captioned stills of moving shapes."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import tyro

from openxclip.cli.options import Device


def pretrain(
    output: Annotated[Path, tyro.conf.arg(help="folder of the run; an unfinished run there is resumed")],
    recipe: Annotated[
        str, tyro.conf.arg(help="shapes_clip, shapes_clip_small, shapes_clip_large")
    ] = "shapes_clip",
    settings: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(name="set", help="change a setting of the recipe, e.g. --set num_steps=100"),
    ] = (),
    device: Device = "auto",
) -> int:
    """Train image and text tower together (symmetric InfoNCE); `train --set init=FOLDER` starts from the result.

    Ctrl-C and SIGTERM save first; the same command resumes and ends in the same weights.
    """
    from openxclip.configuration import with_overrides
    from openxclip.recipes import pretrain_recipe

    config = with_overrides(pretrain_recipe(recipe), settings)

    from openxclip.signals import stopped_by_signals
    from openxclip.training.contrastive import pretrain as run
    from openxclip.training.options import RunOptions

    with stopped_by_signals() as stop:
        state = run(config, output, device, RunOptions(stop=stop))
    if state.step < config.num_steps:
        told = f"openxclip: stopped after step {state.step}; run the same command to resume"
        print(told, file=sys.stderr)
        return 128 + (stop.number or signal.SIGTERM)
    print(f"trained {state.step} steps: {output}", file=sys.stderr)
    return 0
