"""How the mesh stands: its nodes, its runs, its results, and what it takes of Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import redis

from coordinator.checks import check
from coordinator.checks.check import Area, Check
from coordinator.checks.health import missing_workers
from coordinator.checks.machine import OFFSET_MS, OUTBOX_WAITS, SET_CLOCK, whose_clock
from coordinator.checks.server import more_memory
from coordinator.collect.abandoned import ABANDONED_S, forget_it, run_again
from coordinator.collect.groups import Group, collectors, oldest_after
from coordinator.results.results import are_events
from coordinator.results.stream import START, stream_position
from coordinator.runs.footprint import read_footprint, used_of_limits
from coordinator.runs.nodes import claims, commands_per_s, in_dispute
from coordinator.runs.runs import run_ids
from worker.model import version
from worker.model.text import in_bytes, in_offset, in_time, some
from worker.wire import keyspace, liveness
from worker.wire.clock_offset import beyond_doubt_ms
from worker.wire.node_record import Node

#: A collector that is run once a day is no fault; results that are older are.
STALE_S = 6 * 3600.0
#: Part of a limit from which on it is worth a word.
NEAR = 0.8
#: A heartbeat of any node takes an overdue run on; twice that, and none did.
OVERDUE_S = 2.0 * liveness.HEARTBEAT_S
FORGET = "it is forgotten a week after its last heartbeat"

judged, skipped = partial(check.judged, Area.MESH), partial(check.skipped, Area.MESH)


def own_node(node: Node | None, name: str, *, is_here: bool, asked: bool) -> Check:
    """Look at this node's own heartbeat; `asked` when it was named, running here or not."""
    title = "own heartbeat"
    if node is None and not is_here and not asked:
        return skipped(title, f"not a node here ({name})")
    start = f"ptzmesh worker --name {name}"
    if node is None:
        # An operator may look before the first start: that is no fault.
        runs_here = f"if it runs (see its log), it uses another Redis or database; if not: {start}"
        fix = runs_here if is_here else start
        return judged(title, f"{name} was never heard", fail=is_here, warn=True, fix=fix)
    values = {"node": name, "seen_s": node.seen_s}
    if node.stopped:
        return judged(title, f"{name} was stopped", values, warn=True, fix=start)
    message = f"{name}, {in_time(node.seen_s)} ago"
    fix = f"see its log (journalctl -u ptzmesh-worker); if it does not run: {start}"
    return judged(title, message, values, fail=not node.alive, fix=fix)


def silent(nodes: Sequence[Node]) -> Check:
    """Look for nodes that fell silent without a goodbye."""
    alive, stopped = sum(node.alive for node in nodes), sum(node.stopped for node in nodes)
    lost = sorted((n for n in nodes if not n.alive and not n.stopped), key=lambda node: node.name)
    values = {"alive": alive, "stopped": stopped, "silent": [node.name for node in lost]}
    if not nodes:
        start = (
            "ptzmesh worker --name NAME; where workers run, they use another Redis or database: "
            "ptzmesh nodes there"
        )
        return judged("nodes", "none is registered", values, warn=True, fix=start)
    start = f"there: ptzmesh worker --name {nodes[0].name}"
    message = f"{alive} alive" + (f", {stopped} stopped" if stopped else "")
    if lost:
        listed = some(f"{node.name} ({in_time(node.seen_s)})" for node in lost)
        message += f", {len(lost)} silent: {listed}"
    fix = f"{revive(lost[0])}; {FORGET}" if lost else start
    return judged("nodes", message, values, fail=bool(lost), warn=not alive, fix=fix)


def revive(node: Node) -> str:
    """Return what brings a node back; one that is cut off from Redis takes no second worker."""
    start = f"ptzmesh worker --name {node.name}"
    if node.stopped:
        return f"there: {start}"
    return f"there: ptzmesh doctor --name {node.name}; if no worker runs: {start}"


def addresses(nodes: Sequence[Node]) -> Check:
    """Look for addresses that several live nodes claim: one of them answers for all."""
    claimed = claims(nodes)
    disputes = "; ".join(in_dispute(address, those) for address, those in claimed.items())
    message = disputes or "no two live nodes claim the same"
    values = {"claimed": {address: [n.name for n in those] for address, those in claimed.items()}}
    fix = "start each with an --address that leads to it from all others, such as a VPN's"
    return judged("addresses", message, values, fail=bool(claimed), fix=fix)


def settings(nodes: Sequence[Node]) -> Check:
    """Look for nodes whose settings file was changed and is wrong: they go by the one before."""
    faults = {
        node.name: node.settings_fault for node in nodes if node.alive and node.settings_fault
    }
    listed = some((f"{name} ({fault})" for name, fault in faults.items()), 3)
    message = (
        f"labels and limits stay as they were: {listed}" if faults else "all nodes follow theirs"
    )
    fix = "correct the settings file there: it is read again by itself"
    return judged("settings", message, {"faults": faults}, warn=bool(faults), fix=fix)


def clocks(nodes: Sequence[Node]) -> Check:
    """Look at the clocks of nodes beside Redis', as far as these are known."""
    clocks = {
        node.name: (node.clock_offset_ms, node.clock_offset_uncertainty_ms)
        for node in nodes
        if node.alive and node.clock_offset_ms is not None
    }
    if not clocks:
        is_alive = any(node.alive for node in nodes)
        return skipped("clocks", "no node reports its clock" if is_alive else "no node is alive")
    beyond_ms = {name: beyond_doubt_ms(*clock) for name, clock in clocks.items()}
    worst = max(clocks, key=lambda name: (beyond_ms[name], abs(clocks[name][0])))
    off = [name for name, ms in beyond_ms.items() if ms > OFFSET_MS]
    message = f"{in_offset(*clocks[worst])} from Redis at most ({worst})"
    others_ms = [clock[0] for name, clock in clocks.items() if name != worst]
    whose = whose_clock("there", clocks[worst][0], others_ms)
    return judged(
        "clocks",
        f"{len(off)} of {len(clocks)} off: {some(off)}; {message}" if off else message,
        {
            "clock_offset_ms": {name: ms for name, (ms, _) in clocks.items()},
            "clock_offset_uncertainty_ms": {name: ms for name, (_, ms) in clocks.items()},
        },
        warn=bool(off),
        fix=f"{whose if len(off) == len(clocks) else 'there'}: {SET_CLOCK}",
    )


def versions(nodes: Sequence[Node], own: str) -> Check:
    """Look for nodes of different versions, or of another wire version, which measure nothing."""
    alive = [node for node in nodes if node.alive]
    if not alive:
        return skipped("versions", "no node is alive")
    counts = Counter(node.version for node in alive)
    foreign = [node.name for node in alive if node.wire != version.WIRE_VERSION]
    values = {"versions": dict(counts), "own": own, "other_wire": foreign}
    if set(counts) == {own} and not foreign:
        return judged("versions", f"all nodes have {own}, as here", values)
    usual = own if own in counts else counts.most_common(1)[0][0]
    others = [f"{node.name} {node.version}" for node in alive if node.version != usual]
    message = f"{counts[usual]} of {len(alive)} nodes have {usual}"
    message += f"; {some(others)}" if others else f"; here it is {own}"
    message += f"; not understood: {some(foreign)}" if foreign else ""
    fix = f"install {usual} here, too (docs/upgrade.md)"
    if others or foreign:
        fix = "install one version on all of them (docs/upgrade.md); then restart their workers"
    return judged("versions", message, values, fail=bool(foreign), warn=True, fix=fix)


def workers(connection: redis.Redis, nodes: Sequence[Node]) -> Check:
    """Look whether each node that is alive has its prober and its responder."""
    alive = [node.name for node in nodes if node.alive]
    if not alive:
        return skipped("workers", "no node is alive")
    missing = missing_workers(connection, alive)
    message = f"prober and responder of {len(alive)} nodes are registered"
    if missing:
        listed = some(f"{name} ({' and '.join(roles)})" for name, roles in missing.items())
        message = f"not registered: {listed}"
    fix = (
        "see the log there: a worker that ends is started again within seconds; one that hangs is "
        "not: sudo systemctl restart ptzmesh-worker"
    )
    return judged("workers", message, {"missing": missing}, fail=bool(missing), fix=fix)


def outboxes(nodes: Sequence[Node]) -> Check:
    """Look at the results that wait on the disks of nodes."""
    waiting = {node.name: node.outbox_bytes for node in nodes if node.outbox_bytes}
    listed = some(f"{name} {in_bytes(size)}" for name, size in waiting.items())
    message = f"results wait on disk: {listed}" if waiting else "no results wait on a node's disk"
    values = {"outbox_bytes": waiting}
    return judged("outboxes", message, values, warn=bool(waiting), fix=OUTBOX_WAITS)


def groups(connection: redis.Redis, now: float) -> list[Check]:
    """Look at each collector: one that does not come back keeps the stream from being trimmed."""
    known = collectors(connection)
    if known:
        return [_collector(group) for group in known]
    age_s = oldest_after(connection, START, now)
    count = connection.xlen(keyspace.RESULTS)
    values: dict[str, Any] = {"group": None, "lag": count, "oldest_uncollected_s": age_s}
    waiting = f"none; {count:,} entries, the oldest {in_time(age_s)} old" if age_s else "none"
    warn = bool(count) and not are_events(connection)
    return [judged("collector", waiting, values, warn=warn, fix=_room([]))]


def _collector(group: Group) -> Check:
    age_s = group.unread_s
    message = f"{group.name}: has all"
    if age_s is not None:
        to_read = "" if group.lag is None else f"{group.lag:,} entries to read, "
        message = f"{group.name}: {to_read}the oldest {in_time(age_s)} old"
    if group.is_abandoned and group.idle_s is not None:
        message += f"; nobody has run it for {in_time(group.idle_s)}"
    values = {"group": group.name, "lag": group.lag, "oldest_uncollected_s": age_s}
    return judged(
        "collector",
        message,
        {**values, "idle_s": group.idle_s},
        fail=(age_s or 0) > ABANDONED_S,
        warn=(age_s or 0) > STALE_S or group.is_abandoned,
        fix=_room([group]),
    )


def _room(known: Sequence[Group]) -> str:
    """Return what makes room in the stream: no new collector where an old one holds it."""
    if not known:
        return "ptzmesh collect --csv FILE"
    last = min(known, key=lambda group: stream_position(group.position)).name
    return f"{run_again(last)}; or, if it never comes back: {forget_it(last)}"


def limits(
    connection: redis.Redis, caps: Mapping[str, int], nodes: Sequence[Node], info: Mapping[str, Any]
) -> list[Check]:
    """Look at how much of each limit of the mesh is used; what is over one is held back."""
    used = used_of_limits(connection, nodes, info)
    room = _room(collectors(connection))
    fixes = {
        "stream_entries": f"{room}; or: ptzmesh limits --stream-entries N",
        "stream_bytes": f"{room}; or: ptzmesh limits --stream-bytes N",
        "redis_memory_pct": more_memory(info, caps.get("redis_memory_pct", 0)),
        "commands_per_s": "wait for the open runs (ptzmesh runs); or, where the nodes alone take "
        "as much: ptzmesh limits --commands-per-s N",
    }
    return [_limit(name, cap, used.get(name), fixes.get(name, "")) for name, cap in caps.items()]


def _limit(name: str, cap: int, used: float | None, fix: str) -> Check:
    values = {"limit": name, "cap": cap, "used": used}
    of_bytes = name.endswith("bytes")
    most = in_bytes(cap) if of_bytes else f"{cap:,}"
    if used is None:
        return judged("limit", f"{name} at most {most}", values)
    message = f"{name} {in_bytes(used) if of_bytes else f'{used:,.0f}'} of {most}"
    if name == "run_bytes":  # a cap that is reached in quiet times, too: old runs make room
        return judged("limit", message, values)
    if used >= cap:
        message += ": no run is started" if name == "commands_per_s" else ": results wait"
    return judged("limit", message, values, fail=used >= cap, warn=used >= NEAR * cap, fix=fix)


def overdue(connection: redis.Redis, now: float) -> Check:
    """Look for open runs that nobody carries on."""
    count = connection.zcard(keyspace.RUNS_OPEN)
    late: Any = connection.zrangebyscore(keyspace.RUNS_OPEN, 1, now - OVERDUE_S, start=0, num=100)
    runs = run_ids(late)
    message = f"{count} open" + (f", overdue: {some(runs, 3)}" if runs else ", none overdue")
    fix = "".join(f"ptzmesh show --follow {run}, or: ptzmesh cancel {run}" for run in runs[:1])
    return judged("runs", message, {"open": count, "overdue": runs}, fail=bool(runs), fix=fix)


def memory(connection: redis.Redis, info: Mapping[str, Any]) -> Check:
    """Count what the mesh takes of Redis' memory."""
    mine, used = read_footprint(connection), int(info["used_memory"])
    parts = {name: size for name, size in vars(mine).items() if name != "estimated"}
    listed = ", ".join(f"{name} {in_bytes(size)}" for name, size in parts.items() if size)
    about = "about " if mine.estimated else ""
    pct = 100 * mine.total / used
    message = f"{about}{in_bytes(mine.total)}, {pct:.0f} % of what Redis uses ({listed})"
    values = {f"{name}_bytes": size for name, size in parts.items()}
    values |= {"total_bytes": mine.total, "share_pct": pct, "estimated": mine.estimated}
    return judged("our memory", message, values)


def load(nodes: Sequence[Node], info: Mapping[str, Any]) -> Check:
    """
    Count what the nodes send to Redis, beside what it does.

    They are counts of different seconds, and only the server's has what scripts do inside it.
    """
    mine, total = commands_per_s(nodes), float(info.get("instantaneous_ops_per_sec", 0))
    unknown = [node.name for node in nodes if node.alive and node.redis_commands_per_s is None]
    message = f"nodes send {mine:.1f} commands/s; Redis does {total:.0f}/s"
    message += f" (not known yet: {some(unknown)})" if unknown else ""
    share_pct = 100 * mine / total if total >= mine > 0 else None
    values = {"commands_per_s": mine, "redis_ops_per_s": total, "share_pct": share_pct}
    return judged("our load", message, values)
