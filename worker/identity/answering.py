"""
The RQ job `answer`, and asking for it: a node opens one port, UDP and TCP, for 10 s at most.

The asker sets `ptzmesh:answer:<token>` to a secret of its own, unless it is set: then somebody else
has just asked, and the same port serves both. The node adds the port. The key lapses before the
port closes, so that there is time to use it. What the port does: see `probes.answer`.
"""

from __future__ import annotations

import logging
import math
import os
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import redis

from worker.identity.context import NodeContext
from worker.model.errors import ForeignWork, WireError
from worker.model.names import NodeName
from worker.probes.answer.port import answer_until, open_port
from worker.probes.interception import syn_nonce
from worker.wire import keyspace, rq_jobs, scripts
from worker.wire.connection.way import allowing, way_s
from worker.wire.round_trip import Asking, in_parts, together

logger = logging.getLogger(__name__)

#: A port is open for longer than it can be found: using it takes some seconds. Both times, and the
#: next two, are longer where the way to Redis is: a request takes a responder so many round trips.
OPEN_S, FOUND_S = 10.0, 7.0
#: A request that no responder has taken in this time is no longer wanted.
WANTED_S, TRIPS = 10, 10
#: An idle responder answers within 100 ms; one that serves a test does not, in this time.
PORT_S = 2.5
STDERR = 2
FIRST_LOOK_S, LONGEST_LOOK_S = 0.02, 0.2
SECRET_BYTES = 16
#: The secret, and then the port; `0` when none could be opened.
_PACKED = re.compile(rb"([0-9a-f]{%d})(?: ([0-9]{1,5}))?" % (2 * SECRET_BYTES))


@dataclass(frozen=True)
class Port:
    """
    An answering port.

    Attributes:
        number: None until it is open, 0 when none can be.
        secret: Known to its node and to the askers.
        open_until: It is open until then at least, in monotonic seconds; 0 before it was found.
    """

    number: int | None
    secret: bytes
    open_until: float = field(default=0.0, compare=False)

    def packed(self) -> str:
        """Return what `unpack_port` reads."""
        return self.secret.hex() + ("" if self.number is None else f" {self.number}")


def answer(context: NodeContext, token: str) -> None:
    """
    Open a port and answer at it, beside whatever this node's responder does next.

    Raises:
        ForeignWork: The token is another node's.
        WireError: What Redis has of it makes no sense.
    """
    node = token.partition("/")[0]
    if node != context.name:
        raise ForeignWork(f"an answer is asked for of {node[:80]}, not of {context.name}")
    connection, key = rq_jobs.connection_of_job(context.redis_url), keyspace.answer_key(token)
    packed: bytes | None = rq_jobs.ask_first(connection, lambda pipeline: pipeline.get(key))[0]
    if packed is None:
        logger.debug("nobody waits any more for a port that answers: %s", token)
        return
    wanted, context = unpack_port(packed), context.now(connection)
    if wanted.number is not None:
        return  # asked for twice, and open
    opened = open_port(context.policy.port_range)
    number = 0 if opened is None else opened.getsockname()[1]
    if opened is not None:
        until, listener = time.monotonic() + allowing(OPEN_S, 1), syn_nonce.listen(number)
        kept = [opened] if listener is None else [opened, listener]
        _apart(kept, lambda: _serve(opened, listener, context, wanted.secret, until))
        for each in kept:
            each.close()
    connection.set(key, Port(number, wanted.secret).packed(), px=int(FOUND_S * 1000), xx=True)


def _serve(
    opened: socket.socket,
    listener: socket.socket | None,
    context: NodeContext,
    secret: bytes,
    until: float,
) -> None:
    """Answer datagrams, and beside them connections to the port of the same number."""
    if listener is not None:
        arguments = (listener, secret, until, context.should_stop)
        threading.Thread(target=syn_nonce.answer_until, args=arguments, daemon=True).start()
    answer_until(opened, context.name, secret, until, context.should_stop)


def _apart(kept: Sequence[socket.socket], call: Callable[[], None]) -> None:
    """
    Call in a process of its own, so that the responder is free for the next test at once.

    It keeps no other file open: Redis would hand work to a connection whose worker has died.
    """
    if os.fork():
        return
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for descriptor in {int(path.name) for path in Path("/proc/self/fd").iterdir()}:
            if descriptor > STDERR and descriptor not in [each.fileno() for each in kept]:
                with suppress(OSError):  # that which listed them
                    os.close(descriptor)
        call()
    finally:
        os._exit(0)


def ask_for_ports(
    connection: redis.Redis,
    nodes: Sequence[NodeName],
    should_stop: Callable[[], bool] = lambda: False,
    *,
    purpose: str = "",
    wait_s: float | None = None,
) -> dict[NodeName, Port]:
    """
    Have nodes open their answering ports; return those that did within `wait_s`, by node.

    Args:
        nodes: They live.
        should_stop: Asked a few times a second.
        purpose: Empty for a port that others may have asked for, which has some seconds left; else
            something of one's own, for a port that is open for the whole `OPEN_S`.
        wait_s: A responder that serves a test answers after that; by default `PORT_S`, and longer
            where the way to Redis is.

    Raises:
        redis.RedisError: Redis is away.
    """
    tokens = {node: f"{node}/{purpose}" for node in nodes}
    if not tokens:
        return {}
    _ask(connection, tokens)
    ports: dict[NodeName, Port] = {}
    limit_s = allowing(PORT_S, TRIPS) if wait_s is None else wait_s
    until, look_s = time.monotonic() + limit_s, FIRST_LOOK_S
    while True:
        waited_for = [node for node in tokens if node not in ports]
        keys = [keyspace.answer_key(tokens[node]) for node in waited_for]
        values = cast("list[bytes | None]", connection.mget(keys))
        for node, packed in zip(waited_for, values, strict=True):
            port = _port(packed)
            if port is not None and port.number is not None:
                left_s = max(0.0, OPEN_S - FOUND_S - way_s())  # the answer was under way
                ports[node] = replace(port, open_until=time.monotonic() + left_s)
        if len(ports) == len(tokens) or time.monotonic() >= until or should_stop():
            return {node: port for node, port in ports.items() if port.number}
        time.sleep(look_s)
        look_s = min(2 * look_s, LONGEST_LOOK_S)


def _ask(connection: redis.Redis, tokens: dict[NodeName, str]) -> None:
    """Enqueue the job of each node whose port nobody has asked for just now."""
    wanted_s = math.ceil(allowing(WANTED_S, TRIPS))

    def asking_one(node: NodeName, token: str) -> Asking[Any]:
        queue = keyspace.serve_queue(node)
        job = rq_jobs.enqueuing(queue, keyspace.ANSWER, {"token": token}, at_front=True)
        asked = Port(None, secrets.token_bytes(SECRET_BYTES)).packed()
        words = [asked, wanted_s, *rq_jobs.words_of(job)]
        return scripts.asking(("commands", "ask_port"), [keyspace.answer_key(token)], words)

    for some in in_parts(list(tokens.items()), rq_jobs.JOBS_AT_A_TIME):
        together(connection, *(asking_one(node, token) for node, token in some))


def _port(packed: bytes | None) -> Port | None:
    try:
        return None if packed is None else unpack_port(packed)
    except WireError as exc:
        logger.warning("an answering port is not used: %s", exc)
        return None


def unpack_port(packed: bytes) -> Port:
    """
    Read what Redis has of an answering port.

    Raises:
        WireError: It makes no sense.

    >>> unpack_port(b"00" * 16).number, unpack_port(b"00" * 16 + b" 5216").number
    (None, 5216)
    """
    match = _PACKED.fullmatch(packed)
    if match is None:
        raise WireError(f"a secret with a port ({packed[:40]!r}) makes no sense")
    number = None if match[2] is None else int(match[2])
    if number is not None and number > 65535:
        raise WireError(f"port ({number}) is invalid")
    return Port(number, bytes.fromhex(match[1].decode()))
