"""
Publishes a sweep's results beside the measuring, so that a slow Redis never delays a probe.

A thread of its own takes measurements from a queue, sends them in small batches, and notices when
the run has been cancelled.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

import redis

from worker.model.measurement import Measurement
from worker.publish.last_heard import with_last_heard
from worker.publish.outbox import BATCH, Letter, Outbox
from worker.publish.source_clock import SourceClock
from worker.wire.liveness import SIGN_S
from worker.wire.rows import Row, sign_of_life

logger = logging.getLogger(__name__)

#: Results wait at most this long for company, the last ones of a row not at all: a matrix fills
#: smoothly, and Redis sees batches.
LINGER_S = 0.1


class Publisher:
    """
    Takes the measurements of one row and publishes each once; use as a context manager.

    Attributes:
        stopped: Set when the run is no longer running; the sweep may end.
        has_completed: A result of the row was the last of its phase: the run is to be carried on.
    """

    def __init__(
        self,
        connection: redis.Redis,
        outbox: Outbox,
        row: Row,
        clock: SourceClock,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Publish the records of a row by their source's clock; the outbox keeps the others.

        `begin` is called first, in the thread.
        """
        self.begin = begin
        self.connection, self.outbox, self.row, self.clock = connection, outbox, row, clock
        self.stopped, self.has_completed = threading.Event(), False
        self.hurried = False
        self.ended = threading.Event()
        self.waiting: queue.SimpleQueue[Measurement | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="publisher", daemon=True)

    def __enter__(self) -> Publisher:
        """Start the thread."""
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Publish what waits, then end; on disk with it when the job's time is up."""
        self.waiting.put(None)
        # Not `join`: before Python 3.13 one that is interrupted takes the thread for ended.
        try:
            self.ended.wait()
        except BaseException:
            self.hurried = True
            self.ended.wait()
            raise

    def put(self, measurement: Measurement) -> None:
        """Hand a measurement over; returns at once."""
        self.waiting.put(measurement)

    def _work(self) -> None:
        look_at = time.monotonic() + SIGN_S
        is_open = True
        try:
            self.begin()
            while is_open:
                batch, is_open = self._take(look_at)
                if batch:
                    self._send(batch)
                if is_open and time.monotonic() >= look_at:
                    self._look()
                    look_at = time.monotonic() + SIGN_S
        finally:
            self.ended.set()

    def _take(self, until: float) -> tuple[list[Measurement], bool]:
        """Wait for a first measurement, then a little for more; False when closed."""
        batch: list[Measurement] = []
        deadline = until
        while len(batch) < BATCH:
            try:
                measurement = self.waiting.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if measurement is None:
                return batch, False
            if not batch:
                deadline = time.monotonic() + LINGER_S
            batch.append(measurement)
        return batch, True

    def _send(self, batch: list[Measurement]) -> None:
        if not self.hurried:
            self.clock.look(measurement.source for measurement in batch)
            batch = with_last_heard(self.connection, batch, self.clock.performer)
        letters = [Letter(self.row.bit_of(each), self.clock.stamp(each)) for each in batch]
        if self.hurried:
            self.outbox.keep(letters)
            return
        self.has_completed |= self.outbox.post(self.connection, letters)

    def _look(self) -> None:
        try:
            if not sign_of_life(self.connection, self.row):
                self.stopped.set()
                return
            self.outbox.is_away = False
        except redis.RedisError as exc:
            self.outbox.is_away = True
            logger.debug("no sign of life: %s", exc)
