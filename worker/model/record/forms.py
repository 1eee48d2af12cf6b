"""
The forms of a record's detail: what a reader takes for given where a record does not say otherwise.

Each has its class of statistics. Its number, its defaults and what is derived are fixed with wire
version 2, whatever becomes of the options' defaults; a class without a form is written whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from worker.model.detail import (
    Detail,
    PacketTrips,
    PingStatistics,
    RedisStatistics,
    RoundTrips,
    TcpStatistics,
    TransferSettings,
    TransferStatistics,
)
from worker.model.record.numbers import NUMBERS
from worker.model.rtt import STATISTICS, statistics_of_ns

_WAITS = {"sent": 0, "received": 0, "wait_s": 1.0, "interval_s": 0.1, "rtts_ms": ()}
_PACKETS = {**_WAITS, "times_refused": 0}
_ECHOES = {
    **_PACKETS,
    **dict.fromkeys(("duplicates", "late", "errors", "damaged", "refused", "receive_drops"), 0),
    "size_bytes": 56,
    "reply_ttl": "64",
    "host_limited": False,
    "socket": "raw",
}
_SETTINGS = {"duration_s": 5.0, "omit_s": 0.0, "parallel": 1, "bidir": False}
_TRANSFER = {
    **_SETTINGS,
    "intervals": (),
    "intervals_at": "receiver",
    "host_limits": (),
    "interval_columns": ("start_s", "end_s", "mbps", "retransmits", "omitted"),
}


@dataclass(frozen=True)
class Form:
    """
    What is taken for given of one class of statistics.

    Attributes:
        number: It stands in the record.
        kind: The class.
        defaults: All its fields in their order; those that no default was fixed for are None.
        has_trips: It is a series of questions, of which the samples say most.
        needed: Those of the fields that have no default, and may not be None.
    """

    number: int
    kind: type[Detail]
    defaults: Mapping[str, Any]
    has_trips: bool
    needed: tuple[str, ...]


def _form(number: int, kind: type[Detail], defaults: Mapping[str, Any]) -> Form:
    names = [one.name for one in fields(kind) if one.name != "more"]
    whole = {name: defaults.get(name) for name in names}
    needed = [name for name, may in kind.scalars().items() if type(None) not in may]
    return Form(
        number=number,
        kind=kind,
        defaults=whole,
        has_trips=issubclass(kind, RoundTrips),
        needed=tuple(name for name in needed if whole[name] is None),
    )


FORMS = {
    form.number: form
    for form in (
        _form(1, PingStatistics, _ECHOES),
        _form(2, TcpStatistics, {**_PACKETS, "accepted": 0, "refusals": 0, "port": 22}),
        _form(3, RedisStatistics, {**_WAITS, "locker_cycles": 0, "last_error": ""}),
        _form(4, TransferSettings, _SETTINGS),
        _form(5, TransferStatistics, _TRANSFER),
        _form(6, RoundTrips, _WAITS),
        _form(7, PacketTrips, _PACKETS),
    )
}
FORM_OF: Mapping[type[Detail], Form] = {form.kind: form for form in FORMS.values()}

#: What others are derived from.
GIVEN = ("rtts_ms", "refused", "times_refused", "refusals")
_REFUSED, _TIMES_REFUSED, _REFUSALS = (NUMBERS[name] for name in GIVEN[1:])
#: What a sample is.
NS_OR_LOST = frozenset({int, type(None)})


def derive(
    values: dict[str, Any], form: Form, stored: Mapping[Any, Any], samples: Sequence[Any]
) -> None:
    """
    Fill in what follows from a series' samples, integers of nanoseconds and None where lost.

    `sent` is their number without the `refused`; `received` those with a time and the
    `times_refused`; `accepted` these without the `refusals`; `locker_cycles` is `sent`. The
    statistics are `worker.model.rtt.statistics_of_ns`. A sample that is no whole nanosecond leaves
    the statistics out.
    """
    lost = samples.count(None)
    sent = len(samples)
    received = sent - lost
    if received and NS_OR_LOST.issuperset(map(type, samples)):
        values.update(zip(STATISTICS, statistics_of_ns(samples), strict=True))
    if _TIMES_REFUSED in stored:
        received += _count(stored[_TIMES_REFUSED], lost)
    if _REFUSED in stored:
        sent -= _count(stored[_REFUSED], sent)
    values["sent"], values["received"] = sent, received
    if "accepted" in values:
        values["accepted"] = received - _count(stored.get(_REFUSALS), received)
    elif "locker_cycles" in values:
        values["locker_cycles"] = sent


def _count(value: object, most: int) -> int:
    """Return a count, 0 for what cannot be one."""
    return value if type(value) is int and 0 <= value <= most else 0
