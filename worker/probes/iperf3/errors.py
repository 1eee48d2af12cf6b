"""
What iperf3's own words mean: an outcome for each error text.

Pure. The texts are those of iperf3 3.7 to 3.21 under `LC_ALL=C`: iperf3's own (iperf_error.c), or
the C library's after a colon.
"""

from __future__ import annotations

from worker.model.measurement import Outcome
from worker.model.text import one_line

#: First match counts. "Resource temporarily unavailable" is a UDP test whose first packet, or its
#: answer, was lost: iperf3 sends it once and waits 30 s.
MEANINGS = (
    ("server is busy", Outcome.TARGET_BUSY),
    ("larger than server limit", Outcome.DENIED),
    ("unrecognized option", Outcome.TOOL_MISSING),
    ("unknown option", Outcome.TOOL_MISSING),
    ("not implemented yet", Outcome.TOOL_MISSING),
    ("tcp_congestion", Outcome.TOOL_MISSING),
    ("connection refused", Outcome.REFUSED),
    # Whoever answered the handshake, or a firewall that reads what follows it, broke it off.
    ("reset by peer", Outcome.REFUSED),
    ("broken pipe", Outcome.REFUSED),
    ("no route to host", Outcome.UNREACHABLE),
    ("is unreachable", Outcome.UNREACHABLE),
    ("network is down", Outcome.UNREACHABLE),
    ("host is down", Outcome.UNREACHABLE),
    ("machine is not on the network", Outcome.UNREACHABLE),
    ("dropped connection", Outcome.UNREACHABLE),
    # WireGuard: no peer has that address; a peer whose own address is not known.
    ("required key not available", Outcome.UNREACHABLE),
    ("destination address required", Outcome.UNREACHABLE),
    ("name or service not known", Outcome.UNRESOLVED),
    ("name resolution", Outcome.UNRESOLVED),
    ("address family for hostname", Outcome.UNRESOLVED),
    ("no address associated", Outcome.UNRESOLVED),
    ("timed out", Outcome.TIMEOUT),
    ("operation now in progress", Outcome.TIMEOUT),
    ("resource temporarily unavailable", Outcome.TIMEOUT),
)
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
    return next((o for words, o in MEANINGS if words in lowered), Outcome.BAD_REPLY)


def first_line(text: str) -> str:
    """
    Return the first line that is not blank, printable and not too long.

    >>> first_line(" \\niperf3: parameter error - no\\nUsage: iperf3")
    'iperf3: parameter error - no'
    """
    return next((one_line(line.strip()) for line in text.splitlines() if line.strip()), "")
