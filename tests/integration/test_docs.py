"""Every command that README, docs and the help show does what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from samples import docs_script

from coordinator.cli import COMMANDS, cli, load
from coordinator.embedded import embedded_server
from integration.nodes import cli as run_cli
from integration.nodes import eventually, workers
from worker.probes.icmp import icmp_capability

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "docs" / "analyse" / "README.md",
]

#: Shown, but not run here: they change the machine, or are tests of their own.
ELSEWHERE = ("make ", "sudo ", "pip ", "export ", "docker ", "apt-get ", "python docs/")
# docs/install.md: tests/deploy
ELSEWHERE += ("kubectl ", "python3 -m venv ", "/opt/ptzmesh/", "ln -sf ")


#: Of the fixture; the examples use these names.
NODES = ("cam-1", "hub", "cam-east")
RUN_ID = re.compile(r"\d{8}T\d{9}-[0-9a-f]{4}")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def shown_in_docs() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    commands = [line.partition("  #")[0].strip() for line in lines]
    return sorted({one for one in commands if one and not one.startswith(ELSEWHERE)})


def shown_in_help() -> list[str]:
    found = []
    for name in ("", *COMMANDS):
        command = load(name) if name else cli
        assert command.epilog is not None, f"{name} has no examples"
        lines = [line.strip() for line in command.epilog.splitlines()]
        examples = [re.split(r" {2,}", line)[0] for line in lines if "ptzmesh" in line]
        assert len(examples) >= 3, f"{name} has fewer than three examples"
        found += examples
    return sorted(set(found))


def start(command: str, folder: Path, url: str) -> subprocess.Popen[str]:
    """Start a command as a person would type it."""
    return subprocess.Popen(
        ["bash", "-o", "pipefail", "-ec", command],
        cwd=folder,
        env={
            **os.environ,
            "HOME": str(folder),
            "PTZMESH_REDIS_URL": url,
            "STATE_DIRECTORY": str(folder / "more"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def is_under_way(pid: int) -> bool:
    """Tell whether a command handles SIGTERM, or is a node, which has started both its children."""
    status = Path(f"/proc/{pid}/status").read_text()
    handled = re.search(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)
    takes = handled is not None and bool(int(handled.group(1), 16) >> (signal.SIGTERM - 1) & 1)
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, check=False)
    return takes or len(children.stdout.split()) == 2


@pytest.fixture(scope="module")
def ahead(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, subprocess.Popen[str]]:
    """The demos that will be tried, all under way: each has a Redis and nodes of its own."""
    chosen = [
        item.callspec.params["command"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.path == Path(__file__)
        and "command" in getattr(getattr(item, "callspec", None), "params", {})
    ]
    demos = [command for command in chosen if command.startswith("ptzmesh demo")]
    return {one: start(adapt(one, "", ""), tmp_path_factory.mktemp("demo"), "") for one in demos}


@pytest.fixture(scope="module")
def mesh_folder(
    server_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """Nodes with the names and labels that the examples use, and a folder to work in."""
    folder = tmp_path_factory.mktemp("docs")
    with embedded_server(folder, binary=server_binary, unix=False) as server:
        connection = redis.Redis.from_url(server.url)
        # `doctor --between` would end another test's iperf3 server, which takes one client.
        more = ["--label", "site=roof", "--ports", "5301-5316"]
        with workers(server.url, connection, folder, NODES, more):
            csv = str(folder / "network_metrics.csv")
            assert run_cli(server.url, "run", "--count", "2").returncode == 0
            assert run_cli(server.url, "collect", "--csv", csv).returncode == 0
            yield server.url, folder


@pytest.fixture(scope="module")
def measured(mesh_folder: tuple[str, Path]) -> Path:
    """The CSV of a run that used most of what there is."""
    url, folder = mesh_folder
    probes = ["--probe", "ping", "--probe", "redis", "--probe", "throughput", "--duration", "1"]
    csv = str(folder / "measured.csv")
    assert run_cli(url, "run", "--count", "2", *probes, "--csv", csv).returncode == 0
    return Path(csv)


def adapt(command: str, url: str, run: str) -> str:
    """Put this test's own Redis, run and folder where the example has its reader's."""
    ours = f"{shlex.quote(sys.executable)} -m coordinator.cli"
    command = re.sub(r"/(data|tmp|persistence)/", "./", command)
    command = re.sub(r"(^|[\s|])ptzmesh(?=\s)", rf"\g<1>{ours}", command)
    command = re.sub(r"(PTZMESH_REDIS_URL=|--redis[ =])\S+", rf"\g<1>{url}", command)
    return RUN_ID.sub(run, command)


def prepare(command: str, url: str, folder: Path) -> str:
    """Give the id of a run that the command can work on."""
    if "cancel" in command:
        return run_cli(url, "run", "--detach", "--new", "--count", "1000").stdout.strip()
    if "verify" in command:
        csv = str(folder / "network_metrics.csv")
        run_cli(url, "run", "--nodes", "cam-1,hub", "--count", "1")
        run_cli(url, "collect", "--csv", csv)
    if RUN_ID.search(command) is None:
        return ""
    runs = run_cli(url, "runs", "--json", "--last", "1").stdout
    return str(json.loads(runs)["run"])


@pytest.mark.redis
@pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")
@pytest.mark.parametrize("command", sorted({*shown_in_docs(), *shown_in_help()}))
def test_command_that_is_shown_works(
    command: str, mesh_folder: tuple[str, Path], ahead: dict[str, subprocess.Popen[str]]
) -> None:
    url, folder = mesh_folder
    if " jq " in command and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    adapted = adapt(command, url, prepare(command, url, folder))
    endless = bool(re.search(r"ptzmesh (worker|.*--follow)", command))
    shown = f"exec env {adapted}" if endless else adapted
    process = ahead.get(command) or start(shown, folder, url)
    if endless:
        # It has no end of its own; what counts is that it is still there, and stops when asked.
        eventually(lambda: process.poll() is not None or is_under_way(process.pid), command)
        time.sleep(0.5)
        process.terminate()
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, f"{adapted}\n{said}"
    assert "error:" not in said, said


@pytest.mark.redis
@pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_that_is_shown_works(page: Path, mesh_folder: tuple[str, Path]) -> None:
    url, _ = mesh_folder
    for block in blocks(page, "python"):
        code = re.sub(r'Mesh\("[^"]*"\)', f"Mesh({url!r})", block)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_page_of_the_command_line_is_what_the_commands_say() -> None:
    module = docs_script("make_cli")
    assert module.PAGE.read_text() == module.page(), "run: python docs/make_cli.py"


def test_every_column_of_the_csv_is_documented() -> None:
    from worker.measurement import CSV_COLUMNS

    page = (ROOT / "docs" / "csv.md").read_text()
    assert [name for name in CSV_COLUMNS if f"`{name}`" not in page] == []


def test_every_outcome_is_documented() -> None:
    from worker.measurement import Outcome

    page = (ROOT / "docs" / "csv.md").read_text()
    assert [one.value for one in Outcome if f"`{one.value}`" not in page] == []


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_site_is_built_without_a_broken_link_or_a_page_that_nothing_leads_to(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").exists()


def test_example_says_of_its_file_what_the_page_shows(tmp_path: Path) -> None:
    made = docs_script("make_output")
    said = made.said(made.FOLDER / "mesh.csv", tmp_path / "mesh.svg", "hub")
    assert made.page(said) == made.PAGE.read_text(), "run: python docs/make_output.py"
    assert (tmp_path / "mesh.svg").read_text().count("<path") > 20


@pytest.mark.redis
@pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")
def test_example_reads_a_file_that_was_just_measured(
    measured: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "now.png"
    said = docs_script("make_output").said(measured, picture, "hub")
    assert "cam-east" in said
    assert "Throughput, Mbit/s:" in said
    assert picture.read_bytes().startswith(b"\x89PNG")


#: Of docs/keys.md: key → type, and whether it expires.
KEY_ROW = re.compile(r"^\| `((?:ptzmesh|rq):[^`]*)` \| (\w*) \| ([^|]+) \|", re.MULTILINE)


def documented_keys() -> list[tuple[re.Pattern[str], str, bool]]:
    page = (ROOT / "docs" / "keys.md").read_text()
    rows = [
        (re.compile(re.sub(r"<\w+>", "[^:]+", key).replace("…", ".*")), kind, "without" not in life)
        for key, kind, life in KEY_ROW.findall(page)
    ]
    assert len(rows) > 20
    return rows


@pytest.mark.redis
@pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")
def test_every_key_that_a_mesh_leaves_is_documented_and_expires_as_said(
    mesh_folder: tuple[str, Path], measured: Path
) -> None:
    url, _ = mesh_folder
    assert measured.exists()
    connection, rows = redis.Redis.from_url(url), documented_keys()
    found = sorted(key.decode() for key in connection.scan_iter())  # our own server
    assert any(key.startswith("ptzmesh:budget:") for key in found)
    for key in found:
        matching = [(kind, ends) for pattern, kind, ends in rows if pattern.fullmatch(key)]
        assert matching, f"{key} is not in docs/keys.md"
        kind, ends = matching[0]
        pipeline = connection.pipeline()  # one moment: it may end at any
        there, left_s = pipeline.type(key).ttl(key).execute()
        if kind != "several" and there != b"none":
            assert there.decode() == kind, key
            assert (left_s >= 0) is ends, key


def test_every_key_in_the_code_is_documented() -> None:
    source = "".join(path.read_text() for path in (ROOT / "worker").rglob("keyspace.py"))
    page = (ROOT / "docs" / "keys.md").read_text()
    keys = re.findall(r'"(ptzmesh:[a-z:]+)[{"]', source)
    assert len(keys) > 15
    assert [key for key in keys if f"`{key}" not in page] == []
    architecture = KEY_ROW.findall((ROOT / "docs" / "architecture.md").read_text())
    assert [key for key, *_ in architecture if f"`{key.rstrip('…')}" not in page] == []
