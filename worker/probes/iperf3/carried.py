"""How many bytes the interface that leads to an address has carried, as the kernel counts them."""

from __future__ import annotations

from pathlib import Path

from worker.probes.interception.route import route_to

#: A line an interface: its name, eight counts of what it received, eight of what it sent.
COUNTERS = Path("/proc/net/dev")
#: Any: routes hardly ever look at it.
PORT = 9


def carried_bytes(address: str) -> int | None:
    """
    Count the bytes that went either way over the interface to a literal address since it came up.

    Whatever they were, headers of frames included; what this machine sends to itself counts once.
    None where there is no route, or the kernel does not say.
    """
    route = route_to(address, PORT)
    if route is None or route.interface is None:
        return None
    try:
        lines = COUNTERS.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        return None
    for line in lines:
        name, sign, counts = line.rpartition(":")
        if sign and name.strip() == route.interface:
            received, sent = (int(count) for count in counts.split()[0:9:8])
            return sent if route.is_own else received + sent
    return None
