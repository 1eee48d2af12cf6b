"""
What can be the matter when a command ends with an error: each cause, made for real.

With a Redis, with records as workers write them, with files.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import redis

from coordinator.collect.csvfile import CsvFile, Holds
from coordinator.mesh import Mesh
from coordinator.runs.starting import start
from worker.model import version
from worker.model.csv_columns import CSV_COLUMNS
from worker.model.record.csv_line import csv_lines
from worker.wire import keyspace, scripts


class World:
    """A Redis, and a folder, which is the current one."""

    def __init__(self, url: str, connection: redis.Redis, folder: Path) -> None:
        self.url, self.connection, self.folder = url, connection, folder
        #: Kept open until the command has ended.
        self.held: list[Any] = []

    def node(self, name: str, silent_s: float = 0.0, **fields: str) -> None:
        """Register a node as its heartbeat would."""
        now = scripts.redis_seconds(self.connection)
        self.connection.zadd(keyspace.NODES, {name: now - silent_s})
        record = {"address": "10.0.0.1", "version": "1.0.0", "wire": str(version.WIRE_VERSION)}
        self.connection.hset(keyspace.node_key(name), mapping={**record, **fields})

    def nodes(self, **fields: str) -> None:
        self.node("a", **fields)
        self.node("b", **fields)

    def run(self) -> str:
        """Start a run that no worker will ever measure."""
        self.nodes()
        return start(self.connection, Mesh(self.url).plan(), join=False)[0]

    def limit(self, **limits: object) -> None:
        self.connection.hset(keyspace.LIMITS, mapping={k: str(v) for k, v in limits.items()})

    def used_pct(self, pct: int) -> None:
        """Let Redis use so much of its maxmemory."""
        used = self.connection.info("memory")["used_memory"]
        self.connection.config_set("maxmemory", used * 100 // pct)

    def results(self, name: str, holds: Holds) -> None:
        """Write a file of results that has a row."""
        with CsvFile(self.folder / name, holds) as file:
            file.append([csv_lines([row("1-1" if holds is Holds.STREAM else "")])])

    def text(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)


def row(stream_id: str, run: str = "20260102T030405678-0a0a") -> list[str]:
    cells = dict.fromkeys(CSV_COLUMNS, "")
    cells |= {"run_id": run, "probe": "ping", "source": "a", "target": "b"}
    return [*list(cells.values())[:-1], stream_id]


class Case(NamedTuple):
    """What a person types, and what is the matter."""

    typed: str
    prepare: Callable[[World], object] = lambda _: None


def with_file(typed: str, name: str, text: str) -> Case:
    """Type it where a file of that name has that text."""
    return Case(typed, lambda w: w.text(name, text))


def full(w: World, **limits: int) -> None:
    w.nodes()
    w.limit(**limits)
    w.connection.xadd(keyspace.RESULTS, {"probe": "x"})


def is_full(w: World) -> None:
    w.nodes()
    w.used_pct(90)


def has_low_share(w: World) -> None:
    w.nodes()
    w.limit(redis_memory_pct=1)
    w.used_pct(50)


def takes_much(w: World) -> None:
    w.run()
    w.limit(run_bytes=1)


def ambiguous(w: World) -> None:
    w.run()
    w.run()


def ended(w: World) -> None:
    w.connection.hset(keyspace.run_key(w.run()), mapping={"status": "done"})


def forgotten(w: World) -> None:
    w.connection.delete(keyspace.run_key(w.run()))


def in_use(w: World) -> None:
    file = w.folder.joinpath("rows.csv").open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    w.held.append(file)


def collected(w: World, *rows: list[str]) -> None:
    with CsvFile(w.folder / "rows.csv") as file:
        file.append([csv_lines([each]) for each in rows])


def edited(w: World) -> None:
    collected(w, row("1-1"))
    with w.folder.joinpath("rows.csv").open("a") as file:
        file.write("x\n")


def not_whole(w: World) -> None:
    run = w.run()
    w.connection.hset(keyspace.run_key(run), mapping={"status": "done"})
    collected(w, row("1-1", run))


def doubled(w: World) -> None:
    run = w.run()
    collected(w, row("1-1", run), row("1-2", run))


def elsewhere(w: World) -> None:
    w.nodes()
    w.node("hub", address="127.0.0.1", boot="of another machine", netns="1")


WORKER = "worker --no-wait --name w"
CASES: dict[str, Case] = {
    # Redis, and what the mesh may use of it
    "Redis is full, by whatever": Case("run", is_full),
    "the mesh's share was set low": Case("run", has_low_share),
    "too many results, and nobody collects": Case("run", lambda w: full(w, stream_entries=1)),
    "it takes too much memory": Case("run", lambda w: full(w, stream_bytes=1)),
    "the nodes together send too many": Case("run", lambda w: w.nodes(redis_commands_per_s="9999")),
    "open runs take too much": Case("run --new", takes_much),
    "somebody wrote a limit by hand": Case("run", lambda w: full(w, stream_bytes="lots")),  # type: ignore[arg-type]  # it is
    # nodes
    "no worker was ever started, or they use another Redis": Case("run"),
    "all workers have ended": Case("run", lambda w: w.node("a", 3600.0)),
    "one node alone is alive": Case("run", lambda w: w.node("a")),
    "the others have ended": Case("run", lambda w: (w.node("a"), w.node("b", 3600.0))),
    "one node is chosen": Case("run --nodes a", World.nodes),
    "one node is source and target": Case("run --from a --to a", World.nodes),
    "a typo in a node's name": Case("run --nodes a,bb", World.nodes),
    "a node is named in a Redis that has none": Case("run --nodes a,b"),
    "all nodes have an older version": Case("run", lambda w: w.nodes(wire="1")),
    "a named node has a newer version": Case(
        "run --nodes a,b", lambda w: w.nodes(wire="99", version="9.0")
    ),
    "no node has the label": Case("run --label site=cellar", World.nodes),
    "no node has an address of that family": Case("run -6", World.nodes),
    "a named node has no address of that family": Case("run -6 --nodes a,b", World.nodes),
    "a sample is larger than the mesh": Case("run --sample 5", World.nodes),
    "a sample of some sources only": Case("run --sample 1 --from a", World.nodes),
    "a node pings without the right to ping fast": Case(
        "run --interval 1ms", lambda w: w.nodes(icmp="datagram")
    ),
    # runs
    "no run was ever started": Case("show last"),
    "an empty id, as of an unset variable": Case("cancel ''", World.run),
    "a typo in a run's id": Case("show 1999", World.run),
    "it fits several runs": Case("show 2", ambiguous),
    "a run has ended": Case("cancel last", ended),
    "a run is forgotten": Case("show last", forgotten),
    "the run did not measure the figure": Case("show last --figure throughput", World.run),
    # files
    "no file is named": Case("collect"),
    "another process writes the file": Case("collect --csv rows.csv", in_use),
    "the file is of another program": with_file(
        "collect --csv rows.csv", "rows.csv", "name,age\nada,36\n"
    ),
    "the folder is not there": Case("collect --csv none/rows.csv"),
    "the file is a device": Case("collect --csv /dev/null"),
    "a file of whole runs for collect": Case(
        "collect --csv rows.csv", lambda w: w.results("rows.csv", Holds.RUNS)
    ),
    "a collector's file for a run": Case(
        "run --csv rows.csv", lambda w: (w.nodes(), w.results("rows.csv", Holds.STREAM))
    ),
    "the last line was edited": Case(
        "collect --csv rows.csv",
        edited,
    ),
    "events go into the file of the rows": Case("collect --csv rows.csv --events rows.csv"),
    "events go into a file of another program": with_file(
        "collect --csv rows.csv --events mine.txt", "mine.txt", "mine\n"
    ),
    "events go into a folder that is not there": Case(
        "collect --csv rows.csv --events none/events.csv"
    ),
    "events to standard output": Case("collect --csv rows.csv --events -"),
    "rows of a run to standard output": Case("run --csv -", World.nodes),
    "standard output, and more": Case("collect --csv - --group g"),
    "two things at once": Case("collect --list --forget g"),
    "a typo in a collector's name": Case("collect --forget g"),
    "a space in a collector's name": Case("collect --csv rows.csv --group 'a b'"),
    "rows of a run, but no run": Case("results --csv rows.csv"),
    "no file to verify": Case("verify last --csv rows.csv", World.run),
    "another program's file to verify": Case(
        "verify last --csv rows.csv", lambda w: (w.run(), w.text("rows.csv", "name,age\n"))
    ),
    "another run's file": Case(
        "verify last --csv rows.csv", lambda w: (ended(w), collected(w, row("1-1")))
    ),
    "the run is still open": Case(
        "verify last --csv rows.csv", lambda w: collected(w, row("1-1", w.run()))
    ),
    "the run is not collected to its end": Case("verify last --csv rows.csv", not_whole),
    "the file was edited": Case("verify last --csv rows.csv", doubled),
    "another format in a picture's name": Case("show last --svg mesh.png", World.run),
    "a picture's folder is not there": Case("show last --svg none/mesh.svg", World.run),
    # one target
    "the target is neither a name in DNS nor a node": Case("test no.such.invalid"),
    "a port in a target": Case("test 10.0.0.1:80"),
    "the target is a node without an address of that family": Case("test a -6", World.nodes),
    "the target's address leads to this machine itself": Case("test hub", elsewhere),
    "the target is one of the sources": Case("test a --nodes a,b", World.nodes),
    "rounds from nodes follow too fast": Case("test a --nodes b -i 0.6", World.nodes),
    "a test has too many rounds": Case("test 127.0.0.1 -d 7d -i 1"),
    "a round has too many echoes": Case("test 127.0.0.1 -i 0.6 -c 100"),
    "a round is too short for its throughput": Case("test 127.0.0.1 -i 1 --throughput"),
    "a bit rate without a throughput test": Case("test 127.0.0.1 --bitrate 5"),
    "a port for a test from nodes": Case("test a --nodes b --port 5201", World.nodes),
    "the folder of a test cannot be made": Case("test 127.0.0.1 --no-plot --out /proc/none"),
    "one node twice to doctor": Case("doctor --between a a", World.nodes),
    # settings, names, values
    "the settings file is not there": Case("--config none.toml nodes"),
    "the settings file is no TOML": with_file("--config s.toml nodes", "s.toml", "[x"),
    "a typo in a command's name": with_file("--config s.toml nodes", "s.toml", "[wroker]\n"),
    "a typo in an option's name": with_file(
        "--config s.toml nodes", "s.toml", "[run]\ncuont = 3\n"
    ),
    "several values instead of one": with_file(
        "--config s.toml run", "s.toml", "[run]\ncount = [1]\n"
    ),
    "one value instead of a list": with_file(
        "--config s.toml run", "s.toml", '[run]\nnodes = "a"\n'
    ),
    "a wrong value in the settings file": with_file(
        "--config s.toml run", "s.toml", '[run]\ncount = "many"\n'
    ),
    "a wrong value in a variable": Case("PTZMESH_RUN_COUNT=many run"),
    "a wrong value, typed": Case("run --count many"),
    "a value is out of bounds": Case("run --count 0", World.nodes),
    "a time has no unit that is known": Case("run --interval 5x"),
    "a time lies ahead": Case("events --since -5"),
    "a space in a name": Case("worker --no-wait --name 'cam 1'"),
    "an empty name, as of an unset variable": Case("worker --no-wait --name ''"),
    "a name is a word of ours": Case("worker --no-wait --name redis"),
    "an empty address": Case(f"{WORKER} --address ''"),
    "a port in an address": Case(f"{WORKER} --address hub:6379"),
    "an address of no one machine": Case(f"{WORKER} --address 224.0.0.1"),
    "IPv4 in the form of IPv6": Case(f"{WORKER} --address ::ffff:10.0.0.1"),
    "a label has no value": Case(f"{WORKER} --label site"),
    "a label's value is too long": Case(f"{WORKER} --label site={'x' * 200}"),
    "hours are no times of day": Case(f"{WORKER} --hours 22-5"),
    "ports are no range": Case(f"{WORKER} --ports 5201"),
    "ports are those of the system": Case(f"{WORKER} --ports 80-90"),
    "a link has no capacity": Case(f"{WORKER} --link cell"),
    # the way to Redis
    "a URL without its scheme": Case("nodes --redis hub:6379"),
    "nothing listens there": Case("nodes --redis redis://127.0.0.1:1"),
    "the name of Redis' host is a typo": Case("nodes --redis redis://no.such.invalid"),
    "no socket of that name": Case("nodes --redis unix:///none.sock"),
    "the password file is not there": Case("nodes --redis-password-file none"),
    "the password file has two lines": with_file("nodes --redis-password-file p", "p", "a\nb\n"),
    "a password in the URL and another in a file": with_file(
        "nodes --redis redis://:a@127.0.0.1:1 --redis-password-file p", "p", "b\n"
    ),
    "TLS files for a URL without TLS": with_file(
        "nodes --redis redis://127.0.0.1:1 --redis-ca ca.pem", "ca.pem", "x"
    ),
    "a CA file that has no certificate": with_file(
        "nodes --redis rediss://127.0.0.1:1 --redis-ca ca.pem", "ca.pem", "x"
    ),
    "a key without its certificate": with_file(
        "nodes --redis rediss://127.0.0.1:1 --redis-key k.pem", "k.pem", "x"
    ),
    "an option in the URL that means another database": Case(
        "nodes --redis redis://127.0.0.1:1/0?db=3"
    ),
}
