"""The law that a curve follows: a line or a power, fitted by least squares of relative errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openxclip.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Law:
    """offset + factor * x ** exponent, in seconds."""

    offset_seconds: float
    """What is taken whatever x is."""
    factor_seconds: float
    """What one x takes."""
    exponent: float
    """1 is a line."""

    def at(self, x: float) -> float:
        """Seconds that the law says."""
        return self.offset_seconds + self.factor_seconds * x**self.exponent

    def largest_error(self, xs: Sequence[float], seconds: Sequence[float]) -> float:
        """By what share of the measurement the law is wrong where it is worst."""
        return max(abs(self.at(x) / measured - 1) for x, measured in zip(xs, seconds, strict=True))

    def formula(self, symbol: str) -> str:
        """In milliseconds, for reading."""
        if self.exponent != 1:
            return f"{1000 * self.factor_seconds:.3g} ms x {symbol}^{self.exponent:.2f}"
        return f"{1000 * self.offset_seconds:.3g} ms + {1000 * self.factor_seconds:.3g} ms x {symbol}"


def fit_line(xs: Sequence[float], seconds: Sequence[float]) -> Law:
    """offset + factor * x. Errors count relatively: else the largest x would be all that matters."""
    _check(xs, seconds)
    measured = np.array(seconds)
    columns = np.stack([np.ones(len(xs)), np.array(xs)], axis=1) / measured[:, None]
    (offset, factor), *_ = np.linalg.lstsq(columns, np.ones(len(xs)), rcond=None)
    return Law(offset_seconds=float(offset), factor_seconds=float(factor), exponent=1)


def fit_power(xs: Sequence[float], seconds: Sequence[float]) -> Law:
    """factor * x ** exponent: a line through the logarithms."""
    _check(xs, seconds)
    exponent, logarithm = np.polyfit(np.log(xs), np.log(seconds), 1)
    return Law(offset_seconds=0, factor_seconds=float(np.exp(logarithm)), exponent=float(exponent))


def _check(xs: Sequence[float], seconds: Sequence[float]) -> None:
    if len(set(xs)) < 2 or len(xs) != len(seconds) or min(*xs, *seconds) <= 0:
        raise InputError(
            f"a law needs a measurement above 0 at each of two or more x above 0, got x {list(xs)}, seconds "
            f"{list(seconds)}"
        )
