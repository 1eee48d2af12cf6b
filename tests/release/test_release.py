"""A release: one commit has one hash, the archives are complete, and a bare Python runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from worker import __version__
from worker.probes.icmp.engine import icmp_capability

pytestmark = [pytest.mark.long, pytest.mark.release]

ROOT = Path(__file__).parents[2]
#: `make test` tries the one that it runs in, `make test-long` the others.
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
OTHERS = sorted({"3.10", "3.11", "3.12", "3.13"} - {PYTHON})


def run(command: Sequence[str | Path], folder: Path, timeout_s: float = 900) -> str:
    """Run a program to its end; what it said is in the failure."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder, capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def git(folder: Path, *arguments: str) -> str:
    author = ("-c", "user.name=release", "-c", "user.email=release@example.org")
    return run(["git", *author, *arguments], folder)


@dataclass(frozen=True)
class Release:
    """A folder `dist` and the hashes that the build printed."""

    dist: Path
    said: str

    @property
    def wheel(self) -> Path:
        return self.dist / f"ptzmesh-{__version__}-py3-none-any.whl"

    @property
    def sdist(self) -> Path:
        return self.dist / f"ptzmesh-{__version__}.tar.gz"


@pytest.fixture(scope="module")
def commit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose one commit is this tree as it stands."""
    folder = tmp_path_factory.mktemp("commit") / "ptzmesh"
    folder.mkdir()
    names = run(["git", "ls-files", "-co", "--exclude-standard"], ROOT).splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a release")
    return folder


@pytest.fixture(scope="module")
def release(commit: Path) -> Release:
    return Release(commit / "dist", run([commit / ".ci" / "release", sys.executable], commit))


def test_one_commit_has_one_hash_wherever_and_whenever_it_is_built(
    commit: Path, release: Release, tmp_path: Path
) -> None:
    other = tmp_path / "somewhere" / "else"
    other.parent.mkdir()
    run(["git", "clone", "--quiet", commit, other], tmp_path)
    (other / "not-committed.txt").write_text("is not in it")
    for place in other.rglob("*.py"):
        os.utime(place, (1_000_000_000, 1_000_000_000))
        place.chmod(0o600)
    said = run([other / ".ci" / "release", sys.executable], other)
    hashes = [line for line in said.splitlines() if "ptzmesh-" in line]
    assert len(hashes) == 2
    assert hashes == [line for line in release.said.splitlines() if "ptzmesh-" in line]
    assert "what is not committed is not in the release" in said


def test_source_archive_has_what_is_needed_to_build_test_and_read(
    commit: Path, release: Release
) -> None:
    with tarfile.open(release.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    committed = set(git(commit, "ls-files").splitlines())
    assert committed - {".gitignore"} <= names
    assert {"LICENSE", "CHANGELOG.md", "README.md", "Makefile", "mkdocs.yml", "PKG-INFO"} <= names


def test_wheel_has_every_file_of_both_packages_and_nothing_else(
    commit: Path, release: Release
) -> None:
    committed = set(git(commit, "ls-files", "worker", "coordinator").splitlines())
    with zipfile.ZipFile(release.wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = archive.read(f"ptzmesh-{__version__}.dist-info/METADATA").decode()
    assert names == committed
    assert {"worker/py.typed", "coordinator/py.typed", "worker/wire/lua/publish.lua"} <= names
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata


def test_source_archive_passes_its_own_unit_tests(release: Release, tmp_path: Path) -> None:
    with tarfile.open(release.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / f"ptzmesh-{__version__}"
    # With -m, the folder itself is first on the path: its packages are tested, not the installed.
    said = run(
        [sys.executable, "-m", "pytest", "tests/unit/worker/model/test_plan.py", "-v"], folder
    )
    assert " passed" in said


def interpreter(version: str) -> Path | None:
    """Find a Python that runs: on PATH (a shim of pyenv's may be there, and fail), or pyenv's."""
    on_path = shutil.which(f"python{version}")
    own = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python{version}"))
    for one in filter(None, (on_path, *own)):
        asked = [one, "-c", "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return Path(one)
    return None


def try_out(python: Path, wheel: Path, folder: Path) -> tuple[str, str]:
    """Install the wheel into a fresh environment; give its version and what its demo said."""
    run([python, "-m", "venv", "env"], folder)
    run(["env/bin/pip", "install", "--quiet", f"{wheel}[embedded]"], folder)
    version = run(["env/bin/ptzmesh", "--version"], folder)
    return version, run(["env/bin/ptzmesh", "demo", "--count", "3"], folder)


def chosen(items: Sequence[pytest.Item]) -> list[str]:
    """Give the Pythons of the tests that this session has."""
    calls = [getattr(item, "callspec", None) for item in items if item.path == Path(__file__)]
    return [call.params["version"] for call in calls if call and "version" in call.params]


@pytest.fixture(scope="module")
def trials(
    request: pytest.FixtureRequest, release: Release, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[Path, Future[tuple[str, str]]]]]:
    """A trial in each Python that is to be tried and is here, all under way."""
    with ThreadPoolExecutor() as pool:
        started = {}
        for version in chosen(request.session.items):
            python = interpreter(version)
            if python is not None:
                folder = tmp_path_factory.mktemp(f"python{version}")
                trial = pool.submit(try_out, python, release.wheel, folder)
                started[version] = (folder, trial)
        yield started


@pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")
@pytest.mark.parametrize("version", [PYTHON, *OTHERS])
def test_wheel_installs_into_a_bare_python_and_runs_the_demo(
    version: str, trials: dict[str, tuple[Path, Future[tuple[str, str]]]]
) -> None:
    if version not in trials:
        pytest.skip(f"Python {version} is not on this machine")
    folder, trial = trials[version]
    said_version, said = trial.result(timeout=1800)
    assert said_version.strip() == f"ptzmesh, version {__version__}"
    rows = (folder / "network_metrics.csv").read_text().splitlines()
    assert len(rows) >= 1 + 12, said
    assert (folder / "network_metrics.svg").exists()
