"""
What becomes of one target's echoes: counted one by one, given out as one `EchoSeries`.

Pure; times are monotonic nanoseconds, unless a name says wall.
"""

from __future__ import annotations

import errno
import os
import socket
from array import array
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

from worker.probes.icmp.packet import IcmpError

#: Errors of `sendto`, in the words of ICMP where it has them.
SEND_KINDS = {
    errno.ENETUNREACH: "network_unreachable",
    errno.EHOSTUNREACH: "host_unreachable",
    errno.EMSGSIZE: "packet_too_big",
    errno.EPERM: "prohibited",
    errno.EACCES: "prohibited",
}
#: A send that took longer was interrupted, and whether the echo left before or after that is not
#: known: its time is refused. It takes some 10 µs.
CERTAIN_NS = 1_000_000
#: The commonest of the other addresses that answered are named; a broadcast has more.
MOST_STRANGERS = 4


@dataclass(frozen=True, kw_only=True)
class EchoSeries:
    """
    One target's echoes.

    Attributes:
        address: As it was asked for.
        sent: Echoes handed to the kernel.
        received: Of those, answered within `wait_s` from the address asked.
        duplicates: Further replies to an echo that was answered already.
        late: Echoes answered after `wait_s`; they are lost.
        errors: Echoes answered by an ICMP error and by no reply; they are lost.
        damaged: Replies whose payload came back changed or cut; they answer nothing.
        refused: Echoes that this host's kernel refused to send; they are not lost, but never left.
        times_refused: Replies received whose time is not certain to `CERTAIN_NS`, as the clock was
            set meanwhile, or the process lost the CPU while it sent.
        rtts_ms: In sending order; None where lost, refused or of no certain time.
        wake_ms: Round-trip time of the echo before the series, which is in no other figure; None
            without one, or when its answer had not come before the series was complete.
        reply_ttls: Every TTL or hop limit with which a reply arrived, ascending; from the address
            asked, the echo before the series included.
        answered_by: Other addresses that answered echoes to this one, which count as no reply.
        started_ns: Wall clock of the first send, nanoseconds since the epoch.
        elapsed_s: From the first send until the series was complete.
        interval_mean_s: Between the echoes as really sent; None below two.
        send_lag_max_ms: How much later than due an echo was sent; None when none was.
        read_lag_max_ms: How long a reply lay in the kernel before it was read; RTTs do not contain
            it. None when nothing came.
        receive_drops: Messages to any target that the kernel dropped meanwhile, for want of our
            reading: with any, losses may be this host's own.
        error_kind: Word for the commonest ICMP error or refusal, such as `host_unreachable`.
        error: The same as one line for a person.
        socket_kind: `raw`, `datagram`, or `none` when no socket was to be had for the address.
    """

    address: str
    sent: int
    received: int
    duplicates: int
    late: int
    errors: int
    damaged: int
    refused: int
    times_refused: int
    rtts_ms: tuple[float | None, ...]
    wake_ms: float | None
    reply_ttls: tuple[int, ...]
    answered_by: tuple[str, ...]
    started_ns: int
    elapsed_s: float
    interval_mean_s: float | None
    send_lag_max_ms: float | None
    read_lag_max_ms: float | None
    receive_drops: int
    error_kind: str | None
    error: str | None
    socket_kind: Literal["raw", "datagram", "none"]


class State(IntEnum):
    """What became of one echo so far."""

    PENDING = 0
    REFUSED = 1
    FAILED = 2
    ANSWERED = 3
    LATE = 4


@dataclass(slots=True)
class Target:
    """The echoes to one address while they are under way."""

    address: str
    family: int
    sockaddr: tuple[Any, ...]
    wait_ns: int
    sent_ns: array[int] = field(default_factory=lambda: array("q"))
    states: bytearray = field(default_factory=bytearray)
    rtts_ns: array[int] = field(default_factory=lambda: array("q"))
    uncertain: set[int] = field(default_factory=set)
    pending: int = 0
    duplicates: int = 0
    damaged: int = 0
    started_wall_ns: int = 0
    changed_ns: int = 0
    send_lag_ns: int = -1
    read_lag_ns: int = -1
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    ttls: set[int] = field(default_factory=set)
    strangers: Counter[str] = field(default_factory=Counter)

    def is_at(self, sockaddr: tuple[Any, ...]) -> bool:
        """Whether a socket address is this target's, whatever its port and flow label."""
        return sockaddr[0] == self.sockaddr[0] and sockaddr[3:] == self.sockaddr[3:]

    def sent(self, sent_ns: int, left_ns: int, due_ns: int) -> None:
        """Count an echo that left between two times, and was due at a third."""
        if left_ns - sent_ns > CERTAIN_NS:
            self.uncertain.add(len(self.states))
        self._append(sent_ns, State.PENDING)
        self.pending += 1
        self.send_lag_ns = max(self.send_lag_ns, sent_ns - due_ns)

    def refuse(self, now_ns: int, exc: OSError) -> None:
        """Count an echo that the kernel would not send."""
        self._append(now_ns, State.REFUSED)
        kind = SEND_KINDS.get(exc.errno or 0, "send_refused")
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        self.reasons[kind, f"{kind.replace('_', ' ')}, said this host: {reason}"] += 1

    def answer(self, echo: int, stamp_ns: int | None, read_ns: int) -> None:
        """Count a reply that the kernel got at `stamp_ns`, None if unknown, and we at `read_ns`."""
        if echo >= len(self.states) or self.states[echo] == State.REFUSED:
            return
        self.changed_ns = read_ns
        state, sent_ns = self.states[echo], self.sent_ns[echo]
        if state in (State.ANSWERED, State.LATE):
            self.duplicates += 1
            return
        self.pending -= state == State.PENDING
        if stamp_ns is not None and not sent_ns <= stamp_ns <= read_ns:
            stamp_ns = None
        if stamp_ns is not None:
            self.read_lag_ns = max(self.read_lag_ns, read_ns - stamp_ns)
            if echo not in self.uncertain:
                self.rtts_ns[echo] = stamp_ns - sent_ns
        rtt_ns = (read_ns if stamp_ns is None else stamp_ns) - sent_ns
        self.states[echo] = State.ANSWERED if rtt_ns <= self.wait_ns else State.LATE

    @property
    def first_rtt_ms(self) -> float | None:
        """Round-trip time of the first echo, however late it was answered."""
        return self.rtts_ns[0] / 1e6 if self.rtts_ns and self.rtts_ns[0] >= 0 else None

    def fail(self, echo: int, error: IcmpError, read_ns: int) -> None:
        """Count an ICMP error; a reply, before or after, outweighs it: that needs our nonce."""
        if echo < len(self.states) and self.states[echo] == State.PENDING:
            self.changed_ns = read_ns
            self.states[echo] = State.FAILED
            self.pending -= 1
            self.reasons[error.kind, str(error)] += 1

    def due_ns(self, settle_ns: int) -> int:
        """Return when the series is complete, all its echoes sent, if nothing more happens."""
        if self.pending:
            return self.sent_ns[-1] + self.wait_ns
        return self.changed_ns + settle_ns

    def _append(self, sent_ns: int, state: State) -> None:
        self.sent_ns.append(sent_ns)
        self.states.append(state)
        self.rtts_ns.append(-1)
        self.changed_ns = sent_ns

    def series(
        self,
        complete_ns: int,
        receive_drops: int,
        kind: Literal["raw", "datagram", "none"],
        wake_ms: float | None = None,
    ) -> EchoSeries:
        """Return the result, as it stands."""
        echoes = list(zip(self.sent_ns, self.rtts_ns, self.states, strict=True))
        times = [sent for sent, _, state in echoes if state != State.REFUSED]
        count = {state: self.states.count(state) for state in State}
        answered = [
            rtt / 1e6 if state == State.ANSWERED and rtt >= 0 else None for _, rtt, state in echoes
        ]
        has_failed = count[State.FAILED] or count[State.REFUSED]
        error_kind, error = (
            self.reasons.most_common(1)[0][0] if has_failed and self.reasons else (None, None)
        )
        return EchoSeries(
            address=self.address,
            sent=len(times),
            received=count[State.ANSWERED],
            duplicates=self.duplicates,
            late=count[State.LATE],
            errors=count[State.FAILED],
            damaged=self.damaged,
            refused=count[State.REFUSED],
            times_refused=count[State.ANSWERED] - sum(rtt is not None for rtt in answered),
            rtts_ms=tuple(answered),
            wake_ms=wake_ms,
            reply_ttls=tuple(sorted(self.ttls)),
            answered_by=tuple(address for address, _ in self.strangers.most_common(MOST_STRANGERS)),
            started_ns=self.started_wall_ns,
            elapsed_s=(complete_ns - self.sent_ns[0]) / 1e9,
            interval_mean_s=(
                (times[-1] - times[0]) / (len(times) - 1) / 1e9 if len(times) > 1 else None
            ),
            send_lag_max_ms=None if self.send_lag_ns < 0 else self.send_lag_ns / 1e6,
            read_lag_max_ms=None if self.read_lag_ns < 0 else self.read_lag_ns / 1e6,
            receive_drops=receive_drops,
            error_kind=error_kind,
            error=error,
            socket_kind=kind,
        )


def parse_address(address: str, port: int = 0) -> tuple[int, tuple[Any, ...]]:
    """
    Read family and socket address of a literal address, a link-local one with its `%interface`.

    Raises:
        OSError: It is no address of this host's families, or its interface does not exist.

    >>> parse_address("192.0.2.1")[1]
    ('192.0.2.1', 0)
    """
    if ":" not in address:
        packed = socket.inet_pton(socket.AF_INET, address)
        return socket.AF_INET, (socket.inet_ntop(socket.AF_INET, packed), port)
    bare, _, zone = address.partition("%")
    packed = socket.inet_pton(socket.AF_INET6, bare)
    scope = 0
    if packed[0] == 0xFE and packed[1] & 0xC0 == 0x80:
        if not zone:
            raise OSError(f"{address} is link-local and needs its interface: {address}%eth0")
        scope = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    return socket.AF_INET6, (socket.inet_ntop(socket.AF_INET6, packed), port, 0, scope)


def written(sockaddr: tuple[Any, ...]) -> str:
    """
    Write a socket address without its port, a link-local one with its `%interface`.

    >>> written(("192.0.2.1", 0)), written(("fe80::1", 0, 0, 1))
    ('192.0.2.1', 'fe80::1%lo')
    """
    scope = sockaddr[3] if len(sockaddr) > 3 else 0
    if not scope:
        return str(sockaddr[0])
    try:
        return f"{sockaddr[0]}%{socket.if_indextoname(scope)}"
    except OSError:  # the interface went
        return f"{sockaddr[0]}%{scope}"
