"""
ICMP echo to many targets at once: one socket a family, paced sends, kernel receive times.

Needs what `echo_socket` needs. A round-trip time begins when the process hands the echo to the
kernel and ends when the kernel receives the reply: how busy this process or its host is after that
is not in it, but beside it, as lag.
"""

from __future__ import annotations

import secrets
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from worker.model.options import PingOptions
from worker.probes.icmp.clock import WallClock
from worker.probes.icmp.echo_socket import (
    EchoSocket,
    IcmpNotPermitted,
    Quoted,
    Received,
    Sockaddr,
    icmp_capability,
    limit_hops,
)
from worker.probes.icmp.packet import NONCE_BYTES, EchoCodec
from worker.probes.icmp.series import EchoSeries, Target, parse_address, written

__all__ = ["EchoSeries", "IcmpNotPermitted", "echo_many", "icmp_capability"]

MS = 1_000_000
SECOND = 1_000 * MS

#: Least time between any two echoes. An echo costs some 40 µs of CPU, so this leaves room to read.
MIN_GAP_NS = 100_000
#: Least time between two echoes while late ones are caught up with.
CATCH_UP_GAP_NS = 50_000
#: A path that was idle for so long has left the caches, which alone costs an echo 10 to 20 µs.
COLD_NS = MS
#: A sleep takes about so much longer than asked (prctl(2), PR_SET_TIMERSLACK): not worth it below.
TIMER_SLACK_NS = 60_000
#: After opening: the kernel switches its stamping on in the background.
START_DELAY_NS = 5 * MS
#: A series waits this long after its last answer, to see a duplicate of it.
SETTLE_NS = 20 * MS
#: Between two echoes that go before a series, at most: these are not spread over its interval.
WARM_UP_GAP_NS = MS
#: How often `should_stop` is asked.
STOP_CHECK_NS = 200 * MS
#: An echo for which the kernel has no room is tried again for so long before it counts as refused.
BUSY_RETRY_NS = SECOND
BUSY_PAUSE_S = 0.001


def echo_many(
    addresses: Sequence[str],
    options: PingOptions,
    *,
    ttl: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, EchoSeries]]:
    """
    Ping all addresses at once; yield each one's index and series as it becomes complete.

    Nothing is yielded while echoes are still to be sent, so that a slow consumer delays none.

    Args:
        addresses: Literal addresses of either family; one may be there twice.
        options: How each is asked; echoes to one target are further apart where there are so many
            targets that they would follow each other too closely.
        ttl: Routers that an echo may pass, and one; None is the kernel's default.
        should_stop: Polled a few times a second; once true, targets not complete are not yielded.

    Raises:
        IcmpNotPermitted: This process may open no ICMP socket.
    """
    if not addresses:
        return
    with closing(_Engine(addresses, options, ttl)) as engine:
        yield from engine.run(should_stop)


class _Engine:
    """One call of `echo_many`: its sockets, its schedule and its targets under way."""

    def __init__(self, addresses: Sequence[str], options: PingOptions, ttl: int | None) -> None:
        self.options, self.ttl, self.clock = options, ttl, WallClock()
        self.nonce, self.identifier = secrets.token_bytes(NONCE_BYTES), secrets.randbelow(0x10000)
        self.sockets: dict[int, EchoSocket] = {}
        self.codecs: dict[int, EchoCodec] = {}
        self.by_descriptor: dict[int, EchoSocket] = {}
        self.poller = select.poll()
        self.targets: list[Target] = []
        #: The echoes that go before the series, one a target, each counted apart; none without.
        self.waking: list[Target] = []
        #: Why a target has no address or no socket; each of its echoes is refused with it.
        self.obstacles: dict[int, OSError] = {}
        self.count = len(addresses)
        try:
            for index, address in enumerate(addresses):
                self._add(index, address)
        except BaseException:
            self.close()
            raise
        #: Serial of the first echo of a series.
        self.first = len(self.waking)
        self.total = self.first + self.count * options.count
        self.gap_ns = max(int(options.interval_s * SECOND) // self.count, MIN_GAP_NS)
        self.asleep = list(self.waking)
        self.is_warm = not self.waking
        self.origin_ns = time.monotonic_ns() + START_DELAY_NS
        self.serial = self.last_sent_ns = self.busy_since_ns = 0

    def _add(self, index: int, address: str) -> None:
        family, sockaddr = int(socket.AF_UNSPEC), Sockaddr()
        try:
            family, sockaddr = parse_address(address)
            if family not in self.sockets:
                self._open(family)
        except OSError as exc:
            self.obstacles[index] = exc
        wait_ns = int(self.options.wait_s * SECOND)
        self.targets.append(Target(address, family, sockaddr, wait_ns))
        if self.options.warm_up:
            self.waking.append(Target(address, family, sockaddr, wait_ns))

    def _open(self, family: int) -> None:
        opened = self.sockets[family] = EchoSocket.open(family, self.identifier)
        if self.ttl is not None:
            limit_hops(opened.socket, self.ttl)
        self.codecs[family] = EchoCodec(
            family,
            identifier=opened.identifier,
            nonce=self.nonce,
            targets=self.count,
            size_bytes=self.options.size_bytes,
        )
        self.by_descriptor[opened.socket.fileno()] = opened
        self.poller.register(opened.socket, select.POLLIN)

    def close(self) -> None:
        for opened in self.sockets.values():
            opened.close()

    def run(self, should_stop: Callable[[], bool]) -> Iterator[tuple[int, EchoSeries]]:
        under_way = list(range(self.count))
        ask_ns = scan_ns = 0
        while under_way:
            now_ns = time.monotonic_ns()
            if now_ns >= ask_ns:
                if should_stop():
                    return
                ask_ns = now_ns + STOP_CHECK_NS
            # What came before `now_ns` is read before anything is given up at `now_ns`.
            if self._read():
                scan_ns = min(scan_ns, now_ns + SETTLE_NS)
            if not self.is_warm and self.serial == self.first:
                self._warm_up(now_ns, ask_ns)
                continue
            if self.serial < self.total:
                self._send_next(ask_ns)
                continue
            if now_ns >= scan_ns:
                due_ns = {index: self.targets[index].due_ns(SETTLE_NS) for index in under_way}
                under_way = [index for index, due in due_ns.items() if due > now_ns]
                for index in [index for index, due in due_ns.items() if due <= now_ns]:
                    yield index, self._series(index, now_ns)
                scan_ns = min((due_ns[index] for index in under_way), default=0)
            self._wait(min(scan_ns, ask_ns))

    def _warm_up(self, now_ns: int, ask_ns: int) -> None:
        """Wait until all that went before has an answer, or had its time; then the series begin."""
        self.asleep = [target for target in self.asleep if target.pending]
        due_ns = max((target.due_ns(0) for target in self.asleep), default=now_ns)
        if now_ns < due_ns:
            self._wait(min(due_ns, ask_ns))
            return
        self.is_warm = True
        self.origin_ns = now_ns - self.serial * self.gap_ns

    def _send_next(self, ask_ns: int) -> None:
        """Send the next echo if it is due; else wait for that, no longer than until `ask_ns`."""
        # Echo k of target i is due k intervals and i gaps after the first: evenly, and in order.
        gap_ns = self.gap_ns if self.is_warm else min(self.gap_ns, WARM_UP_GAP_NS)
        scheduled_ns = self.origin_ns + self.serial * gap_ns
        due_ns = max(scheduled_ns, self.last_sent_ns + CATCH_UP_GAP_NS)
        now_ns = time.monotonic_ns()
        if now_ns < due_ns:
            self._wait(min(due_ns, ask_ns))
            return
        target, _ = self._echo(self.serial)
        try:
            sent_ns, left_ns = self._send(target, now_ns)
        except OSError as exc:
            if isinstance(exc, BlockingIOError):
                self.busy_since_ns = self.busy_since_ns or now_ns
                if now_ns - self.busy_since_ns < BUSY_RETRY_NS:
                    time.sleep(BUSY_PAUSE_S)
                    return
            sent_ns = now_ns
            target.refuse(now_ns, exc)
        else:
            target.sent(sent_ns, left_ns, scheduled_ns)
        if not target.started_wall_ns:
            target.started_wall_ns = self.clock.to_wall_ns(sent_ns)
        self.serial, self.last_sent_ns, self.busy_since_ns = self.serial + 1, sent_ns, 0
        lag_ns = sent_ns - scheduled_ns
        if lag_ns > gap_ns * self.count // 2:
            # Catching up so much would bring two echoes to a target too close: be late for good.
            self.origin_ns += lag_ns

    def _echo(self, serial: int) -> tuple[Target, int]:
        """Return an echo's target, and which one of its echoes it is there."""
        if serial < self.first:
            return self.waking[serial], 0
        echo, index = divmod(serial - self.first, self.count)
        return self.targets[index], echo

    def _send(self, target: Target, now_ns: int) -> tuple[int, int]:
        obstacle = self.obstacles.get(self.serial % self.count)
        if obstacle is not None:
            raise obstacle.with_traceback(None)
        opened = self.sockets[target.family]
        packet = self.codecs[target.family].request(self.serial)
        if now_ns - self.last_sent_ns > COLD_NS:
            opened.warm(packet, target.sockaddr)
        return opened.send(packet, target.sockaddr)

    def _wait(self, until_ns: int) -> None:
        """Wait for something to read or for a time; within the last millisecond only for a time."""
        left_ns = until_ns - time.monotonic_ns()
        if left_ns >= MS:
            for descriptor, event in self.poller.poll(left_ns // MS):
                if event & select.POLLERR:
                    self.by_descriptor[descriptor].errors_pending = True
        elif left_ns > TIMER_SLACK_NS:
            time.sleep((left_ns - TIMER_SLACK_NS) / SECOND)

    def _read(self) -> bool:
        """Read and count all that has arrived; False when there was nothing."""
        drained = [(family, *opened.drain()) for family, opened in self.sockets.items()]
        # Sampled after reading: whatever was read was stamped between two samples.
        steady = self.clock.sample()
        read_ns = time.monotonic_ns()
        for family, received, quoted in drained:
            for message in received:
                self._count_reply(family, message, read_ns, steady)
            for quote in quoted:
                self._count_error(family, quote, read_ns)
        return any(received or quoted for _, received, quoted in drained)

    def _count_reply(self, family: int, message: Received, read_ns: int, steady: bool) -> None:
        reply = self.codecs[family].reply(message.message, message.start)
        if reply is None:
            return
        target, echo = self._echo(reply.serial)
        asked = self.targets[reply.serial % self.count]
        if target.family != family:
            return
        if not target.is_at(message.sender):
            asked.strangers[written(message.sender)] += 1
            return
        if message.ttl is not None:
            asked.ttls.add(message.ttl)
        if not reply.whole:
            target.damaged += 1
            return
        stamp_ns = None
        if steady and message.stamp_ns is not None:
            stamp_ns = self.clock.to_monotonic_ns(message.stamp_ns)
        target.answer(echo, stamp_ns, read_ns)

    def _count_error(self, family: int, quoted: Quoted, read_ns: int) -> None:
        serial = self.codecs[family].quoted(quoted.quote, self.serial - 1)
        if serial is None:
            return
        target, echo = self._echo(serial)
        if target.family == family and target.is_at(quoted.destination):
            target.fail(echo, quoted.error, read_ns)

    def _series(self, index: int, now_ns: int) -> EchoSeries:
        target = self.targets[index]
        opened = self.sockets.get(target.family)
        wake_ms = self.waking[index].first_rtt_ms if self.waking else None
        drops = opened.dropped() if opened else 0
        return target.series(now_ns, drops, opened.kind if opened else "none", wake_ms)
