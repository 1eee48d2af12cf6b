"""A number is taken as a person means it, or refused in a line that names the unit."""

from __future__ import annotations

from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cli import main
from coordinator.cli.terminal.units import BYTES, MBIT_PER_S, PERCENT, SECONDS, STREAM_BYTES, Unit


def taken(unit: Unit, value: Any) -> float:
    return unit.convert(value, None, None)


@pytest.mark.parametrize(
    ("unit", "value", "number"),
    [
        (SECONDS, "5", 5.0),
        (SECONDS, 5, 5.0),
        (SECONDS, 0.1, 0.1),
        (SECONDS, "5s", 5.0),
        (SECONDS, "100ms", 0.1),
        (SECONDS, "2 min", 120.0),
        (SECONDS, "1.5h", 5400.0),
        (SECONDS, "-1", -1.0),
        (MBIT_PER_S, "20", 20.0),
        (MBIT_PER_S, "20M", 20.0),
        (MBIT_PER_S, "20m", 20.0),
        (MBIT_PER_S, "20 Mbit/s", 20.0),
        (MBIT_PER_S, "500k", 0.5),
        (MBIT_PER_S, "2G", 2000.0),
        (MBIT_PER_S, "2Gbps", 2000.0),
        (BYTES, "64", 64),
        (BYTES, "2G", 2 * 10**9),
        (BYTES, "20MB", 20 * 10**6),
        (BYTES, "64MiB", 64 * 2**20),
        (BYTES, "1.5k", 1500),
        (BYTES, "1e6", 10**6),
        (STREAM_BYTES, "256MiB", 2**28),
        (PERCENT, "80%", 80),
    ],
)
def test_suffix_says_the_unit_and_a_plain_number_is_in_the_options_own(
    unit: Unit, value: Any, number: float
) -> None:
    assert taken(unit, value) == number
    assert type(taken(unit, value)) is type(number)


@pytest.mark.parametrize(
    ("unit", "value", "words"),
    [
        (SECONDS, "2G", "not in seconds: write 5, 5s, 100ms"),
        (SECONDS, "1h30m", "not in seconds"),
        (SECONDS, "", "not in seconds"),
        (SECONDS, "nan", "not in seconds"),
        (SECONDS, "inf", "not in seconds"),
        (SECONDS, True, "not in seconds"),
        (SECONDS, "1e999999999", "not in seconds"),
        (SECONDS, "9" * 5000, "not in seconds"),
        (MBIT_PER_S, "20MB/s", "not in Mbit/s: write 20, 20M, 500k or 2G"),
        (MBIT_PER_S, "20MBps", "not in Mbit/s"),
        (BYTES, "20Mb", "not in bytes"),
        (MBIT_PER_S, "5s", "not in Mbit/s"),
        (BYTES, "20Mbit", "not in bytes: write"),
        (BYTES, "5s", "not in bytes"),
        (BYTES, "1.5", "no whole number of bytes"),
        (STREAM_BYTES, "10k", "at least 100,000 bytes"),
        (PERCENT, "100%", "between 1 and 99 percent"),
    ],
)
def test_what_has_no_clear_meaning_is_refused_and_the_unit_named(
    unit: Unit, value: Any, words: str
) -> None:
    with pytest.raises(click.BadParameter, match=words):
        taken(unit, value)


@given(st.text())
def test_no_text_is_anything_but_a_finite_number_or_refused(text: str) -> None:
    for unit in (SECONDS, MBIT_PER_S, BYTES):
        try:
            number = taken(unit, text)
        except click.BadParameter:
            continue
        assert abs(number) < 10**18


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "-i", "5Mbit"], ["'5Mbit' is not in seconds", "--interval"]),
        (["run", "-t", "2G"], ["'2G' is not in seconds", "--duration"]),
        (["run", "-b", "20MB/s"], ["is not in Mbit/s", "--bitrate"]),
        (["run", "-c", "5s"], ["'5s' is not a valid integer", "--count"]),
        (["run", "-4", "-6"], ["-4 and -6 exclude each other"]),
        (["test", "127.0.0.1", "-t", "5G"], ["is not in seconds", "--duration"]),
        (["test", "::1", "-4", "--no-plot"], ["(::1) does not resolve to an IPv4 address"]),
        (["limits", "--stream-bytes", "5s"], ["is not in bytes", "--stream-bytes"]),
        (["worker", "--max-bitrate", "20MB/s"], ["is not in Mbit/s", "--max-bitrate"]),
    ],
)
def test_option_with_a_wrong_unit_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    said = capsys.readouterr()
    assert (caught.value.code, said.out) == (2, "")
    assert len(said.err.splitlines()) == 1
    assert [word for word in words if word not in said.err] == []
