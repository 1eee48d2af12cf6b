"""The pages of the documentation, the commands that they show, and how one is tried."""

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
from pathlib import Path

import pytest
from waiting import wait_until

from coordinator.cli.group import COMMANDS, cli, load
from integration.nodes import cli as run_cli

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


def commands(*words: str, others: bool = False) -> list[str]:
    """Give the shown commands of which ptzmesh's own begins with a word; or all others."""
    every = sorted({*shown_in_docs(), *shown_in_help()})
    named = [one for one in every if any(f"ptzmesh {word}" in one for word in words)]
    chosen = [one for one in every if one not in named] if others else named
    assert len(chosen) >= 5
    return chosen


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
    if "--figure" in command:
        run_cli(url, "run", "--nodes", "cam-1,hub", "--count", "2", "--new")
    if RUN_ID.search(command) is None:
        return ""
    runs = run_cli(url, "runs", "--json", "--last", "1").stdout
    return str(json.loads(runs)["run"])


def try_command(
    command: str, url: str, folder: Path, ahead: dict[str, subprocess.Popen[str]]
) -> None:
    """
    Run a shown command to its end, which must be a good one.

    Args:
        command: As it is shown.
        url: Redis of the mesh.
        folder: Where it is run.
        ahead: Commands that are under way already.
    """
    if " jq " in command and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    adapted = adapt(command, url, prepare(command, url, folder))
    endless = bool(re.search(r"ptzmesh (worker|.*--follow)", command))
    shown = f"exec env {adapted}" if endless else adapted
    process = ahead.get(command) or start(shown, folder, url)
    if endless:
        # It has no end of its own; what counts is that it is still there, and stops when asked.
        wait_until(lambda: process.poll() is not None or is_under_way(process.pid), command)
        time.sleep(0.5)
        process.terminate()
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, f"{adapted}\n{said}"
    assert "error:" not in said, said
