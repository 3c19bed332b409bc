"""How a run is carried out, as settings: none of them changes what is learned. Imports nothing heavy."""

import threading
from dataclasses import dataclass, field
from typing import Literal

Sharding = Literal["none", "blocks"]
"""A copy of all weights in each process; or each block's weights in parts, brought together when it computes."""
Compile = Literal["auto", "on", "off"]
TrackerName = Literal["tensorboard", "wandb"]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Settings of a run beside its recipe; a run may go on with others."""

    sharding: Sharding = "none"
    """Where the weights lie, if the run has several processes."""
    save_minutes: float = 15.0
    """From one checkpoint to the next, beside that at the end of each epoch."""
    trackers: tuple[TrackerName, ...] = ()
    """What shows the run, beside its log."""
    profile: bool = False
    """Whether to write where a step's time goes."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Once set, the run saves after its present step, and ends."""
