"""
A nonce within the handshake: did the target itself get the SYN that was sent, or a proxy's own?

A transparent proxy that relays ends the handshake itself and opens another connection to the
target: what is said within it arrives, how it was opened does not. So the maximum segment size that
the SYN offers (RFC 9293 section 3.7.1) is a random small one; the target's kernel keeps the SYN
(TCP_SAVE_SYN, tcp(7)), and its answering port says which size came, with an HMAC-SHA256 under the
port's secret. NAT leaves the size as it is, routers that clamp it make it smaller, and nobody makes
it larger, as that would break connections.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

from worker.probes.icmp.echo_socket import limit_hops
from worker.probes.icmp.series import parse_address

#: linux/tcp.h; Python does not name them.
TCP_SAVE_SYN, TCP_SAVED_SYN = 27, 28
#: Above what firewalls drop for its smallness (500, against CVE-2019-11477), and below what any
#: router clamps to (IPv6's least MTU of 1280 bytes leaves 1220).
LEAST_MSS, MOST_MSS = 600, 1100
#: Offsets of tcpi_options and tcpi_advmss in struct tcp_info (linux/tcp.h). The latter is what was
#: offered, which a small MTU of this machine makes less than was asked for, less the room that
#: timestamps take once they are agreed on.
OPTIONS_AT, ADVERTISED_AT, TCP_INFO_BYTES = 5, 84, 104
TIMESTAMPS, TIMESTAMPS_BYTES = 1, 12
#: What no SYN offers: the kernel kept none (SYN cookies, a sandbox).
NOT_KEPT = 0
CHALLENGE_BYTES = TAG_BYTES = 16
QUESTION_BYTES, REPLY_BYTES = CHALLENGE_BYTES + TAG_BYTES, 2 + TAG_BYTES
#: A connection whose packets are lost says nothing; three do not happen to say the same.
TRIES, TRY_S = 3, 2.0
#: Connections under way, and how long one may say nothing.
MOST_OPEN, SILENT_S = 256, 3.0
STOP_CHECK_S = 0.25
#: IPv4's and IPv6's first header, and TCP's, without options.
IP4_BYTES, IP6_BYTES, TCP_BYTES = 20, 40, 20
END_OF_OPTIONS, NO_OPERATION, MSS = 0, 1, 2


class Seen(Enum):
    """What the target says of the handshakes that were sent to it."""

    STRAIGHT = "the SYN that was sent came"
    RELAYED = "another SYN than was sent came"
    UNSEEN = "the handshake was answered, and then nobody who knows the secret"
    UNKNOWN = "no connection came about, or the target cannot say"


def ask(
    address: str, port: int, secret: bytes, *, tries: int = TRIES, hops: int | None = None
) -> Seen:
    """
    Open a few connections to a node's answering port at a literal address; return what it saw.

    With `hops`, packets live for so many: `STRAIGHT` then says that the node is as near.
    """
    is_relayed = False
    for _ in range(tries):
        seen = _ask_once(address, port, secret, hops)
        if seen in (Seen.STRAIGHT, Seen.UNKNOWN):
            return seen
        is_relayed |= seen is Seen.RELAYED
    return Seen.RELAYED if is_relayed else Seen.UNSEEN


def _ask_once(address: str, port: int, secret: bytes, hops: int | None) -> Seen:
    mss = LEAST_MSS + secrets.randbelow(MOST_MSS - LEAST_MSS + 1)
    challenge = secrets.token_bytes(CHALLENGE_BYTES)
    try:
        family, sockaddr = parse_address(address, port)
        opened = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return Seen.UNKNOWN
    with opened:
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
            if hops is not None:
                limit_hops(opened, hops)
            opened.settimeout(TRY_S)
            opened.connect(sockaddr)
            offered = _offered(opened)
        except OSError:
            return Seen.UNKNOWN
        try:
            opened.sendall(question(challenge, secret))
            with opened.makefile("rb") as stream:
                came = read_reply(stream.read(REPLY_BYTES), challenge, secret)
        except OSError:
            came = None
    if came is None:
        return Seen.UNSEEN
    if came == offered:
        return Seen.STRAIGHT
    return Seen.RELAYED if came > offered else Seen.UNKNOWN


def _offered(opened: socket.socket) -> int:
    """Read the size that the SYN of an open connection of ours has offered."""
    info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    advertised = int(struct.unpack_from("=I", info, ADVERTISED_AT)[0])
    return advertised + (TIMESTAMPS_BYTES if info[OPTIONS_AT] & TIMESTAMPS else 0)


def question(challenge: bytes, secret: bytes) -> bytes:
    """Make what is sent over the connection."""
    return challenge + _tag(secret, b"syn?", challenge)


def read_question(data: bytes, secret: bytes) -> bytes | None:
    """Return a question's challenge; None when its asker does not know the secret."""
    challenge, tag = data[:CHALLENGE_BYTES], data[CHALLENGE_BYTES:]
    is_ours = hmac.compare_digest(tag, _tag(secret, b"syn?", challenge))
    return challenge if is_ours and len(data) == QUESTION_BYTES else None


def reply(mss: int, challenge: bytes, secret: bytes) -> bytes:
    """Make the answer: which size the SYN offered, `NOT_KEPT` when nobody knows."""
    packed = struct.pack("!H", mss)
    return packed + _tag(secret, b"syn!", challenge + packed)


def read_reply(data: bytes, challenge: bytes, secret: bytes) -> int | None:
    """
    Read the answer to a question; None when it is not one, or its maker has not the secret.

    >>> read_reply(reply(400, b"c" * 16, b"s"), b"c" * 16, b"s")
    400
    """
    mss = int.from_bytes(data[:2], "big")
    is_ours = hmac.compare_digest(data, reply(mss, challenge, secret))
    return mss if is_ours else None


def offered_mss(packet: bytes) -> int:
    """
    Read the size that a SYN offers, from its IP header on; `NOT_KEPT` when it offers none.

    >>> offered_mss(bytes.fromhex("45" + 19 * "00" + 12 * "00" + "60" + 7 * "00" + "020401f4"))
    500
    """
    version = packet[0] >> 4 if packet else 0
    start = IP6_BYTES if version == 6 else (packet[0] & 0x0F) * 4 if version == 4 else len(packet)
    if len(packet) < start + TCP_BYTES:
        return NOT_KEPT
    options = packet[start + TCP_BYTES : start + (packet[start + 12] >> 4) * 4]
    at = 0
    while at + 1 < len(options) and options[at] != END_OF_OPTIONS:
        if options[at] == NO_OPERATION:
            at += 1
            continue
        if options[at] == MSS and options[at + 1] == 4 and at + 4 <= len(options):
            return int(struct.unpack_from("!H", options, at + 2)[0])
        at += max(2, options[at + 1])
    return NOT_KEPT


def listen(port: int) -> socket.socket | None:
    """Listen on a port for both versions of IP, keeping SYNs; None when it is not to be had."""
    for family in (socket.AF_INET6, socket.AF_INET):
        with suppress(OSError, ValueError):  # the latter: no IPv6
            opened = socket.create_server(
                ("", port),
                family=family,
                backlog=MOST_OPEN,
                dualstack_ipv6=family == socket.AF_INET6,
            )
            opened.setblocking(False)
            with suppress(OSError):  # a sandbox: `NOT_KEPT`, then
                opened.setsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN, 1)
            return opened
    return None


def answer_until(
    listener: socket.socket, secret: bytes, until: float, should_stop: Callable[[], bool]
) -> None:
    """Answer what SYN each connection began with, until a monotonic time; closes the listener."""
    under_way: dict[socket.socket, float] = {}
    with listener:
        while (left_s := until - time.monotonic()) > 0 and not should_stop():
            waited_for = [listener, *under_way] if len(under_way) < MOST_OPEN else [*under_way]
            for ready in select.select(waited_for, [], [], min(left_s, STOP_CHECK_S))[0]:
                if ready is listener:
                    with suppress(OSError):  # it was reset meanwhile
                        under_way[listener.accept()[0]] = time.monotonic()
                else:
                    _answer(ready, secret)
                    del under_way[ready]
            silent_since = time.monotonic() - SILENT_S
            for opened in [o for o, since in under_way.items() if since < silent_since]:
                opened.close()
                del under_way[opened]
    for opened in under_way:
        opened.close()


def _answer(opened: socket.socket, secret: bytes) -> None:
    """Answer a connection and close it; a question is one segment, or none of ours."""
    with opened, suppress(OSError):
        challenge = read_question(opened.recv(QUESTION_BYTES), secret)
        if challenge is not None:
            opened.sendall(reply(_kept_mss(opened), challenge, secret))


def _kept_mss(opened: socket.socket) -> int:
    try:
        return offered_mss(opened.getsockopt(socket.IPPROTO_TCP, TCP_SAVED_SYN, 512))
    except OSError as exc:
        if exc.errno not in (errno.ENOPROTOOPT, errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return NOT_KEPT


def _tag(secret: bytes, kind: bytes, content: bytes) -> bytes:
    return hmac.new(secret, kind + content, hashlib.sha256).digest()[:TAG_BYTES]
