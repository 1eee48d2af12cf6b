"""Every shown command that starts a run does what it says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from integration.docs_pages import commands, try_command
from worker.probes.icmp.engine import icmp_capability

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping"),
]


@pytest.mark.parametrize("command", commands("run"))
def test_command_that_is_shown_works(
    command: str, mesh_folder: tuple[str, Path], ahead: dict[str, subprocess.Popen[str]]
) -> None:
    url, folder = mesh_folder
    try_command(command, url, folder, ahead)
