"""Single handshakes on this machine: nothing leaves it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.probes.interception.knock import MOST_OPEN, Knock, knock


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Let this process open no more than the handshakes of one time, and a few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(one.name) for one in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + MOST_OPEN + 8, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_descriptors")
def test_handshakes_with_a_large_mesh_leave_descriptors_for_others() -> None:
    # 127.0.0.0/8 is all of this machine, and nobody listens on the port.
    knocks = [Knock(f"127.9.{i // 250}.{i % 250 + 1}", 9) for i in range(3 * MOST_OPEN)]
    answers = knock(knocks)
    assert [one for one in knocks if one not in answers or answers[one].accepted] == []
