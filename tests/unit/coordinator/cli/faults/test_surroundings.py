"""A fault of the surroundings is told from a bug, and does not end a worker."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest
import redis
from rq.job import Job

from coordinator.cli.faults.surroundings import trouble
from worker.host.readable import read_file
from worker.node.children import Child
from worker.publish.outbox import Outbox

OPTIONS = {"--csv": Path("out/x.csv")}


@pytest.mark.parametrize(
    ("exc", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out/x.csv"), "say another --csv"),
        (OSError(errno.ENOENT, "No such file", "out"), "say another --csv"),
        (OSError(errno.EROFS, "Read-only file system", "/else"), "/else cannot be used"),
        (OSError(errno.ENOSPC, "No space left on device"), "standard output or a file"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.ENOENT, "No usable temporary directory found in …"), "TMPDIR"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (MemoryError(), "memory"),
    ],
)
def test_a_fault_of_the_surroundings_says_what_to_change(exc: Exception, says: str) -> None:
    assert says in str(trouble(exc, OPTIONS))


@pytest.mark.parametrize(
    "exc",
    [
        OSError(errno.ENOENT, "No such file", "/else"),
        OSError(errno.EBADF, "Bad file descriptor"),
        FileNotFoundError("without a number"),
        RuntimeError("dictionary changed size during iteration"),
        ValueError("x"),
    ],
)
def test_a_bug_stays_a_bug(exc: Exception) -> None:
    assert trouble(exc, OPTIONS) is None


def test_a_disk_that_is_gone_ends_no_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = redis.Redis(port=1)
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "x").mkdir(parents=True)
    for path in (tmp_path / "file" / "a.outbox", tmp_path / "folder"):
        assert Outbox(path).resend(nowhere) == []
    assert caplog.text.count("outbox cannot be read") == 2


def test_a_process_that_is_not_to_be_had_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> NoReturn:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    child = Child(role="prober", node="a", redis_url="redis://h", queues=["q"], job_class=Job)
    monkeypatch.setattr(os, "fork", fork)
    child.keep_alive()
    assert child.process is None
    assert child.restart_at > child.started_at


def test_a_pipe_to_which_nobody_writes_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p")
    with pytest.raises(OSError, match="nobody writes"):
        read_file(tmp_path / "p", pipe_wait_s=0.01)


def test_a_file_without_an_end_is_not_read_for_ever() -> None:
    with pytest.raises(OSError, match="more than 4 MiB"):
        read_file(Path("/dev/zero"))
