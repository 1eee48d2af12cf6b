"""What connections ask of a Redis, as MONITOR tells it, and of how many round trips that is."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis

#: Of a connection: when it asked, in epoch seconds, and what.
Asked = list[tuple[float, str]]
#: By the address of a connection.
Told = dict[str, Asked]

#: Of a longer trip, so many commands are shown.
SHOWN = 6


@contextmanager
def monitored(connection: Any) -> Iterator[Told]:
    """Write down what each connection asks, until the block ends."""
    told: Told = defaultdict(list)
    begun, ended = threading.Event(), threading.Event()

    def listen() -> None:
        with suppress(redis.ConnectionError), connection.monitor() as monitor:
            begun.set()
            while not ended.is_set():
                one = monitor.next_command()
                if one["client_type"] == "tcp":
                    where = f"{one['client_address']}:{one['client_port']}"
                    told[where].append((float(one["time"]), one["command"]))

    threading.Thread(target=listen, daemon=True).start()
    begun.wait()
    yield told
    ended.set()


def trips_of(asked: Asked, delay_ms: float) -> list[Asked]:
    """
    Join what came together: what waits for an answer comes a round trip later.

    What was sent with a read that waits at Redis is seen once that has an answer.
    """
    trips: list[Asked] = []
    for each in asked:
        last_s, last = trips[-1][-1] if trips else (0.0, "")
        is_behind = last.startswith("XREAD ") and each[1].startswith(("EVALSHA ", "HMGET "))
        if trips and (is_behind or each[0] - last_s < delay_ms / 1000 * 0.6):
            trips[-1].append(each)
        else:
            trips.append([each])
    return trips


def in_words(trip: Asked) -> str:
    """Name the commands of a trip, the first of many."""
    words = [" ".join(command.split()[:2])[:50] for _, command in trip]
    more = f" … {len(words)}" if len(words) > SHOWN else ""
    return f"{', '.join(words[:SHOWN])}{more}"
