"""
Ask a path for sizes: three tries each, as long as an answer may take, and what the kernel says.

The sockets send packets whole, and do not believe what the kernel has learned of a path.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Protocol

from worker.probes.icmp.echo_socket import IP_RECVERR, IPV6_RECVERR
from worker.probes.icmp.packet import EXTENDED_ERROR
from worker.probes.icmp.series import parse_address
from worker.probes.mtu.path_mtu import Fate, PathMtu, search

#: linux/in.h, linux/in6.h: do not fragment, and take the interface's MTU for the only limit.
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE, IPV6_DONTFRAG = 10, 23, 3, 62
#: Larger than any interface sends but the loopback.
BEYOND_ANY_BYTES = 65_000
#: The IP header without options.
IP_BYTES = {socket.AF_INET: 20, socket.AF_INET6: 40}
#: How often a size is tried; what answers once has passed.
TRIES = 3
#: An answer through a full queue of a mobile link takes so long.
PATIENT_S = 1.5
#: Else it is waited for this long, and some of the slowest answers so far.
LEAST_WAIT_S, SLOWEST_ANSWERS = 0.2, 3.0
#: How often `should_stop` is asked.
STOP_CHECK_S = 0.2
#: Port of the discard protocol (RFC 863), which nobody listens on.
DISCARD = 9


class Stopped(Exception):  # noqa: N818 - a state, and no failure
    """`should_stop` is true."""


class Way(Protocol):
    """One way of asking a path: what is sent, and what counts as an answer."""

    @property
    def socket(self) -> socket.socket:
        """The socket; readable, or with an error, when there is something to read."""

    def begin(self, size_bytes: int) -> None:
        """Ask for packets of another size from now on, IP header included."""

    def send(self) -> None:
        """Send one more try of this size; OSError where this machine refuses it."""

    def heard(self) -> tuple[int | None, bool]:
        """Read what came: which try of this size is answered, and whether «too big» was said."""


class Asker:
    """Asks by one way, and waits as long as the slowest answer so far suggests."""

    def __init__(self, way: Way, should_stop: Callable[[], bool]) -> None:
        """Take a way whose socket is open."""
        self.way, self.should_stop, self.slowest_s = way, should_stop, 0.0
        self.poller = select.poll()
        self.poller.register(way.socket, select.POLLIN)

    def ask(self, size_bytes: int, patient: bool) -> Fate:
        """Send up to three packets of one size, until one is answered; or raise `Stopped`."""
        wait_s = LEAST_WAIT_S + SLOWEST_ANSWERS * self.slowest_s
        wait_s = PATIENT_S if patient else min(PATIENT_S, wait_s)
        self.way.begin(size_bytes)
        sent: list[float] = []
        while len(sent) < TRIES:
            sent.append(time.monotonic())
            try:
                self.way.send()
            except OSError as exc:
                if exc.errno == errno.EMSGSIZE:
                    return Fate.NO_ROOM
            left_s = wait_s if len(sent) == TRIES else wait_s / TRIES
            fate = self._answer(sent, sent[-1] + left_s)
            if fate is not Fate.SILENT:
                return fate
        return Fate.SILENT

    def _answer(self, sent: list[float], until: float) -> Fate:
        while (left_s := until - time.monotonic()) > 0:
            if self.should_stop():
                raise Stopped
            self.poller.poll(1 + 1000 * min(left_s, STOP_CHECK_S))
            answered, too_big = self.way.heard()
            if answered is not None:
                self.slowest_s = max(self.slowest_s, time.monotonic() - sent[answered])
                return Fate.PASSED
            if too_big:
                return Fate.TOO_BIG
        return Fate.SILENT


def largest(
    way: Way, family: int, most_bytes: int, should_stop: Callable[[], bool]
) -> PathMtu | None:
    """Find by one way the largest packet that passes; None when stopped."""
    try:
        return search(Asker(way, should_stop).ask, family=family, most_bytes=most_bytes)
    except Stopped:
        return None


def send_whole(opened: socket.socket, family: int) -> None:
    """Have a socket send packets whole, whatever the kernel has learned of their path."""
    if family == socket.AF_INET:
        opened.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
        opened.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    else:
        opened.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
        opened.setsockopt(socket.IPPROTO_IPV6, IPV6_DONTFRAG, 1)
        opened.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)


def interface_mtu(address: str) -> int:
    """
    Read the MTU of the interface by which a literal address is reached, from the kernel.

    The kernel refuses a packet that is too large for it, and names the limit in the error queue
    (ip(7), IP_RECVERR).

    Raises:
        OSError: It is no address of this host's families, or there is no way to it.
    """
    family, sockaddr = parse_address(address, DISCARD)
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        send_whole(asked, family)
        try:
            asked.sendto(bytes(BEYOND_ANY_BYTES), sockaddr)
        except OSError as exc:
            if exc.errno != errno.EMSGSIZE:
                raise
        else:
            return BEYOND_ANY_BYTES
        _, ancillary, _, _ = asked.recvmsg(1, 512, socket.MSG_ERRQUEUE)
    limits = [struct.unpack_from("=I", raw, EXTENDED_ERROR.size - 8)[0] for _, _, raw in ancillary]
    return int(limits[0])
