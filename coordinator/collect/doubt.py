"""Which entries of the stream may be on the disk already, whatever their ids say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from coordinator.collect.csvfile import Identity
from coordinator.results.stream import stream_position


@dataclass
class Doubt:
    """
    What is to be looked up by what it measured, and the rows among which it is looked up.

    Attributes:
        until: Entries up to this position of the stream may be there.
        runs: Those that Redis knew when it was found to have gone back: a pair of theirs that has a
            row gets no other one, whichever of its results comes.
        reopened: Those of them that were open then, and still are: as long as there are any, each
            entry may be another result of such a pair, whatever its id.
    """

    until: tuple[int, int]
    runs: frozenset[str] = frozenset()
    reopened: frozenset[str] = frozenset()
    #: Hashes, as rows take ten times more; two of 10^6 rows are alike once in 3 * 10^7 times.
    _rows: set[int] | None = field(default=None, init=False)

    def covers(self, stream_id: bytes) -> bool:
        """Return whether an entry may be there."""
        return bool(self.reopened) or stream_position(stream_id) <= self.until

    def keep_open(self, open_runs: frozenset[str], newest: tuple[int, int]) -> None:
        """Keep the runs that are still open; what the others have published is there by now."""
        self.reopened &= open_runs
        self.until = max(self.until, newest)

    def read_rows(self, written: Callable[[], Iterable[Identity]]) -> None:
        """Learn what is there, unless it is known; a file of 10^6 rows takes 120 MB meanwhile."""
        if self._rows is None:
            self._rows = set()
            for row in written():
                self._rows.add(hash(row))
                if row.run in self.runs:
                    self._rows.add(hash(row.pair))

    def forget_rows(self) -> None:
        """Free the memory until the next entry."""
        self._rows = None

    def has(self, row: Identity) -> bool:
        """Return whether a row, or another one of its pair, is there; after `read_rows`."""
        rows = self._rows or set()
        return hash(row) in rows or hash(row.pair) in rows
