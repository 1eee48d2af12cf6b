"""
The `tcp` probe: how long a TCP handshake takes, to all targets at once, paced.

A refusal is an answer, too: carriers that drop ICMP still refuse. Needs no privilege.

How long an accepted one took is said by the kernel, however late this process reads it. Of a
refusal it does not say: one that is read late by a busy host counts, and its time does not exist.
"""

from __future__ import annotations

import errno
import heapq
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from itertools import takewhile

from worker.model.detail import TcpStatistics, common
from worker.model.measurement import Measurement, Outcome, made
from worker.model.names import NodeName, RunId
from worker.model.options import TcpOptions
from worker.model.plan import TargetNode
from worker.model.rtt import packet_loss_pct, rtt_statistics
from worker.probes.icmp.series import parse_address
from worker.probes.interception import interception

PROBE = "tcp"

#: Between the handshakes that go before, one a target; they are not spread over the interval.
WARM_UP_GAP_S, MIN_SPREAD_S = 0.001, 0.01
#: How often `should_stop` is asked.
LOOK_S = 0.2
#: Errors of connect(2) that an answer from the network caused, and what each is to a person.
UNREACHABLE = {
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
    errno.EACCES: "forbidden by a firewall of this machine",
    errno.EPERM: "forbidden by a firewall of this machine",
}
#: Offsets of tcpi_rtt, in µs, and tcpi_total_retrans in struct tcp_info (linux/tcp.h). Right after
#: the handshake the former is the time from SYN to SYN-ACK.
RTT_AT, TOTAL_RETRANS_AT, TCP_INFO_BYTES = 68, 100, 104
#: A refusal that may have been read so much later than it came has no time, nor has one of which
#: that is more than this share.
LATE_S, LATE_SHARE = 0.005, 0.1


@dataclass
class _Target:
    node: TargetNode
    sockaddr: tuple[object, ...]
    family: int
    rtts_ms: list[float | None] = field(default_factory=list)
    under_way: int = 0
    accepted: int = 0
    refused: int = 0
    unreachable: str = ""
    started_at: datetime | None = None
    begun: float = 0.0
    wake_ms: float | None = None

    @property
    def answered(self) -> int:
        return self.accepted + self.refused


@dataclass
class _Handshake:
    target: _Target
    index: int
    socket: socket.socket
    sent: float


def measure(
    run: RunId,
    source: NodeName,
    targets: Sequence[TargetNode],
    options: TcpOptions,
    should_stop: Callable[[], bool],
    settle: interception.Settle = lambda signs: signs,
) -> Iterator[Measurement]:
    """
    Yield one measurement a target as each is complete; stopped early, none of the others.

    Of the signs of a proxy before targets, by address and port, `settle` says which stand.
    """
    states = [_state(target, options.port) for target in targets]
    if options.warm_up and not _warm_up(states, options, should_stop):
        return
    ends = [(state.node.address, options.port) for state in states]
    beside, complete = interception.Beside(ends, settle=settle), list[_Target]()
    for state in _handshakes(states, options, should_stop):
        complete.append(state)
        # Not waited for: answers to handshakes that are under way would be read late.
        while complete and beside.has_looked:
            yield _judged(run, source, complete.pop(0), options, beside)
    if beside.wait(should_stop):
        for state in complete:
            yield _judged(run, source, state, options, beside)


def _judged(
    run: RunId, source: NodeName, target: _Target, options: TcpOptions, beside: interception.Beside
) -> Measurement:
    sign = beside.sign((target.node.address, options.port))
    return interception.judged(_measurement(run, source, target, options), sign)


def _warm_up(
    states: Sequence[_Target], options: TcpOptions, should_stop: Callable[[], bool]
) -> bool:
    """Shake hands once with each, all at once, and keep only the time; False when stopped."""
    asleep = [replace(state, rtts_ms=[]) for state in states]
    spread_s = max(MIN_SPREAD_S, WARM_UP_GAP_S * len(states))
    once = replace(options, count=1, interval_s=min(options.interval_s, spread_s))
    done = len(list(_handshakes(asleep, once, should_stop)))
    for state, woken in zip(states, asleep, strict=True):
        state.wake_ms = woken.rtts_ms[0] if woken.rtts_ms else None
    return done == len(states)


def _handshakes(
    states: Sequence[_Target], options: TcpOptions, should_stop: Callable[[], bool]
) -> Iterator[_Target]:
    with closing(_Engine(states, options)) as engine:
        yield from engine.run(should_stop)


def _state(target: TargetNode, port: int) -> _Target:
    try:
        family, sockaddr = parse_address(target.address, port)
    except OSError as exc:  # its interface has gone
        error = exc.strerror or str(exc)
        return _Target(node=target, family=socket.AF_UNSPEC, sockaddr=(), unreachable=error)
    return _Target(node=target, family=family, sockaddr=sockaddr)


class _Engine:
    """Handshakes of all targets under way at once."""

    def __init__(self, targets: Sequence[_Target], options: TcpOptions) -> None:
        self.options = options
        self.poller = select.poll()
        self.by_descriptor: dict[int, _Handshake] = {}
        gap_s = options.interval_s / max(1, len(targets))
        now = time.monotonic()
        #: (due, index of the target, target); each is due again one interval later.
        self.due = [(now + gap_s * i, i, target) for i, target in enumerate(targets)]
        self.waiting, self.complete = len(targets), list[_Target]()
        #: When the sockets were looked at last, and when that ended: what had come by then is read.
        self.looked_at = self.went_on_at = now

    def run(self, should_stop: Callable[[], bool]) -> Iterator[_Target]:
        look_at = 0.0
        while self.waiting:
            now = time.monotonic()
            if now >= look_at:
                if should_stop():
                    return
                look_at = now + LOOK_S
            self._begin_due(now)
            self._take_answers(look_at)
            self._give_up_late(self.looked_at)
            complete, self.complete = self.complete, []
            self.waiting -= len(complete)
            yield from complete

    def close(self) -> None:
        for handshake in list(self.by_descriptor.values()):
            self._end(handshake, None)

    def _begin_due(self, now: float) -> None:
        while self.due and self.due[0][0] <= now:
            due, index, target = heapq.heappop(self.due)
            self._begin(target)
            if len(target.rtts_ms) < self.options.count:
                heapq.heappush(self.due, (due + self.options.interval_s, index, target))

    def _begin(self, target: _Target) -> None:
        target.rtts_ms.append(None)
        if target.started_at is None:
            target.started_at, target.begun = datetime.now(timezone.utc), time.monotonic()
        try:
            opened = socket.socket(target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as exc:
            if exc.errno != errno.EAFNOSUPPORT:
                raise
            target.unreachable = target.unreachable or os.strerror(exc.errno)
            self._note_complete(target)
            return
        # An RST at the end, instead of a connection that is closed politely in the background.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handshake = _Handshake(target, len(target.rtts_ms) - 1, opened, time.monotonic())
        target.under_way += 1
        self.by_descriptor[opened.fileno()] = handshake
        failed = opened.connect_ex(target.sockaddr)
        if failed == errno.EINPROGRESS:
            self.poller.register(opened, select.POLLOUT)
        else:
            self._end(handshake, failed)

    def _take_answers(self, look_at: float) -> None:
        until = min([look_at, *(due for due, _, _ in self.due[:1])])
        if self.by_descriptor:
            first = next(iter(self.by_descriptor.values()))  # in the order of their sending
            until = min(until, first.sent + self.options.wait_s)
        # Rounded up: a poll of 0 ms before the time is due would spin.
        wait_ms = max(0, int((until - time.monotonic()) * 1000) + 1)
        self.looked_at = time.monotonic()
        ready = self.poller.poll(wait_ms)
        overslept_s = time.monotonic() - self.looked_at - wait_ms / 1000
        late_s = max(overslept_s, self.looked_at - self.went_on_at)
        self.went_on_at = time.monotonic()
        for descriptor, _ in ready:
            handshake = self.by_descriptor[descriptor]
            failed = handshake.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._end(handshake, failed, late_s)

    def _give_up_late(self, now: float) -> None:
        under_way = self.by_descriptor.values()
        for handshake in list(takewhile(lambda h: now - h.sent >= self.options.wait_s, under_way)):
            self._end(handshake, None)

    def _end(self, handshake: _Handshake, failed: int | None, late_s: float = 0.0) -> None:
        """
        Take the answer (0 or an error of connect), or None when there was none in time.

        It may have come so many seconds before now.
        """
        elapsed_s = time.monotonic() - handshake.sent
        is_late = min(late_s, elapsed_s) > max(LATE_S, LATE_SHARE * elapsed_s)
        elapsed_ms = None if is_late else elapsed_s * 1000
        target, repeated = handshake.target, False
        if failed == 0:
            rtt_ms, repeated = _kernels_rtt(handshake.socket)
            elapsed_ms = elapsed_ms if rtt_ms is None else rtt_ms
        if failed not in (None, 0, errno.ECONNREFUSED):
            target.unreachable = UNREACHABLE.get(failed, os.strerror(failed))
        elif (
            failed is not None
            and not repeated
            and (elapsed_ms is None or elapsed_ms < self.options.wait_s * 1000)
        ):
            target.rtts_ms[handshake.index] = elapsed_ms
            target.accepted += failed == 0
            target.refused += failed == errno.ECONNREFUSED
        target.under_way -= 1
        del self.by_descriptor[handshake.socket.fileno()]
        with suppress(KeyError):  # it was answered within connect itself
            self.poller.unregister(handshake.socket)
        handshake.socket.close()
        self._note_complete(target)

    def _note_complete(self, target: _Target) -> None:
        if len(target.rtts_ms) == self.options.count and not target.under_way:
            self.complete.append(target)


def _kernels_rtt(opened: socket.socket) -> tuple[float | None, bool]:
    """
    Read from the kernel how many milliseconds an accepted handshake took, None if unknown.

    The flag is whether its first packet was lost and sent again: then it is a loss.
    """
    info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    if len(info) < TCP_INFO_BYTES:
        return None, False
    (rtt_us,), (repeats,) = (struct.unpack_from("I", info, at) for at in (RTT_AT, TOTAL_RETRANS_AT))
    return rtt_us / 1000 or None, bool(repeats)


def _measurement(run: RunId, source: NodeName, target: _Target, options: TcpOptions) -> Measurement:
    statistics = rtt_statistics(target.rtts_ms)
    outcome, error = _verdict(target, options)
    return made(
        Measurement(
            run=run,
            probe=PROBE,
            source=source,
            target=target.node.name,
            address=target.node.address,
            started_at=target.started_at or datetime.now(timezone.utc),
            outcome=outcome,
            error=error,
            latency_ms=statistics.rtt_mean_ms,
            packet_loss_pct=packet_loss_pct(options.count, target.answered),
            detail=TcpStatistics(
                **vars(statistics),
                **common(TcpStatistics, options),
                sent=options.count,
                received=target.answered,
                accepted=target.accepted,
                refusals=target.refused,
                times_refused=target.answered - sum(rtt is not None for rtt in target.rtts_ms),
                wake_ms=target.wake_ms,
                elapsed_s=time.monotonic() - target.begun,
                rtts_ms=tuple(target.rtts_ms),
            ),
        )
    )


def _verdict(target: _Target, options: TcpOptions) -> tuple[Outcome, str]:
    if target.answered:
        return Outcome.OK, ""
    if target.unreachable:
        return Outcome.UNREACHABLE, target.unreachable
    error = f"none of {options.count} handshakes with port {options.port} was answered"
    return Outcome.NO_REPLY, error
