"""
The whole mesh in the lab, on a quiet machine: what is exact.

Bounds on counts are six standard deviations.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from waiting import wait_until

from lab.mesh import LabMesh, mesh_of
from lab.mesh_runs import OK, run
from worker.wire import keyspace

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def eight() -> Iterator[LabMesh]:
    with mesh_of(8) as mesh:
        yield mesh


@pytest.mark.quiet
def test_full_mesh_has_one_ok_row_a_pair_and_one_job_a_source(
    eight: LabMesh, tmp_path: Path
) -> None:
    wait_until(lambda: pushes(eight) >= 16, "each of two workers has looked after its queue")
    pushed = pushes(eight)
    file = tmp_path / "mesh.csv"
    said = run(eight, eight.lab.nodes[3], "--csv", str(file))
    assert len(said.rows) == 56
    assert eight.outcomes(said.run, source="n0") == OK
    assert len(file.read_text().splitlines()) == 57
    assert eight.cli(eight.lab.nodes[5], "verify", said.run, "--csv", str(file)).code == 0
    jobs = [key for key in hash_of(eight, said.run) if key.startswith("job:")]
    assert len(jobs) == 8
    # Beside the sweeps each node is asked once who it is, its address being a private one. Who is
    # last closes the run; on a slow machine heartbeats enqueue an advance, too. Nothing is enqueued
    # for each pair.
    assert 16 <= pushes(eight) - pushed < 24


@pytest.mark.quiet
def test_known_delay_is_read_within_1_ms_and_no_other_pair_sees_it(eight: LabMesh) -> None:
    n0, n1, n2, n3, *_ = eight.lab.nodes
    with eight.lab.at_once():
        eight.lab.round_trip(n0, n1, 20)
        eight.lab.delay(n2, n3, 15)
        eight.lab.delay(n3, n2, 5)
    rows = run(eight, n0, "--count", "20").rows
    eight.lab.clear()
    delayed = {("n0", "n1"), ("n1", "n0"), ("n2", "n3"), ("n3", "n2")}
    for pair in delayed:
        assert 20 <= rows[pair]["rtt_min_ms"] < 21, pair
        assert 20 <= rows[pair]["rtt_median_ms"] < 21, pair
    assert max(row["rtt_median_ms"] for pair, row in rows.items() if pair not in delayed) < 1


@pytest.mark.quiet
def test_one_way_loss_is_binomial_in_both_rows_of_the_pair_and_in_no_other(
    eight: LabMesh,
) -> None:
    n4, n5, n6 = eight.lab.nodes[4:7]
    eight.lab.loss(n4, n5, 20, "icmp")
    options = ("--nodes", "n4,n5,n6", "--count", "400", "--interval", "0.01")
    said = run(eight, n6, *options)
    eight.lab.clear()
    for pair, row in said.rows.items():
        assert row["sent"] == 400
        if set(pair) == {"n4", "n5"}:
            # Requests one way, replies the other: each echo crosses the loss once.
            assert row["received"] == pytest.approx(320, abs=6 * (400 * 0.2 * 0.8) ** 0.5)
            assert row["packet_loss_pct"] == 100 * (400 - row["received"]) / 400
            assert row["rtts_ms"].count(None) == 400 - row["received"] + row["times_refused"]
        else:
            assert row["packet_loss_pct"] == 0, pair


@pytest.mark.quiet
def test_second_node_of_a_name_is_refused_in_one_line(eight: LabMesh) -> None:
    same_machine = eight.cli(
        *(eight.lab.nodes[0], "worker", "--name", "n1"),
        *("--state-dir", str(eight.state_dir("n1"))),
    )
    elsewhere = eight.cli(
        *(eight.lab.nodes[0], "worker", "--name", "n1"),
        *("--state-dir", str(eight.state_dir("elsewhere"))),
    )
    for said in (same_machine, elsewhere):
        assert said.code == 2
        assert said.err.startswith("error: node name (n1) is ")
        assert said.err.count("\n") == 1
    assert "n1" in eight.alive()


def pushes(mesh: LabMesh) -> int:
    """Give how many jobs RQ has put into queues since Redis started."""
    stats = cast("dict[str, dict[str, int]]", mesh.connection.info("commandstats"))
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("rpush", "lpush"))


def hash_of(mesh: LabMesh, run_id: str) -> list[str]:
    """Give the names of the fields of a run's hash."""
    keys = cast("list[bytes]", mesh.connection.hkeys(keyspace.run_key(run_id)))
    return [key.decode() for key in keys]
