"""
A container without an engine: namespaces of its own, the image's files, user and variables.

What an engine does for a user that is not root is done here by the same means: capabilities are
in the bounding set only, and the root file system is mounted read-only. util-linux has it all.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.mesh import children_of
from lab.node import Node
from waiting import wait_until

from deploy.image import Image

#: Before the program: what every container has of /proc, /dev and places to write to. Options are
#: Docker's defaults. `$root` is the image.
MOUNTS = """
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro,nodev "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o nosuid,mode=755 tmpfs "$root/dev"
mkdir "$root/dev/shm"
mount -t tmpfs -o nosuid,nodev,noexec,mode=1777 shm "$root/dev/shm"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mount -t tmpfs -o nosuid,nodev,noexec,mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o nosuid,nodev,noexec,mode=755 tmpfs "$root/run"
hostname "$name"
"""


@dataclass(frozen=True, kw_only=True)
class Rights:
    """
    What the one who starts a container grants it.

    Attributes:
        net_raw: `--cap-drop ALL --cap-add NET_RAW`; else only the first of them.
        no_new_privileges: `--security-opt no-new-privileges`.
        ambient: Podman also gives the capability to the process itself; Docker does not.
    """

    net_raw: bool = True
    no_new_privileges: bool = False
    ambient: bool = False

    def setpriv(self, user: str, group: str) -> list[str]:
        """Give the command that runs another with these rights."""
        kept = "-all,+net_raw" if self.net_raw else "-all"
        held = kept if self.ambient else "-all"
        argv = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        argv += [f"--bounding-set={kept}", f"--inh-caps={held}", f"--ambient-caps={held}"]
        return [*argv, *(["--no-new-privs"] if self.no_new_privileges else []), "--"]


@dataclass(kw_only=True)
class Container:
    """
    A container of the image on a node of the lab.

    Attributes:
        folder: Holds the log, and the volume for /var/lib/ptzmesh.
        variables: Settings, as in `docker run --env`.
        mounts: More folders from outside, by where they are inside; with their own owners.
    """

    image: Image
    node: Node
    folder: Path
    name: str
    variables: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, Path] = field(default_factory=dict)
    rights: Rights = field(default_factory=Rights)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Give what it said."""
        return self.folder / f"{self.name}.log"

    def start(self, *command: str) -> None:
        """Run the image's entry point, with its own command or another."""
        state = self.folder / f"{self.name}-state"
        state.mkdir(mode=0o750, exist_ok=True)
        shutil.chown(state, *map(int, self.image.user))
        mounts = {"/var/lib/ptzmesh": state, **self.mounts}
        script = [MOUNTS]
        for place, source in mounts.items():
            inside = shlex.quote(f"{self.image.root}{place}")
            script.append(f"mkdir -p {inside}; mount --bind {shlex.quote(str(source))} {inside}")
        script.append("exec " + shlex.join(self._inside(self._command(command))))
        argv = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--"]
        settings = [f"root={self.image.root}", f"name={self.name}"]
        argv = ["env", *settings, *argv, "sh", "-ec", "\n".join(script)]
        self.process = self.node.start(argv, log=self.log)

    def run(self, *command: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a program beside it, as `docker exec` and health checks do, to its end."""
        spaces = ["--mount", "--uts", "--ipc", "--pid", "--net"]
        argv = ["nsenter", f"--target={self.pid}", *spaces, "--", *self._inside(command)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)

    def health(self) -> subprocess.CompletedProcess[str]:
        """Run the image's own health check."""
        kind, *command = self.image.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return self.run(*command)

    @property
    def pid(self) -> int:
        """Give the process id, outside, of the container's first process."""
        assert self.process is not None
        parent = self.process.pid
        wait_until(lambda: bool(children_of(parent)), f"{self.name} has started")
        return children_of(parent)[0]

    def _command(self, command: Sequence[str]) -> list[str]:
        config = self.image.config
        return [*config["Entrypoint"], *(command or config["Cmd"])]

    def _inside(self, command: Sequence[str]) -> list[str]:
        """Give the command as the image's user, in its file system, with its variables only."""
        settings = {"HOSTNAME": self.name, **self.variables}
        variables = [*self.image.environment, *(f"{k}={v}" for k, v in settings.items())]
        place = ["chroot", str(self.image.root), "/usr/bin/env", "--ignore-environment"]
        place.append(f"--chdir={self.image.config['WorkingDir']}")
        return [*place, *variables, *self.rights.setpriv(*self.image.user), *command]
