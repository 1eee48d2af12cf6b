"""A machine of the lab: one network namespace with one link, in which programs run."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab import namespaces
from lab.commands import run

#: States of a link that is up and does not pass frames yet (RFC 2863).
NOT_YET = {"DOWN", "LOWERLAYERDOWN"}


class Node:
    """
    A machine of the lab, with an IPv4 and an IPv6 address that work at once.

    Attributes:
        name: `n0`, `n1`, ... or `redis`; also the name of its port on the bridge.
        namespace: The name `ip netns` knows it by.
        address: IPv4 address.
        address6: IPv6 address.
        mac: The Ethernet address by which the lab's rules know the node.
    """

    def __init__(self, name: str, namespace: str, number: int) -> None:
        """
        Describe a node; Lab makes its namespace.

        Args:
            name: Short name.
            namespace: Name of the network namespace.
            number: 1 to 254, last part of its addresses.
        """
        self.name = name
        self.namespace = namespace
        self.address = f"10.77.0.{number}"
        self.address6 = f"fd77::{number:x}"
        self.mac = f"02:77:00:00:00:{number:02x}"
        self._started: list[subprocess.Popen[bytes]] = []

    def __repr__(self) -> str:
        """Name and address, as a failed assertion shows them."""
        return f"Node({self.name} {self.address})"

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 120.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """
        Run `argv` on the node to its end; output is captured as text.

        Raises:
            CommandFailed: It exited non-zero and `check` is set.
            subprocess.TimeoutExpired: It took longer than `timeout_s`.
        """
        return run(self.inside(argv), stdin=stdin, env=env, timeout_s=timeout_s, check=check)

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """
        Start `argv` on the node and return at once; the lab kills it, and its children, at the end.

        The process leads a session of its own, so `Popen.pid` is also its process group.

        Args:
            argv: Program and arguments.
            env: Variables added to this process's own.
            log: File that gets stdout and stderr, appended; None throws them away.
        """
        with (log or Path(os.devnull)).open("ab") as output:
            process = subprocess.Popen(
                self.inside(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def wait_until_listening(self, port: int, deadline_s: float = 60.0) -> None:
        """
        Return as soon as something on the node accepts TCP connections at `port`.

        Raises:
            TimeoutError: Nothing does after `deadline_s`.
        """
        give_up_at = time.monotonic() + deadline_s
        while not self.run(["ss", "-Hltn", f"sport = :{port}"]).stdout:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"nothing on {self.name} listens at port {port}")
            time.sleep(0.005)  # between two looks

    def wait_for_links(self, deadline_s: float = 60.0) -> None:
        """
        Return as soon as all links of the node pass frames.

        The kernel makes a link that got its carrier usable in the background, which takes as long
        as others make and delete theirs.

        Raises:
            TimeoutError: One does not after `deadline_s`.
        """
        give_up_at = time.monotonic() + deadline_s
        while waiting := [one["ifname"] for one in self._links_up() if one["operstate"] in NOT_YET]:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"links {waiting} of {self.name} have no carrier")
            time.sleep(0.005)  # between two looks

    def _links_up(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run(["ip", "-json", "link", "show"]).stdout)
        return [one for one in found if "UP" in one["flags"]]

    def kill_all(self) -> None:
        """SIGKILL everything that runs on the node, as if its power went; the link stays."""
        self.reap()
        namespaces.kill_inside([self.namespace])

    def reap(self) -> None:
        """
        Kill and wait for what `start` started.

        Also for a process that has not yet entered the namespace, which kill_inside cannot see.
        """
        for process in self._started:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._started.clear()

    def inside(self, argv: Sequence[str]) -> list[str]:
        """Argv that runs `argv` on the node."""
        return ["ip", "netns", "exec", self.namespace, *argv]
