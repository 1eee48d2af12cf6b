"""Turning a series of echoes into a measurement."""

from __future__ import annotations

import pytest

from worker.model.measurement import Measurement, Outcome
from worker.model.names import IpLiteral
from worker.model.options import PingOptions
from worker.model.plan import TargetNode
from worker.probes import ping
from worker.probes.icmp.engine import EchoSeries, IcmpNotPermitted

CAMERA = TargetNode(name="camera-3", address=IpLiteral("192.0.2.3"))


def series(**changed: object) -> EchoSeries:
    values: dict[str, object] = {
        "address": "192.0.2.3",
        "sent": 4,
        "received": 3,
        "duplicates": 1,
        "late": 0,
        "errors": 0,
        "damaged": 0,
        "refused": 0,
        "times_refused": 0,
        "rtts_ms": (10.0, None, 12.0, 14.0),
        "wake_ms": None,
        "reply_ttls": (64,),
        "answered_by": (),
        "started_ns": 1_767_323_045_678_000_000,
        "elapsed_s": 0.5,
        "interval_mean_s": 0.1,
        "send_lag_max_ms": 0.1,
        "read_lag_max_ms": 0.2,
        "receive_drops": 0,
        "error_kind": None,
        "error": None,
        "socket_kind": "raw",
    }
    return EchoSeries(**(values | changed))  # type: ignore[arg-type]  # fields by name


def measured(**changed: object) -> Measurement:
    return ping.measurement("r1", "edge-1", CAMERA, series(**changed), PingOptions(count=4))


def test_a_series_becomes_one_row_that_survives_the_stream() -> None:
    found = measured()
    assert (found.source, found.target, found.probe) == ("edge-1", "camera-3", "ping")
    assert (found.latency_ms, found.packet_loss_pct, found.outcome) == (12.0, 25.0, Outcome.OK)
    assert found.detail.rtts_ms == (10.0, None, 12.0, 14.0)
    assert found.detail.jitter_mean_abs_ms == 2.0
    assert found.started_at.isoformat() == "2026-01-02T03:04:05.678000+00:00"
    fields = {
        name.encode(): value.encode() if isinstance(value, str) else value
        for name, value in found.to_fields().items()
    }
    assert Measurement.from_fields(fields) == found


def test_silence_is_no_reply_with_full_loss_and_no_time() -> None:
    found = measured(received=0, rtts_ms=(None,) * 4)
    assert (found.outcome, found.packet_loss_pct, found.latency_ms) == (Outcome.NO_REPLY, 100, None)
    assert found.error == "none of 4 echoes was answered in time"


def test_what_answers_from_elsewhere_is_named_and_stays_no_reply() -> None:
    found = measured(received=0, rtts_ms=(None,) * 4, answered_by=("192.0.2.9",))
    assert (found.outcome, found.packet_loss_pct) == (Outcome.NO_REPLY, 100)
    assert found.detail.answered_by == "192.0.2.9"
    assert found.error.startswith(
        "none of 4 echoes was answered in time by 192.0.2.3; 192.0.2.9 answered in its place"
    )


def test_what_came_before_the_series_is_in_no_other_figure() -> None:
    found = measured(wake_ms=908.0, reply_ttls=(55, 64))
    assert (found.detail.wake_ms, found.detail.reply_ttl) == (908.0, "55 64")
    assert found.latency_ms == 12.0
    assert found.detail.rtt_max_ms == 14.0


def test_what_a_router_said_is_unreachable_in_its_words() -> None:
    said = "host unreachable, said 10.0.0.1"
    found = measured(
        received=0, errors=4, rtts_ms=(None,) * 4, error_kind="host_unreachable", error=said
    )
    assert (found.outcome, found.error) == (Outcome.UNREACHABLE, said)


def test_what_never_left_has_no_loss() -> None:
    found = measured(sent=0, received=0, refused=4, rtts_ms=(None,) * 4, error_kind="prohibited")
    assert (found.outcome, found.packet_loss_pct) == (Outcome.UNREACHABLE, None)


@pytest.mark.parametrize(
    ("changed", "limited"),
    [({}, False), ({"receive_drops": 1}, True), ({"send_lag_max_ms": 101.0}, True)],
)
def test_a_host_too_busy_to_measure_says_so(changed: dict[str, object], limited: bool) -> None:
    assert measured(**changed).detail.host_limited is limited


def test_a_name_is_no_target_of_a_probe() -> None:
    with pytest.raises(ValueError, match=r"camera-3\.lan"):
        TargetNode(name="camera-3", address=IpLiteral("camera-3.lan"))


def test_without_the_right_every_target_says_what_fixes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_permitted(addresses: list[str], options: PingOptions, *, should_stop: object) -> None:
        raise IcmpNotPermitted

    monkeypatch.setattr(ping, "echo_many", not_permitted)
    (found,) = ping.measure("r1", "edge-1", [CAMERA], PingOptions(), lambda: False)
    assert found.outcome is Outcome.TOOL_MISSING
    assert "ping_group_range" in found.error
