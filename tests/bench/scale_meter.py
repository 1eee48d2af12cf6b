"""What bench_scale.py measures with: a server's work, lockers beside it, processes' memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import redis
from locker_cycle import cycles_ms, rank_ms

from coordinator.embedded import EmbeddedServer
from worker.wire import keyspace
from worker.wire.connection.server import connect

#: Commands that took longer are noted by the server, one by one; microseconds.
SLOW_US = 1000
#: Not of the mesh: what this program asks the server itself.
OWN = {"info", "config|resetstat", "config|set", "slowlog|get", "slowlog|reset"}


class Cores:
    """
    Who runs where: Redis and the locker are on the first core, all else on the others.

    In a mesh each is a machine of its own. Here the locker's process goes before all others on its
    core, so that it never waits for the processor: what it feels is what Redis makes of the load.
    """

    def __init__(self, *, spread: bool = False) -> None:
        """Divide the cores that this process may use; `spread` gives all of them to the others."""
        cores = sorted(os.sched_getaffinity(0))
        self.redis = set(cores[:1])
        self.others = set(cores if spread else cores[1:] or cores)

    def keep_off(self) -> None:
        """Keep this process and all that it starts off Redis' core."""
        os.sched_setaffinity(0, self.others)

    def pin_server(self, pid: int) -> None:
        """Put all threads of the server on its core, before whoever else is there."""
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), self.redis)
            with contextlib.suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, int(task.name), -20)


def cpu_s(pid: int) -> float:
    """Give the CPU seconds of a process' living threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


@dataclass
class Work:
    """
    What a server did over a time.

    Attributes:
        seconds: How long.
        cpu_s: CPU of its process.
        calls: By command, those within scripts included.
        spent_us: Time in all of them, microseconds.
        slow: (command, microseconds) of each that took longer than `SLOW_US`, longest first.
        max_stream_bytes: Of the results stream, sampled.
        max_used_bytes: Of the whole server, sampled.
        max_outbox_bytes: What waited on the nodes' disks, sampled.
    """

    seconds: float = 0.0
    cpu_s: float = 0.0
    calls: dict[str, int] = field(default_factory=dict)
    spent_us: dict[str, int] = field(default_factory=dict)
    slow: list[tuple[str, int]] = field(default_factory=list)
    max_stream_bytes: int = 0
    max_used_bytes: int = 0
    max_outbox_bytes: int = 0

    @property
    def commands(self) -> int:
        """All commands, those within scripts included."""
        return sum(self.calls.values())

    def tell(self, title: str) -> None:
        """Print it."""
        print(
            f"  {title}: {self.seconds:.1f} s; Redis {self.cpu_s:.2f} s of CPU "
            f"({100 * self.cpu_s / self.seconds:.1f} % of a core); {self.commands} commands "
            f"({self.commands / self.seconds:.0f}/s, those of scripts included)"
        )
        most = sorted(self.spent_us, key=lambda name: -self.spent_us[name])[:8]
        print(
            "    most of it: "
            + ", ".join(
                f"{n} {self.calls[n]} × {self.spent_us[n] / self.calls[n]:.0f} µs" for n in most
            )
        )
        by_name: dict[str, list[int]] = {}
        for name, us in self.slow:
            by_name.setdefault(name, []).append(us)
        slow = [f"{n} {len(all_us)} ×, longest {all_us[0]} µs" for n, all_us in by_name.items()]
        print(f"    over {SLOW_US} µs: {'; '.join(slow) or 'none'}")


class Meter:
    """Measures one embedded server."""

    def __init__(self, server: EmbeddedServer, outboxes: Path) -> None:
        """Watch a server, and the folder where its nodes have their outboxes."""
        self.server, self.outboxes = server, outboxes
        self.connection = connect(server.url)
        self.connection.config_set("slowlog-log-slower-than", SLOW_US)
        self.connection.config_set("slowlog-max-len", 100_000)

    @contextlib.contextmanager
    def measure(self, sample_s: float = 0.5) -> Iterator[Work]:
        """Give what the server does in the block; whole when the block has ended."""
        work, stop = Work(), threading.Event()
        sampler = threading.Thread(target=self._sample, args=(work, stop, sample_s))
        self.connection.config_resetstat()
        self.connection.slowlog_reset()
        begun, cpu = time.monotonic(), cpu_s(self.server.pid)
        sampler.start()
        try:
            yield work
        finally:
            work.seconds = time.monotonic() - begun
            work.cpu_s = cpu_s(self.server.pid) - cpu
            stop.set()
            sampler.join()
            self._take(work)

    def _take(self, work: Work) -> None:
        stats = cast("dict[str, dict[str, Any]]", self.connection.info("commandstats"))
        for name, one in stats.items():
            command = name.removeprefix("cmdstat_")
            if command not in OWN and one["calls"]:
                work.calls[command], work.spent_us[command] = one["calls"], one["usec"]
        log = cast("list[dict[str, Any]]", self.connection.slowlog_get(100_000))
        told = [(_name_of(one["command"]), int(one["duration"])) for one in log]
        work.slow = sorted((x for x in told if x[0] not in OWN), key=lambda x: -x[1])

    def _sample(self, work: Work, stop: threading.Event, sample_s: float) -> None:
        connection = connect(self.server.url)
        while not stop.wait(sample_s):
            stream = connection.memory_usage(keyspace.RESULTS) or 0
            used = int(connection.info("memory")["used_memory"])
            held = sum(p.stat().st_size for p in self.outboxes.glob("*.outbox") if p.exists())
            work.max_stream_bytes = max(work.max_stream_bytes, stream)
            work.max_used_bytes = max(work.max_used_bytes, used)
            work.max_outbox_bytes = max(work.max_outbox_bytes, held)


def _name_of(command: bytes | str) -> str:
    words = (command.decode(errors="replace") if isinstance(command, bytes) else command).split()
    name = words[0].lower()
    return f"{name}|{words[1].lower()}" if name in ("config", "slowlog", "latency") else name


@contextlib.contextmanager
def lockers(url: str, cores: Cores) -> Iterator[list[float]]:
    """Take and give back a lock for the time of the block; gives each cycle's ms at its end."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_lock_cycles, args=(url, cores, there))
    process.start()
    cycles: list[float] = []
    try:
        yield cycles
    finally:
        here.send("stop")
        cycles += here.recv()
        process.join()


def _lock_cycles(url: str, cores: Cores, pipe: Any) -> None:
    os.sched_setaffinity(0, cores.redis)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    connection = connect(url)
    pipe.send(cycles_ms(connection, pipe.poll))


def tell_lockers(idle: Sequence[float], during: Sequence[float], what: str) -> None:
    """Print what a locker's cycle takes in both, and the ratios."""
    for percent in (50, 99, 99.9):
        a, b = rank_ms(idle, percent), rank_ms(during, percent)
        print(
            f"    lockers p{percent}: idle {a:.3f} ms, {what} {b:.3f} ms, ratio {b / a:.2f}"
            f" ({len(idle)} and {len(during)} cycles; longest {max(idle):.1f}, {max(during):.1f})"
        )


@dataclass
class Ended:
    """How a program ended: seconds it took, its peak memory, how much and what it printed."""

    seconds: float
    peak_rss_mib: float
    code: int
    size: int
    said: str


def run_program(argv: Sequence[str], said_to: Path) -> Ended:
    """Run a program to its end; its standard output goes to a file."""
    begun = time.monotonic()
    with said_to.open("wb") as file:
        process = subprocess.Popen(list(argv), stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begun
    # This process stays small: what it has at the fork counts as the program's peak, too.
    with said_to.open(errors="replace") as text:
        said = text.read(2000)
    size = said_to.stat().st_size
    return Ended(seconds, usage.ru_maxrss / 1024, process.returncode, size, said)


def rss_mib(pid: int) -> tuple[float, float]:
    """Give a process' memory and its peak."""
    text = Path(f"/proc/{pid}/status").read_text()
    now, peak = (int(text.partition(f"{name}:")[2].split()[0]) for name in ("VmRSS", "VmHWM"))
    return now / 1024, peak / 1024


def own_peak_mib() -> float:
    """Give this process' peak memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Fleet:
    """Processes of simulated nodes."""

    def __init__(self, folder: Path) -> None:
        """Have nodes on the server of the environment, with their outboxes in a folder."""
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, first: int, count: int, per_process: int) -> None:
        """Start nodes, and wait until all are registered."""
        script = str(Path(__file__).with_name("scale_fleet.py"))
        fresh = []
        for begin in range(first, first + count, per_process):
            size = min(per_process, first + count - begin)
            argv = [sys.executable, script, str(self.folder), str(begin), str(size)]
            fresh.append(
                subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
        for process in fresh:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", "the fleet did not start"
        self.processes += fresh

    def kill(self, process: subprocess.Popen[str]) -> None:
        """End some of the nodes at once, as a power cut would."""
        process.kill()
        process.communicate()
        self.processes.remove(process)

    def stop(self) -> None:
        """End all nodes."""
        for process in list(self.processes):
            self.kill(process)


def raw_xadd(connection: redis.Redis, meter: Meter, count: int) -> tuple[float, float]:
    """
    Add the stream's entries again, in pipelines of 100 and nothing else: what Redis can do.

    Returns:
        Entries a second, and the server's CPU seconds for one.
    """
    entries = cast("list[tuple[bytes, Any]]", connection.xrange(keyspace.RESULTS, count=5000))
    added = 0
    pipeline = connection.pipeline(transaction=False)
    cpu = cpu_s(meter.server.pid)
    begun = time.monotonic()
    while added < count:
        for _, fields in entries[: count - added]:
            pipeline.xadd("bench:raw", fields)
            if len(pipeline) == 100:
                pipeline.execute()
        added += min(len(entries), count - added)
        pipeline.execute()
    seconds, cpu = time.monotonic() - begun, cpu_s(meter.server.pid) - cpu
    connection.delete("bench:raw")
    return count / seconds, cpu / count
