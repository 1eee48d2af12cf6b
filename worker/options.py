"""
What may be asked of each probe, with its bounds and defaults.

Pure. Options are frozen into a run's plan and travel as msgpack, so every value is plain.
"""

from __future__ import annotations

from dataclasses import dataclass

from worker.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PingOptions:
    """
    How one pair is pinged.

    Attributes:
        count: Echo requests a target.
        interval_s: Seconds between two echoes to the same target.
        wait_s: Tmax of RFC 6673: an answer later than this is a loss.
        size_bytes: ICMP payload.
    """

    count: int = 10
    interval_s: float = 0.1
    wait_s: float = 1.0
    size_bytes: int = 56

    def __post_init__(self) -> None:
        """Refuse what cannot be measured, naming the rule."""
        within("count", self.count, 1, 10_000)
        within("interval", self.interval_s, 0.01, 60.0)
        within("wait_for_reply", self.wait_s, 0.01, 60.0)
        within("size", self.size_bytes, 24, 1400)

    @property
    def seconds(self) -> float:
        """Longest time one sweep takes, in seconds, when its last echo is lost."""
        return self.count * self.interval_s + self.wait_s


def within(name: str, value: float, low: float, high: float) -> None:
    """
    Let a number between two bounds pass.

    Raises:
        ConfigError: No number, or out of bounds; the message names the rule.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name} ({value!r}) must be a number")
    if not low <= value <= high:
        raise ConfigError(f"{name} ({value}) must be between {low} and {high}")
