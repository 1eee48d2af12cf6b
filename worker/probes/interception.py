"""
Whether something on the way answers TCP in the place of the target: a transparent proxy.

`sshuttle`, hotels and carriers do so: a handshake then says how far the proxy is. A handshake whose
packets live for one hop (IP_TTL, RFC 791) cannot be answered by a target beyond a router. An answer
to it, accepted or refused, is proof where the route has a gateway, and

- a socket of this machine is at the other end; or
- an echo of one hop to the same address dies at the first router; or
- it gets no answer at all, though the router itself answers echoes.

An echo that is answered shows that the address is the first hop itself: a router's other address,
or what is behind a tunnel that counts no hops. Without the right to ping, or where no echo comes
back from anywhere, nothing is proved, and the answer is a hint.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType

from worker.measurement import Measurement, Outcome
from worker.probes.icmp import EchoOptions, EchoSeries, IcmpNotPermitted, echo_many
from worker.probes.icmp_series import parse_address
from worker.probes.icmp_socket import limit_hops
from worker.probes.own_sockets import far_end_here
from worker.probes.route import Route, route_to

#: Whoever answers is within one hop; a slow radio's is a second.
WAIT_S = 1.0
#: The first packet of the measurement itself is the one that wakes a link.
AFTER_S = 0.05
#: Between two handshakes: each costs the first router an ICMP message.
GAP_S = 0.001
#: An echo that is lost is no proof: so many more are sent before one counts as not answered.
MORE_ECHOES, ECHO_GAP_S = 2, 0.3
#: What a router says of an echo that it did not take for its own.
PASSED_ON = frozenset({"ttl_exceeded", "network_unreachable", "host_unreachable"})

#: Hint: a handshake of one hop was answered, and what that means could not be told.
HINT = "ttl_1_answered"


@dataclass(frozen=True)
class Sign:
    """
    What the handshake of one hop says.

    Attributes:
        error: What answers in the target's place, as one line for a person; empty when that is not
            proved.
        hint: A word for what may be a proxy and is not proved; empty when there is none.
    """

    error: str = ""
    hint: str = ""


@dataclass(frozen=True)
class _Answered:
    """A handshake of one hop that was answered; `here` is the port of this machine's socket."""

    address: str
    port: int
    accepted: bool
    gateway: str
    here: int | None


def look(ends: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Sign]:
    """
    Look for a proxy before each of these addresses and ports; give those with a sign of one.

    Costs a handshake where the route has a gateway, for a second at most; and one to three echoes
    where that was answered.
    """
    routes = {end: route_to(*end) for end in dict.fromkeys(ends)}
    beyond = [(end, route) for end, route in routes.items() if route and route.gateway]
    answered = _handshakes(beyond)
    proved = {one: _answered_here(one) for one in answered if one.here is not None}
    rest = [one for one in answered if one.here is None]
    try:
        proved |= _judged_by_echoes(rest)
    except (IcmpNotPermitted, OSError):
        proved |= dict.fromkeys(rest, Sign(hint=HINT))
    return {(one.address, one.port): sign for one, sign in proved.items() if sign != Sign()}


class Beside:
    """`look`, in a thread beside a measurement; it is bounded, and is not waited for at the end."""

    def __init__(self, ends: Sequence[tuple[str, int]], *, after_s: float = AFTER_S) -> None:
        """Begin shortly: the measurement's own first packets come first."""
        self._ends, self._after_s = ends, after_s
        self._left = threading.Event()
        self._signs: dict[tuple[str, int], Sign] = {}
        self._thread = threading.Thread(target=self._run, name="interception", daemon=True)

    def __enter__(self) -> Beside:
        """Start."""
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let it end by itself."""
        self._left.set()

    def sign(self, address: str, port: int) -> Sign:
        """Wait until it has looked; give what it saw of an address and port."""
        self._thread.join()
        return self._signs.get((address, port), Sign())

    def _run(self) -> None:
        if not self._left.wait(self._after_s):
            with suppress(OSError):  # no descriptors, no memory: nothing was seen
                self._signs = look(self._ends)


def judged(measurement: Measurement, sign: Sign) -> Measurement:
    """
    Give a measurement as a sign makes it.

    What a proxy answered is not the target's: with proof no number of it stays.
    """
    if sign.error:
        kept = {k: measurement.detail[k] for k in ("sent", "port") if k in measurement.detail}
        return replace(
            measurement,
            outcome=Outcome.INTERCEPTED,
            error=sign.error,
            latency_ms=None,
            packet_loss_pct=None,
            throughput_mbps=None,
            detail=kept,
        )
    if sign.hint:
        return replace(measurement, detail={**measurement.detail, "hint": sign.hint})
    return measurement


def _answered_here(one: _Answered) -> Sign:
    return Sign(
        error=f"port {one.here} of this machine answers for port {one.port} of {one.address}: "
        "what leaves here is redirected, so no number is the target's"
    )


def _answered_near(one: _Answered) -> Sign:
    what = "accepted" if one.accepted else "refused"
    return Sign(
        error=f"port {one.port} of {one.address} {what} a handshake that lived for one hop: this "
        f"machine or its gateway {one.gateway} answers in its place, so no number is the target's"
    )


def _judged_by_echoes(answered: Sequence[_Answered]) -> dict[_Answered, Sign]:
    """Tell by echoes of one hop who is the first hop itself, and who is beyond it."""
    signs: dict[_Answered, Sign] = {}
    silent = list(answered)
    for count in (1, MORE_ECHOES):
        found = _echoes([one.address for one in silent], count, ttl=1)
        for one, series in zip(list(silent), found, strict=True):
            if series.received:
                signs[one] = Sign()
            elif is_beyond(series):
                signs[one] = _answered_near(one)
        silent = [one for one in silent if one not in signs]
    gateways = list(dict.fromkeys(one.gateway for one in silent))
    speaks = {
        gateway: series.received > 0
        for gateway, series in zip(gateways, _echoes(gateways, MORE_ECHOES, ttl=None), strict=True)
    }
    for one in silent:
        signs[one] = _answered_near(one) if speaks[one.gateway] else Sign(hint=HINT)
    return signs


def is_beyond(series: EchoSeries) -> bool:
    """Tell whether a router said of an echo of one hop that it is for somebody else."""
    said_itself = (series.error or "").endswith(f"said {series.address}")
    return series.errors > 0 and series.error_kind in PASSED_ON and not said_itself


def _echoes(addresses: Sequence[str], count: int, *, ttl: int | None) -> list[EchoSeries]:
    options = EchoOptions(count=count, interval_s=ECHO_GAP_S, wait_s=WAIT_S, ttl=ttl)
    found = dict(echo_many(addresses, options))
    return [found[index] for index in range(len(addresses))]


def _handshakes(ends: Sequence[tuple[tuple[str, int], Route]]) -> list[_Answered]:
    """Begin a handshake of one hop with each; give those that were answered in time."""
    opened: dict[int, tuple[socket.socket, tuple[str, int], Route]] = {}
    poller, answered, waiting = select.poll(), [], 0
    try:
        for end, route in ends:
            one, begun = _begin(*end)
            opened[one.fileno()] = (one, end, route)
            if begun == errno.EINPROGRESS:
                poller.register(one, select.POLLOUT)
                waiting += 1
            else:
                answered += _answer(one, end, route, begun)
            time.sleep(GAP_S)
        until = time.monotonic() + WAIT_S
        while waiting and (left_s := until - time.monotonic()) > 0:
            for descriptor, _ in poller.poll(left_s * 1000):
                poller.unregister(descriptor)
                waiting -= 1
                one, end, route = opened[descriptor]
                failed = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                answered += _answer(one, end, route, failed)
    finally:
        for one, *_ in opened.values():
            one.close()
    return answered


def _begin(address: str, port: int) -> tuple[socket.socket, int]:
    """Begin one; give what connect(2) said."""
    family, sockaddr = parse_address(address)
    opened = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    # It ends with an RST, and nothing of it stays in the background.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    limit_hops(opened, 1)
    return opened, opened.connect_ex((sockaddr[0], port, *sockaddr[2:]))


def _answer(
    opened: socket.socket, end: tuple[str, int], route: Route, failed: int
) -> list[_Answered]:
    """Give what answered, if anything did; the connection is still open then."""
    if failed not in (0, errno.ECONNREFUSED) or route.gateway is None:
        return []
    here = far_end_here(*opened.getsockname()[:2]) if failed == 0 else None
    return [_Answered(*end, accepted=failed == 0, gateway=route.gateway, here=here)]
