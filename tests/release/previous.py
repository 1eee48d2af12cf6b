"""The release before this one: its wheel, really built and installed, and what it leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from integration.nodes import workers
from missing import missing
from waiting import wait_until

from coordinator.embedded import embedded_server

ROOT = Path(__file__).parents[2]
#: `v0.1.0`, wire version 1.
WHEEL = "ptzmesh-0.1.0-py3-none-any.whl"
COMMIT = "ff3f0d4997b4343abddbe9bc3713d6107290f16d"

OLD = ("cam-1", "cam-2")
#: Everything that a run measures in a few seconds, and that needs no port but iperf3's.
ALL = ("--probe", "ping", "--probe", "tcp", "--probe", "redis")
ALL += ("--probe", "throughput", "--probe", "udp")
SHORT = ("--count", "2", "--duration", "1", "--bitrate", "20")
LONG = (*("--count", "2", "--duration", "300", "--bitrate", "1"), *("--omit", "1", "--reverse"))
#: With those of `LONG`, every option that a plan has.
EVERY = (
    "--probe ping --probe throughput --probe udp --count 1000 --interval 0.2 --wait-for-reply 0.9"
)
EVERY += " --size 100 --sample 1 --duration 9 --parallel 2 --bidir --bitrate 1 --dscp 46"
EVERY += " --bytes 99999 --congestion cubic"

#: What PTZJEPA's loop does, and what it holds when it is killed: locker 1.
MONITOR = """
import os
from urllib.parse import urlsplit
from worker.monitor import (
    MultiLockerSystem, activity, configure, log_network_metrics, save_network_stats_to_csv)
url = os.environ["PTZMESH_REDIS_URL"]
at = urlsplit(url)
recorder = configure(source="ptz-1", redis_url=url)
with activity("world_model"):
    log_network_metrics("127.0.0.1", throughput=False, count=2)
log_network_metrics("nowhere.invalid", throughput=False, count=2)
lockers = MultiLockerSystem(at.hostname, at.port, at.password, "file_lockers", 3)
assert (lockers.acquire_locker(1), lockers.acquire_locker(2)) == (1, 2)
assert lockers.release_locker(2)
save_network_stats_to_csv("own.csv")
assert recorder.publish_now(30)
"""


@dataclass(frozen=True)
class Previous:
    """An environment of its own, with the release in it."""

    folder: Path

    @property
    def tree(self) -> Path:
        """Its files, as they were committed."""
        return self.folder.with_name("tree")

    @property
    def ptzmesh(self) -> str:
        return str(self.folder / "bin" / "ptzmesh")

    def run(self, url: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a command of it to its end; no module in `folder` hides one of its own."""
        return _run([self.ptzmesh, *arguments], folder, url)

    def output(self, url: str, *arguments: str, folder: Path) -> str:
        """Run a command that must succeed."""
        done = self.run(url, *arguments, folder=folder)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def python(self, url: str, script: str, folder: Path) -> str:
        """Run a program that uses it."""
        done = _run([str(self.folder / "bin" / "python"), "-c", script], folder, url)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def workers(
        self, url: str, names: Sequence[str], folder: Path, *, first: int = 1
    ) -> Iterator[list[subprocess.Popen[Any]]]:
        """Run nodes of it at 127.0.0.`first` and after, with the state folder `folder`/state."""
        how = {"first": first, "program": [self.ptzmesh], "env": _environment(url)}
        with (
            redis.Redis.from_url(url) as connection,
            workers(url, connection, folder, names, ["--link", "lab=4"], **how) as started,
        ):
            yield list(started.values())


def end(processes: Sequence[subprocess.Popen[Any]], how: signal.Signals) -> None:
    """Send a signal to those that run, and wait until they have ended."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(how)
    for process in processes:
        process.wait(60)


def cut_off(processes: Sequence[subprocess.Popen[Any]]) -> None:
    """End processes and all that they have started at once, as a power cut would."""
    descendants = [pid for process in processes for pid in _descendants(process.pid)]
    end(processes, signal.SIGKILL)
    for pid in descendants:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [one for child in map(int, children) for one in (child, *_descendants(child))]


def build(folder: Path) -> Previous:
    """Build the wheel as .ci/release does, of that commit alone, and install it from the index."""
    archive = ["git", "archive", "--format=tar", f"--output={folder / 'tree.tar'}", COMMIT]
    done = subprocess.run(archive, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:  # skipped in CI, too: whoever clones there may want no history
        pytest.skip(
            f"the previous release ({COMMIT[:7]}) is not in this copy of the repository, which may "
            f"be shallow (git fetch --unshallow): {done.stderr.strip()}"
        )
    tree, dist, environment = folder / "tree", folder / "dist", folder / "environment"
    tree.mkdir()
    for command in (
        ["tar", "--extract", "--file", folder / "tree.tar", "--directory", tree],
        [sys.executable, "-m", "build", "--wheel", "--outdir", dist, tree],
        [sys.executable, "-m", "venv", environment],
        [environment / "bin" / "pip", "install", "--quiet", dist / WHEEL],
    ):
        done = _run(list(map(str, command)), folder)
        if done.returncode:
            missing(f"the previous release cannot be installed: {command}\n{done.stderr[-2000:]}")
    return Previous(environment)


def _run(command: list[str], folder: Path, url: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=_environment(url), cwd=folder, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def _environment(url: str) -> dict[str, str]:
    return {**os.environ, **({"PTZMESH_REDIS_URL": url} if url else {})}


@dataclass(frozen=True)
class Left:
    """
    What the previous release has left when all its programs have ended.

    Attributes:
        folder: Its `state`, and the files that it began: collector's, monitor's.
        keys: Everything in Redis, with what is left of its time (ms, 0 is for ever).
        runs: Ids of runs: `done`, `cancelled`, `half` (its nodes were killed in the second phase).
        said: What its reading commands printed with --json.
    """

    folder: Path
    keys: dict[bytes, tuple[int, bytes]]
    runs: dict[str, str]
    said: dict[str, list[dict[str, Any]]]

    def restore(self, connection: redis.Redis) -> None:
        for key, (milliseconds, value) in self.keys.items():
            connection.restore(key, milliseconds, value)

    def copy_of(self, name: str, folder: Path) -> Path:
        return Path(shutil.copy(self.folder / name, folder))


def leave(previous: Previous, server_binary: Path, folder: Path) -> Left:
    """Measure, collect and record with the previous release, and cut its nodes off."""
    with embedded_server(folder, binary=server_binary, unix=False) as server:
        url, runs = server.url, {}

        def output(*arguments: str) -> str:
            return previous.output(url, *arguments, folder=folder)

        with previous.workers(url, OLD, folder) as nodes:
            output("limits", "--results-per-s", "3000")
            output("run", *ALL, *SHORT)
            output("collect", "--csv", "begun.csv")
            runs["done"] = json_lines(output("runs", "--json"))[0]["run"]
            runs["cancelled"] = output("run", "--detach", *EVERY.split()).strip()
            previous.run(url, "cancel", runs["cancelled"], folder=folder)
            previous.python(url, MONITOR, folder)
            runs["half"] = output(
                "run", "--detach", "--probe", "ping", "--probe", "throughput", *LONG
            ).strip()
            wait_until(
                lambda: json_lines(output("runs", "--json"))[0]["published"] == 2,
                "the first phase of the last run has ended",
            )
            cut_off(nodes)
        commands = {
            **{name: ("show", run) for name, run in runs.items()},
            **{name: (name,) for name in ("runs", "results", "lockers", "limits")},
        }
        said = {
            name: json_lines(previous.run(url, *command, "--json", folder=folder).stdout)
            for name, command in commands.items()
        }
        with redis.Redis.from_url(url) as connection:
            keys = {
                key: (max(0, connection.pttl(key)), connection.dump(key))
                for key in connection.keys("*")
            }
    return Left(folder, keys, runs, said)


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
