"""Reads the records of nodes; one that `node_record` refuses is absent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast

import redis

from worker.model.errors import WireError
from worker.model.fields import number_or_none
from worker.model.names import NAME, NodeName
from worker.wire import keyspace, scripts
from worker.wire.node_record import PLACE, Node, Part, Record
from worker.wire.round_trip import Asking, alone, in_parts, joined, sure

#: Looked up in one script, which holds every locker for a hundred microseconds.
RECORDS_AT_A_TIME = 64

P = TypeVar("P", bound=Part)


def read_nodes(connection: redis.Redis) -> list[Node]:
    """Read all that the registry has of all nodes, by name."""
    return alone(connection, asking_nodes())


def asking_nodes() -> Asking[list[Node]]:
    """Ask for what `read_nodes` returns."""
    (seconds, micros), beats = sure((yield _look_at_beats))
    now = seconds + micros / 1e6
    seen = [
        (text, score)
        for name, score in cast("list[tuple[bytes, float]]", beats)
        if NAME.fullmatch(text := NodeName(name.decode(errors="replace"))) and math.isfinite(score)
    ]

    def look_at_records(pipeline: redis.client.Pipeline) -> None:
        for name, _ in seen:
            pipeline.hmget(keyspace.node_key(name), Node.names())

    records = yield look_at_records
    nodes = (
        _read(Node, values, name=name, seen_s=now - score)
        for (name, score), values in zip(seen, records, strict=True)
        if isinstance(values, list)
    )
    return sorted(filter(None, nodes), key=lambda node: node.name)


def _look_at_beats(pipeline: redis.client.Pipeline) -> None:
    pipeline.time()
    pipeline.zrange(keyspace.NODES, 0, -1, withscores=True)


def read_records(connection: redis.Redis, names: Iterable[NodeName]) -> dict[NodeName, Record]:
    """Read by name what sets these nodes apart, and whether they live."""
    return alone(connection, asking_records(names))


def asking_records(names: Iterable[NodeName]) -> Asking[dict[NodeName, Record]]:
    """Ask for what `read_records` returns."""
    listed = list(names)
    begin = len(keyspace.node_key(NodeName(""))) + 1
    wanted = [begin, PLACE, *Record.names()]
    asked = (
        scripts.asking(("records",), [keyspace.NODES, *map(keyspace.node_key, some)], wanted)
        for some in in_parts(listed, RECORDS_AT_A_TIME)
    )
    return _records_of(listed, (yield from joined(*asked)))


def _records_of(names: Sequence[NodeName], answers: Iterable[Any]) -> dict[NodeName, Record]:
    records, count, left = {}, len(Record.names()), iter(names)
    for seconds, micros, heard, texts in answers:
        now = int(seconds) + int(micros) / 1e6
        for text, beat, name in zip(texts, heard, left, strict=False):
            values = (text or b"").split(b"\n")
            values += [b""] * (count - 1 == len(values))
            beat_s = number_or_none(beat)
            seen_s = math.inf if beat_s is None else now - beat_s
            record = _read(Record, values, seen_s=seen_s) if len(values) == count else None
            if record is not None:
                records[name] = record
    return records


def read_parts(connection: redis.Redis, names: list[NodeName], part: type[P]) -> dict[NodeName, P]:
    """
    Read some fields of nodes by name; of one that is not there they are all absent.

    Of a key that holds something else than a record they are all invalid.
    """
    return alone(connection, asking_parts(names, part))


def asking_parts(names: Sequence[NodeName], part: type[P]) -> Asking[dict[NodeName, P]]:
    """Ask for what `read_parts` returns."""

    def look(pipeline: redis.client.Pipeline) -> None:
        for name in names:
            pipeline.hmget(keyspace.node_key(name), part.names())

    parts = {}
    for name, values in zip(names, (yield look), strict=True):
        is_wrong_type = isinstance(values, redis.ResponseError) and "WRONGTYPE" in str(values)
        if isinstance(values, Exception) and not is_wrong_type:
            raise values
        read = _read(part, [b"?"] * len(part.names()) if is_wrong_type else values)
        if read is not None:
            parts[name] = read
    return parts


def _read(kind: type[P], values: Sequence[bytes | None], **known: object) -> P | None:
    try:
        return kind.read(values, **known)
    except WireError:
        return None
