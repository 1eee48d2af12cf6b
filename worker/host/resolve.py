"""
From a name to addresses: the one resolver, below which everything takes IP literals only.

getaddrinfo(3) has no deadline and cannot be interrupted: a silent name server holds it for 10 s and
more. So each look-up has a daemon thread, which holds up no exit, and its asker gives up on it in
time. The two families are asked apart: a name server that never answers for one of them (many drop
AAAA) must not cost the other.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from worker.host.link_local import is_link_local, zoned
from worker.model.names import IpLiteral, ip_literal, plain_ip

#: For all look-ups that were asked for together.
LOOK_UP_S = 5.0
#: One family's answer waits for the other's (RFC 8305 waits 50 ms, on a near server).
OTHER_FAMILY_S = 0.5
#: For names to join the addresses that are known at once; then for others to join the next one.
JOIN_S, GATHER_S = 0.2, 1.0
#: How often `should_stop` is asked.
STOP_CHECK_S = 0.1
#: At work at a time, two a name. One that hangs ends when the system's resolver gives up.
MAX_THREADS = 128
#: The discard port; nothing is sent to it.
ANY_PORT = 9

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
#: What getaddrinfo(3) says of a name that is known not to be, or has no address of a family.
NO_SUCH_NAME = (socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY)


@dataclass(frozen=True)
class Resolved:
    """
    What a name or an address is from here.

    Attributes:
        literals: The one to measure first: those that this machine has a route to, of these IPv4.
        error: Why there is none, as one line; empty when there is one.
    """

    literals: tuple[IpLiteral, ...]
    error: str = ""


SILENT = Resolved((), "no name server answered")
NOWHERE = Resolved((), "")


@dataclass(eq=False)
class _Answer:
    """One family of one name, while it is looked up and after."""

    look_up: Callable[[], Resolved]
    #: By the monotonic clock; not begun after that, as nobody waits for it.
    wanted_until: float
    result: Resolved | None = None
    known_at: float = 0.0


@dataclass(eq=False)
class _Desk:
    """The look-ups of this process."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    waiting: deque[tuple[tuple[str, int], _Answer]] = field(default_factory=deque)
    under_way: dict[tuple[str, int], _Answer] = field(default_factory=dict)
    threads: int = 0

    def ask(self, key: tuple[str, int], look_up: Callable[[], Resolved], until: float) -> _Answer:
        """Begin a look-up, or join the one of the same key that is under way."""
        with self.changed:
            answer = self.under_way.get(key)
            if answer is None:
                answer = self.under_way[key] = _Answer(look_up, until)
                self.waiting.append((key, answer))
            answer.wanted_until = max(answer.wanted_until, until)
            if self.waiting and self.threads < MAX_THREADS:
                # Where no thread can be had, a present or a later one takes it.
                with suppress(RuntimeError):
                    threading.Thread(target=self._work, name="look-up", daemon=True).start()
                    self.threads += 1
        return answer

    def _work(self) -> None:
        while True:
            with self.changed:
                if not self.waiting:
                    self.threads -= 1
                    return
                key, answer = self.waiting.popleft()
            result = SILENT
            try:
                if time.monotonic() < answer.wanted_until:
                    result = answer.look_up()
            finally:
                with self.changed:
                    answer.result, answer.known_at = result, time.monotonic()
                    del self.under_way[key]
                    self.changed.notify_all()


_desk = _Desk()


def _forget() -> None:
    """A fork takes no thread along, but may take a lock that one holds."""
    global _desk
    _desk = _Desk()


os.register_at_fork(after_in_child=_forget)


class LookUps:
    """Names that are looked up beside each other, from now on for at most `LOOK_UP_S`."""

    def __init__(
        self,
        addresses: Collection[str],
        family: int | None = None,
        *,
        own_zones: bool = False,
    ) -> None:
        """
        Begin.

        Args:
            addresses: Addresses or names; an address is known at once, unless it is link-local.
            family: 4 or 6: only addresses of it.
            own_zones: The interface after a link-local address's `%` is one of this machine. Else
                it is that of another one and says nothing here.
        """
        self._until = time.monotonic() + LOOK_UP_S
        families = [family] if family is not None else [4, 6]
        self._to = "" if family is None else f" to an IPv{family} address"
        self._known: dict[str, Resolved] = {}
        self._asked: dict[str, list[_Answer]] = {}
        for address in set(addresses):
            literal = plain_ip(address) is not None
            if literal and not is_link_local(address):
                self._known[address] = _of_family(address, families)
            elif literal:
                look_up = partial(_find_zone, address, families, own_zones)
                self._asked[address] = [_desk.ask((address, own_zones), look_up, self._until)]
            else:
                self._asked[address] = [
                    _desk.ask((address, each), partial(_find_name, address, each), self._until)
                    for each in families
                ]

    def known(self) -> Mapping[str, Resolved]:
        """Return what is known by now; everything, once the time is up."""
        now = time.monotonic()
        for address, answers in list(self._asked.items()):
            result = _joined(address, answers, now, self._until, self._to)
            if result is not None:
                self._known[address] = result
                del self._asked[address]
        return self._known

    def batches(
        self, should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[Mapping[str, Resolved]]:
        """
        Yield each address once: first those that are known at once, then the others as they come.

        A caller that measures each batch before it asks for the next waits for no silent server.
        """
        yielded: set[str] = set()
        wait_s = JOIN_S
        while (self._asked or self._known.keys() - yielded) and not should_stop():
            known = self.wait(wait_s, should_stop)
            batch = {address: known[address] for address in known.keys() - yielded}
            yielded |= batch.keys()
            wait_s = GATHER_S
            if batch:
                yield batch

    def wait(
        self, seconds: float = LOOK_UP_S, should_stop: Callable[[], bool] = lambda: False
    ) -> Mapping[str, Resolved]:
        """Wait until all is known, but no longer than `seconds`, and return what is."""
        until = min(time.monotonic() + seconds, self._until)
        self.known()
        while self._asked and not should_stop() and (left_s := until - time.monotonic()) > 0:
            with _desk.changed:
                _desk.changed.wait(min(left_s, STOP_CHECK_S))
            self.known()
        return self.known()


def resolve(address: str, family: int | None = None, *, own_zones: bool = False) -> Resolved:
    """Look one address or name up, as `LookUps` does."""
    return LookUps([address], family, own_zones=own_zones).wait()[address]


def _of_family(address: str, families: Collection[int]) -> Resolved:
    ip = plain_ip(address)
    if ip is None or ip.version in families:
        return Resolved((ip_literal(address),))
    return Resolved((), f"{address} is no IPv{' or '.join(map(str, families))} address")


def _find_zone(address: str, families: Collection[int], own: bool) -> Resolved:
    literal, error = zoned(address, own_zone=own)
    return _of_family(literal, families) if literal else Resolved((), error)


def _find_name(name: str, family: int) -> Resolved:
    try:
        raw = socket.getaddrinfo(name, None, FAMILIES[family], socket.SOCK_DGRAM)
    except socket.gaierror as exc:
        return NOWHERE if exc.errno in NO_SUCH_NAME else SILENT
    except (OSError, UnicodeError):
        return NOWHERE
    # With the interface that the resolver knows from its own look, as of an mDNS answer.
    literals = [zoned(str(sockaddr[0]), own_zone=True) for *_, sockaddr in raw]
    usable = [ip_literal(literal) for literal, _ in literals if literal]
    return Resolved(tuple(dict.fromkeys(usable)), "" if usable else literals[0][1])


def _joined(
    address: str, answers: list[_Answer], now: float, until: float, to: str
) -> Resolved | None:
    """Put the families of a name together; None while more is to be waited for."""
    results = [answer.result for answer in answers if answer.result is not None]
    literals = [literal for result in results for literal in result.literals]
    missing = len(results) < len(answers)
    first_at = min((answer.known_at for answer in answers if answer.result), default=now)
    if missing and now < (min(first_at + OTHER_FAMILY_S, until) if literals else until):
        return None
    if literals:
        literals.sort(key=lambda literal: (not has_route(literal), ":" in literal))
        return Resolved(tuple(literals))
    if missing or SILENT in results:
        return Resolved((), f"the address {address} was not resolved: {SILENT.error}")
    error = f"the address {address} does not resolve{to}"
    return Resolved((), next((result.error for result in results if result.error), error))


def has_route(literal: IpLiteral) -> bool:
    """Return whether this machine knows a way to an address; nothing is sent."""
    family = socket.AF_INET6 if ":" in literal else socket.AF_INET
    bare, _, zone = literal.partition("%")
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as opened:
        scope = socket.if_nametoindex(zone) if zone else 0
        sockaddr = (bare, ANY_PORT, 0, scope) if ":" in bare else (bare, ANY_PORT)
        # Without the right to broadcast, such an address is refused though there is a way.
        return opened.connect_ex(sockaddr) in (0, errno.EACCES)
    return False
