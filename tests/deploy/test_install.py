"""
The pages' own commands, typed as they stand into a bare Debian: what a stranger does first.

Takes minutes: Debian is unpacked, and its packages and PyPI's are fetched and installed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.conftest import mesh_folder  # noqa: F401 - a fixture
from integration.docs_pages import RUN_ID, commands, prepare

from deploy.debian import BareDebian, bare_debian, block

pytestmark = [pytest.mark.long, pytest.mark.lab, pytest.mark.redis]

#: Of a command that has no end of its own: seconds until it is asked to stop.
WHILE_S = 8


@pytest.fixture(scope="module")
def debian() -> Iterator[BareDebian]:
    """A bare Debian into which the install page was typed."""
    with bare_debian() as made:
        installed = made.type(block("docs/install.md", "## With pip"))
        assert installed.returncode == 0, installed.stdout + installed.stderr
        yield made


def test_with_pip_gives_what_a_test_needs_for_its_picture(debian: BareDebian) -> None:
    shown = block("docs/test.md", "# A test").replace("--out .", "--out out")
    tested = debian.type(f"mkdir out\n{shown}\nls out")
    assert tested.returncode == 0, tested.stderr
    assert re.search(r"network_test_\S+\.json", tested.stdout)
    assert re.search(r"network_test_\S+\.png", tested.stdout)
    assert "error" not in tested.stderr


def test_the_first_command_of_the_readme_measures_a_mesh(debian: BareDebian) -> None:
    needed = debian.type("apt-get install --yes --no-install-recommends make")
    assert needed.returncode == 0, needed.stderr
    demo = debian.type(block("README.md", "## Two commands").splitlines()[0])
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "24 of 24 pairs" in demo.stdout


def test_every_command_of_the_pages_works_where_the_install_page_was_followed(
    debian: BareDebian,
    mesh_folder: tuple[str, Path],  # noqa: F811 - the fixture
) -> None:
    url, folder = mesh_folder
    wrong = []
    # jq is named where it is used first, and `demo` brings a Redis, which a node needs not.
    assert debian.type("apt-get install --yes --no-install-recommends jq").returncode == 0
    for place, command in enumerate(commands("demo", others=True)):
        run = prepare(command, url, folder)
        own = debian.tree / f"pages/{place}"  # a file of one command is not another's
        own.mkdir(parents=True)
        if re.search(r"verify|^cp ", command):
            csv = folder / "network_metrics.csv"
            (own / csv.name).write_bytes(csv.read_bytes())
        adapted = re.sub(r"(PTZMESH_REDIS_URL=|--redis[ =])\S+", rf"\g<1>{url}", command)
        adapted = RUN_ID.sub(run, re.sub(r"/(data|persistence)/", "./", adapted))
        if re.search(r"ptzmesh (worker|.*--follow)", adapted):
            words = shlex.quote(f"exec env {adapted}")
            adapted = f"timeout --preserve-status {WHILE_S} bash -c {words}"
        begin = f"cd /pages/{place}\nexport PTZMESH_REDIS_URL={url}\nset -o pipefail"
        done = debian.type(f"{begin}\n{adapted}")
        if done.returncode != 0 or "error:" in done.stderr:
            wrong.append(f"{command}\n{done.stdout[-500:]}{done.stderr[-500:]}")
    assert wrong == [], "\n".join(wrong)
