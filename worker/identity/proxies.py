"""
Whether TCP from this node reaches its targets themselves, or a transparent proxy on the way.

A sign that a handshake of one hop gave (`probes.interception`) is settled by asking the target,
where it is a live node: its answering port says which SYN came (`syn_nonce`). That also shows a
proxy beyond the first hop, and clears an address that is translated to the node's own. A target
that got our SYN is not asked again for a day, unless there is a new sign.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from secrets import SystemRandom

import redis

from worker.host.machine import gateway_mac
from worker.identity.answering import Port, ask_for_ports
from worker.identity.context import NodeContext
from worker.identity.verified import keep_verified, read_verified, verified_path
from worker.model.names import NodeName
from worker.model.policy import DEFAULT_PORTS
from worker.probes.answer.who_answers import Question, who_answers
from worker.probes.interception import syn_nonce
from worker.probes.interception.interception import Beside, End, Sign, is_near
from worker.probes.interception.syn_nonce import Seen
from worker.wire.connection import server
from worker.wire.node_record import Record
from worker.wire.registry import read_records

logger = logging.getLogger(__name__)

ShouldStop = Callable[[], bool]

#: Targets asked at a time; each takes a few round trips.
AT_A_TIME = 16
#: Hint: a handshake with the target's answering port was answered, and the node saw none.
UNSEEN = "handshake_unseen"


class BeforeTests:
    """Looks for proxies before nodes that are tested, all at once when a row begins."""

    def __init__(
        self,
        context: NodeContext,
        connection: redis.Redis,
        addresses: Mapping[NodeName, str],
        records: Mapping[NodeName, Record],
        most: int,
        should_stop: ShouldStop,
    ) -> None:
        """
        Begin to look before nodes at these literal addresses, of which the records were just read.

        Asked is the last of each one's ports: a test's server, of others too, takes the first.
        `most` is as for `settle`.
        """
        ports = {name: records[name].ports for name in addresses if name in records}
        self._ends = {
            name: (address, (ports.get(name) or DEFAULT_PORTS)[1])
            for name, address in addresses.items()
        }
        names = {end: name for name, end in self._ends.items()}
        settle_here = partial(
            settle, context, connection, names, most, should_stop, records=records
        )
        self._should_stop = should_stop
        self._beside = Beside(list(names), settle=settle_here, after_s=0.0)

    def wait(self) -> bool:
        """Wait until it has looked; False when stopped before."""
        return self._beside.wait(self._should_stop)

    def sign(self, name: NodeName) -> Sign:
        """Return what it saw before a node, of those that it was given, once it has looked."""
        return self._beside.sign(self._ends[name]) if name in self._ends else Sign()


def settle(
    context: NodeContext,
    connection: redis.Redis,
    names: Mapping[End, NodeName],
    most: int,
    should_stop: ShouldStop,
    signs: Mapping[End, Sign],
    *,
    records: Mapping[NodeName, Record] | None = None,
) -> Mapping[End, Sign]:
    """
    Settle signs of these ends by asking the nodes there; without Redis they stay as they are.

    At most `most` are asked without a sign of anything: see `cost.MOST_QUESTIONS`. Their records
    are read, if they are not given.
    """
    path = verified_path(context.outbox_path)
    try:
        if records is None:
            records = read_records(connection, sorted({*names.values()}))
        keys = {
            end: _key(context, records, end, name)
            for end, name in names.items()
            if name in records and records[name].alive
        }
        asked = to_ask(keys, signs, read_verified(path), most)
        ports = ask_for_ports(connection, sorted({names[end] for end in asked}), should_stop)
    except redis.RedisError as exc:
        logger.log(server.severity(exc), "nobody is asked which handshake came: %s", exc)
        return signs
    questions = [
        _Question(end, names[end], ports[names[end]], signs.get(end, Sign()))
        for end in asked
        if names[end] in ports
    ]
    settled, sure = dict(signs), []
    for question, seen, sign in _answers(context.name, questions, should_stop):
        if seen is Seen.STRAIGHT:
            settled.pop(question.end, None)
        elif sign is not None and not question.sign.error:
            settled[question.end] = sign
        # A way on which no answer comes has none for a day.
        if seen is Seen.STRAIGHT or (seen is Seen.UNKNOWN and question.sign == Sign()):
            sure.append(keys[question.end])
    if sure:
        keep_verified(path, sure)
    return settled


def keep_straight(
    context: NodeContext,
    records: Mapping[NodeName, Record],
    addresses: Mapping[NodeName, str],
    should_stop: ShouldStop,
    ports: Mapping[NodeName, Port],
) -> None:
    """
    Keep which of these nodes get our handshakes, while their ports are open for another question.

    Whoever looks for proxies later in the run does not ask those: of a node to which Redis is far,
    an answer takes seconds.
    """
    path = verified_path(context.outbox_path)
    known = read_verified(path)
    ends = {name: (addresses[name], 0) for name in ports if name in addresses and name in records}
    keys = {name: _key(context, records, end, name) for name, end in ends.items()}
    asked = [name for name, key in keys.items() if key not in known]

    def is_straight(name: NodeName) -> bool:
        port = ports[name]
        if time.monotonic() >= port.open_until or should_stop():
            return False
        seen = syn_nonce.ask(addresses[name], port.number or 0, port.secret, tries=1)
        return seen is Seen.STRAIGHT

    with ThreadPoolExecutor(AT_A_TIME) as threads:
        straight = threads.map(is_straight, asked)
    if sure := [keys[name] for name, is_so in zip(asked, straight, strict=True) if is_so]:
        keep_verified(path, sure)


def to_ask(
    keys: Mapping[End, str], signs: Mapping[End, Sign], known: Collection[str], most: int
) -> list[End]:
    """
    Choose the nodes to ask: all that there is a sign of, and others whose key is not known.

    Of the others `most` at most are chosen, by lot; later looks ask the rest.
    """
    suspected = [end for end in keys if end in signs]
    others = [end for end, key in keys.items() if end not in signs and key not in known]
    return [*suspected, *SystemRandom().sample(others, min(len(others), most))]


def _answers(
    near: NodeName, questions: Sequence[_Question], should_stop: ShouldStop
) -> list[tuple[_Question, Seen, Sign | None]]:
    """
    Ask while the ports are open; a question whose turn comes later is left out.

    Where a firewall drops what is asked, each one takes seconds; and a port that has closed says no
    more than that, which is not to be kept.
    """

    def ask(question: _Question) -> list[tuple[_Question, Seen, Sign | None]]:
        is_late = time.monotonic() >= question.port.open_until or should_stop()
        return [] if is_late else [(question, *_ask(near, question, should_stop))]

    with ThreadPoolExecutor(AT_A_TIME) as threads:
        return [answer for answers in threads.map(ask, questions) for answer in answers]


@dataclass(frozen=True)
class _Question:
    end: End
    name: NodeName
    port: Port
    sign: Sign


def _ask(near: NodeName, question: _Question, should_stop: ShouldStop) -> tuple[Seen, Sign | None]:
    """Ask a node which SYN came; return its answer, and what that is a sign of."""
    address, number, secret = question.end[0], question.port.number or 0, question.port.secret
    if is_near(question.sign):
        # An answer of one hop is true of a node that is one hop away, and that is asked for. Other
        # ports may go another way.
        tries = 1 if question.sign.error else syn_nonce.TRIES
        return syn_nonce.ask(address, number, secret, tries=tries, hops=1), None
    seen, is_there = syn_nonce.ask(address, number, secret, tries=1), False
    if seen is Seen.UNSEEN:
        # Asked before the other tries: the port is open for some seconds only.
        who = Question(address=address, port=number, secret=secret)
        is_there = who_answers([who], near, should_stop) == {0: question.name}
        seen = syn_nonce.ask(address, number, secret, tries=syn_nonce.TRIES - 1)
    return seen, judge(question.name, address, seen, is_there=is_there)


def judge(name: NodeName, address: str, seen: Seen, *, is_there: bool) -> Sign | None:
    """
    Return what a target's answer is a sign of; `is_there` if it answered a datagram meanwhile.
    """
    if seen is Seen.RELAYED:
        return Sign(
            error=f"a proxy on the way to {address} relays TCP: {name} got another handshake than "
            "was sent, so no number is of the way to it"
        )
    if seen is Seen.UNSEEN and is_there:
        return Sign(
            error=f"a proxy on the way answers TCP for {address}: {name} never saw the connection "
            "that was accepted, so no number is of the way to it"
        )
    return Sign(hint=UNSEEN) if seen is Seen.UNSEEN else None


def _key(context: NodeContext, records: Mapping[NodeName, Record], end: End, name: NodeName) -> str:
    """Name what was seen: from where, at which address, of which start of which node."""
    here = ("tcp", context.name, context.address, gateway_mac())
    return "|".join((*here, end[0], name, repr(records[name].since)))
