"""Times in records are whole nanoseconds, wherever records are made."""

from __future__ import annotations

import ast
from datetime import datetime, timezone
from pathlib import Path

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
        detail={"rtt_mean_ms": rtt_ms, "rtts_ms": [rtt_ms, None], "elapsed_s": 0.1 + 0.2},
    )


def test_record_that_is_made_tells_no_part_of_a_nanosecond() -> None:
    found = made(record(0.07575580000000001))
    assert found.latency_ms == 0.075756
    assert found.packet_loss_pct == 100 / 3
    assert found.detail == {"rtt_mean_ms": 0.075756, "rtts_ms": [0.075756, None], "elapsed_s": 0.3}


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
    """Give the calls of `Measurement` whose result is not what `made` is called with."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    inner = {id(one) for call in calls if named(call, "made") for one in call.args}
    return [call for call in calls if named(call, "Measurement") and id(call) not in inner]


def named(call: ast.Call, name: str) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == name
