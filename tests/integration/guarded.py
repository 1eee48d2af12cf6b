"""Servers that let in only whom they know: by the users of docker/redis/users.acl, or by TLS."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from coordinator.embedded import EmbeddedServer

ROOT = Path(__file__).parents[2]
USERS = ROOT / "docker" / "redis" / "users.acl"
PAGE = ROOT / "docs" / "security.md"


@dataclass(frozen=True)
class Guarded:
    """A server with our users; their passwords are in files in the folder."""

    folder: Path
    port: int

    def password(self, user: str) -> str:
        return (self.folder / user / "redis-password").read_text().strip()

    def url(self, user: str) -> str:
        return f"redis://{user}:{self.password(user)}@127.0.0.1:{self.port}/0"

    def connect(self, user: str) -> redis.Redis:
        return redis.Redis.from_url(self.url(user))

    def refused(self) -> list[str]:
        """What the server has refused so far, as user and command or key."""
        with self.connect("admin") as admin:
            log = admin.acl_log()
        # redis-py says its own name, and takes it that an older server does not know how.
        told = {f"{entry['username']}: {entry['object']}" for entry in log}
        # (6.2 does not log which of CLIENT's subcommands it was.)
        return sorted(one for one in told if not one.endswith((" client|setinfo", " client")))


@contextmanager
def guarded_server(binary: Path, folder: Path) -> Iterator[Guarded]:
    """Make the users as docs/security.md says, and run a server that knows them and nobody else."""
    subprocess.run(["sh", USERS.with_name("make-users.sh"), USERS, folder], check=True)
    guarded = Guarded(folder, free_port())
    options = (f"bind 127.0.0.1\nport {guarded.port}", f"aclfile {folder / 'redis' / 'users.acl'}")
    server = EmbeddedServer(binary, folder, guarded.url("admin"), options)
    server.start()
    try:
        yield guarded
    finally:
        server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
