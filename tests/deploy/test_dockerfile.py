"""The Dockerfile and its locks: linted, whole, and to be had for both architectures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.emulation import ARCHITECTURES
from deploy.needs import DOCKER, ROOT, tool

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LOCKS = ("requirements.lock", "build.lock")
#: manylinux2014 is glibc 2.17; Debian 12 has 2.36.
PLATFORMS = {name: f"manylinux2014_{one.machine}" for name, one in ARCHITECTURES.items()}


def locked(name: str) -> dict[str, str]:
    """Give the version of each package of a lock."""
    pinned = re.findall(
        r"^([\w.-]+)==(\S+)(?: ;.*)? \\$", (DOCKER / name).read_text(), re.MULTILINE
    )
    return {canonicalize_name(package): version for package, version in pinned}


def lacking(requirements: list[str], pinned: dict[str, str]) -> list[str]:
    """Give the requirements that a lock does not meet, under the Python of Debian 12."""
    debian = {"python_version": "3.11", "python_full_version": "3.11.2"}
    wanted = [Requirement(text) for text in requirements]
    return [
        str(one)
        for one in wanted
        if (one.marker is None or one.marker.evaluate(debian))
        and pinned.get(canonicalize_name(one.name), "0") not in one.specifier
    ]


def test_dockerfile_has_no_fault_that_a_linter_knows() -> None:
    done = subprocess.run(
        [tool("hadolint"), "--no-color", "--failure-threshold", "style", DOCKER / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_locks_have_what_the_package_asks_for_in_versions_that_it_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert lacking(project["project"]["dependencies"], locked(LOCKS[0])) == []
    assert lacking(project["build-system"]["requires"], locked(LOCKS[1])) == []


@pytest.mark.parametrize("architecture", PLATFORMS)
def test_every_locked_package_is_a_wheel_with_that_hash(architecture: str, tmp_path: Path) -> None:
    for lock in LOCKS:
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        argv += ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
        argv += ["--platform", PLATFORMS[architecture], "--python-version", "3.11.2"]
        argv += ["--implementation", "cp", "--dest", str(tmp_path)]
        argv += ["--requirement", str(DOCKER / lock)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    wheels = list(tmp_path.glob("*.whl"))
    assert len(wheels) == sum(len(locked(lock)) for lock in LOCKS)
    compiled = [wheel.name for wheel in wheels if not wheel.stem.endswith("-any")]
    assert {name.partition("-")[0] for name in compiled} >= {"msgpack", "hiredis"}
