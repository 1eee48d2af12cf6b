"""
From a name to addresses: the one resolver, below which everything takes IP literals only.

getaddrinfo(3) has no deadline and cannot be interrupted: a silent name server holds it for 10 s and
more. So each look-up has a daemon thread, which holds up no exit, and its asker gives up on it in
time. Threads are bounded, and who asks for what is being looked up already joins that look-up.

The two families are asked apart: a name server that never answers for one of them (many drop AAAA)
must not cost the other.
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

from worker.host.link_local import is_link_local, zoned
from worker.model.names import IpLiteral, ip_literal, plain_ip

#: All look-ups that were asked for together have an answer, or none, after so long.
LOOK_UP_S = 5.0
#: One family's answer waits so long for the other's (RFC 8305 waits 50 ms, on a near server).
OTHER_FAMILY_S = 0.5
#: Names have so long to join the addresses that are known at once. The others come after these,
#: together with those that are found within so much more.
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
    #: By the monotonic clock; when it is not begun by then, nobody waits for it.
    wanted_until: float
    found: Resolved | None = None
    found_at: float = 0.0


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
                self._hire()
        return answer

    def _hire(self) -> None:
        # Where no thread can be had, one that there is takes it, or one that is hired later.
        with suppress(RuntimeError):
            threading.Thread(target=self._work, name="look-up", daemon=True).start()
            self.threads += 1

    def _work(self) -> None:
        while (task := self._next()) is not None:
            key, answer = task
            found = SILENT
            try:
                if time.monotonic() < answer.wanted_until:
                    found = answer.look_up()
            finally:
                with self.changed:
                    answer.found, answer.found_at = found, time.monotonic()
                    del self.under_way[key]
                    self.changed.notify_all()

    def _next(self) -> tuple[tuple[str, int], _Answer] | None:
        with self.changed:
            if self.waiting:
                return self.waiting.popleft()
            self.threads -= 1
            return None


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
                look_up = _zone_finder(address, families, own_zones)
                self._asked[address] = [_desk.ask((address, own_zones), look_up, self._until)]
            else:
                self._asked[address] = [
                    _desk.ask((address, one), _name_finder(address, one), self._until)
                    for one in families
                ]

    def known(self) -> Mapping[str, Resolved]:
        """Give what is known by now; everything, once the time is up."""
        now = time.monotonic()
        for address, answers in list(self._asked.items()):
            found = _joined(address, answers, now, self._until, self._to)
            if found is not None:
                self._known[address] = found
                del self._asked[address]
        return self._known

    def batches(
        self, should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[Mapping[str, Resolved]]:
        """
        Yield each address once: first those that are known at once, then the others as they come.

        So whoever measures one batch before the next is asked for delays none for a silent server.
        """
        told: set[str] = set()
        wait_s = JOIN_S
        while (self._asked or self._known.keys() - told) and not should_stop():
            known = self.wait(wait_s, should_stop)
            batch = {address: known[address] for address in known.keys() - told}
            told |= batch.keys()
            wait_s = GATHER_S
            if batch:
                yield batch

    def wait(
        self, seconds: float = LOOK_UP_S, should_stop: Callable[[], bool] = lambda: False
    ) -> Mapping[str, Resolved]:
        """Wait until all is known, but no longer than so many seconds, and give what is."""
        until = min(time.monotonic() + seconds, self._until)
        self.known()
        while self._asked and not should_stop() and (left := until - time.monotonic()) > 0:
            with _desk.changed:
                _desk.changed.wait(min(left, STOP_CHECK_S))
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


def _zone_finder(address: str, families: Collection[int], own: bool) -> Callable[[], Resolved]:
    def find() -> Resolved:
        literal, error = zoned(address, own_zone=own)
        return _of_family(literal, families) if literal else Resolved((), error)

    return find


def _name_finder(name: str, family: int) -> Callable[[], Resolved]:
    def find() -> Resolved:
        try:
            raw = socket.getaddrinfo(name, None, FAMILIES[family], socket.SOCK_DGRAM)
        except socket.gaierror as exc:
            return NOWHERE if exc.errno in NO_SUCH_NAME else SILENT
        except (OSError, UnicodeError):
            return NOWHERE
        # With the interface that the resolver knows from its own look, as of an mDNS answer.
        found = [zoned(str(one[4][0]), own_zone=True) for one in raw]
        usable = [ip_literal(literal) for literal, _ in found if literal]
        return Resolved(tuple(dict.fromkeys(usable)), "" if usable else found[0][1])

    return find


def _joined(
    address: str, answers: list[_Answer], now: float, until: float, to: str
) -> Resolved | None:
    """Put the families of a name together; None while more is to be waited for."""
    found = [one.found for one in answers if one.found is not None]
    literals = [literal for one in found for literal in one.literals]
    missing = len(found) < len(answers)
    first_at = min((one.found_at for one in answers if one.found), default=now)
    if missing and now < (min(first_at + OTHER_FAMILY_S, until) if literals else until):
        return None
    if literals:
        return Resolved(tuple(sorted(literals, key=lambda one: (not has_route(one), ":" in one))))
    if missing or SILENT in found:
        return Resolved((), f"the address {address} was not resolved: {SILENT.error}")
    error = f"the address {address} does not resolve{to}"
    return Resolved((), next((one.error for one in found if one.error), error))


def has_route(literal: IpLiteral) -> bool:
    """Tell whether this machine knows a way to an address; nothing is sent."""
    family = socket.AF_INET6 if ":" in literal else socket.AF_INET
    bare, _, zone = literal.partition("%")
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as opened:
        scope = socket.if_nametoindex(zone) if zone else 0
        where = (bare, ANY_PORT, 0, scope) if ":" in bare else (bare, ANY_PORT)
        # Without the right to broadcast, such an address is refused though there is a way.
        return opened.connect_ex(where) in (0, errno.EACCES)
    return False
