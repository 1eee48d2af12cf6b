"""
ICMP echo to many targets at once: one socket a family, paced sends, kernel receive times.

Needs what `icmp_socket` needs. A round-trip time begins when the process hands the echo to the
kernel and ends when the kernel receives the reply: how busy this process or its host is after that
is not in it, but beside it, as lag.
"""

from __future__ import annotations

import secrets
import select
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from worker.probes.icmp_clock import WallClock
from worker.probes.icmp_packet import NONCE_BYTES, EchoCodec
from worker.probes.icmp_series import EchoOptions, EchoSeries, Target, parse_address
from worker.probes.icmp_socket import EchoSocket, IcmpNotPermitted, icmp_capability

__all__ = ["EchoOptions", "EchoSeries", "IcmpNotPermitted", "echo_many", "icmp_capability"]

MS = 1_000_000
SECOND = 1_000 * MS

#: Least time between any two echoes. An echo costs some 40 µs of CPU, so this leaves room to read.
MIN_GAP_NS = 100_000
#: Least time between two echoes while late ones are caught up with.
CATCH_UP_GAP_NS = 50_000
#: A process that wakes from sleep sends its first packet through cold caches; spinning for so long
#: before an echo warms them, and takes no more than this share of the time between echoes.
SPIN_NS, SPIN_SHARE = 200_000, 8
#: After opening: the kernel switches its stamping on in the background.
START_DELAY_NS = 5 * MS
#: A series waits this long after its last answer, to see a duplicate of it.
SETTLE_NS = 20 * MS
#: How often `should_stop` is asked.
STOP_CHECK_NS = 200 * MS
#: An echo for which the kernel has no room is tried again for so long before it counts as refused.
BUSY_RETRY_NS = SECOND
BUSY_PAUSE_S = 0.001


def echo_many(
    addresses: Sequence[str],
    options: EchoOptions,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, EchoSeries]]:
    """
    Ping all addresses at once; yield each one's index and series as it becomes complete.

    Nothing is yielded while echoes are still to be sent, so that a slow consumer delays none.

    Args:
        addresses: Literal addresses of either family; one may be there twice.
        options: How each is asked.
        should_stop: Polled a few times a second; once true, targets not complete are not yielded.

    Raises:
        IcmpNotPermitted: This process may open no ICMP socket.
    """
    if not addresses:
        return
    engine = _Engine(addresses, options)
    try:
        yield from engine.run(should_stop)
    finally:
        engine.close()


class _Engine:
    """One call of `echo_many`: its sockets, its schedule and its targets under way."""

    def __init__(self, addresses: Sequence[str], options: EchoOptions) -> None:
        self.options, self.clock = options, WallClock()
        self.codecs: dict[int, EchoCodec] = {}
        self.sockets: dict[int, EchoSocket] = {}
        self.by_descriptor: dict[int, EchoSocket] = {}
        self.poller = select.poll()
        self.targets: list[Target] = []
        self.families: list[int] = []
        #: Why a target has no socket address or no socket; its every echo is refused with it.
        self.obstacles: dict[int, OSError] = {}
        self.nonce, self.identifier = secrets.token_bytes(NONCE_BYTES), secrets.randbelow(0x10000)
        try:
            for index, address in enumerate(addresses):
                self._add(index, address, len(addresses))
        except BaseException:
            self.close()
            raise
        self.total = len(addresses) * options.count
        self.gap_ns = max(int(options.interval_s * SECOND) // len(addresses), MIN_GAP_NS)
        self.spin_ns = min(SPIN_NS, self.gap_ns // SPIN_SHARE)
        self.origin_ns = time.monotonic_ns() + START_DELAY_NS
        self.last_sent_ns = self.busy_since_ns = 0
        self.serial = 0

    def _add(self, index: int, address: str, count: int) -> None:
        family, sockaddr = 0, ()  # type: int, tuple[object, ...]
        try:
            family, sockaddr = parse_address(address)
            if family not in self.sockets:
                self._open(family, count)
        except OSError as exc:
            self.obstacles[index] = exc
        self.families.append(family)
        self.targets.append(Target(address, sockaddr, int(self.options.wait_s * SECOND)))

    def _open(self, family: int, count: int) -> None:
        opened = self.sockets[family] = EchoSocket.open(family, self.identifier)
        self.codecs[family] = EchoCodec(
            family,
            identifier=opened.identifier,
            nonce=self.nonce,
            targets=count,
            size_bytes=self.options.size_bytes,
        )
        self.by_descriptor[opened.socket.fileno()] = opened
        self.poller.register(opened.socket, select.POLLIN)

    def close(self) -> None:
        for opened in self.sockets.values():
            opened.close()

    def run(self, should_stop: Callable[[], bool]) -> Iterator[tuple[int, EchoSeries]]:
        under_way = list(range(len(self.targets)))
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
            if self.serial < self.total:
                self._send_next(ask_ns)
                continue
            if now_ns >= scan_ns:
                due_ns = {index: self.targets[index].due_ns(SETTLE_NS) for index in under_way}
                for index in [i for i in under_way if due_ns[i] <= now_ns]:
                    under_way.remove(index)
                    yield index, self._series(index, now_ns)
                scan_ns = min((due_ns[i] for i in under_way), default=0)
            self._wait(min(scan_ns, ask_ns))

    def _send_next(self, ask_ns: int) -> None:
        """Send the next echo if it is due; else wait, no longer than until `ask_ns`."""
        scheduled_ns = self.origin_ns + self.serial * self.gap_ns
        due_ns = max(scheduled_ns, self.last_sent_ns + CATCH_UP_GAP_NS)
        if time.monotonic_ns() < due_ns - self.spin_ns:
            self._wait(min(due_ns - self.spin_ns, ask_ns))
            return
        index = self.serial % len(self.targets)
        target, family = self.targets[index], self.families[index]
        try:
            if index in self.obstacles:
                raise self.obstacles[index]
            packet = self.codecs[family].request(self.serial)
            sent_ns = self.sockets[family].send(packet, target.sockaddr, due_ns)
        except BlockingIOError as exc:
            now_ns = time.monotonic_ns()
            self.busy_since_ns = self.busy_since_ns or now_ns
            if now_ns - self.busy_since_ns < BUSY_RETRY_NS:
                time.sleep(BUSY_PAUSE_S)
                return
            sent_ns = now_ns
            target.refuse(sent_ns, exc)
        except OSError as exc:
            sent_ns = time.monotonic_ns()
            target.refuse(sent_ns, exc)
        else:
            target.sent(sent_ns, scheduled_ns)
        self._sent(target, sent_ns, scheduled_ns)

    def _sent(self, target: Target, sent_ns: int, scheduled_ns: int) -> None:
        if not target.started_wall_ns:
            target.started_wall_ns = self.clock.to_wall_ns(sent_ns)
        self.serial, self.last_sent_ns, self.busy_since_ns = self.serial + 1, sent_ns, 0
        lag_ns = sent_ns - scheduled_ns
        if lag_ns > self.gap_ns * len(self.targets) // 2:
            # Catching up so much would bring two echoes to a target too close: be late for good.
            self.origin_ns += lag_ns

    def _wait(self, until_ns: int) -> None:
        """Wait for something to read or for a time; within the last millisecond only for a time."""
        left_ns = until_ns - time.monotonic_ns()
        if left_ns >= MS:
            for descriptor, event in self.poller.poll(left_ns // MS):
                if event & select.POLLERR:
                    self.by_descriptor[descriptor].errors_pending = True
        elif left_ns > 0:
            time.sleep(left_ns / SECOND)

    def _read(self) -> bool:
        drained = [(family, *opened.drain()) for family, opened in self.sockets.items()]
        steady = self.clock.sample()
        read_ns = time.monotonic_ns()
        any_read = False
        for family, received, quoted in drained:
            codec = self.codecs[family]
            any_read = any_read or bool(received or quoted)
            for reply in received:
                found = codec.reply(reply.message, reply.start)
                if found is None:
                    continue
                serial, whole = found
                echo, index = divmod(serial, len(self.targets))
                target = self.targets[index]
                if self.families[index] != family or not target.is_at(reply.sender):
                    continue
                if not whole:
                    target.damaged += 1
                    continue
                stamp_ns = None
                if steady and reply.stamp_ns is not None:
                    stamp_ns = self.clock.to_monotonic_ns(reply.stamp_ns)
                target.answer(echo, stamp_ns, read_ns)
            for quote in quoted:
                quoted_serial = codec.quoted(quote.quote, self.serial - 1)
                if quoted_serial is None:
                    continue
                echo, index = divmod(quoted_serial, len(self.targets))
                target = self.targets[index]
                if self.families[index] == family and target.is_at(quote.destination):
                    target.fail(echo, quote.error, read_ns)
        return any_read

    def _series(self, index: int, now_ns: int) -> EchoSeries:
        opened = self.sockets.get(self.families[index])
        drops = opened.dropped() if opened else 0
        kind: Literal["raw", "datagram", "none"] = opened.kind if opened else "none"
        return self.targets[index].series(now_ns, drops, kind)
