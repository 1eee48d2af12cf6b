"""What `ptzmesh demo` says when its workers do not come up."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from coordinator.cli.demo import READY_DEADLINE_S, wait_until_ready
from coordinator.mesh import Mesh
from worker.model.errors import PtzmeshError

pytestmark = pytest.mark.redis


def test_worker_that_ends_is_told_with_its_words_and_not_waited_for(
    redis_url: str, tmp_path: Path
) -> None:
    argv = [sys.executable, "-m", "coordinator.cli", "worker", "--redis", redis_url]
    argv += ["--name", "node-1", "--address", "127.0.0.1", "--state-dir", "/proc/none"]
    begun = time.monotonic()
    with (
        (tmp_path / "node-1.log").open("wb") as log,
        subprocess.Popen(argv, stderr=log) as process,
        pytest.raises(PtzmeshError, match=r"node-1 ended: error: state folder \(/proc/none\)"),
    ):
        wait_until_ready(Mesh(redis_url), {"node-1": process}, tmp_path)
    assert time.monotonic() - begun < READY_DEADLINE_S  # which is no matter of a busy machine
