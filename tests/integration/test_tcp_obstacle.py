"""A target that this machine cannot even ask costs the handshakes with the others nothing."""

from __future__ import annotations

from worker.model.measurement import Outcome
from worker.model.options import TcpOptions
from worker.model.plan import TargetNode
from worker.probes import tcp


def test_target_behind_an_interface_that_has_gone_is_unreachable_and_others_are_measured() -> None:
    targets = [
        TargetNode(name="gone", address="fe80::1%gone0"),
        TargetNode(name="here", address="127.0.0.1"),
    ]
    options = TcpOptions(count=3, interval_s=0.02)
    measured = {one.target: one for one in tcp.measure("r", "n", targets, options, lambda: False)}
    assert measured["gone"].outcome is Outcome.UNREACHABLE
    assert measured["gone"].error
    assert measured["gone"].packet_loss_pct == 100.0
    assert measured["here"].outcome is Outcome.OK
    assert measured["here"].round_trips.received == 3
