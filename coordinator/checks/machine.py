"""What this machine needs to be a node: kernel rights, tools, clock, disk."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from coordinator.checks import check
from coordinator.checks.check import Area, Check
from coordinator.checks.server import Exchange
from worker.model.text import in_bytes, in_offset, some
from worker.probes.icmp.echo_socket import PERMIT
from worker.probes.icmp.engine import icmp_capability
from worker.probes.iperf3.tool import (
    MIN_VERSION,
    NOT_THERE,
    THREADS_VERSION,
    Iperf3,
    find_iperf3,
    parse_version,
)
from worker.probes.iperf3.trial import try_here
from worker.publish.outbox import MAX_OUTBOX_BYTES, left_in
from worker.wire.clock_offset import beyond_doubt_ms
from worker.wire.node_record import Node

#: A clock that is further off puts a measurement visibly beside its cause in a chart of nodes.
OFFSET_MS = 100.0
#: The outbox keeps no more than twice its share (see `worker.publish.outbox`).
NEEDED_BYTES = 2 * MAX_OUTBOX_BYTES
LEAST_BYTES = 1024 * 1024
#: From the first with threads (`THREADS_VERSION`) to this one, a server may hang once its client is
#: lost (esnet/iperf issues 1735, 1986). Ours is ended at its deadline: the node is busy until then.
LAST_HANGING = (3, 20)
SET_CLOCK = (
    "sudo timedatectl set-ntp true; where that is on: chronyc tracking, or timedatectl "
    "timesync-status"
)
#: The stream is full, Redis short of memory, or it refuses what the node sends.
OUTBOX_WAITS = (
    "they go with the next heartbeats; if not: a limit below, a collector that is behind (ptzmesh "
    "collect --list), or what the log of that worker says"
)

judged, skipped = partial(check.judged, Area.MACHINE), partial(check.skipped, Area.MACHINE)


def icmp(node: Node | None, *, wanted: bool) -> Check:
    """Look whether a worker may ping: what it says itself while it runs, else this process."""
    alive = node is not None and node.alive
    kind = node.icmp if node is not None and alive else icmp_capability()
    message = "the worker may " if alive else "this user may "
    message += f"open a {kind} socket" if kind != "none" else "not ping"
    if not wanted:
        return skipped("icmp", f"not a node here ({message})")
    return judged("icmp", message, {"icmp": kind}, fail=kind == "none", fix=PERMIT)


def iperf3(node: Node | None, *, wanted: bool) -> Check:
    """Look at the iperf3 on PATH, and whether a running worker knows it."""
    tool = find_iperf3()
    cause, _, fix = tool.fault.partition("; ")
    message = cause or f"{tool.text} at {tool.path}"
    if not wanted:
        return skipped("iperf3", f"not a node here ({message})")
    if node is not None and node.alive and node.iperf3 != tool.text:
        return _iperf3_of_worker(node, tool)
    values = {"iperf3": tool.text or None, "on_path": tool.text or None}
    if tool.fault:
        return judged("iperf3", message, values, fail=True, fix=fix)
    old, hangs = tool.version < MIN_VERSION, THREADS_VERSION <= tool.version[:2] <= LAST_HANGING
    message += " is too old" if old else "; its server may hang" if hangs else ""
    fix = f"install {_dotted(MIN_VERSION)} or newer: sudo apt-get install iperf3"
    if hangs:
        fix = f"install one after {_dotted(LAST_HANGING)}, or before {_dotted(THREADS_VERSION)}"
    return judged("iperf3", message, values, fail=old, warn=hangs, fix=fix)


def _iperf3_of_worker(node: Node, here: Iperf3) -> Check:
    """Say which other iperf3 than this shell a running worker has, or why it has none."""
    cause, _, fix = node.iperf3_fault.partition("; ")
    has = node.iperf3 or (f"none: {cause}" if cause else "none")
    is_old = bool(node.iperf3) and parse_version(node.iperf3) < MIN_VERSION
    if is_old:
        has += ", which is too old"
        own = here.path or f"{_dotted(MIN_VERSION)} or newer: sudo apt-get install iperf3"
        fix = f"the worker's own PATH must lead to another ({own})"
    elif node.iperf3:
        fix = "the worker looks on its own PATH with each heartbeat; what it says counts"
    elif not cause or cause in NOT_THERE.fault:
        own = here.path or "sudo apt-get install iperf3"
        fix = f"the worker looks on its own PATH with each heartbeat: it must be there ({own})"
    message = f"the worker has {has}; here it is {here.text or 'none'}"
    values = {"iperf3": node.iperf3 or None, "on_path": here.text or None}
    fail = is_old or not node.iperf3
    return judged("iperf3", message, values, fail=fail, warn=True, fix=fix)


def iperf3_test(*, wanted: bool) -> Check:
    """Try whether the iperf3 on PATH can run a test, as this user, with its temporary folder."""
    name, tool = "iperf3 test", find_iperf3() if wanted else NOT_THERE
    if tool.fault:
        return skipped(name, "no iperf3 that starts" if wanted else "not a node here")
    fault = try_here(tool)
    cause, _, fix = fault.partition("; ")
    message = cause or "a server and a client of a few bytes end well"
    by_hand = f"{tool.path} --server --one-off, and beside it: {tool.path} --client 127.0.0.1"
    fix = fix or f"try it: {by_hand}"
    return judged(name, message, {"error": fault or None}, fail=bool(fault), fix=fix)


def clock(quickest: Exchange, others: Sequence[Node], *, wanted: bool) -> Check:
    """Look at this clock beside Redis'; what may be half an exchange is no fault of it."""
    offset_ms, doubt_ms = quickest.clock.offset_ms, quickest.clock.uncertainty_ms
    values = {"clock_offset_ms": offset_ms, "clock_offset_uncertainty_ms": doubt_ms}
    others_ms = [n.clock_offset_ms for n in others if n.alive and n.clock_offset_ms is not None]
    return judged(
        "clock",
        f"{in_offset(offset_ms, doubt_ms)} from Redis",
        values,
        warn=wanted and beyond_doubt_ms(offset_ms, doubt_ms) > OFFSET_MS,
        fix=f"{whose_clock('here', offset_ms, others_ms)}: {SET_CLOCK}",
    )


def whose_clock(where: str, offset_ms: float, others_ms: Sequence[float]) -> str:
    """Return where to set a clock: where Redis is when other nodes differ from it alike."""
    if not others_ms:
        return f"{where}, or on the host of Redis"
    alike = all(abs(other_ms - offset_ms) <= OFFSET_MS for other_ms in others_ms)
    return "on the host of Redis" if alike else where


def state_folder(folder: Path, *, wanted: bool) -> Check:
    """Look whether results can wait on the disk; makes nothing that stays."""
    name = "state folder"
    if not wanted:
        return skipped(name, "not a node here")
    folders = (folder.absolute(), *folder.absolute().parents)
    there = next(path for path in folders if os.access(path, os.F_OK))
    problem = _why_not_writable(there)
    if problem:
        fix = _fix_of_folder(folder, there, problem)
        message = f"{folder} cannot be written: {problem}"
        return judged(name, message, {"path": str(folder)}, fail=True, fix=fix)
    free = shutil.disk_usage(there).free
    return judged(
        name,
        f"{folder}, {in_bytes(free)} free",
        {"path": str(folder), "free_bytes": free},
        fail=free < LEAST_BYTES,
        warn=free < NEEDED_BYTES,
        fix=f"free {in_bytes(NEEDED_BYTES)}, what results may take while Redis is away",
    )


def _fix_of_folder(folder: Path, there: Path, problem: str) -> str:
    """Return what lets results wait in a folder, of which `there` is what exists of it."""
    other = "or say another --state-dir"
    if problem == os.strerror(errno.ENOSPC):
        return f"make room: df -h {there}; {other}"
    if problem == os.strerror(errno.EROFS):
        return f"its file system is read-only: findmnt --target {there}; {other}"
    user = _other_owner(folder)
    if problem == os.strerror(errno.EACCES) and user:
        return (
            f"it is {user}'s: if the worker is {user}'s, too, look as it does: sudo -u {user} "
            f"ptzmesh doctor; if it is to be yours: {other}"
        )
    if problem in (os.strerror(errno.EACCES), os.strerror(errno.EPERM)):
        return f"sudo mkdir -p {folder} && sudo chown $(id -un) {folder}; {other}"
    return f"say another --state-dir than {folder}"


def _other_owner(folder: Path) -> str:
    """Return the owner of a folder; empty when it is this user, or nothing is there."""
    try:
        owner = folder.stat().st_uid
        return "" if owner == os.geteuid() else pwd.getpwuid(owner).pw_name
    except (OSError, KeyError):
        return ""


def _why_not_writable(there: Path) -> str:
    if not there.is_dir():
        return f"{there} is no folder"
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            os.write(file.fileno(), b"x")
    except OSError as exc:
        return exc.strerror or str(exc)
    return ""


def outbox(folder: Path, name: str, own: Node | None, *, wanted: bool, has_redis: bool) -> Check:
    """Look at what waits on this disk for Redis, under this name and under others."""
    others = left_in(folder)
    if not wanted and not others:
        return skipped("outbox", "not a node here")
    size = others.pop(name, 0)
    parts = [f"{in_bytes(size)} wait for Redis"] if size else []
    listed = some(f"{other} {in_bytes(waiting)}" for other, waiting in others.items())
    parts += [f"results of other names wait here: {listed}"] if others else []
    fix = OUTBOX_WAITS
    if not has_redis:
        fix = "they go when Redis is back"
    elif others and not size:
        fix = "any worker with this folder sends them with its heartbeats; if not: see its log"
    elif own is None or not own.alive:
        fix = f"a worker sends them; if none runs here: ptzmesh worker --name {name}"
    fail, warn = size > MAX_OUTBOX_BYTES, bool(parts)
    values = {"outbox_bytes": size, "others": others}
    return judged("outbox", "; ".join(parts) or "empty", values, fail=fail, warn=warn, fix=fix)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
