"""A mount's result is the host's own, whatever the measuring does."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from waiting import wait_until

from worker.model.measurement import Measurement, Outcome
from worker.monitor import measured_mounts, process
from worker.monitor.mounts import mounts, probing
from worker.monitor.mounts.mounts import MeasuredMounts
from worker.monitor.network import network


class Folder:
    """A mounter of the newer form, which mounts nothing."""

    def __init__(
        self,
        host_username: str,
        host_ip: str,
        host_data_directory: str,
        local_data_directory: str,
        identity_file: str = "/root/.ssh/id_rsa",
    ) -> None:
        self.local = local_data_directory
        self.answer: Any = True

    def mount(self) -> bool:
        return self._answer()

    def unmount(self) -> None:
        self._answer()

    def _answer(self) -> bool:
        if isinstance(self.answer, Exception):
            raise self.answer
        return bool(self.answer)

    def verify_mount(self) -> bool:
        return True


@pytest.fixture
def pinged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts that were pinged; none is."""
    asked: list[str] = []

    def measure(hosts: list[str]) -> list[Measurement]:
        asked.extend(hosts)
        return []

    monkeypatch.setattr(network, "measure_hosts", measure)
    return asked


@pytest.fixture(autouse=True)
def _ends_what_it_began(_fresh_process: None) -> Iterator[None]:
    """Let no probe and no ping go on in the next test, and be recorded there."""
    yield
    beside = process._process.beside
    wait_until(lambda: beside.is_idle, "what is done beside has ended")
    for thread in threading.enumerate():
        if thread.name == "ptzmesh-mount":
            thread.join()


def recorded() -> list[Measurement]:
    return [entry.measurement for entry in process.recorder()._for_csv]


def make(folder: Path, kind: type = Folder) -> Any:
    return measured_mounts(kind)("user", "10.0.0.1", "/data", str(folder))


def test_decorator_and_mixin_keep_name_and_kind(tmp_path: Path) -> None:
    decorated = measured_mounts(Folder)
    assert (decorated.__name__, decorated.__module__) == ("Folder", Folder.__module__)
    assert decorated.__doc__ == Folder.__doc__
    made = decorated("user", "10.0.0.1", "/data", str(tmp_path))
    assert isinstance(made, Folder)
    assert isinstance(made, MeasuredMounts)
    assert made.verify_mount()


def test_mount_and_unmount_are_timed_and_the_host_is_pinged(
    tmp_path: Path, pinged: list[str]
) -> None:
    made = make(tmp_path)
    assert made.mount() is True
    wait_until(lambda: len(pinged) == 2, "it is pinged twice")
    wait_until(lambda: len(recorded()) == 2, "two operations are recorded")
    assert made.unmount() is None
    operations = {m.detail.more["operation"]: m for m in recorded()}
    assert set(operations) == {"mount", "probe", "unmount"}
    assert {m.probe for m in recorded()} == {"sshfs"}
    assert operations["mount"].target == str(tmp_path)
    assert operations["mount"].address == "10.0.0.1"
    assert operations["mount"].detail.more["elapsed_s"] >= 0
    assert operations["probe"].outcome is Outcome.UNREACHABLE
    assert operations["probe"].error == "nothing is mounted there"
    assert pinged == ["10.0.0.1", "10.0.0.1"]


def test_a_mount_that_fails_is_recorded_and_not_probed(tmp_path: Path, pinged: list[str]) -> None:
    made = make(tmp_path)
    made.answer = False
    assert made.mount() is False
    made.answer = OSError("no fuse")
    with pytest.raises(OSError, match="no fuse"):
        made.mount()
    assert [(m.outcome, m.error) for m in recorded()] == [
        (Outcome.REFUSED, "mount() gave False"),
        (Outcome.CRASHED, "OSError: no fuse"),
    ]


@pytest.mark.usefixtures("pinged")  # no packet leaves this machine
@pytest.mark.parametrize(
    ("module", "broken"),
    [
        *((mounts, name) for name in ("recorder", "record", "probe_mount", "probes")),
        *((network, name) for name in ("beside", "measure_hosts")),
    ],
)
def test_measuring_that_fails_changes_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, broken: str
) -> None:
    made = make(tmp_path)
    monkeypatch.setattr(module, broken, None)
    assert made.mount() is True
    assert made.unmount() is None


def test_an_unknown_constructor_is_no_reason_to_fail(pinged: list[str]) -> None:
    class Other:
        def __init__(self) -> None:
            self.host_ip = "10.0.0.2"

        def mount(self) -> str:
            return "mounted"

        def unmount(self) -> str:
            return "gone"

    made = measured_mounts(Other)()
    assert (made.mount(), made.unmount()) == ("mounted", "gone")
    wait_until(lambda: pinged == ["10.0.0.2"] * 2, "the new address is pinged twice")
    assert {m.address for m in recorded()} == {"10.0.0.2"}


SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_an_unmount_ends_a_probe_and_lets_no_other_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pinged: list[str]
) -> None:
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _argv, **options: popen(SLEEP, **options))
    made = make(tmp_path)
    made.mount()
    wait_until(lambda: str(tmp_path) in probing.probes.running, "the probe runs")
    made.unmount()
    wait_until(lambda: len(recorded()) == 3, "three operations are recorded")
    (probe,) = (m for m in recorded() if m.detail.more["operation"] == "probe")
    assert (probe.outcome, probe.error) == (Outcome.CANCELLED, "the folder is being unmounted")
    probing.probes.keep_out("/elsewhere")
    refusal = probing.probes.run("/elsewhere", SLEEP, 60)
    assert (refusal["outcome"], refusal["error"]) == (probe.outcome, probe.error)
