"""
Whose an address is: before anything is measured there, and only where it can be another's.

Two networks may have the same addresses. An address of this very network namespace is no other
machine's. One that is private, of a carrier's NAT or link-local may be another machine's, unless
target and who measures it say that they are on one network; so may one that two live nodes claim,
or whose node is not heard any more. There the target's responder is asked who answers
(`answering`); a name that came back holds for a day, as long as the same nodes claim the address.
Where several answer at one address, its ports are forwarded: of an echo nobody knows to whom.

A responder may be busy. So another's answer is proof only where the target had opened its port,
too, and the other one's own machine has the address.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from secrets import SystemRandom

import redis

from worker.host.machine import boot_id, gateway_mac, is_own, network_namespace, own_addresses
from worker.identity.answering import Port, ask_for_ports
from worker.identity.context import NodeContext
from worker.identity.verified import keep_verified, read_verified, verified_path
from worker.model.measurement import Outcome
from worker.model.names import NodeName, is_of_shared_network, plain_ip
from worker.model.text import some
from worker.probes.answer.who_answers import Question, who_answers
from worker.wire.connection import server
from worker.wire.connection.way import allowing
from worker.wire.node_record import Record, share_a_network

logger = logging.getLogger(__name__)

ShouldStop = Callable[[], bool]
UsePorts = Callable[[Mapping[NodeName, Port]], None]

#: A Redis that does not answer in this time is not asked for ports.
SILENT_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Target:
    """
    A node to be measured.

    Attributes:
        name: The node's.
        address: Literal, as it will be measured.
        is_there: Its address is one of its own machine, and not of a router before it.
        claimed_by: Other live nodes, of other namespaces, that claim the same address.
        also_there: Those of them whose own machine has it, too.
    """

    name: NodeName
    address: str
    is_there: bool = False
    claimed_by: Sequence[NodeName] = ()
    also_there: Sequence[NodeName] = ()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """
    Whether a target is measured.

    Attributes:
        outcome: `ok` to measure; else `wrong_host` or `unverified`, and nothing is measured.
        error: Why not, as one line.
        unverified: It is measured, and nobody could be asked who answers there.
    """

    outcome: Outcome = Outcome.OK
    error: str = ""
    unverified: bool = False


FINE = Verdict()


@dataclass(frozen=True)
class Answers:
    """Who answered at a target's address, and whether the target had opened its port."""

    names: frozenset[str] = frozenset()
    was_asked: bool = False


NOBODY = Answers()


@dataclass
class Allowance:
    """How many targets a node may still ask in this phase of its run."""

    left: int

    def chosen(self, targets: Sequence[Target]) -> list[Target]:
        """Take who is asked: those whose address others claim, and then by lot."""
        by_lot = SystemRandom().sample(targets, len(targets))
        chosen = sorted(by_lot, key=lambda target: not target.claimed_by)[: self.left]
        self.left -= len(chosen)
        return chosen


def identify(
    context: NodeContext,
    targets: Sequence[Target],
    records: Mapping[NodeName, Record],
    allowed: Allowance,
    should_stop: ShouldStop,
    use_ports: UsePorts = lambda ports: None,
) -> dict[NodeName, Verdict]:
    """
    Judge of each target, by name, whether what answers at its address is it.

    Args:
        context: The node that measures; should its Redis be away, nobody is asked.
        targets: What is to be measured.
        records: What the registry has of them, of rivals for their addresses, and of this node.
        allowed: How many may be asked; the others are measured unverified, or not at all where
            others claim the address.
        should_stop: Asked a few times a second.
        use_ports: Called in a thread with the ports of those that are asked, while these are open.
    """
    # Its last heartbeat may be older than the network that it is in now.
    own = records.get(context.name)
    own = None if own is None else replace(own, gateway=gateway_mac())
    verdicts: dict[NodeName, Verdict] = {}
    doubted = []
    mine = own_addresses()
    for target in targets:
        record = records.get(target.name)
        if is_own(target.address, mine):
            verdict = _of_own_address(context.name, target, record)
            if verdict is None:
                # This very node may be what is there.
                rivals = dict.fromkeys((*target.claimed_by, context.name))
                doubted.append(replace(target, claimed_by=list(rivals), also_there=()))
            else:
                verdicts[target.name] = verdict
        elif _is_doubtful(target, own, record):
            doubted.append(target)
        else:
            verdicts[target.name] = FINE
    return verdicts | _asked(context, doubted, records, allowed, should_stop, use_ports)


def _of_own_address(own: str, target: Target, record: Record | None) -> Verdict | None:
    """
    Judge an address of this namespace: several nodes of one machine may share it.

    None where it is not known in which namespace one of the two is: some sandboxes hide it.
    """
    if record is not None:
        if is_here(record):
            return FINE
        if not (record.boot and record.netns and boot_id() and network_namespace()):
            return None
    ip = plain_ip(target.address)
    if record is None and ip is not None and ip.is_loopback:
        # No node: who lets nodes measure such has said so (--allow-unregistered-targets).
        return FINE
    return Verdict(
        outcome=Outcome.WRONG_HOST,
        error=f"{target.address} is an address of {own} itself, not of {target.name} from here; "
        f"start {target.name} with an --address that leads to it",
    )


def is_here(record: Record) -> bool:
    """Whether a node is in this process's own network namespace."""
    namespace = (record.boot, record.netns)
    return all(namespace) and namespace == (boot_id(), network_namespace())


def _is_doubtful(target: Target, own: Record | None, record: Record | None) -> bool:
    if record is None:
        return False  # no node of the mesh: nobody to ask
    may_be_elsewhere = is_of_shared_network(target.address) and not share_a_network(own, record)
    return bool(target.claimed_by) or not record.alive or may_be_elsewhere


def _asked(
    context: NodeContext,
    doubted: Sequence[Target],
    records: Mapping[NodeName, Record],
    allowed: Allowance,
    should_stop: ShouldStop,
    use_ports: UsePorts,
) -> dict[NodeName, Verdict]:
    """Ask who answers, but for those that have said so in the last day."""
    path = verified_path(context.outbox_path)
    known = read_verified(path) if doubted else {}
    keys = {target.name: _key(context, target, records) for target in doubted}
    # One that is silent may have left its address to another machine since it was asked.
    unsure = [
        target
        for target in doubted
        if keys[target.name] not in known or not records[target.name].alive
    ]
    answered = _ask(context, allowed.chosen(unsure), records, should_stop, use_ports)
    judged = {target.name: judge(target, answered.get(target.name, NOBODY)) for target in unsure}
    # One that is not there itself may share the address with one that had no time to answer.
    lasting = [target for target in unsure if target.is_there or not target.claimed_by]
    if new := [keys[target.name] for target in lasting if judged[target.name] == FINE]:
        keep_verified(path, new)
    return dict.fromkeys(keys, FINE) | judged


def _key(context: NodeContext, target: Target, records: Mapping[NodeName, Record]) -> str:
    """Name what was verified: from where, which address, which start of which node."""
    here = (context.name, context.address, gateway_mac())
    since = {name: repr(record.since) for name, record in records.items()}
    # With another one that claims the address its ports may be forwarded, each to somebody else.
    claims = (f"{name} {since.get(name, '')}" for name in sorted(target.claimed_by))
    return "|".join((*here, target.address, target.name, since[target.name], *claims))


def _ask(
    context: NodeContext,
    targets: Sequence[Target],
    records: Mapping[NodeName, Record],
    should_stop: ShouldStop,
    use_ports: UsePorts,
) -> dict[NodeName, Answers]:
    """Return who answered at each target's address, by the target's name: itself, or who else."""
    may_answer = {target.name: (target.name, *target.claimed_by) for target in targets}
    if not targets:
        return {}
    live = {n for names in may_answer.values() for n in names if n in records and records[n].alive}
    # Should Redis fall silent now, the echoes are not to wait for it.
    silent_s = allowing(SILENT_S, 2)
    connection = server.connect(
        context.redis_url, socket_timeout_s=silent_s, connect_timeout_s=silent_s, retries=0
    )
    try:
        ports = ask_for_ports(connection, sorted(live), should_stop)
    except redis.RedisError as exc:
        logger.log(server.severity(exc), "nobody is asked who answers: %s", exc)
        return dict.fromkeys(may_answer, NOBODY)
    finally:
        connection.close()
    pairs = [
        (target, name) for target in targets for name in may_answer[target.name] if name in ports
    ]
    questions = [
        Question(address=target.address, port=ports[name].number or 0, secret=ports[name].secret)
        for target, name in pairs
    ]
    answered: dict[NodeName, set[str]] = {target.name: set() for target in targets}
    with ThreadPoolExecutor(1) as thread:
        used = thread.submit(use_ports, ports)
        for index, name in who_answers(questions, context.name, should_stop).items():
            answered[pairs[index][0].name].add(name)
    used.result()
    return {name: Answers(frozenset(who), name in ports) for name, who in answered.items()}


def judge(target: Target, answers: Answers) -> Verdict:
    """Judge a target by who answered at its address."""
    answered, others = answers.names, answers.names - {target.name}
    if target.name in answered:
        # What is not forwarded, as echoes, goes to the machine that has the address.
        has_it = target.is_there and others.isdisjoint(target.also_there)
        return FINE if has_it or not others else _forwarded(target, answered)
    if answers.was_asked and (instead := others & {*target.also_there}):
        return Verdict(
            outcome=Outcome.WRONG_HOST,
            error=f"{some(sorted(instead))} answers at {target.address}, not {target.name}; "
            f"start {target.name} with an --address that leads to it from here",
        )
    if not target.claimed_by:
        return Verdict(unverified=True)
    return Verdict(
        outcome=Outcome.UNVERIFIED,
        error=f"{some(sorted((target.name, *target.claimed_by)))} say that they have "
        f"{target.address}, and {target.name} did not say that it answers there; "
        "give each an --address of its own, or let UDP through to its --ports",
    )


def _forwarded(target: Target, answered: Collection[str]) -> Verdict:
    return Verdict(
        outcome=Outcome.UNVERIFIED,
        error=f"{some(sorted(answered))} answer at {target.address}: its ports are forwarded, and "
        f"what else is sent there may not reach {target.name}; "
        f"start {target.name} with an --address of its own",
    )
