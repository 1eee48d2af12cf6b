"""
Keeps the monitor's records until they are in the CSV and in the stream; each goes there once.

Recording only appends to two bounded queues; a thread of the recorder's own encodes and sends.
While Redis is away or full, or the file cannot be written, records wait in memory, and the oldest
go when there are too many.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections import deque
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from worker.model.measurement import Measurement
from worker.model.names import RunId
from worker.monitor.guard import forget, log_once, never_raises
from worker.monitor.records import metrics_csv
from worker.monitor.records.link import BATCH, Link
from worker.monitor.records.record import RUN_PREFIX, Entry, apart
from worker.monitor.settings import MonitorSettings

#: Records that wait, in each queue: a record with ten RTTs takes about 3 kB.
MAX_RECORDS = 2_000
#: Pairs of probe and target whose last time is remembered, to keep records apart.
MAX_REMEMBERED = 1_000
#: Records wait this long for company.
LINGER_S = 0.5
#: Between two batches: encoding ten records takes the interpreter for half a millisecond, which
#: the host's threads then do not have; so it is never more than one part in a hundred of the time.
PACE_S = 0.05
#: After a failure the next attempt waits this long, doubled each time up to the second.
RETRY_S, MAX_RETRY_S = 2.0, 60.0
#: How often it is looked whether all is published.
POLL_S = 0.02
#: Waiting for a lock of ours may not hold up the host for ever.
LOCK_DEADLINE_S = 10.0


class Recorder:
    """
    The records of one process.

    Attributes:
        id: Random; a new one in each process, so that numbers never meet others'.
        dropped: Records that no longer fitted before the CSV or the stream had them.
        csv_target: The file that was saved to last, if any.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        *,
        max_records: int = MAX_RECORDS,
        csv_target: Path | None = None,
    ) -> None:
        """Keep at most `max_records` for the file, and as many for the stream."""
        self.id = secrets.token_hex(4)
        self.dropped = 0
        self.csv_target = csv_target
        self._numbers = itertools.count(1)
        self._for_csv: deque[Entry] = deque(maxlen=max_records)
        self._for_stream: deque[Entry] = deque(maxlen=max_records)
        self._last_at: dict[tuple[str, str], datetime] = {}
        # Reentrant: a signal handler of the host's may record, too.
        self._lock = threading.RLock()
        self._csv_lock = threading.Lock()
        self._wake, self._closing = threading.Event(), threading.Event()
        self._link: Link | None = None
        self._thread: threading.Thread | None = None
        self.use(settings)

    def add(self, measurement: Measurement) -> Measurement:
        """Take a record; returns at once what it became, with source, run and a time of its own."""
        with self._lock:
            known = (measurement.probe, measurement.target)
            started_at = apart(measurement.started_at, self._last_at.get(known))
            if len(self._last_at) >= MAX_REMEMBERED:
                self._last_at.clear()
            self._last_at[known] = started_at
            source, run = self.settings.source, RunId(f"{RUN_PREFIX}{self.id}")
            measurement = replace(measurement, source=source, run=run, started_at=started_at)
            if not self._closing.is_set():
                self._keep(Entry(next(self._numbers), measurement))
        if not self._wake.is_set():  # whose lock a signal handler's record should seldom meet
            self._wake.set()
        return measurement

    def use(self, settings: MonitorSettings) -> None:
        """Go on with other settings; what waits is kept."""
        self.settings = settings
        if settings.redis_url is not None and settings.redis_url != self.redis_url:
            self._link = Link(settings.redis_url, self.id)

    def offer_redis(self, url: str) -> None:
        """Publish to this Redis from now on, unless there is one already."""
        if self._link is None:
            self._link = Link(url, self.id)

    @property
    def redis_url(self) -> str | None:
        """Where records are published to; None when nowhere."""
        return None if self._link is None else self._link.url

    def save_csv(self, path: Path | None = None) -> int:
        """Write what no file has yet; returns how many lines; logs once what cannot be written."""
        target = self.csv_target = path or self.settings.csv_path
        if not self._csv_lock.acquire(timeout=LOCK_DEADLINE_S):
            return 0
        try:
            entries = self._snapshot(self._for_csv)
            written = metrics_csv.append(target, [entry.measurement for entry in entries])
            self._forget_up_to(self._for_csv, entries)  # before another thread saves them again
        except OSError as exc:
            kept = f"up to {self._for_csv.maxlen} records are kept in memory until it can"
            reason = exc.strerror or exc
            log_once(f"csv/{target}", "monitor: %s cannot be written: %s; %s", target, reason, kept)
            return 0
        finally:
            self._csv_lock.release()
        forget(f"csv/{target}")
        return written

    def publish_now(self, deadline_s: float) -> bool:
        """Wait until nothing is left to publish; False when that takes longer than the deadline."""
        give_up_at = time.monotonic() + deadline_s
        while self._for_stream and time.monotonic() < give_up_at:
            self._wake.set()
            time.sleep(POLL_S)
        return not self._for_stream

    def close(self, deadline_s: float) -> None:
        """Save once more where it was saved, publish until the deadline, and end the thread."""
        with self._lock:  # what is recorded later is dropped, or it would be in one and not in both
            self._closing.set()
        if self.csv_target is not None and self._for_csv:
            self.save_csv(self.csv_target)
        self._wake.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(deadline_s)

    def _keep(self, entry: Entry) -> None:
        self._append(self._for_csv, entry)
        if self._link is not None:
            self._append(self._for_stream, entry)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="ptzmesh-records", daemon=True
                )
                self._thread.start()

    def _append(self, queue: deque[Entry], entry: Entry) -> None:
        # A host that never saves a file does not miss what would have been in it.
        if len(queue) == queue.maxlen and (queue is self._for_stream or self.csv_target):
            self.dropped += 1
            log_once("dropped", "monitor: more than %d records wait; the oldest go", queue.maxlen)
        queue.append(entry)

    def _snapshot(self, queue: deque[Entry], most: int | None = None) -> list[Entry]:
        with self._lock:
            return list(itertools.islice(queue, most))

    def _forget_up_to(self, queue: deque[Entry], done: list[Entry]) -> None:
        with self._lock:
            while done and queue and queue[0].sequence <= done[-1].sequence:
                queue.popleft()

    @never_raises(lambda: None)
    def _work(self) -> None:
        retry_s = 0.0
        # What was added before the end is tried even when this thread looks only after it.
        while not self._closing.is_set() or (self._for_stream and not retry_s):
            if not retry_s:
                self._wake.wait()
            self._closing.wait(retry_s or LINGER_S)
            self._wake.clear()
            sent = self._publish()
            retry_s = 0.0 if sent else min(max(RETRY_S, 2 * retry_s), MAX_RETRY_S)

    def _publish(self) -> bool:
        """Send all that waits; False when Redis would not have it."""
        while self._for_stream and self._link is not None:
            entries = self._snapshot(self._for_stream, BATCH)
            if not self._link.send(entries):
                return False
            self._forget_up_to(self._for_stream, entries)
            if self._for_stream and not self._closing.is_set():
                time.sleep(PACE_S)
        return True
