"""What labels score where nothing happens: a video is something only where it scores more.

A softmax over labels calls a quiet hour something, whatever the labels. So a label counts by how far its logit rises
above a ceiling, from footage in which none of the labels happens, and "none of these" competes with the labels: as
strong as they are together at their best moment there. Nothing in such footage is a label then.

A ceiling lies half-way between the most that the label itself reaches there and the most that any label does. Labels
differ in how near they lie to whatever a camera shows, so one ceiling for all would miss those that lie far. But with
the ceiling of its own alone, a label that lies far is raised by every change of the picture.

Of a video that is its own background, some of it shows labels. There a label's most is taken to lie so many spreads
above its middle, both by medians, which events do not move while they are rare.

Shapes: V views, M windows, K labels.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from openxclip.errors import InputError

SPREADS = 4.0  # of a background that is quiet for the most part, up to its most
LEAST_SPREAD = 0.25  # in logits: still pictures have none
MARGIN = 1e-4  # in logits: a single label would reach one half in its own footage, and so the usual --enter
MAD_TO_SIGMA = 1.4826  # median distance from the median -> standard deviation, for a normal distribution


@dataclass(frozen=True, kw_only=True)
class Background:
    """Calibrated on windows of quiet footage, or of a video that is quiet for the most part."""

    ceilings: np.ndarray
    """(K,) of the logits."""
    strength: float
    """Logit of "none of these" beside the labels', counted from their ceilings."""
    num_windows: int
    conditions: str = ""
    """What the logits depended on beside model, labels and window (`Watcher.conditions`)."""

    @classmethod
    def of_footage(cls, logits: np.ndarray, conditions: str = "") -> Self:
        """From the logits (M, K) of windows in which none of the labels happens.

        Raises:
            InputError: there are no windows.
        """
        _check_any(logits)
        logits = logits.astype(np.float64)
        ceilings = _half_way(logits.max(axis=0))
        strength = float(_log_sum_exp(logits - ceilings).max()) + MARGIN
        return cls(ceilings=ceilings, strength=strength, num_windows=len(logits), conditions=conditions)

    @classmethod
    def of_mostly_quiet(cls, logits: np.ndarray, conditions: str = "") -> Self:
        """From the logits (M, K) of windows of which most show none of the labels.

        Raises:
            InputError: there are no windows.
        """
        _check_any(logits)
        logits = logits.astype(np.float64)
        ceilings = _half_way(_most(logits))
        strength = float(_most(_log_sum_exp(logits - ceilings)[:, None])[0])
        return cls(ceilings=ceilings, strength=strength, num_windows=len(logits), conditions=conditions)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Logits (V, K) of the views of a window -> probability of each label (K,); the rest is "none of these"."""
        raised = logits - self.ceilings
        total = np.logaddexp(_log_sum_exp(raised), self.strength)
        return np.exp(raised - total[:, None]).mean(axis=0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "ceilings": self.ceilings.tolist(),
            "strength": self.strength,
            "num_windows": self.num_windows,
            "conditions": self.conditions,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any] | None) -> Self:
        """The inverse of `to_dict`.

        Raises:
            InputError: the values are none of a background, or there are none.
        """
        if values is None:
            raise InputError("it was made without a background")
        try:
            made = cls(
                ceilings=np.array(values["ceilings"], dtype=np.float64),
                strength=float(values["strength"]),
                num_windows=int(values["num_windows"]),
                conditions=str(values["conditions"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"these are no values of a background ({error}); calibrate it anew") from error
        if made.ceilings.ndim != 1 or not np.isfinite([*made.ceilings, made.strength]).all():
            raise InputError("these are no values of a background; calibrate it anew")
        return made


def _check_any(logits: np.ndarray) -> None:
    if not len(logits):
        raise InputError("the background has no window that could be read; give longer footage")


def _half_way(most: np.ndarray) -> np.ndarray:
    """The most of each label (K,) -> ceilings (K,)."""
    return (most + most.max()) / 2


def _most(values: np.ndarray) -> np.ndarray:
    """(M, K) -> (K,): the median, and `SPREADS` standard deviations of a normal distribution."""
    middle = np.median(values, axis=0)
    spread = MAD_TO_SIGMA * np.median(np.abs(values - middle), axis=0)
    return middle + SPREADS * np.maximum(LEAST_SPREAD, spread)


def _log_sum_exp(values: np.ndarray) -> np.ndarray:
    """(M, K) -> (M,)."""
    largest = values.max(axis=1)
    return largest + np.log(np.exp(values - largest[:, None]).sum(axis=1))
