"""Every shown command that tests one target or shows a demo does what it says."""

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


#: The other demos that are shown are run in `make test`.
LONG = "ptzmesh demo --count 100"


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(one, marks=pytest.mark.long if one == LONG else ())
        for one in commands("test", "demo")
    ],
)
def test_command_that_is_shown_works(
    command: str, mesh_folder: tuple[str, Path], ahead: dict[str, subprocess.Popen[str]]
) -> None:
    url, folder = mesh_folder
    try_command(command, url, folder, ahead)
