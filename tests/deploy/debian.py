"""
A bare Debian in a folder, into which the pages' own commands are typed.

Needs root and debootstrap, and takes half a minute, before anything is installed there.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.commands import run

from deploy.image import BUILD_S, apt_proxy, mirror, pip_setting
from deploy.needs import ROOT, missing, tool


class BareDebian:
    """The smallest Debian in a folder, with the checkout in /checkout and nothing else of ours."""

    def __init__(self, tree: Path) -> None:
        """Unpack it."""
        self.tree = tree
        argv = ["debootstrap", "--variant=minbase", "bookworm", str(tree), *mirror()]
        run(argv, env=apt_proxy(), timeout_s=BUILD_S)
        (tree / "checkout").mkdir()
        run(["git", "-C", str(ROOT), "checkout-index", "-a", f"--prefix={tree}/checkout/"])
        if authority := pip_setting("cert"):
            (tree / "authority.pem").write_bytes(Path(authority).read_bytes())

    def type(self, commands: str) -> subprocess.CompletedProcess[str]:
        """Run commands as root in a shell there; they share this machine's network."""
        settings = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        settings |= {"HOME": "/root", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        settings |= apt_proxy()
        if pip_setting("cert"):
            settings["PIP_CERT"] = "/authority.pem"
        if index := pip_setting("index-url"):
            settings["PIP_INDEX_URL"] = index
        words = [f"{name}={value}" for name, value in settings.items()]
        mounts = f"mount -t proc proc {self.tree}/proc && mount --rbind /dev {self.tree}/dev"
        shell = f'{mounts} && exec chroot {self.tree} env -i "$@"'
        argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--"]
        argv += ["sh", "-c", shell, "sh", *words, "bash", "-ec", f"cd /checkout\n{commands}"]
        return run(argv, timeout_s=BUILD_S, check=False)


@contextmanager
def bare_debian() -> Iterator[BareDebian]:
    """Unpack a bare Debian, with its list of packages; nothing of it is left after the block."""
    if os.geteuid() != 0:
        missing("to unpack a Debian needs root")
    tool("debootstrap")
    with tempfile.TemporaryDirectory(prefix="ptzmesh-install-", dir="/var/tmp") as folder:
        made = BareDebian(Path(folder) / "debian")
        updated = made.type("apt-get update")
        assert updated.returncode == 0, updated.stderr
        yield made


def block(page: str, after: str) -> str:
    """Give the first block of commands after a heading of a page."""
    text = (ROOT / page).read_text()
    found = re.search(r"```sh\n(.*?)```", text[text.index(after) :], re.DOTALL)
    assert found is not None
    return found[1]
