"""Calibrates "none of these" on footage without events: a label counts only if it scores higher than there.

A softmax over labels assigns some label even to a quiet hour. So a label counts by how far its logit rises above a
ceiling, measured on footage in which none of the labels happens, and "none of these" competes with the labels: as
strong as they are together at their best moment there. Then no label is found in such footage.

A ceiling is half-way between the label's own maximum there and the maximum of any label. Labels differ in how close
they are to what a camera shows, so one ceiling for all would miss distant ones. But with only its own ceiling, a
distant label would rise with every change of the picture.

If a video is its own background, some of it shows labels. There a label's maximum is estimated as its median plus a
multiple of its spread, both by medians, which rare events do not affect.

Shapes: V views, M windows, K labels.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from openxclip.errors import InputError

SPREADS = 4.0  # from the median of a mostly quiet background to its maximum
LEAST_SPREAD = 0.25  # in logits: still pictures have no spread
MARGIN = (
    1e-4  # in logits: otherwise a single label would reach one half in its own footage, the default --enter
)
MAD_TO_SIGMA = 1.4826  # median distance from the median -> standard deviation, for a normal distribution


@dataclass(frozen=True, kw_only=True)
class Background:
    """A calibration on windows of quiet footage, or of a mostly quiet video."""

    ceilings: np.ndarray
    """(K,): ceilings of the logits."""
    strength: float
    """Logit of "none of these", relative to the labels' ceilings."""
    num_windows: int
    conditions: str = ""
    """Other settings that the logits depend on, besides model, labels and window (`Watcher.conditions`)."""

    @classmethod
    def of_footage(cls, logits: np.ndarray, conditions: str = "") -> Self:
        """Calibrate on the logits (M, K) of windows in which none of the labels happens.

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
        """Calibrate on the logits (M, K) of windows of which most show none of the labels.

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
            InputError: the values are not those of a background, or there are none.
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
            raise InputError(f"these are not values of a background ({error}); calibrate again") from error
        if made.ceilings.ndim != 1 or not np.isfinite([*made.ceilings, made.strength]).all():
            raise InputError("these are not values of a background; calibrate again")
        return made


def _check_any(logits: np.ndarray) -> None:
    if not len(logits):
        raise InputError("the background has no window that could be read; give longer footage")


def _half_way(most: np.ndarray) -> np.ndarray:
    """The maximum of each label (K,) -> ceilings (K,)."""
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
