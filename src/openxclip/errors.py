"""The exception hierarchy.

    OpenXCLIPError
    ├── ConfigError (ValueError)        a configuration value is not allowed
    ├── InputError (ValueError)         an argument, a label list, a template or a manifest is not usable
    ├── FrameCountError (ValueError)    a clip has a different number of frames than the model
    ├── CheckpointError (ValueError)    weights cannot be read, or do not fit the model
    ├── TokenizerError (ValueError)     no tokenizer came with the model, or it cannot be read
    ├── HubError (OSError)              a hub repository or file is unavailable
    ├── ServerError (RuntimeError)      a server refuses a request or does not answer; carries `status` and `kind`
    ├── TrainingError (RuntimeError)    a training run cannot continue
    ├── VideoError (OSError)            a video cannot be decoded; carries `source` and `reason`
    │   └── VideoLimitError             a video is larger or longer than is allowed
    └── MissingExtraError (ImportError) an optional dependency is not installed

Every message states what happened, the value, what is allowed, and what to do next.
"""

from functools import partial
from typing import Any


class OpenXCLIPError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigError(OpenXCLIPError, ValueError):
    """A configuration value is not allowed."""


class InputError(OpenXCLIPError, ValueError):
    """An argument, label list, template file or manifest is not usable."""


class FrameCountError(OpenXCLIPError, ValueError):
    """The number of frames of a clip differs from the model's training."""


class CheckpointError(OpenXCLIPError, ValueError):
    """Weights cannot be read, or do not fit the model."""


class TokenizerError(OpenXCLIPError, ValueError):
    """No tokenizer came with the model, or the given one cannot be read."""


class HubError(OpenXCLIPError, OSError):
    """A hub repository or one of its files is unavailable."""


class TrainingError(OpenXCLIPError, RuntimeError):
    """A training run cannot continue."""


class ServerError(OpenXCLIPError, RuntimeError):
    """A server refuses a request, or does not answer."""

    def __init__(self, message: str, status: int, kind: str) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; 0 without a response."""
        self.kind = kind
        """The last part of the problem's type, such as "queue-full"."""


class VideoError(OpenXCLIPError, OSError):
    """A video cannot be decoded."""

    def __init__(self, source: str, reason: str, kind: str = "unreadable") -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason
        self.kind = kind
        """A short code for tables, such as unreadable or too-long."""

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickling: exceptions with several arguments are not picklable by default."""
        return VideoError, (self.source, self.reason, self.kind)


class VideoLimitError(VideoError):
    """A video is larger or longer than is allowed."""

    def __init__(self, source: str, reason: str, *, limit: str, found: str, allowed: float) -> None:
        super().__init__(source, reason, "too-long" if limit == "max_seconds" else "too-large")
        self.limit = limit
        self.found = found
        self.allowed = allowed

    def __reduce__(self) -> tuple[Any, ...]:
        again = partial(VideoLimitError, limit=self.limit, found=self.found, allowed=self.allowed)
        return again, (self.source, self.reason)


class MissingExtraError(OpenXCLIPError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is needed for this and is not installed. Install it with: pip install 'openxclip[{extra}]'"
        )
