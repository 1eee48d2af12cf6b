"""
Publish each pair exactly once; keep results on disk while Redis is away or its stream is full.

A batch is one Lua call (`lua/publish.lua`) that sets the pair's bit and adds the stream entry only
if the bit was clear, so a retry, a resend from disk or a second worker never doubles a pair.
"""

from __future__ import annotations

import fcntl
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import redis

from worker import wire
from worker.measurement import Measurement, Outcome

logger = logging.getLogger(__name__)

#: A script holds every locker in the fleet: 10 to 20 entries stay within a millisecond.
BATCH = 10
#: Frame: 4 bytes of length, 4 bytes of CRC-32, msgpack.
HEADER_BYTES = 8
MAX_OUTBOX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Letter:
    """A measurement with its place in the run's bitmap."""

    bit: int
    measurement: Measurement


class StreamFull(Exception):  # noqa: N818 - control flow between publish and outbox
    """The results stream is at its cap and no collector has freed anything."""


def publish(connection: redis.Redis, letters: Sequence[Letter]) -> bool:
    """
    Put measurements of one run and probe into the stream, each pair at most once.

    Returns:
        True when this call completed the phase.

    Raises:
        StreamFull: Nothing of the present batch was published.
        redis.RedisError: Redis did not answer; whether the batch is in is unknown, resend it.
    """
    call = wire.script(connection, "publish")
    complete = False
    for start in range(0, len(letters), BATCH):
        batch = letters[start : start + BATCH]
        run, probe = batch[0].measurement.run, batch[0].measurement.probe
        keys = [wire.RESULTS, wire.run_key(run), wire.done_key(run, probe), wire.RUNS_OPEN]
        limits = [wire.MAX_STREAM_ENTRIES, wire.MAX_STREAM_BYTES, wire.RUN_TTL_S]
        status, _added, ended = call(keys, [run, probe, *limits, *_arguments(batch)])
        if status == b"full":
            raise StreamFull
        if status == b"gone":
            logger.warning("run %s is gone from Redis; %d results dropped", run, len(batch))
        complete = complete or bool(ended)
    return complete


def _arguments(batch: Sequence[Letter]) -> Iterator[Any]:
    for letter in batch:
        fields = letter.measurement.to_fields()
        yield letter.bit
        yield int(letter.measurement.outcome is Outcome.OK)
        yield 2 * len(fields)
        for name, value in fields.items():
            yield name
            yield value


class Outbox:
    """
    The node's store-and-forward: an append-only, checksummed file per node.

    Safe between processes of one node through `flock`.
    """

    def __init__(self, path: Path) -> None:
        """Keep what cannot be published in the file at `path`; its folder is made."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def post(self, connection: redis.Redis, letters: Sequence[Letter]) -> bool:
        """Publish, or keep on disk when Redis is away or full. True when a phase is complete."""
        try:
            return publish(connection, letters)
        except (redis.RedisError, StreamFull) as exc:
            logger.warning("results kept in the outbox: %s", exc or "the results stream is full")
            self._append(letters)
            return False

    def resend(self, connection: redis.Redis) -> list[str]:
        """
        Publish what is on disk, in order; what fails stays.

        Returns:
            Ids of the runs of which this call completed a phase.
        """
        if not self.path.exists() or self.path.stat().st_size == 0:
            return []
        with self.path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            waiting = list(_frames(file.read()))
            completed = []
            try:
                while waiting:
                    if publish(connection, [waiting[0]]):
                        completed.append(waiting[0].measurement.run)
                    waiting.pop(0)
            except (redis.RedisError, StreamFull) as exc:
                logger.info("outbox waits with %d results: %s", len(waiting), exc or "stream full")
            file.seek(0)
            file.truncate()
            file.write(b"".join(_frame(letter) for letter in waiting))
            file.flush()
            os.fsync(file.fileno())
        return completed

    def _append(self, letters: Sequence[Letter]) -> None:
        with self.path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.tell() > MAX_OUTBOX_BYTES:
                logger.error("outbox is full; %d results are lost", len(letters))
                return
            file.write(b"".join(_frame(letter) for letter in letters))
            file.flush()
            os.fsync(file.fileno())


def _frame(letter: Letter) -> bytes:
    body = msgpack.packb([letter.bit, letter.measurement.to_fields()])
    return len(body).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + body


def _frames(data: bytes) -> Iterator[Letter]:
    at = 0
    while at + HEADER_BYTES <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        body = data[at + HEADER_BYTES : at + HEADER_BYTES + size]
        if len(body) < size or zlib.crc32(body) != int.from_bytes(data[at + 4 : at + 8], "big"):
            logger.error("outbox: a torn record and what follows it (%d bytes) set aside", len(data) - at)
            return
        bit, fields = msgpack.unpackb(body)
        yield Letter(bit, Measurement.from_fields(_as_bytes(fields)))
        at += HEADER_BYTES + size


def _as_bytes(fields: dict[str, str | bytes]) -> dict[bytes, bytes]:
    return {k.encode(): v if isinstance(v, bytes) else v.encode() for k, v in fields.items()}
