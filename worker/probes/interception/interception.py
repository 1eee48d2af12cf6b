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

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from worker.model.detail import Detail, TcpStatistics
from worker.model.measurement import Measurement, Outcome
from worker.model.options import PingOptions
from worker.probes.icmp.engine import EchoSeries, IcmpNotPermitted, echo_many
from worker.probes.interception.knock import Answer, Knock, knock
from worker.probes.interception.route import Route, route_to

#: The first packet of the measurement itself is the one that wakes a link.
AFTER_S = 0.05
#: An echo that is lost is no proof: so many more are sent before one counts as not answered.
MORE_ECHOES, ECHO_GAP_S, ECHO_WAIT_S = 2, 0.3, 1.0
#: What a router says of an echo that it did not take for its own.
PASSED_ON = frozenset({"ttl_exceeded", "network_unreachable", "host_unreachable"})
#: How often `should_stop` is asked.
STOP_CHECK_S = 0.2
#: Hint: a handshake of one hop was answered, and what that means is not known.
ONE_HOP = "ttl_1_answered"
#: Hint: a port that nobody has reason to listen on accepted a handshake.
ODD_PORT = "odd_port_answered"
#: Hint: handshakes are much faster than echoes to the same target.
FASTER = "tcp_faster_than_icmp"
#: Ports of which an odd one is drawn: what IANA leaves free, below what Linux gives to clients.
ODD_PORTS = range(23_000, 32_000)
#: The least of so many times says how fast a way is; of fewer it is chance.
LEAST_TIMES = 3
#: Handshakes that take less than this share, and are faster by this at least.
FASTER_SHARE, FASTER_BY_MS = 0.5, 1.0

#: A literal address and a port.
End = tuple[str, int]


@dataclass(frozen=True)
class Sign:
    """
    What the handshake of one hop says.

    Attributes:
        error: What answers in the target's place, as one line for a person; empty when that is not
            proved.
        hint: A word for what may be a proxy and is not proved; empty when there is none.
        here: The port of this machine's own socket that answers; None when none is seen.
    """

    error: str = ""
    hint: str = ""
    here: int | None = None


#: Takes the signs that were seen, and returns those that stand.
Settle = Callable[[Mapping[End, Sign]], Mapping[End, Sign]]


@dataclass(frozen=True)
class _Answered:
    """A handshake of one hop that was answered, though the route has a gateway."""

    end: End
    gateway: str
    answer: Answer


def look(ends: Sequence[End]) -> dict[End, Sign]:
    """
    Look for a proxy before each of these addresses and ports; return those with a sign of one.

    Costs a handshake each: of one hop where the route has a gateway; to an odd port where it has
    none. And one to three echoes where the first was answered. It takes a second for each
    `knock.MOST_OPEN` of them, and three for the echoes, at most.
    """
    routes = [(end, route) for end in dict.fromkeys(ends) if (route := route_to(*end))]
    tried = [(end, route, _knock(end, route)) for end, route in routes if not route.is_own]
    answers = knock([handshake for _, _, handshake in tried])
    signs, beyond = dict[End, Sign](), list[_Answered]()
    for end, route, handshake in tried:
        answer = answers.get(handshake)
        if answer and route.gateway:
            beyond.append(_Answered(end, route.gateway, answer))
        elif answer and answer.accepted:
            signs[end] = Sign(hint=ODD_PORT)
    signs |= {each.end: _answered_here(each) for each in beyond if each.answer.here is not None}
    rest = [each for each in beyond if each.answer.here is None]
    try:
        signs |= _judged_by_echoes(rest)
    except (IcmpNotPermitted, OSError):
        signs |= {each.end: Sign(hint=ONE_HOP) for each in rest}
    return {end: sign for end, sign in signs.items() if sign != Sign()}


def _knock(end: End, route: Route) -> Knock:
    """Return the handshake that may show a proxy."""
    if route.gateway is None:
        return Knock(end[0], ODD_PORTS[secrets.randbelow(len(ODD_PORTS))])
    return Knock(*end, hops=1)


class Beside:
    """`look`, in a thread beside a measurement; it takes some seconds, and outlives no process."""

    def __init__(
        self,
        ends: Sequence[End],
        *,
        settle: Settle = lambda signs: signs,
        after_s: float = AFTER_S,
    ) -> None:
        """Begin to look after `after_s`; `settle` is called in the thread."""
        self._ends, self._settle, self._after_s = ends, settle, after_s
        self._signs: Mapping[End, Sign] = {}
        self._thread = threading.Thread(target=self._run, name="interception", daemon=True)
        self._thread.start()

    @property
    def has_looked(self) -> bool:
        """It need not be waited for any more."""
        return not self._thread.is_alive()

    def wait(self, should_stop: Callable[[], bool]) -> bool:
        """Wait until it has looked; False when stopped before."""
        while not self.has_looked:
            self._thread.join(STOP_CHECK_S)
            if should_stop():
                return False
        return True

    def sign(self, end: End) -> Sign:
        """Return what it saw of an address and port, once it has looked."""
        return self._signs.get(end, Sign())

    def _run(self) -> None:
        time.sleep(self._after_s)
        with suppress(OSError):  # no descriptors, no memory: nothing was seen
            self._signs = self._settle(look(self._ends))


def judged(measurement: Measurement, sign: Sign) -> Measurement:
    """
    Return a measurement as a sign makes it: with proof of a proxy no number of it stays.
    """
    if sign.error:
        asked, kept = measurement.detail, dict[str, int]()
        if isinstance(asked, TcpStatistics):
            kept = {"sent": asked.sent, "port": asked.port}
        return replace(
            measurement,
            outcome=Outcome.INTERCEPTED,
            error=sign.error,
            latency_ms=None,
            packet_loss_pct=None,
            throughput_mbps=None,
            detail=Detail(more=kept),
        )
    return marked(measurement, sign)


def marked(measurement: Measurement, sign: Sign) -> Measurement:
    """Return a measurement with a sign's hint, if there is one, beside those that it has."""
    if not sign.hint or measurement.outcome is not Outcome.OK:
        return measurement
    hints = " ".join(filter(None, (measurement.detail.hint, sign.hint)))
    return replace(measurement, detail=replace(measurement.detail, hint=hints))


def is_near(sign: Sign) -> bool:
    """Whether it is a sign of something that answers within one hop."""
    return bool(sign.error) or sign.hint == ONE_HOP


def with_echoes(measurement: Measurement, icmp_min_ms: float | None) -> Measurement:
    """Mark handshakes that are much faster than the fastest of three or more echoes were."""
    times = measurement.round_trips.answered_rtts_ms if measurement.round_trips else []
    if icmp_min_ms is None or len(times) < LEAST_TIMES:
        return measurement
    limit_ms = min(icmp_min_ms * FASTER_SHARE, icmp_min_ms - FASTER_BY_MS)
    return marked(measurement, Sign(hint=FASTER)) if min(times) < limit_ms else measurement


def _answered_here(one: _Answered) -> Sign:
    address, port = one.end
    return Sign(
        error=f"port {one.answer.here} of this machine answers for port {port} of {address}: "
        "what leaves here is redirected, so no number is the target's",
        here=one.answer.here,
    )


def _answered_near(one: _Answered) -> Sign:
    answered = "accepted" if one.answer.accepted else "refused"
    address, port = one.end
    return Sign(
        error=f"port {port} of {address} {answered} a handshake that lived for one hop: this "
        f"machine or its gateway {one.gateway} answers in its place, so no number is the target's"
    )


def _judged_by_echoes(answered: Sequence[_Answered]) -> dict[End, Sign]:
    """Find by echoes of one hop who is the first hop itself, and who is beyond it."""
    signs: dict[End, Sign] = {}
    silent = list(answered)
    for count in (1, MORE_ECHOES):
        echoed = _echoes([one.end[0] for one in silent], count, ttl=1)
        for one, series in zip(silent, echoed, strict=True):
            if series.received:
                signs[one.end] = Sign()
            elif is_beyond(series):
                signs[one.end] = _answered_near(one)
        silent = [one for one in silent if one.end not in signs]
    gateways = list(dict.fromkeys(one.gateway for one in silent))
    replies = _echoes(gateways, MORE_ECHOES, ttl=None)
    speaks = {g for g, series in zip(gateways, replies, strict=True) if series.received}
    for one in silent:
        signs[one.end] = _answered_near(one) if one.gateway in speaks else Sign(hint=ONE_HOP)
    return signs


def is_beyond(series: EchoSeries) -> bool:
    """Whether a router said of an echo of one hop that it is for somebody else."""
    said_itself = (series.error or "").endswith(f"said {series.address}")
    return series.errors > 0 and series.error_kind in PASSED_ON and not said_itself


def _echoes(addresses: Sequence[str], count: int, *, ttl: int | None) -> list[EchoSeries]:
    options = PingOptions(count=count, interval_s=ECHO_GAP_S, wait_s=ECHO_WAIT_S, warm_up=False)
    series = dict(echo_many(addresses, options, ttl=ttl))
    return [series[index] for index in range(len(addresses))]
