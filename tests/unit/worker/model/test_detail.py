"""Statistics come back as they were; damaged ones stay as they came. Times are whole ns."""

from __future__ import annotations

import ast
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import ping_statistics, transfer_statistics

from worker.model.detail import (
    Detail,
    Interval,
    PacketTrips,
    PingStatistics,
    TransferSettings,
    TransferStatistics,
    read_detail,
)
from worker.model.measurement import Measurement, Outcome, made

ROOT = Path(__file__).parents[4]
#: Reads records back, as they are, and makes findings, which have no times.
BY_ITSELF = ROOT / "worker" / "model" / "measurement.py"


def record(rtt_ms: float) -> Measurement:
    return Measurement(
        run="r1",
        probe="ping",
        source="a",
        target="b",
        address="10.0.0.2",
        started_at=datetime(2026, 1, 2, tzinfo=timezone.utc),
        outcome=Outcome.OK,
        latency_ms=rtt_ms,
        packet_loss_pct=100 / 3,
        detail=ping_statistics([rtt_ms, None], elapsed_s=0.1 + 0.2),
    )


def test_record_that_is_made_tells_no_part_of_a_nanosecond() -> None:
    found = made(record(0.07575580000000001))
    assert found.latency_ms == 0.075756
    assert found.packet_loss_pct == 100 / 3
    assert found.detail == ping_statistics([0.075756, None], elapsed_s=0.3)


def test_record_that_is_read_is_as_it_was_written() -> None:
    written = record(0.07575580000000001)
    fields = {
        name.encode(): value.encode() if isinstance(value, str) else value
        for name, value in written.to_fields().items()
    }
    assert Measurement.from_fields(fields) == written


def test_whoever_makes_a_record_makes_it_so() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in [*(ROOT / "worker").rglob("*.py"), *(ROOT / "coordinator").rglob("*.py")]
        if path != BY_ITSELF and "Measurement(" in (text := path.read_text())
        for call in records_made(ast.parse(text))
    ]
    assert bare == []


def records_made(tree: ast.Module) -> list[ast.Call]:
    """Return the calls of `Measurement` with times whose result `made` is not called with."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    inner = {id(one) for call in calls if named(call, "made") for one in call.args}
    return [
        call
        for call in calls
        if named(call, "Measurement")
        and id(call) not in inner
        and {word.arg for word in call.keywords} & {"latency_ms", "detail", None}
    ]


def named(call: ast.Call, name: str) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == name


PING = ping_statistics([1.5, None, 2.5], hint="a hint", clock_offset_ms=-1.0)
TRANSFER = transfer_statistics(
    intervals=(Interval(0.0, 1.0, 8.0, None, omitted=True),), host_limits=("a: CPU",)
)


def on_the_wire(detail: Detail) -> dict[str, Any]:
    return dict(msgpack.unpackb(msgpack.packb(detail.to_map())))


@pytest.mark.parametrize("detail", [PING, TRANSFER, Detail(), Detail(more={"operation": "mount"})])
def test_detail_comes_back_equal(detail: Detail) -> None:
    assert read_detail(type(detail), on_the_wire(detail)) == detail


def test_absent_number_is_written_and_a_remark_only_where_there_is_one() -> None:
    written = on_the_wire(ping_statistics([None]))
    assert written["rtt_mean_ms"] is None
    assert "hint" not in written
    assert "path_mtu_bytes" not in on_the_wire(TRANSFER)


def test_what_a_newer_node_adds_is_kept_and_written_again() -> None:
    newer = on_the_wire(PING) | {"rtt_p999_ms": 3.0, "more": 1}
    read = read_detail(PingStatistics, newer)
    assert isinstance(read, PingStatistics)
    assert on_the_wire(read) == newer


def test_what_a_node_before_did_not_know_is_absent() -> None:
    older = on_the_wire(PING)
    del older["wake_ms"], older["answered_by"], older["times_refused"]
    read = read_detail(PingStatistics, older)
    assert isinstance(read, PingStatistics)
    assert (read.wake_ms, read.times_refused) == (None, None)


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ({"socket": 7}, PacketTrips),
        ({"received": 4}, Detail),
        ({"received": True}, Detail),
        ({"wait_s": float("nan")}, Detail),
        ({"rtts_ms": [1.5, "2"]}, PingStatistics),
        ({"rtts_ms": [1.5, float("inf")]}, PingStatistics),
        ({"rtt_min_ms": "1.5"}, PingStatistics),
    ],
)
def test_damaged_value_is_no_number_of_the_statistics_and_stays(
    damage: dict[str, Any], kind: type[Detail]
) -> None:
    read = read_detail(PingStatistics, on_the_wire(PING) | damage)
    assert type(read) is kind
    assert {name: read.more[name] for name in damage} == damage
    assert not hasattr(read, "rtts_ms") or all(type(rtt) is not str for rtt in read.rtts_ms)


@pytest.mark.parametrize("interval", [[0.0, 1.0, 1e300, 0, False], [0.0, 1.0], 7, [0, 1, 8, 0, 1]])
def test_damaged_interval_costs_nothing(interval: object) -> None:
    read = read_detail(TransferStatistics, on_the_wire(TRANSFER) | {"intervals": [interval]})
    assert isinstance(read, TransferStatistics)
    assert (read.interval_bytes, read.more) == (0, {"intervals": [interval]})


def test_test_that_was_not_made_has_its_settings() -> None:
    settings = {name: on_the_wire(TRANSFER)[name] for name in TransferSettings.__annotations__}
    assert type(read_detail(TransferStatistics, settings)) is TransferSettings


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()


@given(
    st.sampled_from([PING, TRANSFER]),
    st.dictionaries(
        st.sampled_from([*PING.to_map(), *TRANSFER.to_map(), "odd"]),
        scalars | st.lists(scalars, max_size=3) | st.lists(st.lists(scalars, max_size=5)),
        max_size=3,
    ),
)
def test_nothing_that_came_is_lost(detail: Detail, damage: dict[str, Any]) -> None:
    came = on_the_wire(detail) | damage
    written = on_the_wire(read_detail(type(detail), came))
    assert repr({name: written.get(name) for name in came}) == repr(came)
