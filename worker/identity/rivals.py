"""
The records that show a row whose an address is, read from the registry when the row begins.

A plan names those that claimed one address when it was made. A node that has moved since may be at
the address of one that the plan does not know at all.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import redis

from worker.identity.whose import names_to_look_up
from worker.model.names import NodeName, plain_ip
from worker.wire import keyspace, liveness, scripts
from worker.wire.node_record import Record
from worker.wire.registry import read_records
from worker.wire.rows import Row


def read_row_records(
    connection: redis.Redis, row: Row, others: Collection[int]
) -> dict[NodeName, Record]:
    """Read the records of a row's own node, of these others, and of those that may answer."""
    records = read_records(connection, names_to_look_up(row, others))
    return with_rivals(connection, row, others, records)


def with_rivals(
    connection: redis.Redis, row: Row, others: Collection[int], records: dict[NodeName, Record]
) -> dict[NodeName, Record]:
    """
    Add to the records of `names_to_look_up` those that may answer at an address by now.

    The whole registry is looked through only where one of the others is not where the plan has it.
    """
    planned = {row.plan.nodes[index].name: row.plan.nodes[index].address for index in others}
    moved_to = {
        plain_ip(record.address)
        for name, record in records.items()
        if name in planned and record.address != planned[name]
    } - {None}
    if not moved_to:
        return records
    since = scripts.redis_seconds(connection) - liveness.ALIVE_S
    live = cast("list[bytes]", connection.zrangebyscore(keyspace.NODES, since, "+inf"))
    unread = {NodeName(name.decode(errors="replace")) for name in live} - records.keys()
    rivals = read_records(connection, unread)
    return records | {
        n: rival for n, rival in rivals.items() if plain_ip(rival.address) in moved_to
    }
