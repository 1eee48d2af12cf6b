"""Results that a worker of another name has left on the disk are sent, once, and to their mesh."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from waiting import wait_until

from coordinator.runs.runs import of_run
from coordinator.runs.starting import start
from integration.nodes import cli, workers
from worker.model.measurement import Outcome
from worker.model.plan import Plan, PlannedNode
from worker.node.registration.leftovers import Leftovers
from worker.publish.outbox import Letter, Outbox, left_in, outbox_path
from worker.wire.rows import Row

pytestmark = pytest.mark.redis

NODES = tuple(PlannedNode(name=name, address="127.0.0.1") for name in ("old", "other"))
PLAN = Plan(nodes=NODES, sources=(0, 1), targets=(0, 1))
HOLD = """
import sys
from pathlib import Path
from worker.node.registration.state_folder import hold
file = hold(Path(sys.argv[1]), "old")
print("held", flush=True)
sys.stdin.read()
"""


def leave(folder: Path, run: str, pair: tuple[int, int] = (0, 1)) -> None:
    """Leave a result of a node in a folder, as one does whose Redis was away when it ended."""
    row = Row(run=run, plan=PLAN, phase=0, performer=pair[0])
    found = row.finding(pair, Outcome.NO_REPLY, "left")
    Outbox(outbox_path(folder, found.source)).keep([Letter(PLAN.bit(*pair), found)])


def sources(connection: redis.Redis, run: str) -> list[tuple[str, str | None]]:
    found = [one for _, one in of_run(connection, run)]
    return [(one.source, one.error) for one in found if one.source == "old"]


def test_a_worker_that_was_renamed_sends_what_it_left_under_the_name_that_measured(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    run, _ = start(connection, PLAN)
    leave(state, run)
    said = cli(redis_url, "doctor", "--json", "--name", "new", "--state-dir", str(state))
    checks = {one["check"]: one for one in map(json.loads, said.stdout.splitlines())}
    assert checks["outbox"]["status"] == "warn"
    assert "results of other names wait here: old" in checks["outbox"]["message"]
    with workers(redis_url, connection, tmp_path, ["new"], ["-v"]):
        wait_until(lambda: bool(sources(connection, run)), "they are in the stream")
        wait_until(lambda: left_in(state) == {}, "and no longer on the disk")
    assert sources(connection, run) == [("old", "left")]
    assert "node old left" in (tmp_path / "new.log").read_text()


def test_what_cannot_be_read_ends_no_worker_and_holds_up_nobody(
    connection: redis.Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, _ = start(connection, PLAN)
    outbox_path(tmp_path, "far").mkdir()  # root may read whatever else is another user's
    leave(tmp_path, run)
    left = Leftovers(tmp_path, "new")
    left.resend(connection)
    assert sources(connection, run) == [("old", "left")]
    left.resend(connection)
    assert caplog.text.count("results that node far left are not sent") == 1


def test_what_cannot_be_taken_from_the_disk_holds_up_nobody(
    connection: redis.Redis, tmp_path: Path
) -> None:
    run, _ = start(connection, PLAN)
    for pair in ((0, 1), (1, 0)):
        leave(tmp_path, run, pair)
    (tmp_path / "old.new").mkdir()  # such as one of root's, where this user is another
    left = Leftovers(tmp_path, "new")
    for _ in range(3):
        left.resend(connection)
    assert [one.source for _, one in of_run(connection, run)] == ["old", "other"]
    assert list(left_in(tmp_path)) == ["old"]


def test_what_a_live_worker_has_is_left_to_it(connection: redis.Redis, tmp_path: Path) -> None:
    run, _ = start(connection, PLAN)
    argv = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as live:
        assert live.stdout
        assert live.stdout.readline() == b"held\n"
        leave(tmp_path, run)
        left = Leftovers(tmp_path, "new")
        assert left.resend(connection) == []
        assert list(left_in(tmp_path)) == ["old"]
        live.kill()
    left.resend(connection)
    assert left_in(tmp_path) == {}
    assert sources(connection, run) == [("old", "left")]


def test_results_of_another_mesh_stay_and_are_told_once(
    connection: redis.Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leave(tmp_path, "20260101T000000000-beef")
    left = Leftovers(tmp_path, "new")
    for _ in range(3):
        assert left.resend(connection) == []
    assert list(left_in(tmp_path)) == ["old"]
    assert [line.getMessage()[:27] for line in caplog.records] == ["results that node old left "]


def test_a_worker_of_a_name_waits_until_its_results_are_sent_by_another(tmp_path: Path) -> None:
    leave(tmp_path, "20260101T000000000-beef")
    argv = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sends:
        assert sends.stdout
        assert sends.stdout.readline() == b"held\n"
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as begins:
            sends.kill()
            assert begins.stdout
            assert begins.stdout.readline() == b"held\n"
            begins.kill()
