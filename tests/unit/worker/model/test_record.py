"""What is not written of a record is restored, whatever the record says."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from datetime import datetime, timezone
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from samples import ping_statistics

from worker.model.detail import (
    Detail,
    Interval,
    PingStatistics,
    TransferSettings,
    common,
)
from worker.model.errors import WireError
from worker.model.measurement import Measurement, Outcome, begun_at, csv_row, made
from worker.model.options import UdpOptions
from worker.model.record.forms import FORM_OF, FORMS
from worker.model.record.numbers import ADDRESS, ERROR, FORM, NUMBERS, STARTED_AT
from worker.model.rtt import packet_loss_pct

STARTED = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
REQUIRED = {int: 0, float: 0.0, str: "", bool: False}

floats = st.floats(-(2.0**63), 2.0**63) | st.sampled_from([0.0, -0.0, 1.0, 5e-324, 1e-6, 0.1 + 0.2])
whole_ns = st.integers(-(2**53), 2**53)
times = floats | st.integers(0, 2**63) | whole_ns.map(lambda ns: ns / 1e6)
counts = st.integers(0, 20) | st.integers(-(2**63), 2**64 - 1)
texts = st.sampled_from(["", "64", "raw"]) | st.text(st.characters(categories=["L"]), max_size=9)
flows = st.tuples(times, times, floats, st.none() | counts, st.booleans())
OF_A_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "int": counts,
    "int | None": st.none() | counts,
    "float": times,
    "float | None": st.none() | times,
    "str": texts,
    "str | None": st.none() | texts,
    "bool": st.booleans(),
    "bool | None": st.none() | st.booleans(),
    "tuple[float | None, ...]": st.lists(st.none() | times, max_size=25).map(tuple),
    "tuple[str, ...]": st.lists(texts, max_size=5).map(tuple),
    "tuple[Interval, ...]": st.lists(flows.map(lambda f: Interval(*f)), max_size=3).map(tuple),
}
more = st.dictionaries(
    st.sampled_from(["locker", "held_s", "1", "form", "started_at", "address", "error", "more"]),
    st.none() | texts | counts | times | st.lists(counts, max_size=2),
    max_size=2,
)


@st.composite
def details(draw: st.DrawFn) -> Detail:
    """Give whole statistics of any class, with any values, and most of them as they usually are."""
    kind = draw(st.sampled_from([Detail, *FORM_OF]))
    own = {}
    for one in fields(kind):
        is_drawn = one.name != "more" and draw(st.integers(0, 3)) == 0
        if is_drawn or (one.default is MISSING and one.name != "more"):
            own[one.name] = draw(OF_A_TYPE[str(one.type)])
    if "received" in own or "sent" in own:
        own["received"] = draw(st.integers(0, 20))
        own["sent"] = own["received"] + draw(st.integers(0, 20))
    if issubclass(kind, PingStatistics) and draw(st.booleans()):
        rtts_ms = draw(st.lists(st.none() | whole_ns.map(lambda ns: ns / 1e6), max_size=25))
        own = vars(ping_statistics(rtts_ms)) | draw(st.sampled_from([own, {}]))
        own.pop("more", None)
    return kind(**own, more=draw(more))


records = st.builds(
    Measurement,
    run=texts,
    probe=st.sampled_from(["ping", "tcp", "redis", "throughput", "udp", "network"]),
    source=texts,
    target=texts,
    address=texts,
    started_at=st.datetimes(timezones=st.just(timezone.utc)),
    outcome=st.sampled_from(Outcome),
    error=texts,
    latency_ms=st.none() | floats | st.integers(0, 9),
    packet_loss_pct=st.none() | floats,
    throughput_mbps=st.none() | floats,
    detail=details(),
)


def spelled(detail: Detail) -> dict[str, str]:
    """Give its values so that 1 is not 1.0."""
    return {name: repr(value) for name, value in detail.to_map().items()}


def entry(measurement: Measurement) -> dict[bytes, bytes]:
    written = measurement.to_fields().items()
    return {k.encode(): v if isinstance(v, bytes) else v.encode() for k, v in written}


@given(records)
@example(
    Measurement(
        run="r",
        probe="ping",
        source="a",
        target="b",
        address="",
        outcome=Outcome.OK,
        detail=Detail(more=ping_statistics([1.5]).to_map() | {"more": 1, "rtts_ms": [1.5]}),
    )
)
def test_whatever_is_written_comes_back(measurement: Measurement) -> None:
    found = Measurement.from_fields(entry(measurement))
    assert found == measurement
    assert spelled(found.detail) == spelled(measurement.detail)
    assert csv_row(entry(measurement), b"1-0") == found.to_row("1-0")
    assert stored(found) == stored(measurement)


def stored(measurement: Measurement) -> dict[str, Any]:
    """Give what is written of a detail, by name."""
    packed = msgpack.unpackb(entry(measurement)[b"detail"], strict_map_key=False)
    named = {number: name for name, number in NUMBERS.items()}
    return {named.get(key, str(key)): value for key, value in packed.items() if key not in range(4)}


def of_ping(rtts_ms: list[float | None], **changes: Any) -> Measurement:
    statistics = ping_statistics(rtts_ms)
    return made(
        Measurement(
            run="20260102T030405000-abcd",
            probe="ping",
            source="cam-1",
            target="hub",
            address="10.0.0.2",
            started_at=STARTED,
            outcome=Outcome.OK,
            latency_ms=statistics.rtt_mean_ms,
            packet_loss_pct=packet_loss_pct(statistics.sent, statistics.received),
            detail=replace(statistics, **changes),
        )
    )


RTTS_MS: list[float | None] = [11.5, 10.250001, 12.0, 10.75]


def test_what_the_samples_say_is_not_written() -> None:
    measured = {"interval_mean_s", "elapsed_s", "rtts_ms"}
    assert stored(of_ping(RTTS_MS)).keys() == measured
    assert stored(of_ping([*RTTS_MS, None])).keys() == measured
    assert stored(of_ping([1.5] * 25)).keys() == measured
    assert stored(of_ping([None, None], reply_ttl="64")).keys() == measured


def test_what_the_samples_do_not_say_is_written() -> None:
    assert stored(of_ping(RTTS_MS, rtt_max_ms=13.0))["rtt_max_ms"] == 13_000_000
    assert stored(of_ping(RTTS_MS, rtt_max_ms=None))["rtt_max_ms"] is None
    assert stored(of_ping(RTTS_MS, host_limited=True))["host_limited"] is True
    assert stored(of_ping(RTTS_MS, refused=1, sent=3, received=3)) == stored(of_ping(RTTS_MS)) | {
        "refused": 1,
        "received": 3,
    }


def test_record_whose_samples_were_dropped_keeps_its_statistics() -> None:
    whole = of_ping(RTTS_MS)
    dropped = replace(whole, detail=replace(whole.detail, rtts_ms=()))
    found = Measurement.from_fields(entry(dropped))
    assert found == dropped
    assert found.round_trips.rtt_median_ms == whole.round_trips.rtt_median_ms
    assert stored(dropped)["sent"] == 4


def test_time_of_no_whole_nanosecond_is_written_as_it_is() -> None:
    third = of_ping(RTTS_MS)
    third = replace(third, detail=replace(third.detail, wake_ms=1 / 3, rtts_ms=(1 / 3, 1.5)))
    written = stored(third)
    assert (written["wake_ms"], written["rtts_ms"]) == (1 / 3, [1 / 3, 1_500_000])
    assert Measurement.from_fields(entry(third)) == third


def test_as_many_echoes_as_may_be_asked_for_are_read_and_ten_times_as_many_refused() -> None:
    most: list[float | None] = [59_999.123456, *[4_294.967296] * 9_999]
    assert Measurement.from_fields(entry(of_ping(most))) == of_ping(most)
    with pytest.raises(WireError, match="over"):
        Measurement.from_fields(entry(of_ping(most * 10)))


def test_every_field_of_a_form_has_a_number_and_its_default_its_type() -> None:
    for form in FORMS.values():
        assert list(form.defaults) == [one.name for one in fields(form.kind) if one.name != "more"]
        assert form.defaults.keys() <= NUMBERS.keys()
        for name, kinds in form.kind.scalars().items():
            value = form.defaults[name]
            assert value is None or type(value) in kinds, name


@pytest.mark.parametrize(
    "detail",
    [{FORM: 99}, {FORM: 0}, {79: 1}, {-1: 1}, {127: 1}, {1.5: 1}, {None: 1}, {b"x": 1}],
)
def test_what_no_node_of_this_version_writes_is_refused(detail: dict[Any, Any]) -> None:
    good = msgpack.unpackb(entry(of_ping(RTTS_MS))[b"detail"], strict_map_key=False)
    for damaged in ({**good, **detail}, {k: v for k, v in good.items() if k != FORM} | detail):
        fields_ = entry(of_ping(RTTS_MS)) | {b"detail": msgpack.packb(damaged)}
        for read in (Measurement.from_fields, lambda f: csv_row(f, b"1-0")):
            with pytest.raises(WireError):
                read(fields_)


@pytest.mark.parametrize("at", [None, "2026-01-02T03:04:05.678Z", 1.5, 2**63, -(2**63), True])
def test_time_that_is_none_is_refused(at: object) -> None:
    good = msgpack.unpackb(entry(of_ping(RTTS_MS))[b"detail"], strict_map_key=False)
    packed = msgpack.packb({**good, STARTED_AT: at})
    with pytest.raises(WireError):
        Measurement.from_fields(entry(of_ping(RTTS_MS)) | {b"detail": packed})


@pytest.mark.parametrize("place", ["reply_ttl", STARTED_AT, ADDRESS, ERROR, FORM, NUMBERS["hint"]])
@pytest.mark.parametrize("depth", [900, 1000, 1020])
def test_what_is_too_deep_to_be_shown_is_refused_all_the_same(place: int | str, depth: int) -> None:
    good = msgpack.unpackb(entry(of_ping(RTTS_MS))[b"detail"], strict_map_key=False)
    damaged = {k: v for k, v in good.items() if k != place} | {place: None}
    packed = msgpack.packb(damaged)[:-1] + b"\x91" * depth + b"\x90"
    fields_ = entry(of_ping(RTTS_MS)) | {b"detail": packed}
    for read in (Measurement.from_fields, lambda f: csv_row(f, b"1-0")):
        with pytest.raises(WireError):
            read(fields_)
    assert begun_at(fields_) == ("" if place == STARTED_AT else "2026-01-02T03:04:05.678Z")


@pytest.mark.parametrize("number", FORMS)
def test_statistics_of_which_one_is_missing_are_not_taken_for_whole(number: int) -> None:
    fields_ = entry(of_ping(RTTS_MS)) | {
        b"detail": msgpack.packb({STARTED_AT: 0, ADDRESS: "", FORM: number})
    }
    found = Measurement.from_fields(fields_)
    scalars = type(found.detail).scalars()
    assert all(type(getattr(found.detail, name)) in may for name, may in scalars.items())
    assert found.to_row("1-0") == csv_row(fields_, b"1-0")
    assert Measurement.from_fields(entry(found)) == found


@pytest.mark.parametrize("value", [None, [], [1.5, None], "none"])
@pytest.mark.parametrize("kind", [Detail, TransferSettings])
def test_what_a_program_calls_as_a_field_of_other_records_comes_back(
    kind: type[Detail], value: object
) -> None:
    own = common(kind, UdpOptions()) if kind is TransferSettings else {}
    detail = kind(**own, more=dict.fromkeys(["rtts_ms", "refused_by"], value))
    measurement = replace(of_ping(RTTS_MS), detail=detail)
    assert Measurement.from_fields(entry(measurement)) == measurement
