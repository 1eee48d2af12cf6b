"""
How large a packet may be between two nodes, each way by itself where the far one answers datagrams.

Where it does not, its kernel answers echoes, which show both ways together.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import replace

import redis

from worker.identity.answering import ask_for_ports
from worker.model.names import NodeName
from worker.probes.answer.packet import Kind
from worker.probes.answer.who_answers import Question
from worker.probes.mtu.datagram import datagram_mtu
from worker.probes.mtu.echo import echo_mtu
from worker.probes.mtu.path_mtu import Direction, PathMtu
from worker.wire.connection.away import AWAY

logger = logging.getLogger(__name__)


def path_mtu(
    connection: redis.Redis,
    near: NodeName,
    far: NodeName,
    address: str,
    most_bytes: int,
    should_stop: Callable[[], bool],
) -> PathMtu | None:
    """
    Find the largest packet that passes between this node, near, and a live one at an address.

    None when stopped; packets of more than `most_bytes` are of no interest.

    Raises:
        IcmpNotPermitted: It does not answer datagrams, and this process may not ping.
        OSError: There is no way to that address.
    """

    def ask(kind: Kind, most_bytes: int) -> PathMtu | None:
        # A port of one's own each time: a search may take most of the time for which it is open.
        purpose = f"size-{secrets.token_hex(4)}"
        ports = ask_for_ports(connection, [far], should_stop, purpose=purpose)
        if far not in ports or not (number := ports[far].number):
            return None
        question = Question(address=address, port=number, secret=ports[far].secret)
        return datagram_mtu(question, kind, near, most_bytes, should_stop)

    try:
        there = ask(Kind.ONE_WAY, most_bytes)
        if there is not None and there.largest_bytes is not None:
            back = ask(Kind.BOTH_WAYS, there.largest_bytes)
            return _joined(there, back)
    except AWAY as exc:
        logger.info("sizes are asked by echoes: %s", exc)
    return None if should_stop() else echo_mtu(address, most_bytes, should_stop)


def _joined(there: PathMtu, back: PathMtu | None) -> PathMtu:
    """Join what passes there with what of it comes back."""
    if back is None or not back.is_hole:
        return replace(there, direction=Direction.THERE)
    return back if there.is_hole else replace(back, direction=Direction.BACK)
