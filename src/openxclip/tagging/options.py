"""What a tagging job computes and how, as settings. Imports nothing heavy: a command offers them as options."""

import re
from dataclasses import dataclass
from typing import Literal

from openxclip.durations import seconds_of
from openxclip.errors import InputError


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """What a row holds. A job that goes on must be asked for the same."""

    top_k: int = 5
    """best labels of a row"""
    views: str = "1x1"
    """temporal clips x spatial crops; with --windows, of each window"""
    windows: str | None = None
    """a row for each window of so many seconds, such as 4s, in place of one for each video"""
    stride: str | None = None
    """seconds from one window to the next; by default as long as a window"""
    all_scores: bool = False
    """also the scores of all labels"""
    embedding: bool = False
    """also the embedding, as 16-bit floats"""
    content_hash: bool = False
    """also a hash of each file's contents"""

    def check(self) -> None:
        """Refuse values that mean nothing. Not on construction: a command line reports its own errors.

        Raises:
            InputError: a number cannot be read, or is not greater than 0.
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
        """From one window to the next."""
        return self.window_seconds if self.stride is None else seconds_of("--stride", self.stride)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a job runs. None of these changes a row, but for the parts they stand in."""

    decoders: int | None = None
    """processes that decode; by default one for each core"""
    decode_seconds: float = 300.0
    """longest that a video may take to decode; then its process is ended"""
    part_size: int = 256
    """inputs of a part: what an interrupted job computes again at most"""
    retry_errors: bool = False
    """try inputs again that ended in an error"""
    overwrite: bool = False
    """begin anew, and drop what an earlier job wrote"""
    engine: Literal["local", "ray"] = "local"
    """where: this machine, or a Ray cluster"""
    address: str | None = None
    """of a Ray cluster, such as auto or ray://host:10001; by default one is started on this machine"""
    models: str = "1"
    """with Ray: copies of the model, such as 4, or 1-8 for as many as there is work for"""
    model_cpus: float = 1.0
    """with Ray: cores that a copy is counted with"""
    model_threads: int | None = None
    """with Ray: threads of a copy; by default as many as its cores"""
    model_gpus: float = 0.0
    """with Ray: GPUs of a copy; 0.25 lets four share one"""

    def check(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            InputError: a number is not greater than 0.
        """
        _ = self.num_models
        if self.engine == "local" and self.address is not None:
            raise InputError("--address is that of a Ray cluster; add --engine ray")
        if self.model_gpus < 0:
            raise InputError(f"--model-gpus must not be negative, got {self.model_gpus}")
        for name in ("decoders", "decode_seconds", "part_size", "model_cpus", "model_threads"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"--{name.replace('_', '-')} must be greater than 0, got {value}")

    @property
    def num_models(self) -> tuple[int, int]:
        """Least and most copies of the model.

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
