"""
What a node logs of a Redis that is away: one line when it goes, one when it is back.

The supervisor logs for the node. Its children lose the same Redis at the same time, and RQ in them
logs so at each try; none of that is lost data, which is what ERROR stands for here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from worker.model.text import in_time
from worker.wire.connection.away import AWAY, REFUSED

#: A line an hour says that an outage lasts.
REMIND_S = 3600.0
#: Exit code of a child that ended as Redis was away; sysexits.h calls it EX_TEMPFAIL.
LOST_REDIS = 75
#: How RQ 3 begins what it logs of a connection that it lost; `test_rq_relied` holds its source.
_OF_REDIS = ("could not connect to Redis", "Redis connection timeout")


@dataclass
class Outage:
    """
    One outage after the other, on a clock that the caller reads.

    Attributes:
        began: When Redis was first found to be away; None while it is there.
    """

    began: float | None = None
    _logged: float = 0.0

    def failed(self, now: float, exc: Exception) -> str | None:
        """Note that Redis did not serve us; return the line that is due, if one is."""
        reason = str(exc) or type(exc).__name__
        if self.began is None:
            self.began = self._logged = now
            if isinstance(exc, REFUSED) or not isinstance(exc, AWAY):
                return f"Redis refuses what this node sends, results wait on the disk: {reason}"
            return f"Redis is away, results wait on the disk until it is back: {reason}"
        if now - self._logged < REMIND_S:
            return None
        self._logged = now
        return f"Redis has been away for {in_time(now - self.began)}: {reason}"

    def answered(self, now: float) -> str | None:
        """Note that Redis answered; return the line that is due, if one is."""
        if self.began is None:
            return None
        away_s, self.began = now - self.began, None
        return f"Redis is back after {in_time(away_s)}"


class RqLines(logging.Filter):
    """
    Lets RQ's lines pass, but for those that say that Redis is away; no line of RQ's is an ERROR.

    Attributes:
        lost_redis: Such a line was kept back.
    """

    lost_redis = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Judge one line."""
        kind = record.exc_info[0] if record.exc_info else None
        away = kind is not None and issubclass(kind, AWAY)
        if away or any(words in str(record.msg) for words in _OF_REDIS):
            self.lost_redis = True
            return False
        if record.levelno > logging.WARNING:
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True
