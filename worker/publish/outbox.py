"""
Publish each pair exactly once; keep results on disk while Redis is away or its stream is full.

A batch is one Lua call (`lua/room.lua`, `entries.lua`, `publish.lua`) that sets the pair's bit and
adds the stream entry only if the bit was clear, so a retry, a resend from disk or a second worker
never doubles a pair.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import msgpack
import redis

from worker.model.errors import OtherWire, WireError
from worker.model.measurement import Measurement, Outcome
from worker.model.names import RunId
from worker.model.plan import MAX_NODES
from worker.wire import keyspace, run_record
from worker.wire.connection import server
from worker.wire.room import StreamFull, add_entries
from worker.wire.round_trip import in_parts
from worker.wire.scripts import packed_for_lua

logger = logging.getLogger(__name__)

#: A script holds every locker in the fleet: 25 entries take it 0.13 ms, so that they stay within a
#: millisecond on a machine five times as slow.
BATCH = 25
#: Series of many samples are copied and stored, too.
BATCH_BYTES = 32 * 1024
#: Frame: a mark, 4 bytes of length, 4 bytes of CRC-32, msgpack of [bit, stream fields]. The mark is
#: where reading goes on after a record that a crash has torn: others may have been added behind it.
MARK = b"\x89PZM"
HEADER_BYTES = len(MARK) + 8
#: Pairs of the largest plan: a pair's bit is below.
MAX_BITS = MAX_NODES**2
#: Beyond this the oldest results lose their samples; beyond twice this nothing more is kept.
MAX_OUTBOX_BYTES = 32 * 1024 * 1024
#: Sending takes turns with the heartbeats, without which the node would count as lost.
RESEND_S = 4.0
#: Series of single values in a record's detail, given up first when the disk share is used up.
SAMPLES = ("rtts_ms", "intervals")
#: Shorter series take no more than what follows from them, and would have to be kept instead.
MIN_SAMPLES = 20

Fields = dict[str, bytes | str]


@dataclass(frozen=True)
class Letter:
    """A measurement with its place in the run's bitmap."""

    bit: int
    measurement: Measurement


def outbox_path(state_dir: Path, node: str) -> Path:
    """Return the file in which a node keeps what waits for Redis."""
    return state_dir / f"{node}.outbox"


def left_in(state_dir: Path) -> dict[str, int]:
    """Return the names that keep results in a folder → bytes; what cannot be looked at has none."""
    sizes = {}
    for path in sorted(state_dir.glob("*.outbox")):
        with suppress(OSError):
            if size := path.stat().st_size:
                sizes[path.stem] = size
    return sizes


def publish(connection: redis.Redis, letters: Sequence[Letter]) -> bool:
    """
    Put measurements of one run and probe into the stream, each pair at most once.

    Returns:
        True when this call completed the phase.

    Raises:
        StreamFull: Nothing of the present batch was published.
        redis.RedisError: Redis did not answer; whether the batch is in is unknown, resend it.
    """
    complete = False
    for batch, entries in _calls(letters):
        run, probe = batch[0].measurement.run, batch[0].measurement.probe
        keys = [keyspace.run_key(run), keyspace.done_key(run, probe), keyspace.RUNS_OPEN]
        are_ok = [int(letter.measurement.outcome is Outcome.OK) for letter in batch]
        arguments = [
            run,
            run_record.RUN_TTL_S,
            *run_record.published_fields(probe),
            packed_for_lua([[letter.bit for letter in batch], are_ok]),
        ]
        status, _added, ended = add_entries(connection, "publish", entries, keys, arguments)
        if status == b"gone":
            logger.warning("run %s is gone from Redis; %d results dropped", run, len(batch))
        complete = complete or bool(ended)
    return complete


def _calls(letters: Sequence[Letter]) -> Iterator[tuple[list[Letter], list[Fields]]]:
    """Part letters into what one call takes, each with the fields of its entry."""
    batch: list[Letter] = []
    entries: list[Fields] = []
    size = 0
    for letter in letters:
        fields = letter.measurement.to_fields()
        size += sum(map(len, fields.values()))
        if batch and (len(batch) == BATCH or size > BATCH_BYTES):
            yield batch, entries
            batch, entries = [], []
            size = sum(map(len, fields.values()))
        batch.append(letter)
        entries.append(fields)
    if batch:
        yield batch, entries


class Outbox:
    """
    The node's store-and-forward: an append-only, checksummed file per node.

    Safe between processes of one node through `flock` on a file beside it. The file is only ever
    appended to or replaced whole, so a crash at any point loses nothing that was on disk.

    Attributes:
        is_away: Redis did not answer last time; set by `post`, cleared by whoever reaches it.
        is_full: The stream had no room last time.
        is_behind: `resend` stopped for its time, and there is more to send.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_OUTBOX_BYTES) -> None:
        """Keep what cannot be published in the file at `path`; its folder is made when needed."""
        self.path = path
        self.max_bytes = max_bytes
        self.is_away = False
        self.is_full = False
        self.is_behind = False

    def post(self, connection: redis.Redis, letters: Sequence[Letter]) -> bool:
        """
        Publish, or keep on disk when Redis is away or full. True when a phase is complete.

        Once Redis was away it is not tried again before `is_away` is cleared: each try would take
        as long as the last, and a job would be over before its batches.
        """
        if self.is_away:
            self.keep(letters)
            return False
        try:
            complete = publish(connection, letters)
        except (redis.RedisError, StreamFull) as exc:
            self.is_away = isinstance(exc, redis.RedisError)
            # A full stream stays full for many batches.
            level = logging.DEBUG if self.is_full else server.severity(exc)
            self.is_full = isinstance(exc, StreamFull)
            logger.log(level, "%d results kept in the outbox: %s", len(letters), exc)
            self.keep(letters)
            return False
        self.is_full = False
        return complete

    def resend(self, connection: redis.Redis) -> list[RunId]:
        """
        Publish what is on disk, in order, for some seconds; what fails or is left stays.

        Returns:
            Ids of the runs of which this call completed a phase.
        """
        self.is_behind = False
        if not self.waiting_bytes():
            return []
        completed = []
        until = time.monotonic() + RESEND_S
        waiting = self._waiting()
        if waiting is None:
            return []
        sent = 0
        # Not under the lock: while Redis does not answer, sweeps go on adding results.
        try:
            for batch in _batches(waiting):
                if time.monotonic() > until:
                    self.is_behind = True
                    break
                if publish(connection, batch):
                    completed.append(batch[0].measurement.run)
                sent += len(batch)
        except (redis.RedisError, StreamFull) as exc:
            logger.debug("outbox waits with %d results: %r", len(waiting) - sent, exc)
        if sent or not waiting:  # nothing whole is left: damaged bytes go, too
            self._drop_first(sent)
        return completed

    def runs(self) -> set[RunId]:
        """Return the ids of the runs whose results wait."""
        return {letter.measurement.run for letter in self._waiting() or ()}

    def _waiting(self) -> list[Letter] | None:
        """Read what waits; None where the disk does not let us."""
        try:
            return list(_frames(self.path.read_bytes()))
        except OSError as exc:
            logger.warning("outbox cannot be read, what it holds waits: %s", exc)
            return None

    def _drop_first(self, sent: int) -> None:
        try:
            with self._locked():
                left = list(_frames(self.path.read_bytes()))[sent:]
                self._replace(left)
        except OSError as exc:
            # A pair's second copy is not published.
            logger.warning("outbox cannot be written (%s): what was sent is sent again", exc)
            return
        logger.info("outbox sent %d results, %d wait", sent, len(left))

    def keep(self, letters: Sequence[Letter]) -> None:
        """Put results on the disk; the next heartbeat that reaches Redis sends them."""
        data = b"".join(_frame(letter) for letter in letters)
        try:
            with self._locked():
                if self.waiting_bytes() + len(data) > self.max_bytes:
                    self._drop_samples()
                if self.waiting_bytes() + len(data) > 2 * self.max_bytes:
                    logger.error("outbox is full: %d results lost", len(letters))
                    return
                with self.path.open("ab") as file:
                    _write_synced(file, data)
        except OSError as exc:
            logger.error("outbox cannot be written (%s): %d results lost", exc, len(letters))

    def set_aside_others(self) -> None:
        """Move the file away when a ptzmesh of another wire version has left results in it."""
        with self._locked():
            try:
                list(_frames(self.path.read_bytes() if self.path.exists() else b""))
            except OtherWire as exc:
                aside = self.path.with_name(f"{self.path.name}.{time.time_ns()}")
                self.path.replace(aside)
                logger.warning(
                    "results that wait are not sent: %s; they are kept in %s", exc, aside
                )

    def waiting_bytes(self) -> int:
        """Return the size of what waits on disk."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0
        except OSError as exc:  # a disk that is gone is no reason to end
            logger.warning("outbox cannot be read: %s", exc)
            return 0

    def _drop_samples(self) -> None:
        """Take the single values of long series out of what waits; their statistics stay."""
        if not self.path.exists():
            return
        letters = list(_frames(self.path.read_bytes()))
        lean = [replace(x, measurement=_without_samples(x.measurement)) for x in letters]
        if dropped := sum(old != new for old, new in zip(letters, lean, strict=True)):
            logger.warning("outbox is over its share: samples of %d results dropped", dropped)
            self._replace(lean)

    def _replace(self, letters: Sequence[Letter]) -> None:
        fresh = self.path.with_suffix(".new")
        with fresh.open("wb") as file:
            _write_synced(file, b"".join(_frame(letter) for letter in letters))
        fresh.replace(self.path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _batches(letters: Sequence[Letter]) -> Iterator[Sequence[Letter]]:
    """Part letters into publishable batches: one run, one probe, at most `BATCH`."""
    for _, same in groupby(letters, key=lambda x: (x.measurement.run, x.measurement.probe)):
        yield from in_parts(list(same), BATCH)


def _write_synced(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _without_samples(measurement: Measurement) -> Measurement:
    series = {name: getattr(measurement.detail, name, ()) for name in SAMPLES}
    samples: dict[str, Any] = {name: () for name in series if len(series[name]) > MIN_SAMPLES}
    return replace(measurement, detail=replace(measurement.detail, **samples))


def _frame(letter: Letter) -> bytes:
    body = msgpack.packb([letter.bit, letter.measurement.to_fields()])
    return MARK + len(body).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + bytes(body)


def _frames(data: bytes) -> Iterator[Letter]:
    """Yield what is whole; after a torn or damaged record go on at the next mark."""
    at = 0
    while at < len(data):
        head = data[at : at + HEADER_BYTES]
        size = int.from_bytes(head[4:8], "big")
        body = data[at + HEADER_BYTES : at + HEADER_BYTES + size]
        is_whole = head.startswith(MARK) and len(body) == size
        if not is_whole or zlib.crc32(body) != int.from_bytes(head[8:], "big"):
            after = data.find(MARK, at + 1)
            after = len(data) if after < 0 else after
            logger.error("outbox: %d damaged bytes are given up", after - at)
            at = after
            continue
        try:
            yield _letter(msgpack.unpackb(body))
        except OtherWire:
            raise
        except (ValueError, TypeError, WireError) as exc:
            logger.error("outbox: a record that makes no sense is given up: %s", exc)
        at += HEADER_BYTES + size


def _letter(body: Any) -> Letter:
    """Read a frame's content; raises ValueError, TypeError or WireError where it is invalid."""
    bit, fields = body
    if type(bit) is not int or not 0 <= bit < MAX_BITS or not isinstance(fields, dict):
        raise ValueError("not a bit and a measurement")
    if not all(isinstance(name, str) for name in fields):
        raise ValueError("a field's name is no text")
    if not all(isinstance(value, (str, bytes)) for value in fields.values()):
        raise ValueError("a field is neither text nor bytes")
    raw = {k.encode(): v if isinstance(v, bytes) else v.encode() for k, v in fields.items()}
    return Letter(bit, Measurement.from_fields(raw))
