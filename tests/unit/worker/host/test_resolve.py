"""The one resolver: what it gives, in which order, and that who is silent holds up nobody."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import wait_until

from worker.host import resolve as module
from worker.host.link_local import zoned
from worker.host.resolve import MAX_THREADS, LookUps, resolve

#: Some time that no machine needs for what takes no waiting, and less than a silent server takes.
AT_ONCE_S = 2.0


class SlowServer:
    """Names that hang until they are let go, in the place of getaddrinfo(3) itself."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.asked: list[str] = []
        self.real = socket.getaddrinfo

    def __call__(self, name: str, *rest: Any) -> Any:
        self.asked.append(name)
        if "silent" in name:
            self.let_go.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return self.real(name, *rest)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowServer]:
    server = SlowServer()
    monkeypatch.setattr(socket, "getaddrinfo", server)
    monkeypatch.setattr(module, "LOOK_UP_S", 0.5)
    yield server
    server.let_go.set()
    wait_until(lambda: not module._desk.threads, "no thread looks up any more")


def test_literals_are_known_without_asking_anybody(slow: SlowServer) -> None:
    addresses = ["192.0.2.1", "fd77::1", "::ffff:192.0.2.1"]
    known = LookUps(addresses).known()
    assert {address: known[address].literals for address in addresses} == {
        address: (address,) for address in addresses
    }
    assert slow.asked == []


def test_who_is_silent_delays_nobody_and_is_given_up_in_time(slow: SlowServer) -> None:
    ups = LookUps(["silent-1", "silent-2", "localhost", "192.0.2.1"])
    begun = time.monotonic()
    wait_until(lambda: "localhost" in ups.known(), "localhost is known", AT_ONCE_S)
    known = ups.wait()
    assert time.monotonic() - begun < AT_ONCE_S
    assert known["silent-1"].literals == ()
    assert known["silent-1"].error == (
        "the address silent-1 was not resolved: no name server answered"
    )


def test_who_is_known_is_handed_out_before_who_is_silent(slow: SlowServer) -> None:
    batches = list(LookUps(["silent-1", "localhost", "192.0.2.1"]).batches())
    assert batches[0]["192.0.2.1"].literals == ("192.0.2.1",)
    assert [sorted(batch) for batch in batches][-1] == ["silent-1"]
    assert sorted(name for batch in batches for name in batch) == [
        *("192.0.2.1", "localhost", "silent-1")
    ]
    stopped = LookUps(["silent-2", "192.0.2.1"]).batches(lambda: True)
    assert list(stopped) == []


def test_threads_that_hang_do_not_pile_up(slow: SlowServer) -> None:
    for _ in range(3):
        LookUps([f"silent-{number}" for number in range(100)]).wait(0)
        assert module._desk.threads <= MAX_THREADS
    assert len(slow.asked) <= MAX_THREADS  # nor is one asked twice at a time
    slow.let_go.set()
    assert resolve("localhost").literals  # and those that end make room


def test_family_that_never_answers_does_not_cost_the_other(
    monkeypatch: pytest.MonkeyPatch, slow: SlowServer
) -> None:
    def only_ipv4(name: str, port: Any, family: int, *rest: Any) -> Any:
        return slow("silent" if family == socket.AF_INET6 else name, port, family, *rest)

    monkeypatch.setattr(socket, "getaddrinfo", only_ipv4)
    monkeypatch.setattr(module, "LOOK_UP_S", 30.0)
    begun = time.monotonic()
    assert resolve("localhost").literals == ("127.0.0.1",)
    assert time.monotonic() - begun < 2 * AT_ONCE_S


def test_family_is_what_was_asked_for() -> None:
    assert resolve("127.0.0.1", 4).literals == ("127.0.0.1",)
    assert resolve("127.0.0.1", 6).error == "127.0.0.1 is no IPv6 address"
    assert resolve("localhost", 4).literals == ("127.0.0.1",)


def test_hung_look_up_holds_up_no_exit() -> None:
    program = (
        "import socket, time\n"
        "socket.getaddrinfo = lambda *_: time.sleep(600)\n"
        "from worker.host.resolve import LookUps\n"
        "print(dict(LookUps(['silent']).wait(0.1)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "{}\n"


def test_child_that_is_forked_while_one_hangs_looks_up_by_itself(slow: SlowServer) -> None:
    LookUps(["silent"]).wait(0)
    read, write = os.pipe()
    pid = _fork()
    if pid == 0:
        os.write(write, b"y" if resolve("localhost").literals else b"n")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 1) == b"y"
    os.close(read)
    os.close(write)


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads
        return os.fork()


@pytest.mark.parametrize("address", ["192.0.2.1", "fd77::1", "::1"])
def test_other_addresses_than_link_local_ones_have_no_interface(address: str) -> None:
    assert zoned(address, own_zone=False) == (address, "")


def test_interface_that_is_not_here_is_named() -> None:
    said = "fe80::1%nosuch0 names an interface that is not here: nosuch0"
    assert resolve("fe80::1%nosuch0", own_zones=True).error == said
