"""Which bytes a plan moves, those of questions included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from math import ceil

from worker.model.cost import questions_a_node
from worker.model.names import NodeName, plain_ip
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
#: Whether a node that measures asks another one who it is, by their indices.
IsAsked = Callable[[int, int], bool]


def bytes_per_node(plan: Plan, is_asked: IsAsked = lambda *_: False) -> dict[NodeName, int | None]:
    """
    Count the bytes that each node sends and receives in the run, at the IP layer, at most.

    An echo is 20 + 8 + size bytes, and so is its reply (IPv6: 40 + 8 + size); a handshake is four
    packets, its reset included, one may go before, and there is one more of one hop, and an echo
    (see `worker.probes.interception`). Each question has one answer at once: see `again_bytes`.
    None where a test without a rate or a number of bytes has no bound.

    Args:
        plan: What is run.
        is_asked: Which nodes are asked who they are, where that is not known of the last day. Which
            handshake came, all are asked.
    """
    headers, unbounded = _headers(plan), set[int]()
    spent = [0] * len(plan.nodes)
    for probe in plan.probes:
        for source, target in plan.pairs(probe):
            cost = _pair_bytes(plan, probe, source, target, headers[target])
            if cost is None:
                unbounded |= {source, target}
                continue
            for end in {source, target}:
                spent[end] += cost
    for performer, other, more in _questions(plan, is_asked):
        spent[performer] += more
        spent[other] += more
    return {
        node.name: None if index in unbounded else spent[index]
        for index, node in enumerate(plan.nodes)
    }


def again_bytes(plan: Plan, is_asked: IsAsked) -> int:
    """Count what a node sends at most beyond the bytes of `bytes_per_node` where nobody answers."""
    sent, bytes_of = Counter[int](), _who_bytes(plan)
    for performer, other, names in _who(plan, is_asked):
        sent[performer] += (TRIES - 1) * names * bytes_of[other] // 2
    return max(sent.values(), default=0)


def _pair_bytes(plan: Plan, probe: str, source: int, target: int, ip: int) -> int | None:
    cost = plan.options[probe].pair_bytes(ip)
    if cost is None or not plan.kind(probe).has_two_ends:
        return cost
    # A test of both directions costs as much where one of them is asked for.
    return cost // 2 if plan.test(probe).bidir and plan.has_pair(target, source) else cost


def _questions(plan: Plan, is_asked: IsAsked) -> Iterator[tuple[int, int, int]]:
    """
    Yield who asks, whom, and the bytes both ways.

    A look for a proxy is one, too: a handshake of one hop, and an echo.
    """
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
                cost = handshake_bytes(ip) + echo_bytes(ip, PingOptions.size_bytes)
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
            new = [
                other
                for other in others
                if is_asked(performer, other)
                and (plan.nodes[other].claimed_by or not seen[plan.bit(performer, other)])
            ]
            new.sort(key=lambda other: not plan.nodes[other].claimed_by)
            for other in new[: questions_a_node(plan)]:
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
    """Return the bytes of the IP header by which each node is measured; of a name, at most."""
    ips = (plain_ip(node.address) for node in plan.nodes)
    return [IP_HEADER_BYTES[plan.family or 6 if ip is None else ip.version] for ip in ips]
