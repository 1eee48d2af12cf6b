"""
Numbers as people type them: `5s`, `100ms`, `20M`, `2G`.

A plain number is in the option's own unit, which its help names; a suffix says another. What has no
clear meaning is refused in one line that names the unit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

#: What follows the digits, with the power of ten that a TOML float may have, is the unit.
_NUMBER = re.compile(r"([+-]?[0-9_]*\.?[0-9_]*(?:[eE][+-]?[0-9]+)?)\s*(\D*)")

TOO_LARGE = 10**18

#: Suffix → seconds.
TIME = {
    "": 1.0, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0,
    "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0,
}  # fmt: skip
#: Suffix → Mbit/s; the letters alone are those of `iperf3 --bitrate`. MB/s is none of them.
RATE = {"": 1.0} | {
    letter + unit: factor
    for letters, factor in {"kK": 1e-3, "mM": 1.0, "gG": 1e3, "tT": 1e6}.items()
    for letter in letters
    for unit in ("", "bit", "bit/s", "bps", "b/s")
}
#: Suffix → bytes: powers of 1000, and of 1024 where there is an i, as in KiB. Mb is none of them.
SIZE = {"": 1.0, "B": 1.0} | {
    letter + middle + end: base**power
    for power, letters in enumerate(("kK", "mM", "gG", "tT"), start=1)
    for letter in letters
    for middle, base in (("", 1000.0), ("i", 1024.0))
    for end in ("", "B")
}


if TYPE_CHECKING:
    _Type = click.ParamType[float]
else:
    _Type = click.ParamType  # generic in newer click only


@dataclass(eq=False)
class Unit(_Type):
    """
    A number with a unit, which a suffix may change.

    Attributes:
        name: What the help shows in place of the value, and the unit of a plain number.
        suffixes: Suffix → how much of the unit it is.
        example: How it may be written.
        whole: It is an int, and a fraction is refused.
        least: The smallest, if there is one here.
        most: The greatest.
    """

    name: str
    suffixes: Mapping[str, float]
    example: str
    whole: bool = False
    least: int | None = None
    most: int | None = None

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | int:
        """Return the number in the option's own unit."""
        number, written = self._number(value), repr(str(value)[:40])
        if number is None:
            self.fail(f"{written} is not in {self.name}: write {self.example}", param, ctx)
        if self.whole and number != int(number):
            self.fail(f"{written} is no whole number of {self.name}", param, ctx)
        low, high = self.least, self.most
        if (low is not None and number < low) or (high is not None and number > high):
            rule = f"at least {low:,}" if high is None else f"between {low} and {high}"
            self.fail(f"{written} must be {rule} {self.name}", param, ctx)
        return int(number) if self.whole else float(number)

    def _number(self, value: Any) -> Decimal | None:
        parts = None if isinstance(value, bool) else _NUMBER.fullmatch(str(value).strip())
        factor = self.suffixes.get(parts[2].strip()) if parts else None
        if parts is None or factor is None:
            return None
        try:
            number = Decimal(parts[1]) * Decimal(repr(factor))
        except ArithmeticError:  # no digits, or thousands of them
            return None
        return number if abs(number) < TOO_LARGE else None


SECONDS = Unit("seconds", TIME, "5, 5s, 100ms, 2m, 3h or 7d")
MBIT_PER_S = Unit("Mbit/s", RATE, "20, 20M, 500k or 2G (bits a second)")
BYTES = Unit("bytes", SIZE, "1000000, 20M, 2G or 64MiB", whole=True)
STREAM_BYTES = Unit("bytes", SIZE, "268435456 or 256MiB", whole=True, least=100_000)
PERCENT = Unit("percent", {"": 1.0, "%": 1.0}, "80 or 80%", whole=True, least=1, most=99)
