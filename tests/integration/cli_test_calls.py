"""Calls of `ptzmesh test`, and what they write."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import forked

from worker.model.text import parse_iso_utc

PROGRAM = [*forked.START, "test"]
#: A network of its own, whose loopback answers no echo: nothing outside can answer for it.
SILENT = [
    "unshare", "--user", "--map-root-user", "--net", "sh", "-ec",
    'ip link set lo up; echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all; exec "$@"', "sh",
]  # fmt: skip


def environment(url: str | None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("PTZMESH_REDIS_URL", "REDIS_URL")}
    return kept | ({"PTZMESH_REDIS_URL": url} if url else {})


def run(
    folder: Path, *words: str, url: str | None = None, before: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    if before is None:
        return forked.run([*PROGRAM, *words], env=environment(url), timeout=300)
    command = [*before, *PROGRAM, *words]
    return subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env=environment(url),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@contextmanager
def under_way(
    folder: Path, *words: str, url: str | None = None
) -> Iterator[tuple[subprocess.Popen[str], list[dict[str, Any]]]]:
    """Run a test with --json; its rounds come into the list as they are printed."""
    process = forked.start(
        [*PROGRAM, *words, "--json", "--out", str(folder)],
        env=environment(url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    rounds: list[dict[str, Any]] = []

    def read() -> None:
        assert process.stdout is not None
        rounds.extend(json.loads(line) for line in process.stdout)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield process, rounds
    finally:
        process.kill()
        reader.join()
        process.communicate()


def document(folder: Path) -> dict[str, Any]:
    (found,) = folder.glob("network_test_*.json")
    loaded: dict[str, Any] = json.loads(found.read_text())
    return loaded


def pictures(folder: Path) -> list[Path]:
    found = list(folder.glob("network_test_*.png"))
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in found)
    return found


def check_places(series: dict[str, Any], begun: str, interval_s: float, planned: int) -> None:
    """Each round is at its place; one that a busy machine held up came late, or was left out."""
    numbers = [one["round"] for one in series["rounds"]]
    assert numbers == sorted(set(numbers) & set(range(planned)))
    assert len(numbers) >= 2
    for number, text in zip(numbers, series["timestamps"], strict=True):
        after_s = (parse_iso_utc(text) - parse_iso_utc(begun)).total_seconds()
        # When the one before began late, up to half an interval before its place.
        assert after_s > (number - 0.5) * interval_s - 0.01
