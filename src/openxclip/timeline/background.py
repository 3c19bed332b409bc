"""What labels score where nothing happens: a video is something only where it scores clearly more.

A softmax over labels calls a quiet hour something, whatever the labels. So a label counts by how much its logit rises
above its usual level on footage without events, and "none of these" competes with the labels. How strong it is comes
from that footage: its score must exceed what the labels reach there together.

Shapes: V views, M windows, K labels.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from openxclip.errors import InputError

SPREADS = 4.0  # of the background that an event must rise above its middle
LEAST_SPREAD = 0.25  # in logits: still pictures have none
MAD_TO_SIGMA = 1.4826  # median distance from the median -> standard deviation, for a normal distribution


@dataclass(frozen=True, kw_only=True)
class Background:
    """Calibrated on windows of quiet footage, or of a video that is quiet for the most part."""

    levels: np.ndarray
    """(K,) usual logit of each label."""
    strength: float
    """Logit of "none of these" beside the labels'."""
    num_windows: int

    @classmethod
    def of(cls, logits: np.ndarray) -> Self:
        """From the logits (M, K) of windows. Medians: some events among them do no harm.

        Raises:
            InputError: there are no windows.
        """
        if not len(logits):
            raise InputError("the background has no window that could be read; give longer footage")
        levels = np.median(logits, axis=0)
        together = _log_sum_exp(logits - levels)
        middle = float(np.median(together))
        spread = max(LEAST_SPREAD, MAD_TO_SIGMA * float(np.median(np.abs(together - middle))))
        return cls(levels=levels, strength=middle + SPREADS * spread, num_windows=len(logits))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Logits (V, K) of the views of a window -> probability of each label (K,); the rest is "none of these"."""
        raised = logits - self.levels
        total = np.logaddexp(_log_sum_exp(raised), self.strength)
        return np.exp(raised - total[:, None]).mean(axis=0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"levels": self.levels.tolist(), "strength": self.strength, "num_windows": self.num_windows}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            InputError: the values are none of a background.
        """
        try:
            levels = np.array(values["levels"], dtype=np.float64)
            made = cls(
                levels=levels, strength=float(values["strength"]), num_windows=int(values["num_windows"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"these are no values of a background ({error}); calibrate it anew") from error
        if levels.ndim != 1 or not np.isfinite([*levels, made.strength]).all():
            raise InputError("these are no values of a background; calibrate it anew")
        return made


def _log_sum_exp(values: np.ndarray) -> np.ndarray:
    """(M, K) -> (M,)."""
    largest = values.max(axis=1)
    return largest + np.log(np.exp(values - largest[:, None]).sum(axis=1))
