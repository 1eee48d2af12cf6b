"""
Many simulated nodes in one process, for bench_scale.py.

    PTZMESH_REDIS_URL=… python scale_fleet.py FOLDER FIRST COUNT

Starts the nodes FIRST to FIRST + COUNT - 1, prints a line when all are registered, and ends when
its standard input is closed. Real: the registration, heartbeat and outbox of `Supervisor`, its
connections, two RQ workers a node with the real job class and the real jobs, and all that these
send to Redis. Simulated:

- echoes: `echo_many` gives each series at the moment when the real engine would, made of random
  round-trip times (`_echoes`); what is made of them and published is real;
- processes: each node's three are threads here, and a job runs without a fork. Nodes of one process
  share its interpreter, so they publish slower than as many machines would, and no more than
  `AT_A_TIME` of them measure at once.
"""

from __future__ import annotations

import functools
import logging
import os
import random
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import redis
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.timeouts import TimerDeathPenalty

from coordinator.runs.advance import advance
from worker.identity.context import NodeContext
from worker.model.options import PingOptions
from worker.model.policy import Policy
from worker.node import sweep as jobs
from worker.node.allowlist import AllowList, allow_listed, by_fields
from worker.node.children import RQ_WORKER_TTL_S
from worker.node.registration import facts
from worker.node.registration.instance import Instance
from worker.node.rq_worker import QuietWorker
from worker.node.settings import NodeSettings
from worker.node.supervisor import Supervisor
from worker.probes import ping
from worker.probes.icmp.engine import MIN_GAP_NS
from worker.probes.icmp.series import EchoSeries
from worker.transfer.answer import Request
from worker.transfer.far import serve
from worker.wire import keyspace, liveness, rq_jobs
from worker.wire.connection import command_count, server, traffic
from worker.wire.rows import Row

#: Median round-trip times of pairs, milliseconds: from a LAN to a metered link.
NEAREST_MS, FARTHEST_MS = 0.2, 80.0
LOSS = 0.01
#: Each thread's; 8 MiB of address space for thousands of threads would be refused.
STACK_BYTES = 512 * 1024
#: Sweeps in one process; more would spend their time in waiting for the interpreter.
AT_A_TIME = 50
_sweeping = threading.BoundedSemaphore(AT_A_TIME)


def name_of(number: int) -> str:
    """Give a node's name."""
    return f"node-{number:04}"


def address_of(number: int) -> str:
    """
    Give a node's address; nothing is ever sent to it.

    It is of no private network: else nodes would ask each other in each run who they are, as those
    that have never had an answer do.
    """
    return f"198.18.{number // 250}.{number % 250 + 1}"


def main() -> None:
    url, folder = os.environ["PTZMESH_REDIS_URL"], Path(sys.argv[1])
    first, count = int(sys.argv[2]), int(sys.argv[3])
    logging.basicConfig(level=logging.ERROR)
    threading.stack_size(STACK_BYTES)
    # The same for all nodes here: what this machine has.
    facts.find_iperf3 = functools.cache(facts.find_iperf3)
    facts.icmp_capability = functools.cache(facts.icmp_capability)
    ping.echo_many = _echoes  # type: ignore[assignment]
    # Of a process, so of all nodes in it: each tells the mean.
    sent = command_count.commands_sent
    command_count.commands_sent = lambda: sent() // count
    # Threads here: each has its job, and connections come while others are looked at.
    rq_jobs.in_hand = cast("rq_jobs.InHand", InHand())
    traffic.look = lambda: None
    for number in range(first, first + count):
        _start_node(url, folder, number, (number - first) / count)
    print("ready", flush=True)
    sys.stdin.read()


def _start_node(url: str, folder: Path, number: int, share: float) -> None:
    name = name_of(number)
    settings = NodeSettings(
        name=name,
        redis_url=url,
        address=address_of(number),
        labels={"site": f"s{number % 20}"},
        state_dir=folder,
        version="0.1.0",
        policy=Policy(),
    )
    one = Supervisor(settings, lambda _: {})
    connection = server.connect(url)
    one.heartbeats.instance = Instance(token=secrets.token_hex(16), file="")
    one.record = one._describe(connection)
    one.heartbeats.register(connection, one.record)
    context = NodeContext(
        name=name,
        address=address_of(number),
        redis_url=url,
        outbox_path=one.outbox.path,
        policy=settings.policy,
        iperf3=one.facts.iperf3,
        should_stop=lambda: False,
    )
    allowed = allow_listed(_allow_list(context))
    queues = {
        "prober": [keyspace.node_queue(name)],
        "responder": [keyspace.serve_queue(name), keyspace.CONTROL_QUEUE],
    }
    # As those of a node's children, which give signs of life.
    one.heartbeats.workers = {
        role: functools.partial(str, f"ptzmesh-{name}-{role}") for role in queues
    }
    for role, names in queues.items():
        _thread(lambda role=role, names=names: _work(url, f"{name}-{role}", names, allowed))
    # Not in step: the first beat of each comes at a time of its own.
    _thread(lambda: _beat(one, connection, (1 + share) * liveness.HEARTBEAT_S))


def _thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


def _allow_list(context: NodeContext) -> AllowList:
    def carry_on(run: str) -> None:
        advance(server.connect(context.redis_url), run, patient=True)

    def sweep(run: str, phase: int, performer: int) -> None:
        with _sweeping:
            jobs.sweep(context, carry_on_after, run, phase, performer)

    def carry_on_after(connection: redis.Redis, row: Row) -> None:
        advance(connection, row.run, patient=True, row=row)

    return {
        keyspace.SWEEP: sweep,
        keyspace.SERVE: by_fields(Request, functools.partial(serve, context)),
        keyspace.ADVANCE: carry_on,
    }


class InHand(threading.local):
    """The job that a work-horse has in hand, of each thread."""

    connection: redis.Redis
    untold: Any = None
    trouble: redis.ResponseError | None = None


class InThread(SimpleWorker, QuietWorker):
    """The node's RQ worker, but in a thread: no fork a job, and no signals."""

    death_penalty_class = TimerDeathPenalty
    url = ""

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Have a connection for the job, as a work-horse has."""
        waiting, self.connection = self.connection, server.connect(self.url)
        hand = cast("InHand", rq_jobs.in_hand)
        hand.connection, hand.untold, hand.trouble = self.connection, None, None
        try:
            super().execute_job(job, queue)
        finally:
            self.connection.close()
            self.connection = waiting

    def _install_signal_handlers(self) -> None:
        """Signals belong to the process."""


def _work(url: str, name: str, queues: Sequence[str], job_class: Any) -> None:
    connection = server.connect(url, socket_timeout_s=RQ_WORKER_TTL_S)
    worker = InThread(
        list(queues),
        connection=connection,
        name=f"ptzmesh-{name}",
        serializer=rq_jobs.MsgpackSerializer,
        job_class=job_class,
        worker_ttl=RQ_WORKER_TTL_S,
        job_monitoring_interval=10,
    )
    worker.url = url
    worker.work(logging_level="ERROR")


def _beat(one: Supervisor, connection: redis.Redis, after_s: float) -> None:
    """Send the node's heartbeats as `Supervisor._supervise` does, apart from the others' here."""
    time.sleep(after_s)
    while True:
        next_beat = time.monotonic() + liveness.HEARTBEAT_S
        one._heartbeat(connection)
        if not one.outbox.is_behind:
            time.sleep(max(0.0, next_beat - time.monotonic()))


def _echoes(
    addresses: Sequence[str], options: PingOptions, *, should_stop: Callable[[], bool]
) -> Iterator[tuple[int, EchoSeries]]:
    """
    Give what the echo engine would, when it would: echo k of target i leaves k intervals and i
    gaps after the first, and a series is over with its last reply.
    """
    if not addresses:
        return
    begun, begun_ns = time.monotonic(), time.time_ns()
    gap_s = max(options.interval_s / len(addresses), MIN_GAP_NS / 1e9)
    spacing_s = max(options.interval_s, gap_s * len(addresses))
    rng = random.Random(secrets.randbits(64))
    for index, address in enumerate(addresses):
        typical_ms = NEAREST_MS + (FARTHEST_MS - NEAREST_MS) * rng.random() ** 3
        rtts = [
            None if rng.random() < LOSS else typical_ms * (1 + rng.expovariate(10))
            for _ in range(options.count)
        ]
        elapsed_s = (options.count - 1) * spacing_s + (rtts[-1] or options.wait_s * 1e3) / 1e3
        while (left_s := begun + index * gap_s + elapsed_s - time.monotonic()) > 0:
            if should_stop():
                return
            time.sleep(min(left_s, 0.1))
        received = sum(rtt is not None for rtt in rtts)
        yield (
            index,
            EchoSeries(
                address=address,
                sent=options.count,
                received=received,
                duplicates=0,
                late=0,
                errors=0,
                damaged=0,
                refused=0,
                times_refused=0,
                rtts_ms=tuple(rtts),
                wake_ms=None,
                reply_ttls=(64,),
                answered_by=(),
                started_ns=begun_ns + int(index * gap_s * 1e9),
                elapsed_s=elapsed_s,
                interval_mean_s=spacing_s,
                send_lag_max_ms=rng.uniform(0.0, 0.2),
                read_lag_max_ms=rng.uniform(0.0, 0.2),
                receive_drops=0,
                error_kind=None,
                error=None,
                socket_kind="raw",
            ),
        )


if __name__ == "__main__":
    main()
