"""What a node that measures reads from the registry of the nodes that it measures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import redis

from worker.model.fields import number_or_none
from worker.wire import keyspace, node_record, scripts

#: Looked up in one script, which holds every locker for a hundred microseconds.
RECORDS_AT_A_TIME = 32
FIELDS = ("address", "boot", "netns", "gateway", "labels", "since", "stopped", "accepts")
#: Nodes with this label in common say that they are on one network.
SITE = "site"


@dataclass(frozen=True, kw_only=True)
class Record:
    """
    What the registry has of a node; a text that it has not is empty.

    Attributes:
        address: Where it says that others reach it; as Redis has it, which may be anything.
        boot: Its machine's boot id.
        netns: Its network namespace there.
        gateway: MAC address of its default router, if that tells networks apart.
        site: Its label of that name.
        is_there: Its address is one of its own machine, and it accepts connections there.
        since: When it was started, in Redis' seconds; another one with each start.
        alive: Its last heartbeat is recent, and it has not said goodbye.
    """

    address: bytes
    boot: str = ""
    netns: str = ""
    gateway: str = ""
    site: str = ""
    since: str = ""
    is_there: bool = False
    alive: bool = False


def read_records(connection: redis.Redis, names: Sequence[str]) -> dict[str, Record]:
    """Give the records of nodes by name; who has no address in the registry is absent."""
    look_up = scripts.script(connection, "records")
    found: dict[str, Record] = {}
    for start in range(0, len(names), RECORDS_AT_A_TIME):
        some = names[start : start + RECORDS_AT_A_TIME]
        keys = [keyspace.NODES, *map(keyspace.node_key, some)]
        answer = look_up(keys, [len(some), *some, *FIELDS])
        for name, values in zip(some, answer, strict=True):
            if len(values) == len(FIELDS) + 1 and values[0] is not None:
                found[name] = record_of(values)
    return found


def record_of(values: Sequence[bytes | None]) -> Record:
    """Read the values of `FIELDS`, and the seconds since the last heartbeat."""
    address, *texts, seen = values
    boot, netns, gateway, labels, since, stopped, accepts = (
        (text or b"").decode(errors="replace") for text in texts
    )
    seen_s = number_or_none(seen)
    return Record(
        address=cast(bytes, address),
        boot=boot,
        netns=netns,
        gateway=gateway,
        site=_site(labels),
        since=since,
        is_there=accepts == "1",
        alive=(math.inf if seen_s is None else seen_s) <= node_record.ALIVE_S and not stopped,
    )


def _site(labels: str) -> str:
    try:
        found = json.loads(labels or "{}")
    except (ValueError, RecursionError):
        return ""
    return str(found.get(SITE, "")) if isinstance(found, dict) else ""
