"""Each cause that leads to a finding of doctor has its own advice, as docs/doctor.md says."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from coordinator.checks import machine, mesh, server
from coordinator.checks.check import Area, Check, Status
from coordinator.checks.health import unreachable
from worker.model.version import WIRE_VERSION
from worker.probes.iperf3.tool import Iperf3
from worker.wire.clock_offset import ClockEstimate
from worker.wire.node_record import Node

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "doctor.md").read_text()
MIB = 1024 * 1024
FULL = {"used_memory": 90 * MIB, "maxmemory": 100 * MIB, "total_system_memory": 1024 * MIB}
FAR = server.Exchange(rtt_ms=300.0, clock=ClockEstimate(offset_ms=5000.0, uncertainty_ms=1.0))
#: Causes that only a whole mesh, or a Redis, can have → the tests that have them.
ELSEWHERE = {
    ("rights", "commands are lacking, all keys are allowed"): (
        "integration/test_doctor_rights.py", "test_the_fix_of_rights_is_taken_by_redis_and_works"
    ),
    ("rights", "keys are lacking, all commands are allowed"): (
        "integration/test_doctor_rights.py", "test_the_fix_of_rights_is_taken_by_redis_and_works"
    ),
    ("state folder", "a disk that is full"): (
        "integration/test_doctor_machine.py",
        "test_a_state_folder_on_a_disk_that_is_full_or_read_only_says_which",
    ),
    ("state folder", "a disk that is read-only"): (
        "integration/test_doctor_machine.py",
        "test_a_state_folder_on_a_disk_that_is_full_or_read_only_says_which",
    ),
    ("limit", "the stream is full, no collector"): (
        "integration/test_doctor.py", "test_a_full_stream_fails_with_the_command_that_makes_room"
    ),
    ("limit", "Redis' memory is short"): (
        "integration/test_doctor.py", "test_redis_that_is_nearly_full_fails_with_what_is_held_back"
    ),
    ("iperf3", "none on the worker's PATH"): (
        "integration/test_doctor_machine.py",
        "test_a_worker_that_does_not_know_the_iperf3_on_this_path_has_another_path",
    ),
    ("iperf3", "it does not start"): (
        "integration/test_iperf3_found.py", "test_doctor_and_the_node_say_why"
    ),
    ("iperf3", "too old, or a version whose server may hang"): (
        "integration/test_doctor_machine.py", "test_the_version_of_iperf3_on_path_is_judged"
    ),
    ("workers", "a process ended, or hangs"): (
        "integration/test_doctor.py", "test_a_node_without_its_workers_fails"
    ),
    ("runs", "nobody carries it on"): ("integration/test_doctor.py", "test_an_overdue_run_fails"),
    ("refused jobs", "a stranger, another version, or data that Redis lost"): (
        "integration/test_doctor.py",
        "test_refused_jobs_are_sorted_by_what_can_have_brought_them_about",
    ),
    ("collector", "none"): (
        "integration/test_doctor.py", "test_uncollected_results_are_told_with_their_age"
    ),
    ("collector", "behind, or gone for good"): (
        "integration/test_doctor.py",
        "test_a_dead_collector_fails_and_is_dropped_by_what_it_says",
    ),
    ("node", "one is stopped"): (
        "integration/test_doctor_health.py",
        "test_between_a_node_that_is_gone_says_what_brings_it_back",
    ),
    ("node", "one is silent"): (
        "integration/test_doctor_health.py",
        "test_between_a_node_that_is_gone_says_what_brings_it_back",
    ),
    ("limit", "many runs at once, or many nodes"): (
        "integration/test_doctor.py", "test_a_limit_of_commands_is_no_matter_of_the_stream"
    ),
}  # fmt: skip
LAB, ADVICE = "lab/test_doctor.py", "unit/coordinator/checks/network/test_advice.py"
#: What is found between two nodes: the causes, by the tests that have them.
BETWEEN = {
    "B's firewall drops the ports, or says «prohibited»": (
        LAB, "test_a_range_that_is_prohibited_is_no_matter_of_routes"
    ),
    "B's firewall drops some of the ports": (LAB, "test_a_range_that_is_half_open_is_found"),
    "a firewall of A, of B or between rejects the ports": (
        LAB, "test_a_firewall_of_the_source_is_named_beside_that_of_the_target"
    ),
    "B's firewall drops echoes": (LAB, "test_dropped_echoes_fail_and_the_rest_is_tried"),
    "echoes are lost, a full link or a weak radio": (ADVICE, "test_lost_echoes_are_no_firewall"),
    "a wrong address, no route, a VPN that is down": (
        LAB, "test_a_way_that_passes_nothing_is_a_matter_of_routes_and_addresses"
    ),
    "the way swallows large packets": ("lab/test_path_mtu.py", "test_each_advice_of_doctor_helps"),
    "A may not ping": (LAB, "test_what_nodes_lack_themselves_is_no_matter_of_the_way"),
    "iperf3 is missing or does not start": (
        ADVICE, "test_tool_that_does_not_start_has_its_own_advice"
    ),
    "iperf3 fails on B: no room in its temporary folder": (
        ADVICE, "test_advice_of_the_far_end_about_itself_is_passed_on"
    ),
    "B's responder or Redis does not answer": (
        ADVICE, "test_time_out_is_told_apart_by_how_far_the_test_came"
    ),
    "both nodes only connect": (LAB, "test_what_nodes_lack_themselves_is_no_matter_of_the_way"),
    "a node's own limits, or another test": (
        ADVICE, "test_every_outcome_has_an_advice_and_only_the_way_itself_opens_ports"
    ),
}  # fmt: skip


def node(name: str, clock_ms: float | None = None, version: str = "1.0.0", **of: Any) -> Node:
    fields: dict[str, Any] = {"seen_s": 1.0, **of}
    return Node(
        name=name, address="10.0.0.1", labels={}, version=version, icmp="raw", iperf3="3.12",
        accepts=True, links={}, bytes_per_day=None, clock_offset_ms=clock_ms,
        clock_offset_uncertainty_ms=1.0, wire=WIRE_VERSION, **fields,
    )  # fmt: skip


def outbox(own: Node | None, *, has_redis: bool = True, of: str = "a") -> Check:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, f"{of}.outbox").write_bytes(b"x" * 5000)
        return machine.outbox(Path(folder), "a", own, wanted=True, has_redis=has_redis)


def folder_of(owner: int) -> Check:
    """Judge a folder that another user may not write, as that user."""
    with tempfile.TemporaryDirectory() as parent:
        there = Path(parent) if owner == os.geteuid() else Path(parent, "state")
        there.mkdir(exist_ok=True)
        os.chown(there, owner, owner)
        # (root may write everywhere, so the problem is said.)
        fix = machine._fix_of_folder(Path(parent, "state"), there, os.strerror(errno.EACCES))
    return Check(area=Area.MACHINE, name="state folder", status=Status.FAIL, message="x", fix=fix)


DEAD = {"seen_s": 99.0}


def own(found: Node | None, *, is_here: bool = True) -> Check:
    return mesh.own_node(found, "a", is_here=is_here, asked=True)


def clock(*others_ms: float) -> Check:
    others = [node(str(place), ms) for place, ms in enumerate(others_ms)]
    return machine.clock(FAR, others, wanted=True)


CASES: dict[tuple[str, str], Callable[[], Check]] = {
    ("reachable", "a slow path, or a slow Redis"): lambda: server.reachable("redis://hub", FAR),
    ("version", "a replica"): lambda: server.version({"redis_version": "7.2.0", "role": "slave"}),
    ("version", "an old server"): lambda: server.version({"redis_version": "6.0.1"}),
    ("memory", "full, and its machine has more"): lambda: server.memory(FULL, 80),
    ("memory", "full, and its machine has no more"): lambda: server.memory(
        {**FULL, "total_system_memory": 128 * MIB}, 80
    ),
    ("memory", "the limit was set low"): lambda: server.memory(
        {**FULL, "used_memory": 30 * MIB}, 20
    ),
    ("eviction", "a policy that evicts"): lambda: server.eviction(
        {"maxmemory_policy": "volatile-lru"}
    ),
    ("persistence", "appending failed: no room, no right"): lambda: server.persistence(
        {"aof_enabled": 1, "aof_last_write_status": "err"}, ""
    ),
    ("persistence", "a snapshot failed, perhaps for want of memory"): lambda: server.persistence(
        {"rdb_last_bgsave_status": "err"}, "3600 1"
    ),
    ("persistence", "nothing is kept, or snapshots only"): lambda: server.persistence({}, ""),
    ("clock", "this clock"): lambda: clock(0.0, 10.0),
    ("clock", "the clock of Redis' host: nodes differ alike"): lambda: clock(5010.0),
    ("clock", "either: no other node says"): clock,
    ("state folder", "it is another user's, perhaps the worker's"): lambda: folder_of(65534),
    ("state folder", "this user has no right to make it"): lambda: folder_of(os.geteuid()),
    ("outbox", "Redis does not answer"): lambda: outbox(None, has_redis=False),
    ("outbox", "no worker runs"): lambda: outbox(node("a", **DEAD)),
    ("outbox", "no room in Redis, or a right is lacking"): lambda: outbox(node("a")),
    ("outbox", "a worker of another name left them"): lambda: outbox(node("a"), of="b"),
    ("own heartbeat", "never started"): lambda: own(None, is_here=False),
    ("own heartbeat", "started, and heard by another Redis or database"): lambda: own(None),
    ("own heartbeat", "stopped"): lambda: own(node("a", **DEAD, stopped=True)),
    ("own heartbeat", "ended, or cut off"): lambda: own(node("a", **DEAD)),
    ("nodes", "none was started, or they use another Redis"): lambda: mesh.silent([]),
    ("nodes", "one ended, or is cut off"): lambda: mesh.silent([node("a", **DEAD), node("b")]),
    ("clocks", "the clock of one of several nodes"): lambda: mesh.clocks(
        [node("a", 0.0), node("b", 9000.0)]
    ),
    ("clocks", "the clock of Redis' host: nodes differ alike"): lambda: mesh.clocks(
        [node("a", 9001.0), node("b", 9000.0)]
    ),
    ("clocks", "either: one node alone says"): lambda: mesh.clocks([node("a", 9000.0)]),
    ("versions", "some nodes have another"): lambda: mesh.versions(
        [node("a"), node("b", version="0.9.0")], "1.0.0"
    ),
    ("versions", "only here it is another"): lambda: mesh.versions([node("a")], "0.9.0"),
    ("addresses", "two nodes say that they have the same"): lambda: mesh.addresses(
        [node("a"), node("b")]
    ),
    ("outboxes", "no room in Redis, or a right is lacking"): lambda: mesh.outboxes(
        [node("a", outbox_bytes=5000)]
    ),
    ("iperf3", "the worker's PATH has an old one, this shell's a newer"): lambda: (
        machine._iperf3_of_worker(
            replace(node("a"), iperf3="3.1"), Iperf3("/opt/bin/iperf3", "3.12", (3, 12))
        )
    ),
    ("icmp", "no right to ping"): lambda: machine.icmp(
        replace(node("a"), icmp="none"), wanted=True
    ),
    ("scripts", "no Lua module, or a proxy before Redis"): lambda: server.not_looked(
        Area.REDIS, "scripts", redis.ResponseError("unknown command 'EVALSHA'"), "redis://hub"
    ),
    ("any", "something of another program under our names"): lambda: server.not_looked(
        Area.MESH,
        "runs",
        redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        "redis://hub",
    ),
}

#: What redis-py says of a connection that fails, by its cause; tests/integration has them of Redis.
CERTIFICATE = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {} (_ssl.c:1006)."
SAID = {
    "a wrong password, or a user that is off": (
        "WRONGPASS invalid username-password pair or user is disabled."
    ),
    "no password": "Authentication required.",
    "it answers its own machine only": "DENIED Redis is running in protected mode because …",
    "too many clients": "max number of clients reached",
    "it loads its data": "Redis is loading the dataset in memory",
    "no database of that number": "DB index is out of range",
    "a name that does not resolve": "Error -2 connecting to hub:6379. Name or service not known.",
    "nothing listens, or a firewall refuses": (
        "Error 111 connecting to hub:6379. Connection refused."
    ),
    "no route, or a VPN that is down": "Error 113 connecting to hub:6379. No route to host.",
    "a firewall that drops": "Timeout connecting to server",
    "a rule of this machine forbids it": (
        "Error 1 connecting to hub:6379. Operation not permitted."
    ),
    "a certificate that has expired, or this clock": CERTIFICATE.format("certificate has expired"),
    "a certificate that is too young for this clock": CERTIFICATE.format(
        "certificate is not yet valid"
    ),
    "a certificate of another host": CERTIFICATE.format(
        "IP address mismatch, certificate is not valid for '10.0.0.1'."
    ),
    "a certificate of an unknown authority": CERTIFICATE.format(
        "unable to get local issuer certificate"
    ),
}
CASES |= {
    ("reachable", cause): partial(unreachable, redis.ConnectionError(said), "rediss://hub:6379")
    for cause, said in SAID.items()
}


def table(head: str) -> list[list[str]]:
    """Return the rows of a table of the page, each as its cells."""
    found = re.search(rf"{re.escape(head)}\n[|-]+\n((?:\|.*\n)+)", PAGE)
    assert found, f"no table {head}"
    return [[cell.strip() for cell in row[1:-1].split("|")] for row in found[1].splitlines()]


def causes(status: str) -> list[tuple[tuple[str, str], str]]:
    """Return (check, cause) and advice; an empty first cell is the check above it."""
    rows, checks = [], ["any"]
    for check, cell, advice in table(f"| {status}s | cause | advice |"):
        checks = re.findall(r"`([a-z0-9 ]+)`", check) or ([check] if check else checks)
        rows += [((one, cause), advice) for one in checks for cause in cell.split("; ")]
    return rows


ADVICES = {status: dict(causes(status)) for status in ("fail", "warn")}


def test_table_of_causes_has_just_those_that_are_tested() -> None:
    assert sorted({**ADVICES["fail"], **ADVICES["warn"]}) == sorted([*CASES, *ELSEWHERE])
    assert all(len(advices) == len(causes(status)) for status, advices in ADVICES.items())
    between = [row[0] for row in table("| cause | `ping` | `tcp` | `iperf3` | advice |")]
    assert sorted(between) == sorted(BETWEEN)


@pytest.mark.parametrize(("path", "test"), sorted({*ELSEWHERE.values(), *BETWEEN.values()}))
def test_cause_that_is_tested_elsewhere_is(path: str, test: str) -> None:
    assert f"def {test}(" in (ROOT / "tests" / path).read_text()


@pytest.mark.parametrize("case", CASES, ids=" - ".join)
def test_cause_has_the_advice_that_the_table_says(case: tuple[str, str]) -> None:
    if case == ("state folder", "it is another user's, perhaps the worker's") and os.geteuid():
        pytest.skip("giving a folder away needs root")
    found = CASES[case]()
    assert ADVICES[found.status.value][case].strip("`") in found.fix, found


def test_maxmemory_that_is_advised_is_what_the_machine_has() -> None:
    """Beyond that the kernel ends Redis, and with it the lockers of all."""
    small = {**FULL, "total_system_memory": 128 * MIB}
    assert "CONFIG SET" not in server.memory(small, 80).fix
    assert "128 MiB" in server.memory(small, 80).fix
    assert "CONFIG SET" not in server.memory({**FULL, "total_system_memory": 0}, 80).fix
    high = server.memory({**FULL, "used_memory": 99 * MIB}, 95)
    assert "--redis-memory-pct" not in high.fix


def test_results_that_wait_for_redis_name_no_collector_while_it_is_away() -> None:
    assert "collect" not in outbox(None, has_redis=False).fix


def test_a_node_that_says_no_clock_is_not_counted() -> None:
    others = [replace(node("b", 0.0), seen_s=99.0), node("c")]
    assert machine.clock(FAR, others, wanted=True).fix.startswith("here, or on the host of Redis")
