"""Commands that only look import what they need; the rest would be half of the time they take."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest
import redis
from programs import environment_of

from coordinator.runs.advance import cancel
from coordinator.runs.starting import start
from integration.rows import beat, plan
from worker.wire import keyspace
from worker.wire.node_record import Node

pytestmark = pytest.mark.redis

#: What a command has no need of → who has.
NOT_FOR_LOOKING = {
    "rq": "who executes jobs",
    "multiprocessing": "who starts processes",
    "ctypes": "who asks the kernel: the echo engine, a child's end",
    "tomllib": "who has a settings file",
    "email.parser": "who looks up the version of a package",
    "rich.table": "whose table is too wide for the console, or has no columns of ours",
    "statistics": "`ptzmesh test`, and the redis probe",
    "difflib": "who has misspelled a command",
    "getpass": "who triggers a run, and is named in it",
    "rich.live": "who follows a run",
    "coordinator.mesh": "who triggers or follows",
    "coordinator.collect": "who writes a CSV",
    "coordinator.series": "`ptzmesh test`",
    "coordinator.runs.advance": "who carries runs on",
    "worker.identity": "who judges whose an address is",
    "worker.node": "a node",
    "worker.transfer": "a node",
    "worker.probes.icmp": "a node",
    "worker.probes.iperf3": "a node",
    "worker.publish": "who has results",
}
#: And those that do not look at a run.
OF_A_RUN = {
    "worker.model.plan": "who reads a run",
    "worker.model.measurement": "who reads results",
    "worker.wire.run_record": "who reads a run",
}
#: What carries runs on, or measures.
OF_RUNNING = {
    "rq", "coordinator.mesh", "coordinator.runs.advance", "worker.identity", "worker.node",
    "worker.transfer", "worker.probes.icmp", "worker.probes.iperf3", "worker.publish",
}  # fmt: skip
#: What executes jobs; to enqueue one takes none of it.
OF_EXECUTING = {"rq", "multiprocessing", "worker.node"}
#: As the installed script does it.
SCRIPT = """
import sys
from coordinator.cli import main
try:
    main()
finally:
    import gc
    print(gc.isenabled() and gc.get_freeze_count(), *sys.modules, file=sys.stderr)
"""


def told_by(url: str, *command: str) -> tuple[str, int, set[str]]:
    """
    Run a command; give what it printed, and what it imported.

    Also how many objects the collector leaves alone while it is on; 0 while it is off.
    """
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command],
        env=environment_of(url), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:1000]
    count, *modules = done.stderr.splitlines()[-1].split()
    return done.stdout, 0 if count == "False" else int(count), set(modules)


@pytest.fixture
def filled_url(redis_url: str, connection: redis.Redis) -> str:
    """A Redis with two nodes, and with a run that has results."""
    beat(connection, "n0", "n1")
    for node in (Node(name="n0", address="127.0.0.1"), Node(name="n1", address="127.0.0.2")):
        connection.hset(keyspace.node_key(node.name), mapping=node.to_fields())
    cancel(connection, start(connection, plan())[0])
    return redis_url


@pytest.mark.parametrize(
    ("command", "shown"), [("nodes", "n0"), ("runs", "cancelled"), ("show", "cancel")]
)
def test_who_looks_imports_only_what_is_needed(filled_url: str, command: str, shown: str) -> None:
    printed, untouched, modules = told_by(filled_url, command)
    assert shown in printed
    needless = NOT_FOR_LOOKING | (OF_A_RUN if command == "nodes" else {})
    assert {name: needless[name] for name in needless.keys() & modules} == {}
    # The collector never looks at modules: neither as they come nor as the process ends.
    assert untouched > 10_000


@pytest.mark.parametrize("command", ["collect --csv -", "results", "events", "limits"])
def test_who_reads_imports_nothing_of_those_who_run(filled_url: str, command: str) -> None:
    _, _, modules = told_by(filled_url, *command.split())
    assert {name: NOT_FOR_LOOKING[name] for name in OF_RUNNING & modules} == {}


def test_help_of_all_imports_no_command_and_nothing_that_they_stand_on(redis_url: str) -> None:
    printed, _, modules = told_by(redis_url, "--help")
    assert "Usage: ptzmesh" in printed
    assert modules & {"redis", "rich", "msgpack", "coordinator.cli.nodes", "worker.wire"} == set()


def test_what_must_not_be_imported_is_there_to_be_imported() -> None:
    for name in (NOT_FOR_LOOKING | OF_A_RUN).keys() - {"tomllib"}:  # of Python 3.11
        assert find_spec(name) is not None, name


@pytest.mark.parametrize("command", ["run --detach", "show --follow"])
def test_who_triggers_or_carries_on_imports_nothing_of_who_executes(
    filled_url: str, command: str
) -> None:
    _, _, modules = told_by(filled_url, *command.split())
    assert {"coordinator.mesh", "coordinator.runs.advance"} <= modules
    assert {name: NOT_FOR_LOOKING[name] for name in OF_EXECUTING & modules} == {}


def test_who_triggers_imports_what_shows_a_run_once_it_is_started(filled_url: str) -> None:
    _, _, modules = told_by(filled_url, "run", "--detach")
    assert modules & {"rich", "coordinator.cli.view.watch", "worker.probes.traffic"} == set()
