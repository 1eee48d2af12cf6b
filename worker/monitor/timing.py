"""`timeit`: how long a part of the host program takes, beside what the network did meanwhile."""

from __future__ import annotations

import contextlib
import time
from datetime import datetime, timezone
from types import TracebackType

from worker.model.measurement import Outcome
from worker.monitor.guard import never_raises
from worker.monitor.process import recorder
from worker.monitor.records.record import TIMEIT, record


class timeit(contextlib.ContextDecorator):  # noqa: N801 - the name that PTZJEPA's users know
    """
    Record how long a function or a block takes; what it raises is recorded, and raised.

        @timeit("prepare_images")
        def prepare_images(arguments): ...

    A function that is called again while it runs, or by several threads, is timed each time.
    """

    def __init__(self, name: str) -> None:
        """Record under `name`."""
        self.name = str(name)

    def _recreate_cm(self) -> timeit:
        return timeit(self.name)

    def __enter__(self) -> timeit:
        """Begin."""
        self._begun, self._at = time.monotonic(), datetime.now(timezone.utc)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; the record's outcome is `crashed` when the block raised."""
        self._note(time.monotonic() - self._begun, value)

    @never_raises(lambda: None)
    def _note(self, elapsed_s: float, raised: BaseException | None) -> None:
        recorder().add(
            record(
                probe=TIMEIT,
                target=self.name,
                outcome=Outcome.OK if raised is None else Outcome.CRASHED,
                error="" if raised is None else f"{type(raised).__name__}: {raised}",
                started_at=self._at,
                detail={"elapsed_s": elapsed_s},
            )
        )
