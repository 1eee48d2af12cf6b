"""The first SIGTERM or Ctrl-C is a wish, the second one is what it was before."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from coordinator.cli.terminal.signals import stop_on_signals

STOPPING = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """As in a program that was just started; afterwards as the tests had them."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    for number in STOPPING:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPPING)
def test_second_signal_of_a_kind_is_as_before(number: int) -> None:
    stopping = stop_on_signals()
    assert not stopping()
    signal.raise_signal(number)
    assert stopping()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_ctrl_c_after_sigterm_is_still_the_first() -> None:
    stopping = stop_on_signals()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert stopping()
