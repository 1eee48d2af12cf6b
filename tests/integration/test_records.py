"""What a row reads of other nodes is what these say of themselves, by whichever ptzmesh."""

from __future__ import annotations

import pytest
import redis

from integration.rows import beat
from worker.model.names import NodeName
from worker.wire import keyspace
from worker.wire.node_record import Node, Record
from worker.wire.registry import RECORDS_AT_A_TIME, read_nodes, read_records

pytestmark = pytest.mark.redis

NAMES = [NodeName(f"n{number}") for number in range(RECORDS_AT_A_TIME + 6)]
KEY = keyspace.node_key(NAMES[3])


@pytest.fixture(autouse=True)
def _registered(connection: redis.Redis) -> None:
    for number, name in enumerate(NAMES):
        node = Node(
            name=name,
            address=f"10.0.0.{number + 1}",
            labels={"site": "hütte\n2", "rack": str(number)},
            boot="b",
            gateway="02:00:00:00:00:01",
            accepts=number % 2 == 0,
            since=1796055817.884102 + number,
        )
        connection.hset(keyspace.node_key(name), mapping=dict(node.to_fields()))
    beat(connection, *NAMES)


def read(connection: redis.Redis) -> dict[NodeName, Record]:
    """Return what a row reads; of each that is there, it is what `nodes` reads."""
    records = read_records(connection, NAMES)
    whole = {node.name: node for node in read_nodes(connection)}
    for name, record in records.items():
        for attribute, value in vars(record).items():
            known = getattr(whole[name], attribute)
            assert value == (pytest.approx(known, abs=30) if attribute == "seen_s" else known)
    return records


def test_records_are_read_as_they_were_written(connection: redis.Redis) -> None:
    assert [*read(connection)] == NAMES
    assert all(record.alive for record in read(connection).values())


def test_older_ptzmesh_that_began_at_a_node_since_is_read_by_its_own_fields(
    connection: redis.Redis,
) -> None:
    connection.hset(KEY, mapping={"address": "10.9.9.9", "since": "1796055999.5"})
    assert read(connection)[NAMES[3]].address == "10.9.9.9"
    connection.hdel(KEY, "place")
    assert read(connection)[NAMES[3]].address == "10.9.9.9"


def test_node_that_was_stopped_is_not_alive(connection: redis.Redis) -> None:
    connection.hset(KEY, "stopped", "1")
    assert [name for name, record in read(connection).items() if not record.alive] == [NAMES[3]]


@pytest.mark.parametrize("place", ["", "\n", "x\n1", "\n" * 6 + "1", "\n" * 9 + "1", b"\xff" * 99])
def test_damaged_record_leaves_out_its_node_alone(
    connection: redis.Redis, place: str | bytes
) -> None:
    connection.hset(
        KEY, mapping={"place": place, "since": "1", "address": "not one", "stopped": ""}
    )
    connection.hdel(keyspace.node_key(NAMES[4]), "since")
    connection.delete(keyspace.node_key(NAMES[5]))
    connection.set(keyspace.node_key(NAMES[5]), "no record")
    assert set(NAMES) - read(connection).keys() == {NAMES[3], NAMES[5]}
