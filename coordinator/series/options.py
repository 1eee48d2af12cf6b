"""What may be asked of a test of one target over time, with its bounds and defaults. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from worker.model.errors import ConfigError
from worker.model.options import PingOptions, ThroughputOptions, within

MIN_INTERVAL_S, MAX_INTERVAL_S = 0.5, 3600.0
MAX_DURATION_S = 7 * 24 * 3600.0
#: 24 h at 5 s are 17,280 rounds: 60 MB of memory, and 25 MB of JSON.
MAX_ROUNDS = 20_000
#: A round's echoes are sent in this share of the interval, but no further apart than ping(8)'s.
SEND_SHARE, MAX_GAP_S = 0.3, 1.0
#: What an unprivileged socket may be asked for; see planning.MIN_INTERVAL_S.
MIN_GAP_S = 0.01
#: A reply is waited for in this share of the interval, but no longer than `ptzmesh run` waits.
WAIT_SHARE, MAX_WAIT_S = 0.6, 1.0
#: A round is no longer than this share of the interval with the echo that goes before, or has none.
WARM_SHARE = 0.9


@dataclass(frozen=True, kw_only=True)
class SeriesOptions:
    """
    What is asked of a test.

    Attributes:
        duration_s: How long rounds begin.
        interval_s: From the begin of a round to that of the next.
        count: Echoes a round.
        throughput: How throughput is tested in each round; None leaves it out.
        warm_up: An echo goes before each round's, where the interval leaves room to wait for it.
    """

    duration_s: float = 60.0
    interval_s: float = 5.0
    count: int = 5
    throughput: ThroughputOptions | None = None
    warm_up: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be measured, naming the rule."""
        within("duration", self.duration_s, 1.0, MAX_DURATION_S)
        within("interval", self.interval_s, MIN_INTERVAL_S, MAX_INTERVAL_S)
        within("count", self.count, 1, 100)
        if self.rounds > MAX_ROUNDS:
            raise ConfigError(
                f"interval ({self.interval_s:g}) makes {self.rounds} rounds, and a test has at "
                f"most {MAX_ROUNDS}: at least {math.ceil(self.duration_s / MAX_ROUNDS)} s"
            )
        if self.ping.interval_s < MIN_GAP_S:
            raise ConfigError(
                f"count ({self.count}) is too much for an interval of {self.interval_s:g} s: "
                f"at most {math.floor(round(SEND_SHARE * self.interval_s / MIN_GAP_S, 6))}"
            )
        if self.round_seconds > self.interval_s:
            raise ConfigError(
                f"interval ({self.interval_s:g}) is too short: a round with its throughput test "
                f"may take {self.round_seconds:.1f} s"
            )

    @property
    def rounds(self) -> int:
        """Rounds that there are when none is left out."""
        return math.ceil(round(self.duration_s / self.interval_s, 6))

    @property
    def ping(self) -> PingOptions:
        """How a round pings, so that its last reply is not waited for into the next round."""
        cold = PingOptions(
            count=self.count,
            interval_s=min(MAX_GAP_S, SEND_SHARE * self.interval_s / self.count),
            wait_s=min(MAX_WAIT_S, WAIT_SHARE * self.interval_s),
            warm_up=False,
        )
        fits = self._seconds(replace(cold, warm_up=True)) <= WARM_SHARE * self.interval_s
        return replace(cold, warm_up=self.warm_up and fits)

    @property
    def round_seconds(self) -> float:
        """Longest time of one round on a LAN, in seconds."""
        return self._seconds(self.ping)

    def _seconds(self, ping: PingOptions) -> float:
        return ping.seconds + (self.throughput.seconds if self.throughput else 0.0)

    @property
    def seconds(self) -> float:
        """Longest time of the whole test on a LAN, in seconds."""
        return (self.rounds - 1) * self.interval_s + self.round_seconds
