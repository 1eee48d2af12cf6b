"""
A probe or an option that a newer trigger has is left out by older nodes, and nothing else is.

The newer one is a copy of this package with three made-up probes and an option more of ping; that a
few lines make each is what a table of probes is for.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from waiting import wait_until

from coordinator.embedded import EmbeddedServer
from coordinator.runs.runs import recent
from integration.nodes import cli, workers
from integration.other_version import Other, mixed_mesh, other_version
from worker import __version__
from worker.model.version import WIRE_VERSION
from worker.probes.icmp.engine import icmp_capability
from worker.probes.iperf3.tool import find_iperf3
from worker.wire import run_record

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping"),
    pytest.mark.skipif(bool(find_iperf3().fault), reason="no iperf3"),
]

OURS, THEIRS = ("cam-1", "hub"), ("cam-2", "cam-3")

OPTIONS = '''

@dataclass(frozen=True, kw_only=True)
class NapOptions(Options):
    """How long is slept."""

    depth: int = option(3, "--depth", "Depth of a nap.")

    @property
    def seconds(self) -> float:
        """One."""
        return 1.0

    def pair_bytes(self, ip_header_bytes: int) -> int:
        """None."""
        return 0


@dataclass(frozen=True, kw_only=True)
class BlastOptions(ThroughputOptions):
    """As of throughput."""
'''
ROWS = """
        Probe(name="nap", options=NapOptions, statistics=PingStatistics),
        Probe(name="sky", options=NapOptions, target="sky", statistics=PingStatistics),
        Probe(
            name="blast", options=BlastOptions, has_two_ends=True, figures=("throughput",),
            need=Need.IPERF3, statistics=TransferStatistics,
        ),"""
NAP = """
from worker.model.measurement import Measurement, Outcome


def measure(work, should_stop):
    for pair in work.pairs:
        yield work.row.finding(pair, Outcome.OK, "")
"""
#: File, after which text, what: a new probe is its options, a row, a line of MEASURES, and a file.
CHANGES = [
    (
        "worker/model/options.py",
        '"-s/--size", "Payload of an echo.")',
        '\n    ttl: int | None = option(None, "--ttl", "Routers that an echo may pass.")',
    ),
    ("worker/model/options.py", "", OPTIONS),
    ("worker/model/probe.py", "from worker.model.options import (", "BlastOptions, NapOptions,"),
    ("worker/model/probe.py", "    for probe in (", ROWS),
    ("worker/node/measures.py", '    "udp": _tests,', '"blast": _tests, "nap": nap, "sky": nap,'),
    (
        "worker/node/measures.py",
        "from worker.probes import ping, tcp",
        "\nfrom worker.probes.nap import measure as nap",
    ),
    ("worker/probes/nap.py", "", NAP),
]


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Other:
    return other_version(tmp_path_factory.mktemp("newer"), WIRE_VERSION, "9.9.9", CHANGES)


@pytest.fixture(scope="module")
def mixed(
    server_binary: Path, newer: Other, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    """A mesh of two nodes of ours and two newer ones."""
    folder = tmp_path_factory.mktemp("mixed")
    with mixed_mesh(newer, folder, server_binary, OURS, THEIRS) as server:
        yield server


def run_by(newer: Other, url: str, *options: str) -> list[dict[str, Any]]:
    """Run something from the newer one; give the rows."""
    done = newer.cli(url, "run", "--json", "--new", *options)
    assert done.returncode in (0, 4), done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [line for line in lines if line["type"] == "measurement"]


def outcomes(rows: list[dict[str, Any]], probe: str) -> Counter[tuple[str, str]]:
    """Count what became of a probe's pairs, by who performed them."""
    return Counter((row["source"], row["outcome"]) for row in rows if row["probe"] == probe)


def too_old(node: str, lacks: str) -> str:
    return f"{node}: ptzmesh {__version__} does not know {lacks}; upgrade it there"


def test_older_nodes_leave_out_a_probe_that_they_do_not_know_and_run_the_others(
    mixed: EmbeddedServer, newer: Other, tmp_path: Path
) -> None:
    probes = ("--probe", "ping", "--probe", "nap", "--probe", "sky")
    rows = run_by(newer, mixed.url, *probes, "--count", "2", "--wait-for-reply", "10")
    assert outcomes(rows, "ping") == {(node, "ok"): 3 for node in OURS + THEIRS}
    missing = {(node, "tool_missing"): 3 for node in OURS}
    assert outcomes(rows, "nap") == {**missing, **{(node, "ok"): 3 for node in THEIRS}}
    once = {(node, "tool_missing"): 1 for node in OURS} | {(node, "ok"): 1 for node in THEIRS}
    assert outcomes(rows, "sky") == once
    assert {row["target"] for row in rows if row["probe"] == "sky"} == {"sky"}
    for row in rows:
        if row["outcome"] == "tool_missing":
            assert row["error"] == too_old(row["source"], f"probe {row['probe']}")
    # Who does not know it either reads such a run, and proves its file.
    shown = cli(mixed.url, "show", "last")
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"(?m)^nap ms ", shown.stdout)
    assert re.search(r"(?m)^sky ms .*sky", shown.stdout)
    assert "28/28" in cli(mixed.url, "runs").stdout
    csv = str(tmp_path / "mesh.csv")
    assert cli(mixed.url, "collect", "--csv", csv).returncode == 0
    verified = cli(mixed.url, "verify", "last", "--csv", csv)
    assert verified.returncode == 0, verified.stderr


def test_older_nodes_leave_out_a_probe_of_which_an_option_is_asked_that_they_do_not_know(
    mixed: EmbeddedServer, newer: Other
) -> None:
    probes = ("--probe", "ping", "--probe", "redis", "--ttl", "5", "--count", "2")
    rows = run_by(newer, mixed.url, *probes, "--wait-for-reply", "10")
    missing = {(node, "tool_missing"): 3 for node in OURS}
    assert outcomes(rows, "ping") == {**missing, **{(node, "ok"): 3 for node in THEIRS}}
    assert outcomes(rows, "redis") == {(node, "ok"): 1 for node in OURS + THEIRS}
    errors = {row["error"] for row in rows if row["outcome"] != "ok"}
    assert errors == {too_old(node, "option ttl of ping") for node in OURS}


def test_far_end_that_does_not_know_a_probe_says_so(mixed: EmbeddedServer, newer: Other) -> None:
    pair = ("--nodes", "hub,cam-2", "--bytes", "1M", "--duration", "1", "-b", "20M")
    rows = run_by(newer, mixed.url, "--probe", "blast", *pair)
    assert outcomes(rows, "blast") == {("hub", "tool_missing"): 1, ("cam-2", "tool_missing"): 1}
    assert {row["error"] for row in rows} == {too_old("hub", "probe blast")}
    both = ("--nodes", "cam-2,cam-3", *pair[2:])
    rows = run_by(newer, mixed.url, "--probe", "blast", *both)
    assert outcomes(rows, "blast") == {("cam-2", "ok"): 1, ("cam-3", "ok"): 1}


def test_newer_nodes_measure_what_an_older_trigger_asks(mixed: EmbeddedServer) -> None:
    done = cli(mixed.url, "run", "--json", "--new", "--count", "2", "--wait-for-reply", "10")
    assert done.returncode == 0, done.stderr


def test_a_mesh_of_older_nodes_carries_a_run_of_what_it_does_not_know_to_its_end(
    redis_url: str, connection: redis.Redis, newer: Other, tmp_path: Path
) -> None:
    probes = ("nap", "ping", "sky", "blast")
    asked = [word for probe in probes for word in ("--probe", probe)]
    with workers(redis_url, connection, tmp_path, ["a", "b", "c"]):
        done = newer.cli(redis_url, "run", "--detach", *asked, "--bidir", "-W", "10")
        assert done.returncode == 0, done.stderr
        run = done.stdout.strip()
        assert recent(connection, 1) == [run]

        def state() -> run_record.Run:
            found = run_record.read(connection, run)
            assert found is not None
            return found

        wait_until(lambda: not state().is_open, "it has ended")
    assert state().status == "done"
    assert state().plan.probes == ("nap", "sky", "blast", "ping")
    assert state().done == {"ping": 6, "nap": 6, "sky": 3, "blast": 6}
    assert state().ok == {"ping": 6, "nap": 0, "sky": 0, "blast": 0}
