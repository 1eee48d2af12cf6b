"""How the mesh stands: its nodes, its runs, its results, and what it takes of Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import redis

from coordinator.checks.check import Area, Check, judged, skipped
from coordinator.checks.health import missing_workers
from coordinator.checks.machine import OFFSET_MS, OUTBOX_WAITS, SET_CLOCK
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
from worker.wire import keyspace, node_record
from worker.wire.clock_offset import beyond_doubt_ms
from worker.wire.node_record import Node

#: A collector that is run once a day is no fault; results that are older are.
STALE_S = 6 * 3600.0
#: Part of a limit from which on it is worth a word.
NEAR = 0.8
#: A heartbeat of any node takes an overdue run on; twice that, and none did.
OVERDUE_S = 2.0 * node_record.HEARTBEAT_S
FORGET = "it is forgotten a week after its last heartbeat"


def own_node(node: Node | None, name: str, *, is_here: bool, asked: bool) -> Check:
    """Look at this node's own heartbeat; `asked` when it was named, running here or not."""
    what = "own heartbeat"
    if node is None and not is_here and not asked:
        return skipped(Area.MESH, what, f"not a node here ({name})")
    start = f"ptzmesh worker --name {name}"
    if node is None:
        # An operator may look before the first start: that is no fault.
        runs_here = f"if it runs (see its log), it uses another Redis or database; if not: {start}"
        return judged(
            Area.MESH,
            what,
            f"{name} was never heard",
            fail=is_here,
            warn=True,
            mend=runs_here if is_here else start,
        )
    values = {"node": name, "seen_s": node.seen_s}
    if node.stopped:
        return judged(Area.MESH, what, f"{name} was stopped", values, warn=True, mend=start)
    message = f"{name}, {in_time(node.seen_s)} ago"
    mend = f"see its log (journalctl -u ptzmesh-worker); if it does not run: {start}"
    return judged(Area.MESH, what, message, values, fail=not node.alive, mend=mend)


def silent(nodes: Sequence[Node]) -> Check:
    """Look for nodes that fell silent without a goodbye."""
    alive = [one for one in nodes if one.alive]
    stopped = [one for one in nodes if one.stopped]
    lost = sorted((one for one in nodes if not one.alive and not one.stopped), key=lambda n: n.name)
    values = {
        "alive": len(alive), "stopped": len(stopped), "silent": [one.name for one in lost],
    }  # fmt: skip
    if not nodes:
        start = (
            "ptzmesh worker --name NAME; where workers run, they use another Redis or database: "
            "ptzmesh nodes there"
        )
        return judged(Area.MESH, "nodes", "none is registered", values, warn=True, mend=start)
    start = f"there: ptzmesh worker --name {nodes[0].name}"
    message = f"{len(alive)} alive" + (f", {len(stopped)} stopped" if stopped else "")
    if lost:
        listed = some(f"{one.name} ({in_time(one.seen_s)})" for one in lost)
        message += f", {len(lost)} silent: {listed}"
    mend = f"{revive(lost[0])}; {FORGET}" if lost else start
    return judged(Area.MESH, "nodes", message, values, fail=bool(lost), warn=not alive, mend=mend)


def revive(node: Node) -> str:
    """Return what brings a node back; one that is cut off from Redis takes no second worker."""
    start = f"ptzmesh worker --name {node.name}"
    if node.stopped:
        return f"there: {start}"
    return f"there: ptzmesh doctor --name {node.name}; if no worker runs: {start}"


def addresses(nodes: Sequence[Node]) -> Check:
    """Look for addresses that several live nodes say they have: one of them answers for all."""
    found = claims(nodes)
    said = "; ".join(in_dispute(address, those) for address, those in found.items())
    return judged(
        Area.MESH,
        "addresses",
        said or "no two live nodes claim the same",
        {"claimed": {address: [n.name for n in those] for address, those in found.items()}},
        fail=bool(found),
        mend="start each with an --address that leads to it from all others, such as a VPN's",
    )


def settings(nodes: Sequence[Node]) -> Check:
    """Look for nodes whose settings file was changed and is wrong: they go by what it said."""
    wrong = {one.name: one.settings_fault for one in nodes if one.alive and one.settings_fault}
    listed = some((f"{name} ({fault})" for name, fault in wrong.items()), 3)
    return judged(
        Area.MESH,
        "settings",
        f"labels and limits stay as they were: {listed}" if wrong else "all nodes follow theirs",
        {"faults": wrong},
        warn=bool(wrong),
        mend="mend the settings file there: it is read again by itself",
    )


def clocks(nodes: Sequence[Node]) -> Check:
    """Look at the clocks of nodes beside Redis', as far as these are known."""
    told = {n.name: n for n in nodes if n.alive and n.clock_offset_ms is not None}
    if not told:
        why = "no node has told its clock" if any(n.alive for n in nodes) else "no node is alive"
        return skipped(Area.MESH, "clocks", why)
    beyond_ms = {
        name: beyond_doubt_ms(n.clock_offset_ms, n.clock_offset_uncertainty_ms)
        for name, n in told.items()
    }
    worst = told[
        max(told, key=lambda name: (beyond_ms[name], abs(told[name].clock_offset_ms or 0)))
    ]
    off = [name for name, ms in beyond_ms.items() if ms > OFFSET_MS]
    how_far = in_offset(worst.clock_offset_ms or 0.0, worst.clock_offset_uncertainty_ms)
    message = f"{how_far} from Redis at most ({worst.name})"
    return judged(
        Area.MESH,
        "clocks",
        f"{len(off)} of {len(told)} off: {some(off)}; {message}" if off else message,
        {
            "clock_offset_ms": {name: n.clock_offset_ms for name, n in told.items()},
            "clock_offset_uncertainty_ms": {
                name: n.clock_offset_uncertainty_ms for name, n in told.items()
            },
        },
        warn=bool(off),
        mend=f"{_whose_clock(off, list(told.values()))}: {SET_CLOCK}",
    )


def _whose_clock(off: Sequence[str], told: Sequence[Node]) -> str:
    """Say where to mend it: at Redis' host when it differs from all nodes alike."""
    if len(told) == 1:
        return "there, or on the host of Redis"
    offsets = [one.clock_offset_ms or 0.0 for one in told]
    alike = max(offsets) - min(offsets) <= OFFSET_MS
    return "on the host of Redis" if alike and len(off) == len(told) else "there"


def versions(nodes: Sequence[Node], own: str) -> Check:
    """Look for nodes of different versions, or of another wire version, which measure nothing."""
    counts = Counter(one.version for one in nodes if one.alive)
    foreign = [n.name for n in nodes if n.alive and n.wire != version.WIRE_VERSION]
    values = {"versions": dict(counts), "own": own, "other_wire": foreign}
    if not counts:
        return skipped(Area.MESH, "versions", "no node is alive")
    differ = len(counts) > 1 or own not in counts
    mend = "install one version on all of them (docs/upgrade.md); then restart their workers"
    if not differ and not foreign:
        return judged(Area.MESH, "versions", f"all nodes have {own}, as here", values)
    usual = own if own in counts else counts.most_common(1)[0][0]
    others = [f"{one.name} {one.version}" for one in nodes if one.alive and one.version != usual]
    message = f"{counts[usual]} of {counts.total()} nodes have {usual}"
    message += f"; {some(others)}" if others else f"; here it is {own}"
    message += f"; not understood: {some(foreign)}" if foreign else ""
    mend = mend if others or foreign else f"install {usual} here, too (docs/upgrade.md)"
    return judged(Area.MESH, "versions", message, values, fail=bool(foreign), warn=True, mend=mend)


def workers(connection: redis.Redis, nodes: Sequence[Node]) -> Check:
    """Look whether each node that is alive has its prober and its responder."""
    alive = [one.name for one in nodes if one.alive]
    if not alive:
        return skipped(Area.MESH, "workers", "no node is alive")
    missing = missing_workers(connection, alive)
    message = f"prober and responder of {len(alive)} nodes are registered"
    if missing:
        listed = some(f"{name} ({' and '.join(roles)})" for name, roles in missing.items())
        message = f"not registered: {listed}"
    mend = (
        "see the log there: a worker that ends is started again within seconds; one that hangs is "
        "not: sudo systemctl restart ptzmesh-worker"
    )
    values = {"missing": missing}
    return judged(Area.MESH, "workers", message, values, fail=bool(missing), mend=mend)


def outboxes(nodes: Sequence[Node]) -> Check:
    """Look at the results that wait on the disks of nodes."""
    waiting = {one.name: one.outbox_bytes for one in nodes if one.outbox_bytes}
    listed = some(f"{name} {in_bytes(size)}" for name, size in waiting.items())
    message = f"results wait on disk: {listed}" if waiting else "no results wait on a node's disk"
    mend = OUTBOX_WAITS
    values = {"outbox_bytes": waiting}
    return judged(Area.MESH, "outboxes", message, values, warn=bool(waiting), mend=mend)


def groups(connection: redis.Redis, now: float) -> list[Check]:
    """Look at each collector: one that does not come back keeps the stream from being trimmed."""
    found = collectors(connection)
    if found:
        return [_collector(one) for one in found]
    age_s = oldest_after(connection, START, now)
    count = connection.xlen(keyspace.RESULTS)
    values: dict[str, Any] = {"group": None, "lag": count, "oldest_uncollected_s": age_s}
    waiting = f"none; {count:,} entries, the oldest {in_time(age_s)} old" if age_s else "none"
    warn = bool(count) and not are_events(connection)
    return [judged(Area.MESH, "collector", waiting, values, warn=warn, mend=_room(found))]


def _collector(one: Group) -> Check:
    age_s = one.unread_s
    parts = [] if one.lag is None else [f"{one.lag:,} entries to read"]
    parts += [] if age_s is None else [f"the oldest {in_time(age_s)} old"]
    message = f"{one.name}: " + (", ".join(parts) if age_s is not None else "has all")
    if one.is_abandoned and one.idle_s is not None:
        message += f"; nobody has run it for {in_time(one.idle_s)}"
    return judged(
        Area.MESH,
        "collector",
        message,
        {
            "group": one.name,
            "lag": one.lag,
            "oldest_uncollected_s": age_s,
            "idle_s": one.idle_s,
        },
        fail=(age_s or 0) > ABANDONED_S,
        warn=(age_s or 0) > STALE_S or one.is_abandoned,
        mend=_room([one]),
    )


def _room(found: Sequence[Group]) -> str:
    """Return what makes room in the stream: no new collector where an old one holds it."""
    if not found:
        return "ptzmesh collect --csv FILE"
    last = min(found, key=lambda one: stream_position(one.position)).name
    return f"{run_again(last)}; or, if it never comes back: {forget_it(last)}"


def limits(
    connection: redis.Redis, caps: Mapping[str, int], nodes: Sequence[Node], info: Mapping[str, Any]
) -> list[Check]:
    """Look at how much of each limit of the mesh is used; what is over one is held back."""
    used = used_of_limits(connection, nodes, info)
    room = _room(collectors(connection))
    mends = {
        "stream_entries": f"{room}; or: ptzmesh limits --stream-entries N",
        "stream_bytes": f"{room}; or: ptzmesh limits --stream-bytes N",
        "redis_memory_pct": more_memory(info, caps.get("redis_memory_pct", 0)),
        "commands_per_s": "wait for the open runs (ptzmesh runs); or, where the nodes alone take "
        "as much: ptzmesh limits --commands-per-s N",
    }
    return [_limit(name, cap, used.get(name), mends.get(name, "")) for name, cap in caps.items()]


def _limit(name: str, cap: int, used: float | None, mend: str) -> Check:
    values = {"limit": name, "cap": cap, "used": used}
    of_bytes = name.endswith("bytes")
    most = in_bytes(cap) if of_bytes else f"{cap:,}"
    if used is None:
        return judged(Area.MESH, "limit", f"{name} at most {most}", values)
    now = in_bytes(used) if of_bytes else f"{used:,.0f}"
    held = "no run is started" if name == "commands_per_s" else "results wait"
    if name == "run_bytes":  # a cap that is reached in quiet times, too: old runs make room
        return judged(Area.MESH, "limit", f"{name} {now} of {most}", values)
    return judged(
        Area.MESH,
        "limit",
        f"{name} {now} of {most}" + (f": {held}" if used >= cap else ""),
        values,
        fail=used >= cap,
        warn=used >= NEAR * cap,
        mend=mend,
    )


def overdue(connection: redis.Redis, now: float) -> Check:
    """Look for open runs that nobody carries on."""
    count = connection.zcard(keyspace.RUNS_OPEN)
    late: Any = connection.zrangebyscore(keyspace.RUNS_OPEN, 1, now - OVERDUE_S, start=0, num=100)
    runs = run_ids(late)
    message = f"{count} open" + (f", overdue: {some(runs, 3)}" if runs else ", none overdue")
    first = runs[0] if runs else ""
    mend = f"ptzmesh show --follow {first}, or: ptzmesh cancel {first}"
    values = {"open": count, "overdue": runs}
    return judged(Area.MESH, "runs", message, values, fail=bool(runs), mend=mend)


def memory(connection: redis.Redis, info: Mapping[str, Any]) -> Check:
    """Say what the mesh takes of Redis' memory."""
    mine, whole = read_footprint(connection), int(info["used_memory"])
    parts = {name: size for name, size in vars(mine).items() if name != "estimated"}
    listed = ", ".join(f"{name} {in_bytes(size)}" for name, size in parts.items() if size)
    about = "about " if mine.estimated else ""
    pct = 100 * mine.total / whole
    message = f"{about}{in_bytes(mine.total)}, {pct:.0f} % of what Redis uses ({listed})"
    values = {f"{name}_bytes": size for name, size in parts.items()}
    values |= {"total_bytes": mine.total, "share_pct": pct, "estimated": mine.estimated}
    return judged(Area.MESH, "our memory", message, values)


def load(nodes: Sequence[Node], info: Mapping[str, Any]) -> Check:
    """
    Say what the nodes send to Redis, beside what it does.

    They are counts of different seconds, and only the server's has what scripts do inside it.
    """
    mine, whole = commands_per_s(nodes), float(info.get("instantaneous_ops_per_sec", 0))
    unknown = [one.name for one in nodes if one.alive and one.redis_commands_per_s is None]
    message = f"nodes send {mine:.1f} commands/s; Redis does {whole:.0f}/s"
    message += f" (not known yet: {some(unknown)})" if unknown else ""
    values = {
        "commands_per_s": mine,
        "redis_ops_per_s": whole,
        "share_pct": 100 * mine / whole if whole >= mine > 0 else None,
    }
    return judged(Area.MESH, "our load", message, values)
