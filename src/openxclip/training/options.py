"""Settings of a run that do not change what is learned. Imports nothing heavy."""

import threading
from dataclasses import dataclass, field
from typing import Literal

Sharding = Literal["none", "blocks"]
"""A replica of all weights in each process; or shards of each block's weights, gathered for computation."""
Compile = Literal["auto", "on", "off"]
TrackerName = Literal["tensorboard", "wandb"]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Settings of a run besides its recipe; a run can be resumed with others."""

    sharding: Sharding = "none"
    """How the weights are distributed if the run has several processes."""
    save_minutes: float = 15.0
    """Minutes between checkpoints, in addition to those at the end of each epoch."""
    trackers: tuple[TrackerName, ...] = ()
    """Experiment trackers, in addition to the log."""
    profile: bool = False
    """Whether to profile the steps."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Once set, the run saves after its current step, and ends."""
