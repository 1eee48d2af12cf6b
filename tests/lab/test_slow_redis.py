"""Nodes whose way to Redis takes long: what they measure takes longer, and none of it fails."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from coordinator.results.results import read
from lab.mesh import LabMesh, mesh_of, on_its_own
from lab.transfer_runs import EASY

pytestmark = pytest.mark.lab

PROBES = ("--probe", "ping", "--probe", "redis", "--probe", "throughput")
#: Of a run: its series, and some forty round trips of 2 s for each phase, on a busy machine.
ENDED_S = 600.0


def measures_all(mesh: LabMesh, there_and_back_ms: float) -> None:
    """Run all that has to wait for another node or for Redis, from beside Redis."""
    for node in mesh.lab.nodes:
        mesh.lab.round_trip(node, mesh.lab.redis_node, there_and_back_ms)
    run = mesh.detach(mesh.lab.redis_node, *PROBES, "--duration", "1", *EASY, "--count", "3")
    mesh.wait_until_ended(run, ENDED_S)
    found = [one for _, one in read(mesh.connection, run=run)]
    assert Counter(one.probe for one in found) == {"ping": 2, "redis": 2, "throughput": 2}
    outcomes = {(one.probe, one.source, one.outcome.value, one.error) for one in found}
    assert {outcome for _, _, outcome, _ in outcomes} == {"ok"}, outcomes
    ways = [one for one in found if one.probe == "redis"]
    assert all(one.packet_loss_pct == 0.0 for one in ways)
    for one in ways:
        assert one.detail.rtt_min_ms >= there_and_back_ms
        assert one.detail.locker_cycle_median_ms >= 2 * there_and_back_ms


@on_its_own(partial(mesh_of, 2))
def test_way_of_300_ms_to_redis_fails_nothing(mesh: LabMesh) -> None:
    measures_all(mesh, 300)


@pytest.mark.long
@on_its_own(partial(mesh_of, 2))
def test_way_of_800_ms_to_redis_fails_nothing(mesh: LabMesh) -> None:
    measures_all(mesh, 800)


@pytest.mark.long
@on_its_own(partial(mesh_of, 2))
def test_way_of_2_s_to_redis_fails_nothing(mesh: LabMesh) -> None:
    measures_all(mesh, 2000)
