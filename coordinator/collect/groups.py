"""
The consumer groups of the stream of results: one a collector, so that Redis knows what each has.

Only what every group has passed is trimmed (`worker/wire/lua/room.lua`): a group whose collector
will never come back holds the stream until it is full, and must be forgotten.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import quote

import redis

from coordinator.collect.abandoned import forget_it, is_abandoned
from coordinator.results.stream import START, stream_position
from worker.model.errors import ConfigError
from worker.model.text import in_time, printable
from worker.wire import keyspace
from worker.wire.round_trip import Asking, alone, sure

logger = logging.getLogger(__name__)

#: The consumer by which Redis knows when a group's collector was last there.
NOTE = "ptzmesh"
GROUP = re.compile(r"[!-~]{1,255}")
#: How Redis says that something is not there.
NO_STREAM, NO_GROUP = "no such key", "NOGROUP"


@dataclass(frozen=True, kw_only=True)
class Group:
    """
    How far a collector is.

    Attributes:
        position: Stream id of the last entry that it has on its disk.
        pending: Entries delivered and not acknowledged; 0 unless another program uses the group.
        lag: Entries it has not read; None where Redis cannot tell: before 7.0, and after a crash of
            the collector until it has reached the end.
        behind_s: Seconds between its last entry and the newest of the stream, by Redis' clock;
            None when it has read nothing yet.
        idle_s: Seconds since the collector was last there; None where it was of an older version.
        unread_s: Age of the first entry that it has not read, by Redis' clock; None when it has
            all.
    """

    name: str
    position: str
    pending: int
    lag: int | None
    behind_s: float | None
    idle_s: float | None
    unread_s: float | None

    @property
    def is_abandoned(self) -> bool:
        """Nobody has run its collector for long."""
        return is_abandoned(self.idle_s, self.unread_s)


def default_group(path: Path) -> str:
    """
    Name a file's group after this host and the file's own path.

    >>> default_group(Path('/data/my file.csv')).partition(':')[2].partition(':')[2]
    '/data/my%20file.csv'
    """
    return f"csv:{quote(socket.gethostname())}:{quote(str(path.resolve()))}"


def valid_group(name: str) -> str:
    """Let a group's name pass, or raise ConfigError: 1 to 255 printable ASCII, without spaces."""
    if not GROUP.fullmatch(name):
        raise ConfigError(f"group ({name[:80]!r}) must be 1 to 255 printable ASCII, no spaces")
    return name


def collectors(connection: redis.Redis) -> list[Group]:
    """List the groups, with how far each is."""
    return alone(connection, asking_collectors())


def asking_collectors() -> Asking[list[Group]]:
    """Ask for what `collectors` returns."""
    *others, raws = yield _look_at_stream
    newest, (seconds, micros) = sure(others)
    newest_ms = stream_position(newest[0][0] if newest else START)[0]
    now = seconds + micros / 1e6
    with _passing_over(NO_STREAM):
        sure([raws])
    if isinstance(raws, redis.ResponseError):
        return []

    def look_at_each(pipeline: redis.client.Pipeline) -> None:
        for raw in raws:
            pipeline.xinfo_consumers(keyspace.RESULTS, raw["name"])
            pipeline.xrange(keyspace.RESULTS, f"({_position(raw)}", "+", count=1)

    answers = yield look_at_each
    groups = []
    for raw, consumers, unread in zip(raws, answers[::2], answers[1::2], strict=True):
        read_ms = stream_position(_position(raw))[0]
        groups.append(
            Group(
                name=_shown(raw),
                position=_position(raw),
                pending=raw["pending"],
                lag=raw.get("lag"),
                behind_s=max(0, newest_ms - read_ms) / 1000 if read_ms else None,
                idle_s=_idle_s(consumers),
                unread_s=_age_s(unread, now),
            )
        )
    return groups


def _look_at_stream(pipeline: redis.client.Pipeline) -> None:
    pipeline.xrevrange(keyspace.RESULTS, count=1)
    pipeline.time()
    pipeline.xinfo_groups(keyspace.RESULTS)


def not_run(group: Group) -> str:
    """Say since when nobody has run a collector, and what is to be done."""
    idle = in_time(group.idle_s or group.unread_s or 0.0)
    return (
        f"nobody has run it for {idle}, and it will hold up every run: if it never comes "
        f"back: {forget_it(group.name)}"
    )


def forget(connection: redis.Redis, group: str) -> None:
    """
    Remove the group of a collector that will not come back; one that still runs makes it again.

    Raises:
        ConfigError: There is no such group.
    """
    known = {_shown(raw): raw["name"] for raw in _raw_groups(connection)}
    if group not in known:
        listed = ", ".join(known) or "none"
        raise ConfigError(f"collector ({group[:80]!r}) is not known; known: {listed}")
    connection.xgroup_destroy(keyspace.RESULTS, known[group])


class Place(NamedTuple):
    """Where a group is, and whether another reader has entries that it has not acknowledged."""

    position: str
    has_pending: bool


def places(connection: redis.Redis) -> dict[str, Place]:
    """Return where each group is, by its name as it is shown."""
    raws = _raw_groups(connection)
    return {_shown(raw): Place(_position(raw), bool(raw["pending"])) for raw in raws}


def group_position(connection: redis.Redis, group: str) -> str | None:
    """Return the id that a group has passed; None when there is no such group."""
    place = places(connection).get(group)
    return None if place is None else place.position


def entries_read(connection: redis.Redis, group: str) -> int | None:
    """Count those of all entries ever added that a group has passed; None: Redis cannot tell."""
    pipeline = connection.pipeline()  # an entry added between the two would count as read
    pipeline.xinfo_groups(keyspace.RESULTS)
    pipeline.xinfo_stream(keyspace.RESULTS)
    with _passing_over(NO_STREAM):
        groups, stream = pipeline.execute()
        for raw in groups:
            if raw["name"] == group.encode() and raw.get("lag") is not None:
                return max(0, int(stream["entries-added"]) - int(raw["lag"]))
    return None


def set_group(connection: redis.Redis, group: str, position: str, read: int | None = None) -> bool:
    """
    Let the group have passed `position`; False when there is no such group.

    `read` is what `entries_read` is there; with None, Redis knows no lag until the stream's end.
    """
    with _passing_over(NO_GROUP, "requires the key to exist"):
        connection.xgroup_setid(keyspace.RESULTS, group, position, entries_read=read)
        return True
    return False


def create_group(connection: redis.Redis, group: str, position: str) -> None:
    """Make the group, and the stream if need be; one that is there is set to `position`."""
    with _passing_over("BUSYGROUP"):
        connection.xgroup_create(keyspace.RESULTS, group, position, mkstream=True)
        return
    set_group(connection, group, position)


def note_pass(connection: redis.Redis, group: str) -> None:
    """
    Let Redis know that the group's collector is there now.

    The note is a consumer that is made again each time: Redis says how long it has been idle, and
    it goes with its group. A user who may not make one is not noted.
    """
    pipeline = connection.pipeline()
    pipeline.xgroup_delconsumer(keyspace.RESULTS, group, NOTE)
    pipeline.xgroup_createconsumer(keyspace.RESULTS, group, NOTE)
    with contextlib.suppress(redis.ResponseError):
        pipeline.execute()


def drop_pending(connection: redis.Redis, group: str) -> None:
    """
    Drop what another reader of this group left pending, as it would hold trimming for ever.

    Only after the group was set to what the file holds: in between nothing must look collected.
    """
    for consumer in connection.xinfo_consumers(keyspace.RESULTS, group):
        if consumer["name"] == NOTE.encode() and not consumer["pending"]:
            continue
        logger.warning("group %s: consumer %r is dropped", group, consumer["name"])
        connection.xgroup_delconsumer(keyspace.RESULTS, group, consumer["name"])


def _raw_groups(connection: redis.Redis) -> Sequence[dict[str, Any]]:
    with _passing_over(NO_STREAM):
        return cast("Sequence[dict[str, Any]]", connection.xinfo_groups(keyspace.RESULTS))
    return []


@contextlib.contextmanager
def _passing_over(*answers: str) -> Iterator[None]:
    """Leave the block where Redis answers one of these; any other error passes through."""
    try:
        yield
    except redis.ResponseError as exc:
        if not any(answer in str(exc) for answer in answers):
            raise


def _shown(raw: dict[str, Any]) -> str:
    """Return a group's name as it is shown, and forgotten; another program may have named it."""
    return printable(raw["name"].decode(errors="replace"))


def _idle_s(consumers: Any) -> float | None:
    with _passing_over(NO_GROUP, NO_STREAM):  # it was forgotten just now
        if isinstance(consumers, redis.ResponseError):
            raise consumers
        idle = (each["idle"] for each in consumers if each["name"] == NOTE.encode())
        return next((milliseconds / 1000 for milliseconds in idle), None)
    return None


def oldest_after(connection: redis.Redis, position: str, now: float) -> float | None:
    """Return the age in seconds of the first result after a position; None when there is none."""
    return _age_s(connection.xrange(keyspace.RESULTS, f"({position}", "+", count=1), now)


def _age_s(entries: Any, now: float) -> float | None:
    if isinstance(entries, Exception):
        raise entries
    return max(0.0, now - stream_position(entries[0][0])[0] / 1000) if entries else None


def _position(raw: dict[str, Any]) -> str:
    return cast("bytes", raw["last-delivered-id"]).decode()
