"""What a worker shows: its parent sees it, whatever becomes of the worker."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from contextlib import nullcontext

from rq.job import Job

from worker.node.children import SIGN_S, Child
from worker.node.registration.signs import Signs


def child_of(signs: Signs, *, waits: bool = False) -> int:
    """Start a process that shows that it lives, and then stands still."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signs.show()
        with signs.waiting() if waits else nullcontext():
            os.write(writer, b"x")
            while True:
                signal.pause()
    os.read(reader, 1)
    return pid


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_sign_of_another_process_is_seen_for_as_long_as_it_holds() -> None:
    signs = Signs()
    assert not signs.shown_within(1e9)
    pid = child_of(signs)
    assert signs.shown_within(1e9)
    assert not signs.shown_within(0.0)
    assert signs.waits_since == math.inf
    end(pid)
    signs.begin()
    assert not signs.shown_within(1e9)


def test_process_that_is_killed_while_it_waits_leaves_no_lock() -> None:
    signs = Signs()
    end(child_of(signs, waits=True))
    assert signs.waits_since < math.inf
    signs.begin()
    assert signs.waits_since == math.inf
    with signs.waiting():
        assert signs.waits_since < math.inf
    assert signs.waits_since == math.inf


def test_worker_that_hangs_has_no_name_and_is_not_told_anything() -> None:
    child = Child(role="prober", node="a", redis_url="", queues=[], job_class=Job)
    assert child.worker_name() == ""
    child.process = multiprocessing.get_context("fork").Process(target=signal.pause)
    child.process.start()
    try:
        child.reconnect()  # before its first sign: the signal would end it
        child.signs.show()
        assert child.worker_name().startswith(f"ptzmesh-a-prober-{child.process.pid}-")
        child.signs._times[0] -= SIGN_S
        assert child.worker_name() == ""
        child.reconnect()
        assert child.process.is_alive()
    finally:
        child.process.kill()
        child.process.join()
