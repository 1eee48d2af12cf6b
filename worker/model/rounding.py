"""
Times in records are whole nanoseconds: what a clock does not tell is noise of binary fractions.

Pure. A record is rounded once, when it is made; what reads it takes it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Decimals that a nanosecond has, by the unit at the end of a name.
DECIMALS = {"_ms": 6, "_s": 9}


def times_to_ns(values: Mapping[str, Any]) -> dict[str, Any]:
    """
    Round what a name says is a time, or a list of times; all else stays.

    >>> times_to_ns({"rtt_mean_ms": 0.07575580000000001, "rtts_ms": [1.2000000000000002, None]})
    {'rtt_mean_ms': 0.075756, 'rtts_ms': [1.2, None]}
    >>> times_to_ns({"elapsed_s": 0.1 + 0.2, "sent_mbps": 0.1 + 0.2})
    {'elapsed_s': 0.3, 'sent_mbps': 0.30000000000000004}
    """
    return {name: _rounded(value, _decimals(name)) for name, value in values.items()}


def _decimals(name: str) -> int | None:
    return next((count for unit, count in DECIMALS.items() if name.endswith(unit)), None)


def _rounded(value: Any, decimals: int | None) -> Any:
    if decimals is None:
        return value
    if isinstance(value, float):
        return round(value, decimals)
    return [_rounded(one, decimals) for one in value] if isinstance(value, list) else value
