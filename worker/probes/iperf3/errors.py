"""
What iperf3's own words mean: an outcome for each error text.

Pure. The texts are those of iperf3 3.7 to 3.21 under `LC_ALL=C`: iperf3's own (iperf_error.c), or
the C library's after a colon.
"""

from __future__ import annotations

from worker.model.measurement import Outcome
from worker.model.text import one_line

#: First match counts. "Resource temporarily unavailable" is a UDP test whose first packet, or its
#: answer, was lost: iperf3 sends it once and waits 30 s. "Reset by peer" and "broken pipe" are of
#: a server, or of a firewall that reads what follows the handshake, which broke it off. WireGuard
#: says "required key" where no peer has that address, "destination address" where a peer's own is
#: not known.
MEANINGS = {
    Outcome.TARGET_BUSY: ("server is busy",),
    Outcome.DENIED: ("larger than server limit",),
    Outcome.TOOL_MISSING: (
        "unrecognized option", "unknown option", "not implemented yet", "tcp_congestion",
    ),
    Outcome.REFUSED: ("connection refused", "reset by peer", "broken pipe"),
    Outcome.UNREACHABLE: (
        "no route to host", "is unreachable", "network is down", "host is down",
        "machine is not on the network", "dropped connection", "required key not available",
        "destination address required",
    ),
    Outcome.UNRESOLVED: (
        "name or service not known", "name resolution", "address family for hostname",
        "no address associated",
    ),
    Outcome.TIMEOUT: (
        "timed out", "operation now in progress", "resource temporarily unavailable",
    ),
}  # fmt: skip
#: What the kernel makes of a router's, a firewall's or a route's word (net/ipv4/icmp.c,
#: net/ipv6/icmp.c), where connecting is what failed; elsewhere these words mean other things.
CONNECTING = "unable to connect"
WORDS_OF_THE_WAY = (
    "permission denied",  # IPv6: administratively prohibited; a route `prohibit`
    "operation not permitted",  # a firewall of this machine
    "invalid argument",  # a route `blackhole`
    "protocol not available",  # protocol unreachable
    "operation not supported",  # source route failed
    "cannot assign requested address",  # this machine has no address of that family any more
)


def classify(text: str, *, measured: bool) -> Outcome:
    """
    Return the outcome that an error text of iperf3 stands for.

    Where some intervals were `measured` before, something broke in the middle.

    >>> classify("unable to connect to server: Connection refused", measured=False).value
    'refused'
    >>> classify("unable to write to stream socket: Connection timed out", measured=True).value
    'bad_reply'
    """
    if measured:
        return Outcome.BAD_REPLY
    lowered = text.lower()
    if CONNECTING in lowered and any(words in lowered for words in WORDS_OF_THE_WAY):
        return Outcome.UNREACHABLE
    meant = (o for o, texts in MEANINGS.items() if any(text in lowered for text in texts))
    return next(meant, Outcome.BAD_REPLY)


def first_line(text: str) -> str:
    """
    Return the first line that is not blank, printable and not too long.

    >>> first_line(" \\niperf3: parameter error - no\\nUsage: iperf3")
    'iperf3: parameter error - no'
    """
    return next((one_line(line.strip()) for line in text.splitlines() if line.strip()), "")
