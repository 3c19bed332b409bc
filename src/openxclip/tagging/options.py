"""Settings of a tagging job. Imports nothing heavy, so that a command can offer them as options."""

import re
from dataclasses import dataclass
from typing import Literal

from openxclip.durations import seconds_of
from openxclip.errors import InputError


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """Content of a row. A resumed job must use the same settings."""

    top_k: int = 5
    """number of best labels per row"""
    views: str = "1x1"
    """temporal clips x spatial crops; with --windows, of each window"""
    windows: str | None = None
    """a row for each window of this length, such as 4s, instead of one per video"""
    stride: str | None = None
    """time from one window to the next; by default the window length"""
    all_scores: bool = False
    """also store the scores of all labels"""
    embedding: bool = False
    """also store the embedding, as 16-bit floats"""
    content_hash: bool = False
    """also store a hash of each file's contents"""

    def check(self) -> None:
        """Refuse invalid values. Not done on construction: a command line reports its own errors.

        Raises:
            InputError: a number is malformed, or not greater than 0.
        """
        if self.top_k < 1:
            raise InputError(f"--top-k must be at least 1, got {self.top_k}")
        if self.windows is None and self.stride is not None:
            raise InputError("--stride needs --windows")
        _ = self.window_seconds, self.stride_seconds

    @property
    def window_seconds(self) -> float | None:
        """Length of a window; None for whole videos."""
        return None if self.windows is None else seconds_of("--windows", self.windows)

    @property
    def stride_seconds(self) -> float | None:
        """Time from one window to the next."""
        return self.window_seconds if self.stride is None else seconds_of("--stride", self.stride)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a job runs. These settings do not change rows, only how they are grouped into parts."""

    decoders: int | None = None
    """number of decoding processes; by default one per core"""
    decode_seconds: float = 300.0
    """time limit for decoding a video; its process is then killed"""
    part_size: int = 256
    """inputs per part: the most that an interrupted job computes again"""
    retry_errors: bool = False
    """retry inputs that ended in an error"""
    overwrite: bool = False
    """start over, and delete the output of an earlier job"""
    engine: Literal["local", "ray"] = "local"
    """where to run: this machine, or a Ray cluster"""
    address: str | None = None
    """address of a Ray cluster, such as auto or ray://host:10001; by default one is started on this machine"""
    models: str = "1"
    """with Ray: number of model replicas, such as 4, or 1-8 to scale with the work"""
    model_cpus: float = 1.0
    """with Ray: cores reserved per replica"""
    model_threads: int | None = None
    """with Ray: threads per replica; by default as many as its cores"""
    model_gpus: float = 0.0
    """with Ray: GPUs per replica; 0.25 lets four share one"""

    def check(self) -> None:
        """Refuse invalid values.

        Raises:
            InputError: a number is not greater than 0.
        """
        _ = self.num_models
        if self.engine == "local" and self.address is not None:
            raise InputError("--address is for Ray; add --engine ray")
        if self.model_gpus < 0:
            raise InputError(f"--model-gpus must not be negative, got {self.model_gpus}")
        for name in ("decoders", "decode_seconds", "part_size", "model_cpus", "model_threads"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"--{name.replace('_', '-')} must be greater than 0, got {value}")

    @property
    def num_models(self) -> tuple[int, int]:
        """Minimum and maximum number of model replicas.

        Raises:
            InputError: `models` is neither a number nor a range.
        """
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", self.models.strip())
        least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= least <= most:
            raise InputError(
                f"--models must be a number such as 4, or a range such as 1-8, got {self.models!r}"
            )
        return least, most
