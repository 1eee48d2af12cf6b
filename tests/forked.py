"""
Our commands as processes of their own, forked from one that has imported ptzmesh already.

An interpreter's start and its imports are nine tenths of what a short command costs the processor,
and three quarters of a node of two minutes; the tests start hundreds. So each process of pytest
keeps one that has paid for them, and forks from it, as a node forks its own workers. What comes
after the imports is the same: `main`, with its arguments, environment, folder and streams.

A command whose environment has what is read at a start only is started by itself (`start`); so are
those of the lab, and the installed command in the tests of the docs.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import re
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

#: A request, and its answer: arguments and an environment.
MESSAGE_BYTES = 1 << 17
PRELOADED = ("coordinator", "worker")
#: What the loader, Python and libc read once, at a process' start.
READ_ONCE = re.compile(r"LD_\w+|PYTHON\w+|MALLOC_\w+|LC_\w+|LANG|TZ")
AT_START = dict(os.environ)
READ = {name: value for name, value in AT_START.items() if READ_ONCE.fullmatch(name)}
START = [sys.executable, "-m", "coordinator.cli"]


class Forked(subprocess.Popen[Any]):
    """
    A command of ours; in all else what subprocess.Popen makes.

    `args` are those of a start by `python -m coordinator.cli`; streams that are not given are
    /dev/null.
    """

    def _execute_child(  # type: ignore[no-untyped-def]  # as in subprocess, which has no types here
        self, args, _program, _before, _close, _pass, cwd, env, _info, _flags, _shell,
        in_read, in_write, out_read, out_write, err_read, err_write, *_rest,
    ) -> None:  # fmt: skip
        words = [os.fspath(word) for word in args]
        assert words[:3] == START, f"{words} is no command of ours"
        null = os.open(os.devnull, os.O_RDWR)
        try:
            asked = {
                "argv": words[2:],
                "env": dict(os.environ if env is None else env),
                "cwd": os.fspath(cwd or Path.cwd()),
            }  # fmt: skip
            files = [null if one < 0 else one for one in (in_read, out_write, err_write)]
            self.pid = _Parent.of_this_process().asks(asked, files)["pid"]
            self._child_created = True
        finally:
            os.close(null)
            given = (in_read, in_write), (out_write, out_read), (err_write, err_read)
            ours = {getattr(self, "_devnull", None)}
            for one in {one for one, other in given if one >= 0 and other >= 0} | ours - {None}:
                os.close(one)  # type: ignore[arg-type]  # not None
            self._closed_child_pipe_fds = True

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        with self._waitpid_lock:  # type: ignore[attr-defined]  # of subprocess
            if self.returncode is None:
                self.returncode = _Parent.of_this_process().asks({"ended": self.pid})["code"]
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        while self._internal_poll() is None:
            try:
                handle = os.pidfd_open(self.pid)
            except ProcessLookupError:  # it was waited for in another thread
                continue
            try:
                if not select.select([handle], [], [], timeout)[0]:
                    assert timeout is not None
                    raise subprocess.TimeoutExpired(self.args, timeout)
            finally:
                os.close(handle)
        return int(self.returncode)


def start(args: Sequence[str], *, env: Mapping[str, str], **streams: Any) -> subprocess.Popen[Any]:
    """Start a command of ours: forked, unless its environment needs a start of its own."""
    read = {name: value for name, value in env.items() if READ_ONCE.fullmatch(name)}
    return (Forked if read == READ else subprocess.Popen)(args, env=env, **streams)


def run(
    args: Sequence[str], *, env: Mapping[str, str], timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end, its output captured as text, as subprocess.run would."""
    pipe = subprocess.PIPE
    with start(args, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
        return subprocess.CompletedProcess(args, process.returncode, out, err)


class _Parent:
    """The process that ours are forked from; it ends with this one."""

    def __init__(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(its.fileno())],
                env=AT_START,
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
            )
        self.socket, self.lock = ours, threading.Lock()
        atexit.register(self.close)

    @staticmethod
    @cache
    def of_this_process() -> _Parent:
        """Start it, the first time."""
        return _Parent()

    def asks(self, asked: dict[str, Any], files: Sequence[int] = ()) -> dict[str, Any]:
        """Ask and give the answer."""
        with self.lock:
            socket.send_fds(self.socket, [json.dumps(asked).encode()], list(files))
            answer = self.socket.recv(MESSAGE_BYTES)
        assert answer, "the process that commands are forked from has ended"
        told: dict[str, Any] = json.loads(answer)
        return told

    def close(self) -> None:
        """Let it end."""
        self.socket.close()
        self.process.wait()


def _serve(asked_here: socket.socket) -> bool:
    """Fork for each that is asked for; True in a child, False when nobody will ask any more."""
    while True:
        data, files, _, _ = socket.recv_fds(asked_here, MESSAGE_BYTES, 3)
        if not data:
            return False
        asked = json.loads(data)
        if "ended" in asked:
            pid, status = os.waitpid(asked["ended"], os.WNOHANG)
            answer = {"code": os.waitstatus_to_exitcode(status) if pid else None}
        else:
            answer = {"pid": os.fork()}
            if not answer["pid"]:
                asked_here.close()
                _become(asked, files)
                return True
        for one in files:
            os.close(one)
        asked_here.send(json.dumps(answer).encode())


def _become(asked: dict[str, Any], files: Sequence[int]) -> None:
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    for place, one in enumerate(files):
        os.dup2(one, place)
        os.close(one)
    sys.argv = list(asked["argv"])
    sys.stdin = _text(0, "r", sys.stdin)
    sys.stdout = _text(1, "w", sys.stdout)
    sys.stderr = _text(2, "w", sys.stderr)


def _text(number: int, mode: str, as_before: Any) -> Any:
    """Open a stream as the interpreter does at its start: what is buffered depends on the file."""
    buffering = 1 if number == 2 or os.isatty(number) else -1
    encoding, errors = as_before.encoding, as_before.errors
    return open(number, mode, buffering, encoding, errors, closefd=False)


def _preload() -> None:
    for name in PRELOADED:
        package = importlib.import_module(name)
        for found in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())
    _preload()
    gc.freeze()  # neither copied nor looked through in each child
    if _serve(socket.socket(fileno=int(sys.argv[1]))):
        from coordinator.cli import main

        main()
