"""Does a transparent proxy answer TCP in the place of nodes, as seen from this machine?"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.checks.check import Check
from coordinator.checks.machine import judged, skipped
from coordinator.checks.network.redirects import read_redirects
from worker.model.names import plain_ip
from worker.model.policy import DEFAULT_PORTS
from worker.probes.interception.interception import End, Sign, look
from worker.wire.node_record import Node

NAME = "tcp proxy"
#: A handshake each; a proxy that takes some takes most.
MOST_NODES = 50


def proxies(nodes: Sequence[Node], own: Node | None, *, wanted: bool) -> Check:
    """Look for what answers for other nodes, and for the rule that does it where it may be seen."""
    if not wanted:
        return skipped(NAME, "not a node here")
    others = [node for node in nodes if node.alive and node != own and plain_ip(node.address)]
    ends = {(node.address, (node.ports or DEFAULT_PORTS)[1]): node for node in others[:MOST_NODES]}
    if not ends:
        return skipped(NAME, "no other node is alive at an address")
    signs = look(list(ends))
    proved = {end: sign for end, sign in signs.items() if sign.error}
    if not proved:
        return _unproved(ends, signs)
    end, sign = next(iter(proved.items()))
    names, rule = [ends[each].name for each in proved], _rule(sign)
    message = f"{sign.error}{f' ({rule})' if rule else ''}"
    message = message if len(names) == 1 else f"{len(names)} nodes are answered for: {message}"
    values = {"nodes": names, "rule": rule}
    return judged(NAME, message, values, fail=True, fix=fix_for(end[0]))


def fix_for(address: str) -> str:
    """Return what keeps a proxy from an address."""
    return (
        f"leave {address} out of what is redirected (sshuttle: --exclude {address}), or start "
        "the nodes with --address in a VPN"
    )


def _unproved(ends: dict[End, Node], signs: dict[End, Sign]) -> Check:
    hinted = [ends[end].name for end in signs]
    message = f"none is seen before {len(ends)} nodes"
    if hinted:
        message = f"one may answer for {', '.join(hinted)}: handshakes of one hop were answered"
    fix = "let ICMP echoes and time-exceeded pass, so that it can be judged"
    values = {"nodes": hinted, "rule": None}
    return judged(NAME, message, values, warn=bool(hinted), fix=fix)


def _rule(sign: Sign) -> str | None:
    """Return the rule that sends connections to the port that answers here; else any that does."""
    rules = read_redirects()
    fitting = [rule for rule in rules if sign.here is not None and str(sign.here) in rule]
    return next(iter(fitting or (rules if sign.here is None else [])), None)
