"""
The image, built as docker/Dockerfile says, but without an engine: debootstrap, then buildah.

Needs root, debootstrap and buildah, and a way to Debian's mirror and to PyPI: the one that apt and
pip of this machine are set up for, proxies and an authority of their own included.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.commands import run

from deploy.emulation import Architecture
from deploy.needs import DOCKER, ROOT

BASE = "docker.io/library/debian:bookworm-slim"
NAME = "localhost/ptzmesh"

#: Each of the two takes half a minute on two quiet cores, and some minutes where it is emulated.
BUILD_S = 1800.0


@dataclass(frozen=True, kw_only=True)
class Image:
    """
    A built image, unpacked.

    Attributes:
        architecture: What it is for.
        root: Its file system; not to be written to.
        config: What it says of how to run it, as `docker inspect` shows it under Config.
        size_mb, base_mb: Unpacked layers, 10^6 bytes; of it, and of the Debian that it is made on.
    """

    architecture: Architecture
    root: Path
    config: Mapping[str, Any]
    size_mb: float
    base_mb: float

    @property
    def environment(self) -> list[str]:
        """Give its variables as NAME=value."""
        return list(self.config["Env"])

    @property
    def user(self) -> tuple[str, str]:
        """Give the user and the group that it runs as, in digits."""
        uid, _, gid = str(self.config["User"]).partition(":")
        return uid, gid


@contextmanager
def built(architecture: Architecture) -> Iterator[Image]:
    """
    Build the image and unpack it; nothing of it is left after the block.

    Programs of the architecture must run on this machine.
    """
    # Not in /tmp, which may be in memory.
    with tempfile.TemporaryDirectory(prefix="ptzmesh-image-", dir="/var/tmp") as folder:
        buildah = Buildah(Path(folder))
        _make_base(Path(folder), buildah, architecture)
        recipe = ["--file", str(DOCKER / "Dockerfile"), "--arch", architecture.name]
        buildah("bud", *_build_options(), "--tag", NAME, *recipe, str(ROOT))
        container = buildah("from", "--pull=never", "--arch", architecture.name, NAME).strip()
        try:
            inspected = json.loads(buildah("inspect", "--type", "image", NAME))
            yield Image(
                architecture=architecture,
                root=Path(buildah("mount", container).strip()),
                config=inspected["Docker"]["config"],
                size_mb=buildah.size_mb(NAME),
                base_mb=buildah.size_mb(BASE),
            )
        finally:
            buildah("umount", "--all")
            buildah("rm", "--all")
            buildah("rmi", "--all", "--force")


class Buildah:
    """The program `buildah` with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        """Keep everything below `folder`."""
        self.storage = ["--root", f"{folder}/storage", "--runroot", f"{folder}/run"]

    def __call__(self, *arguments: str) -> str:
        """Run a command to its end; give what it printed."""
        return run(["buildah", *self.storage, *arguments], timeout_s=BUILD_S).stdout

    def size_mb(self, name: str) -> float:
        """Give the size of an image's layers, unpacked."""
        listed = json.loads(self("images", "--json", name))
        number, unit = listed[0]["size"].split()
        return float(number) * {"KB": 1e-3, "MB": 1.0, "GB": 1e3}[unit]


def _make_base(folder: Path, buildah: Buildah, architecture: Architecture) -> None:
    """Make what stands for `debian:bookworm-slim`: the smallest Debian, from Debian's packages."""
    tree = folder / "debian"
    argv = ["debootstrap", f"--arch={architecture.name}", "--variant=minbase"]
    argv += ["bookworm", str(tree), *mirror()]
    run(argv, env=apt_proxy(), timeout_s=BUILD_S)
    archive = folder / "debian.tar"
    left_out = ["--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*"]
    run(["tar", "-C", str(tree), *left_out, "-cf", str(archive), "."], timeout_s=BUILD_S)
    recipe = folder / "Dockerfile"
    recipe.write_text(f"FROM scratch\nADD {archive.name} /\n")
    options = ["--arch", architecture.name, "--tag", BASE, "--file", str(recipe)]
    buildah("bud", *options, str(folder))
    run(["rm", "-rf", str(tree), str(archive)], timeout_s=BUILD_S)


def _build_options() -> list[str]:
    """Give what a build without an engine needs, and what this machine's network asks for."""
    options = ["--isolation", "chroot", "--network", "host", "--pull=never", "--format", "docker"]
    for name, value in apt_proxy().items():
        options += ["--build-arg", f"{name}={value}"]
    if authority := pip_setting("cert"):
        # Beside Debian's own: to mount over these would break the package that makes them.
        options += ["--volume", f"{authority}:/run/build-ca.crt:ro"]
        options += ["--build-arg", "PIP_CERT=/run/build-ca.crt"]
    if index := pip_setting("index-url"):
        options += ["--build-arg", f"PIP_INDEX_URL={index}"]
    return options


def pip_setting(name: str) -> str | None:
    variable = f"PIP_{name.upper().replace('-', '_')}"
    if variable in os.environ:
        return os.environ[variable]
    said = subprocess.run(
        ["python3", "-m", "pip", "config", "get", f"global.{name}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or None


def apt_proxy() -> dict[str, str]:
    said = run(["apt-config", "dump", "Acquire::http::Proxy"]).stdout
    found = re.search(r'Acquire::http::Proxy "([^"]+)"', said)
    return {"http_proxy": found[1]} if found else {}


def mirror() -> list[str]:
    """Give the mirror that this machine takes Debian 12 from; none is debootstrap's own."""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    wanted = ["Created-By: Packages", "Codename: bookworm", "Component: main"]
    said = run([*argv, *wanted, "Origin: Debian"], check=False).stdout.split()
    return said[:1]
