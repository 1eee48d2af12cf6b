"""
A proxy before a server that counts round trips: how often somebody asked only after an answer.

Answers are held back a little, as a long way would, so that what is sent without waiting for them
is one trip. Time itself is not measured.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import unquote, urlsplit

import redis

from worker.wire.connection import server

#: Longer than a busy machine takes between two packets that belong together.
HOLD_S = 0.06


class CountingProxy:
    """
    Between programs and one server.

    Attributes:
        url: Of the server, by this way.
        trips: Of all connections so far; opening one is the first of its trips.
        said: What programs sent, of each trip that carried something.
    """

    def __init__(self, url: str, stack: ExitStack, hold_s: float = HOLD_S) -> None:
        """Listen until the stack ends."""
        self._hold_s = hold_s
        self._server = urlsplit(url)
        self._stack = stack
        self._lock = threading.Lock()
        self._door = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        login = self._server.netloc.rpartition("@")[0]
        at = f"{login}@" if login else ""
        self.url = f"redis://{at}127.0.0.1:{self._door.getsockname()[1]}/0"
        self.trips, self.said = 0, list[bytes]()
        stack.callback(lambda: self._door.shutdown(socket.SHUT_RDWR))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # the test is over
            while True:
                near = self._stack.enter_context(self._door.accept()[0])
                far = self._stack.enter_context(self._open())
                with self._lock:
                    self.trips += 1
                for each in (near, far):
                    if each.family != socket.AF_UNIX:
                        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                is_answered = threading.Event()
                is_answered.set()
                for relay in (self._ask, self._answer):
                    threading.Thread(
                        target=relay, args=(near, far, is_answered), daemon=True
                    ).start()

    def _open(self) -> socket.socket:
        if self._server.scheme == "unix":
            opened = socket.socket(socket.AF_UNIX)
            opened.connect(unquote(self._server.path))
            return opened
        return socket.create_connection((self._server.hostname or "", self._server.port or 6379))

    def _ask(self, near: socket.socket, far: socket.socket, is_answered: threading.Event) -> None:
        with suppress(OSError):
            while data := near.recv(65536):
                with self._lock:
                    if is_answered.is_set():
                        is_answered.clear()
                        self.trips += 1
                        self.said.append(b"")
                    self.said[-1] += data
                far.sendall(data)
        _end(far)

    def _answer(
        self, near: socket.socket, far: socket.socket, is_answered: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                time.sleep(self._hold_s)
                is_answered.set()
                near.sendall(data)
        _end(near)


@contextmanager
def counting_proxy(url: str, hold_s: float = HOLD_S) -> Iterator[CountingProxy]:
    """Stand before a server until the block ends."""
    with ExitStack() as stack:
        yield CountingProxy(url, stack, hold_s)


@contextmanager
def open_connection(proxy: CountingProxy) -> Iterator[redis.Redis]:
    """Connect by a proxy, which then counts from 0."""
    with server.connect(proxy.url) as connection:
        connection.ping()
        proxy.trips = 0
        yield connection


def _end(link: socket.socket) -> None:
    with suppress(OSError):
        link.shutdown(socket.SHUT_WR)
