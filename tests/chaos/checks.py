"""What must hold after any faults, once all that was taken away is back."""

from __future__ import annotations

import csv
import time
from collections import Counter
from collections.abc import Collection
from itertools import product
from typing import Any, cast

from waiting import wait_until

from chaos.mesh import ChaosMesh
from coordinator.collect.verify import verify
from coordinator.results.results import read
from coordinator.results.stream import START, last_id
from worker.model.measurement import Outcome
from worker.model.names import REDIS_TARGET
from worker.transfer.leases import LEASE_TTL_S
from worker.wire import keyspace, liveness
from worker.wire.keyspace import lease_key

#: Silence of a node, a look at the run, and one more of each for a run of two phases: 150 s.
ENDED_S = 300.0
#: A node is back when its present attempt at a silent Redis is over and a heartbeat is due: 60 s.
BACK_S = 180.0
#: Who was heard so lately stays alive until the next run has begun.
HEARD_S = liveness.ALIVE_S - liveness.HEARTBEAT_S
#: A command that follows a run ends with it, or with Redis.
COMMAND_S = 60.0
#: What a command may say: done, settings (a run that is gone), Redis, or pairs without result.
CODES = {0, 2, 3, 4}

Key = tuple[str, str, str, str]


def assert_whole(mesh: ChaosMesh, *, must_be_ok: Collection[str] = ()) -> Counter[str]:
    """
    See that everything ends whole; give the outcomes of all rows.

    Args:
        mesh: With nothing wrong any more.
        must_be_ok: Probes of which every row must have a result.
    """
    names = [node.name for node in mesh.nodes]
    heard = mesh.tended(lambda: all(mesh.is_heard(name, HEARD_S) for name in names))
    wait_until(heard, f"{names} are heard again", BACK_S)
    wait_until(mesh.tended(lambda: commands_ended(mesh)), "every command ends", COMMAND_S + ENDED_S)
    assert_works(mesh)
    mesh.note_runs(mesh.connection)
    runs = sorted(mesh.known_runs - mesh.gone_runs)
    wait_until(
        mesh.tended(lambda: not any(mesh.state(run).is_open for run in runs)),
        f"runs {runs} have ended",
        ENDED_S,
    )
    wait_until(
        mesh.tended(lambda: not any(map(mesh.outbox_bytes, names))), "outboxes are empty", BACK_S
    )
    wait_until(mesh.tended(lambda: has_all(mesh)), "the collector has the whole stream", BACK_S)
    assert_commands_said_why(mesh)
    outcomes = assert_rows_once(mesh, runs, must_be_ok)
    assert_redis_is_tidy(mesh, runs)
    mesh.lockers.assert_untouched()
    mesh.lockers.assert_work()
    assert_all_stops(mesh)
    return outcomes


def assert_works(mesh: ChaosMesh) -> None:
    """See that a new run of all nodes gets all its results."""
    said = mesh.cli(mesh.desk, "run", "--json", "--new", "--count", "3")
    assert said.code == 0, (said.lines, said.err)
    assert len(said.rows) == len(mesh.nodes) * (len(mesh.nodes) - 1), said.err


def commands_ended(mesh: ChaosMesh) -> bool:
    """Tell whether every command that started a run has ended."""
    return all(one.process.poll() is not None for one in mesh.triggers)


def has_all(mesh: ChaosMesh) -> bool:
    """Tell whether the collector has told Redis that it has the newest entry."""
    group = mesh.group()
    newest = last_id(mesh.connection)
    return newest == START or (group is not None and group["last-delivered-id"].decode() == newest)


def assert_commands_said_why(mesh: ChaosMesh) -> None:
    """See that a command that was not killed ended with a code that says what happened."""
    for one in mesh.triggers:
        code = one.process.poll()
        said = one.file.read_text()
        if not one.was_killed:
            assert code in CODES, (code, said)
        assert "Traceback" not in said, said


def assert_rows_once(
    mesh: ChaosMesh, runs: Collection[str], must_be_ok: Collection[str]
) -> Counter[str]:
    """See that stream and file have each pair exactly once, with numbers that can be."""
    with mesh.csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = Counter(map(_key, rows))
    assert max(found.values(), default=1) == 1, [key for key, n in found.items() if n > 1]
    planned: set[Key] = set()
    for run in runs:
        pairs = _pairs(mesh, run)
        planned |= pairs
        in_stream = Counter(
            (m.run, m.probe, m.source, m.target) for _, m in read(mesh.connection, run=run)
        )
        assert in_stream == Counter(pairs), f"the stream and the plan of {run} differ"
        assert verify(mesh.connection, run, mesh.csv).agrees, run
        assert_counts(mesh, run)
    in_file = {key for key in found if key[0] not in mesh.gone_runs}
    assert in_file == planned, in_file ^ planned
    for row in rows:
        assert_sane(row)
        if row["probe"] in must_be_ok:
            assert row["outcome"] == "ok", row
    return Counter(row["outcome"] for row in rows)


def _key(row: dict[str, str]) -> Key:
    return row["run_id"], row["probe"], row["source"], row["target"]


def _pairs(mesh: ChaosMesh, run: str) -> set[Key]:
    """Give what a run's plan asks for, without the plan's own arithmetic."""
    plan = mesh.state(run).plan
    names = [node.name for node in plan.nodes]
    chosen = set(product((names[i] for i in plan.sources), (names[i] for i in plan.targets)))
    keys = set()
    for probe in plan.probes:
        if probe == "redis":
            keys |= {(run, probe, names[i], REDIS_TARGET) for i in plan.sources}
        else:
            keys |= {(run, probe, s, t) for s, t in chosen if s != t}
    return keys


def assert_counts(mesh: ChaosMesh, run: str) -> None:
    """See that a run's record, its bitmaps and its stream entries say the same."""
    state = mesh.state(run)
    assert state.status == "done"
    assert state.closed is not None
    ok = Counter(m.probe for _, m in read(mesh.connection, run=run) if m.outcome is Outcome.OK)
    for probe in state.plan.probes:
        count = state.plan.count(probe)
        assert state.done[probe] == count
        assert mesh.connection.bitcount(keyspace.done_key(run, probe)) == count
        assert state.ok[probe] == ok[probe]


def assert_sane(row: dict[str, str]) -> None:
    """See that a row is whole, and that no clock that was set is in its numbers."""
    assert None not in row.values(), row
    assert row["outcome"] in {one.value for one in Outcome}, row
    assert (row["outcome"] == "ok") == (not row["error"]), row
    for name, text in row.items():
        if text and name.endswith(("_ms", "_pct", "_mbps", "_s")) and name != "clock_offset_ms":
            assert 0 <= float(text) < 600_000, (name, row)
    if row["probe"] == "ping" and row["rtt_max_ms"]:
        assert float(row["rtt_max_ms"]) <= 1000 * float(row["wait_s"]), row
    if row["packet_loss_pct"]:
        assert float(row["packet_loss_pct"]) <= 100, row


def assert_redis_is_tidy(mesh: ChaosMesh, runs: Collection[str]) -> None:
    """See that nothing is held, nothing waits, and every key is ours, RQ's or a locker."""
    connection = mesh.connection
    wait_until(
        lambda: not list(connection.scan_iter(lease_key("*"))), "leases free", LEASE_TTL_S + 30
    )
    assert connection.zcard(keyspace.RUNS_OPEN) == 0
    group = mesh.group()
    if group is not None:
        assert group["pending"] == 0
        assert group.get("lag") in (0, None), group
        assert len(cast("list[Any]", connection.xinfo_groups(keyspace.RESULTS))) == 1
    for node in mesh.nodes:
        for queue in (keyspace.node_queue(node.name), keyspace.serve_queue(node.name)):
            jobs = f"no job waits for {queue}"
            wait_until(lambda q=queue: not connection.llen(keyspace.queue_key(q)), jobs)  # type: ignore[misc]  # mypy knows no default of a lambda
    ours = ("ptzmesh:", "rq:")
    keys = {key.decode() for key in connection.scan_iter("*", count=1000)}
    assert {key for key in keys if not key.startswith(ours)} == set(mesh.lockers.keys())


def assert_all_stops(mesh: ChaosMesh) -> None:
    """See that workers and collector end in order when asked, and leave no process behind."""
    begun = time.monotonic()
    codes = mesh.stop()
    assert set(codes.values()) == {0}, (codes, time.monotonic() - begun)
    # A child whose parent is gone ends by itself, a moment later.
    wait_until(lambda: not mesh.left_over(), "no process is left")
