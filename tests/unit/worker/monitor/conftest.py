"""Each test has a process state of its own, and no Redis."""

from __future__ import annotations

import pytest

from worker.monitor import guard, process, tagging


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTZMESH_NODE", "cam-7")
    for name in ("PTZMESH_REDIS_URL", "REDIS_URL", "PTZMESH_METRICS_CSV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(guard, "_logged_at", {})
    monkeypatch.setattr(tagging, "_cycle", None)
    monkeypatch.setattr(process, "_process", process._Process())
