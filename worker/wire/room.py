"""
How much of the shared Redis the mesh may use, and the way in: one for all that adds results.

The lockers of the fleet live in the same Redis. What is over a limit waits, in the end on its
node's disk; it is never dropped.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import redis

from worker.model.errors import RedisUnavailable, WireError
from worker.wire import keyspace, scripts
from worker.wire.round_trip import Asking, alone, sure

#: What holds where `ptzmesh limits` has set nothing.
DEFAULTS = {
    # 256 MiB hold some 450,000 ping results.
    "stream_entries": 1_000_000,
    "stream_bytes": 256 * 1024 * 1024,
    # What is kept of runs for a week: 130 of a thousand nodes; beyond it the oldest ended ones go.
    "run_bytes": 64 * 1024 * 1024,
    # A third of what makes lockers twice as slow where they share one slow core with the mesh.
    "results_per_s": 4_000,
    # Of Redis' maxmemory, by whatever uses it.
    "redis_memory_pct": 80,
    # Of all nodes together; beyond it no run is started.
    "commands_per_s": 5_000,
}
#: Those that a script looks at for each batch, in its order.
OF_RESULTS = ("stream_entries", "stream_bytes", "results_per_s", "redis_memory_pct")

#: What such a script knows without being told each time.
KNOWN = scripts.constants({
    "RESULTS": keyspace.RESULTS,
    "LIMITS": keyspace.LIMITS,
    "PACE": keyspace.PACE,
    "HOLDS": keyspace.HOLDS,
    "NAMES": OF_RESULTS,
    "USUAL": [str(DEFAULTS[name]) for name in OF_RESULTS],
})  # fmt: skip

REASONS = {b"full": "the results stream is full", b"tight": "Redis is short of memory"}

#: What Lua holds exactly.
_NUMBER = re.compile(rb"[0-9]{1,15}")


class StreamFull(Exception):  # noqa: N818 - control flow between publish and outbox
    """
    The results stream or Redis itself is at its cap, and no collector has freed anything.

    Attributes:
        raised_to: The limit that makes room when it is raised, as an option of `ptzmesh limits`
            with its value; None where raising one is of no use.
    """

    def __init__(self, status: bytes, held: int) -> None:
        """
        Take what `room.lua` returns.

        Args:
            status: A key of `REASONS`.
            held: Which limit of the stream is reached, from 1; or the percentage of Redis' memory
                that may be used.
        """
        super().__init__(REASONS[status])
        self.raised_to: str | None = None
        usual = DEFAULTS["redis_memory_pct"]
        if status == b"full":
            self.raised_to = f"--{OF_RESULTS[held - 1].replace('_', '-')} N"
        elif held < usual:
            self.raised_to = f"--redis-memory-pct {usual}"


def read_limits(connection: redis.Redis) -> dict[str, int]:
    """
    Return the limits that hold for this mesh, by the names of `DEFAULTS`.

    Raises:
        WireError: One of them is no number, or too large for one in Lua.
    """
    return alone(connection, asking_limits())


def asking_limits() -> Asking[dict[str, int]]:
    """Ask for what `read_limits` returns, or raises."""
    names = list(DEFAULTS)
    (values,) = sure((yield lambda pipeline: pipeline.hmget(keyspace.LIMITS, names)))
    return unpack_limits(values)


def unpack_limits(values: Sequence[bytes | None]) -> dict[str, int]:
    """Read the values of `DEFAULTS`, in their order; one that is not there is the default."""
    limits = {}
    for (name, default), value in zip(DEFAULTS.items(), values, strict=False):
        if value and not _NUMBER.fullmatch(value):
            raise WireError(
                f"limit {name} ({value[:40]!r}) is no number; set it again: ptzmesh limits"
            )
        limits[name] = int(value or default)
    return limits


def memory_used_pct(info: Mapping[str, Any]) -> float | None:
    """Return what of its maxmemory a Redis uses, from its INFO; None when it has none."""
    most = int(info["maxmemory"])
    return 100 * int(info["used_memory"]) / most if most else None


def add_results(
    connection: redis.Redis,
    script: str,
    count: int,
    keys: Sequence[str],
    arguments: Sequence[Any],
    *,
    longest_wait_s: float = math.inf,
) -> tuple[bytes, int, int]:
    """
    Call a script that adds results, when it is its turn.

    Over the mesh's pace a batch is given a turn, first come, first served; this waits for it.

    Args:
        script: Name of the Lua file, which stands on `room.lua`, after those between the two.
        count: Results in the batch.
        keys: Its keys.
        arguments: Its arguments, those of `room.lua` left out.
        longest_wait_s: A turn that is further away is let go.

    Returns:
        The script's own answer; `wait` and 0 where the turn was let go.

    Raises:
        StreamFull: Nothing was added.
        redis.RedisError: Redis did not answer; whether the batch is in is unknown.
    """
    call = scripts.script(connection, "room", *script.split(), before=KNOWN)
    booked = 0
    while True:
        status, first, second = call(keys, [booked, count, *arguments])
        if status in REASONS:
            raise StreamFull(status, int(first))
        if status != b"wait":
            return status, int(first), int(second)
        if first / 1000 > longest_wait_s:
            return status, 0, 0
        time.sleep(first / 1000)
        booked = 1


def add_entries(
    connection: redis.Redis,
    script: str,
    entries: Sequence[Mapping[str, bytes | str]],
    keys: Sequence[str],
    arguments: Sequence[Any],
) -> tuple[bytes, int, int]:
    """Call a script that stands on `entries.lua`, too; all entries have the same fields."""
    columns = [[entry[name] for entry in entries] for name in entries[0]]
    values = [each[0] if each.count(each[0]) == len(each) else each for each in columns]
    packed = scripts.packed_for_lua([list(entries[0]), values])
    return add_results(connection, f"entries {script}", len(entries), keys, [packed, *arguments])


def why_no_room(connection: redis.Redis) -> StreamFull | None:
    """Return why no result can be added, as adding some would raise it; None when one can."""
    return alone(connection, asking_room())


def asking_room() -> Asking[StreamFull | None]:
    """Ask for what `why_no_room` returns."""
    status, first, _ = yield from scripts.asking(("room", "ask_room"), [], [0, 0], KNOWN)
    return StreamFull(status, int(first)) if status in REASONS else None


def no_room(exc: StreamFull) -> RedisUnavailable:
    """Say that results have no room, and what makes room: a limit only where it is what holds."""
    raised = f"ptzmesh limits {exc.raised_to}"
    usual = DEFAULTS["redis_memory_pct"]
    if str(exc) == REASONS[b"tight"]:
        share = f"; or, while less than {usual} % is used, let the mesh use so much: {raised}"
        return RedisUnavailable(
            "Redis is short of memory, and results wait; free memory (ptzmesh doctor says what is "
            "the mesh's) or raise its maxmemory" + (share if exc.raised_to else "")
        )
    return RedisUnavailable(
        "the results stream is full; see which collector is behind (ptzmesh collect --list): start "
        "it, or --forget it; where there is none, ptzmesh collect --csv FILE makes room; "
        f"or raise the cap: {raised}"
    )
