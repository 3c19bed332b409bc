"""Signals as a wish to stop."""

import signal

import pytest

from openxclip import signals
from openxclip.signals import stopped_by_signals

pytestmark = pytest.mark.on_cpu


def test_a_signal_that_comes_twice_at_once_is_one() -> None:
    """As under SLURM: from it, and from torch's launcher."""
    with stopped_by_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        assert stop.number == signal.SIGTERM


def twice() -> None:
    with stopped_by_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        signal.raise_signal(signal.SIGINT)


def test_a_second_signal_a_while_later_ends_the_process(monkeypatch) -> None:
    monkeypatch.setattr(signals, "SAME_SECONDS", -1.0)  # the clock may not move between two signals
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            twice()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
