"""
What a node may measure: an address of one other machine, and no address that only seems to be one.

Names are looked up once (see `resolve`), and the probes get what was judged: a name server cannot
send them elsewhere a moment later. Linux says which addresses are a subnet's broadcast.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from worker.host.resolve import ANY_PORT, LOOK_UP_S, LookUps, Resolved
from worker.model.measurement import Outcome
from worker.model.names import IpLiteral, not_of_one_machine, plain_ip, reached_by


@dataclass(frozen=True)
class Looked:
    """
    An address or a name that was looked up and judged.

    Attributes:
        literal: What to measure; None when nothing is.
        outcome: `ok`; else `denied` or `unresolved`, which the pair's record has.
        error: Why nothing is measured, as one line.
    """

    literal: IpLiteral | None
    outcome: Outcome = Outcome.OK
    error: str = ""


class Targets:
    """A row's addresses, looked up beside each other while other things are done."""

    def __init__(
        self, addresses: Collection[str], given: str | None, family: int | None = None
    ) -> None:
        """
        Begin to look up; of names, only addresses of the family, 4 or 6, if one is given.

        Where the measuring node's operator gave it a loopback address, in figures, it may measure
        others there. One that was found is that of a tunnel to Redis, and what a name leads to is
        said by somebody else.
        """
        self._ups = LookUps(addresses, family)
        ip = None if given is None else plain_ip(given)
        self._at_home = ip is not None and ip.is_loopback

    def judged(
        self, wait_s: float = LOOK_UP_S, should_stop: Callable[[], bool] = lambda: False
    ) -> Mapping[str, Looked]:
        """Return the addresses that are known within so many seconds; all within `LOOK_UP_S`."""
        known = self._ups.wait(wait_s, should_stop)
        return {address: judge(resolved, self._at_home) for address, resolved in known.items()}

    def batches(self, should_stop: Callable[[], bool]) -> Iterator[Mapping[str, Looked]]:
        """Yield each address once, judged, as `LookUps.batches` does."""
        for known in self._ups.batches(should_stop):
            yield {address: judge(resolved, self._at_home) for address, resolved in known.items()}


def judge(resolved: Resolved, at_home: bool) -> Looked:
    """
    Judge all addresses of a name.

    One that may not be measured forbids them all. To measure another one would be as safe, as
    probes get nothing but the literal. But a name that also leads to this very machine, or to many,
    is not one machine's: somebody plays with it, or its owner has made a mistake, and a number
    would hide which.
    """
    for literal in resolved.literals:
        if reason := objection(literal, at_home):
            return Looked(None, Outcome.DENIED, f"{literal} is {reason}")
    if not resolved.literals:
        return Looked(None, Outcome.UNRESOLVED, resolved.error)
    return Looked(resolved.literals[0])


def objection(literal: str, at_home: bool) -> str | None:
    """Return why an address is not to be measured, as the end of a sentence; None if it may be."""
    for ip in reached_by(literal):
        if ip.is_loopback and not (at_home and ip == plain_ip(literal)):
            return "a loopback address, which from here is this node itself"
        reason = not_of_one_machine(ip) or ("broadcast" if is_subnet_broadcast(str(ip)) else "")
        if reason:
            return f"a {reason} address"
    return None


def is_subnet_broadcast(address: str) -> bool:
    """
    Whether an address is the broadcast address of a subnet that this machine is on.

    The kernel refuses to connect a socket to one that has not asked for broadcast (socket(7)). Of a
    subnet elsewhere nobody knows; routers drop what is sent to those (RFC 2644).
    """
    if ":" in address:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        if opened.connect_ex((address, ANY_PORT)) != errno.EACCES:
            return False
        # A route that is prohibited is refused in the same way, but to any socket.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        return opened.connect_ex((address, ANY_PORT)) != errno.EACCES
