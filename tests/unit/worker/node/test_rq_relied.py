"""
What of RQ our replacements of its methods rely on is as it was when they were written.

Each method that `rq_worker`, `jobqueue` and `allowlist` replace is listed, and each that
these count on, with a digest of its source in every version of RQ that was read. When RQ changes
one, read what ours says of it, see that it still holds, and add the new digest.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from typing import Any

import pytest
import rq
from rq import Queue, Worker, executions, worker_registration
from rq.executions import Execution
from rq.job import Job

from worker.node.allowlist import AllowListedJob
from worker.node.jobqueue import GuardedQueue
from worker.node.rq_worker import QuietWorker

#: Name → digests of its source; RQ 3.0.0 first.
RELIED: dict[str, tuple[str, ...]] = {
    "Execution.create": ("64e3639e7030",),
    "Execution.delete": ("d521c121b05a",),
    "Execution.save": ("7e911ecb8d38",),
    "Job._execute": ("8ec6652af063",),
    "Job.delete": ("1aca20717b55",),
    "Job.fetch": ("f6f6cf92528c",),
    "Job.func": ("0856c0cda7b7",),
    "Job.perform": ("40c479fa9c12",),
    "Job.prepare_for_execution": ("7519f78a88a1",),
    "Job.refresh": ("03206792af36",),
    "Job.restore": ("9f6189ef9fd6",),
    "Job.to_dict": ("66b3f16e7624",),
    "Queue._fetch_dequeued_job": ("a4880a122e33",),
    "Queue.dequeue_any": ("822f5c47724c",),
    "Queue.from_queue_key": ("d8aad9da920e",),
    "Queue.lmove": ("21d4ea312dbd",),
    "Queue.lpop": ("0f6a28f3f8b0",),
    "Worker._finalize_failure": ("813d76bef3dd",),
    "Worker._finalize_success": ("e4966130a175",),
    "Worker.check_for_suspension": ("368e566d3ce4",),
    "Worker.clean_registries": ("5431ba1d789a",),
    "Worker.dequeue_job_and_maintain_ttl": ("b95c0f223b5c",),
    "Worker.execute_job": ("41dcbdeebf27",),
    "Worker.fork_work_horse": ("80159b8c6d41",),
    "Worker.get_heartbeat_ttl": ("3a4f202e78df",),
    "Worker.get_redis_server_version": ("f7bd688966bb",),
    "Worker.handle_exception": ("8a654afc371d",),
    "Worker.handle_execution_ended": ("ccf3cbf9a9b0",),
    "Worker.handle_job_failure": ("db35fd10df01",),
    "Worker.handle_job_success": ("907d40ada13d",),
    "Worker.handle_work_horse_killed": ("e60eb6432560",),
    "Worker.heartbeat": ("17d52b89e4ca",),
    "Worker.horse_pid": ("c6b51e85efef",),
    "Worker.kill_horse": ("9527a2f3e0b8",),
    "Worker.main_work_horse": ("2fc3e0fd5dad",),
    "Worker.maintain_heartbeats": ("080312e22f0e",),
    "Worker.monitor_work_horse": ("abebf6a2692b",),
    "Worker.perform_job": ("ebb10ecf39eb",),
    "Worker.prepare_execution": ("403a78c1d4c5",),
    "Worker.prepare_job_execution": ("f4c987dfd92e",),
    "Worker.queue_names": ("e2ab1904cc1a",),
    "Worker.register_birth": ("e1d2093da924",),
    "Worker.run_maintenance_tasks": ("c3fd4372f8a1",),
    "Worker.serialize": ("aee9c3ed47dd",),
    "Worker.set_state": ("edf08978beed",),
    "Worker.should_run_maintenance_tasks": ("058be5576a8c",),
    "Worker.subscribe": ("8e91c33acaf2",),
    "Worker.unsubscribe": ("00e8a977ddfc",),
    "Worker.wait_for_horse": ("a1d24eb96a29",),
    "Worker.work": ("074d958f21df",),
    "executions.prepare_execution": ("22b5e2a578fd",),
    "worker_registration.register": ("9e63e372db47",),
}
OWNERS: dict[str, Any] = {
    "Worker": Worker,
    "Execution": Execution,
    "executions": executions,
    "Queue": Queue,
    "Job": Job,
    "worker_registration": worker_registration,
}
#: Ours → RQ's.
REPLACED = {QuietWorker: "Worker", GuardedQueue: "Queue", AllowListedJob: "Job"}


def source(name: str) -> str:
    """Read a function of RQ, without what is said of it only."""
    owner, _, member = name.partition(".")
    found = inspect.getattr_static(OWNERS[owner], member)
    function = getattr(found, "fget", None) or getattr(found, "__func__", found)
    text = textwrap.dedent(inspect.getsource(function))
    lines = [line.strip() for line in text.splitlines()]
    (definition,) = ast.parse(text).body
    assert isinstance(definition, ast.FunctionDef)
    first = definition.body[0]
    if ast.get_docstring(definition) is not None and first.end_lineno is not None:
        del lines[first.lineno - 1 : first.end_lineno]
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def digest(name: str) -> str:
    return hashlib.sha256(source(name).encode()).hexdigest()[:12]


@pytest.mark.parametrize("name", RELIED)
def test_rq_does_what_ours_relies_on(name: str) -> None:
    assert digest(name) in RELIED[name], (
        f"RQ {rq.VERSION} has changed {name}: read what ours relies on, then add {digest(name)!r}"
    )


@pytest.mark.parametrize("ours", REPLACED)
def test_every_method_of_rq_that_is_replaced_is_listed(ours: type) -> None:
    theirs = OWNERS[REPLACED[ours]]
    replaced = {
        f"{REPLACED[ours]}.{name}"
        for name, member in vars(ours).items()
        if hasattr(theirs, name) and (callable(member) or hasattr(member, "__get__"))
    }
    assert {name for name in replaced if "__" not in name} <= set(RELIED)


@pytest.mark.parametrize("ours", REPLACED)
def test_ours_can_be_called_as_rqs_are(ours: type) -> None:
    theirs = OWNERS[REPLACED[ours]]
    for name, member in vars(ours).items():
        if "__" in name or not callable(getattr(ours, name)) or not hasattr(theirs, name):
            continue
        wanted = inspect.signature(getattr(theirs, name)).parameters
        have = inspect.signature(getattr(ours, name)).parameters
        takes_all = any(one.kind is one.VAR_POSITIONAL for one in have.values())
        assert takes_all or list(have) == list(wanted), f"{name}: {member}"
