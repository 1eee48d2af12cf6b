"""
The pages' own commands, typed as they stand into a bare Debian: what a stranger does first.

Takes minutes: Debian is unpacked, and its packages and PyPI's are fetched and installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.commands import run

from deploy.image import BUILD_S, apt_proxy, mirror, pip_setting
from deploy.needs import ROOT, missing, tool

pytestmark = [pytest.mark.long, pytest.mark.lab]


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


@pytest.fixture(scope="module")
def debian() -> Iterator[BareDebian]:
    """A bare Debian with its list of packages."""
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


def test_with_pip_gives_every_command_that_the_pages_show(debian: BareDebian) -> None:
    installed = debian.type(block("docs/install.md", "## With pip"))
    assert installed.returncode == 0, installed.stdout + installed.stderr
    shown = block("docs/test.md", "# A test").replace("--out .", "--out out")
    tested = debian.type(f"mkdir out\n{shown}\nls out")
    assert tested.returncode == 0, tested.stderr
    assert re.search(r"network_test_\S+\.json", tested.stdout)
    assert re.search(r"network_test_\S+\.png", tested.stdout)
    assert "error" not in tested.stderr
    asked = debian.type("ptzmesh --version && ptzmesh doctor --help")
    assert asked.returncode == 0, asked.stderr


def test_the_first_command_of_the_readme_measures_a_mesh(debian: BareDebian) -> None:
    needed = debian.type("apt-get install --yes --no-install-recommends make python3-venv")
    assert needed.returncode == 0, needed.stderr
    demo = debian.type(block("README.md", "## Two commands").splitlines()[0])
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "24 of 24 pairs" in demo.stdout
