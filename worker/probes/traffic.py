"""Which bytes a plan moves, those of questions included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import ceil

from worker.model.cost import questions_a_node
from worker.model.names import plain_ip
from worker.model.options import TCP_HEADER_BYTES, PingOptions, echo_bytes, handshake_bytes
from worker.model.plan import Plan
from worker.probes.answer.packet import LEAST_BYTES
from worker.probes.answer.who_answers import TRIES
from worker.probes.interception.syn_nonce import QUESTION_BYTES, REPLY_BYTES

#: Bytes of a header, by version of IP.
IP_HEADER_BYTES = {4: 20, 6: 40}
UDP_HEADER_BYTES = 8
#: Those of a handshake, a question, its answer, an acknowledgement of each, and the end of the
#: answering side.
NONCE_PACKETS = 9
#: Tells of a node that measures and another one, by their indices, whether it is asked who it is.
IsAsked = Callable[[int, int], bool]


def bytes_per_node(plan: Plan, is_asked: IsAsked = lambda *_: False) -> dict[str, int | None]:
    """
    Count the bytes that each node sends and receives in the run, at the IP layer, at most.

    An echo is 20 + 8 + size bytes, and so is its reply (IPv6: 40 + 8 + size); a handshake is four
    packets, its reset included, one may go before, and there is one more of one hop, and an echo
    (see `worker.probes.interception`). Each question has one answer at once: see `again_bytes`.
    None where a test without a rate or a number of bytes has no bound.

    Args:
        plan: What is run.
        is_asked: Of those of whom it says so it is asked who they are, unless that was said within
            the day. Which handshake came, all others are asked.
    """
    headers, unbounded = _headers(plan), set[int]()
    spent = [0 for _ in plan.nodes]
    for probe in plan.probes:
        for source, target in plan.pairs(probe):
            cost = _pair_bytes(plan, probe, source, target, headers[target])
            if cost is None:
                unbounded |= {source, target}
                continue
            spent[source] += cost
            if target != source:
                spent[target] += cost
    for performer, other, more in _questions(plan, is_asked):
        spent[performer] += more
        spent[other] += more
    return {
        node.name: None if place in unbounded else spent[place]
        for place, node in enumerate(plan.nodes)
    }


def again_bytes(plan: Plan, is_asked: IsAsked) -> int:
    """Count what a node sends at most beyond the bytes of `bytes_per_node` where nobody answers."""
    sent: dict[int, int] = {}
    bytes_of = _who_bytes(plan)
    for performer, other, names in _who(plan, is_asked):
        again = (TRIES - 1) * names * bytes_of[other] // 2
        sent[performer] = sent.get(performer, 0) + again
    return max(sent.values(), default=0)


def _pair_bytes(plan: Plan, probe: str, source: int, target: int, ip: int) -> int | None:
    cost = plan.options[probe].pair_bytes(ip)
    if cost is None or not plan.kind(probe).has_two_ends:
        return cost
    # A test of both directions costs as much where one of them is asked for.
    return cost // 2 if plan.test(probe).bidir and plan.has_pair(target, source) else cost


def _look(ip: int) -> int:
    """Count the bytes of a look for a proxy: a handshake of one hop, and an echo."""
    return handshake_bytes(ip) + echo_bytes(ip, PingOptions.size_bytes)


def _questions(plan: Plan, is_asked: IsAsked) -> Iterator[tuple[int, int, int]]:
    """Yield who asks, whom, and the bytes both ways; a look for a proxy is one, too."""
    headers, bytes_of = _headers(plan), _who_bytes(plan)
    for performer, other, names in _who(plan, is_asked):
        yield performer, other, names * bytes_of[other]
    seen = bytearray(len(plan.nodes) ** 2)
    for probe in plan.probes:
        if not plan.kind(probe).is_over_tcp:
            continue
        for performer, others in _rows(plan, probe):
            new = [other for other in others if not seen[plan.bit(performer, other)]]
            share = min(1.0, questions_a_node(plan) / max(1, len(new)))
            for other in others:
                ip = headers[other]
                cost = _look(ip)
                if not seen[plan.bit(performer, other)]:
                    seen[plan.bit(performer, other)] = 1
                    packets = NONCE_PACKETS * (ip + TCP_HEADER_BYTES)
                    cost += ceil(share * (packets + QUESTION_BYTES + REPLY_BYTES))
                yield performer, other, cost


def _who(plan: Plan, is_asked: IsAsked) -> Iterator[tuple[int, int, int]]:
    """
    Yield who asks whom who it is, and how many may answer there; of too many, some by lot.

    Once a run, but where several claim an address: then in each phase.
    """
    seen = bytearray(len(plan.nodes) ** 2)
    for probe in plan.probes:
        if plan.kind(probe).target:
            continue
        for performer, others in _rows(plan, probe):
            left = [
                other
                for other in others
                if is_asked(performer, other)
                and (plan.nodes[other].claimed_by or not seen[plan.bit(performer, other)])
            ]
            left.sort(key=lambda other: not plan.nodes[other].claimed_by)
            for other in left[: questions_a_node(plan)]:
                seen[plan.bit(performer, other)] = 1
                yield performer, other, 1 + len(plan.nodes[other].claimed_by)


def _rows(plan: Plan, probe: str) -> Iterator[tuple[int, Mapping[int, None]]]:
    """Yield each node that measures in a phase with the other nodes of its row, each once."""
    for performer in plan.performers(probe):
        pairs = plan.pairs_of(probe, performer)
        yield performer, dict.fromkeys(t if s == performer else s for s, t in pairs)


def _who_bytes(plan: Plan) -> list[int]:
    """Count the bytes both ways of one question to each node."""
    return [2 * (ip + UDP_HEADER_BYTES + LEAST_BYTES) for ip in _headers(plan)]


def _headers(plan: Plan) -> list[int]:
    """Return the bytes of the IP header by which each node is measured."""
    return [IP_HEADER_BYTES[_version(plan, place)] for place in range(len(plan.nodes))]


def _version(plan: Plan, target: int) -> int:
    """Return the version of IP by which a target is measured; of a name, what costs most."""
    ip = plain_ip(plan.nodes[target].address)
    return plan.family or 6 if ip is None else ip.version
