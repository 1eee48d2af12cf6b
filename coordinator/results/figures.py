"""
The figures of a measurement that a matrix can show: what each is, its unit, where it stands.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from worker.model.measurement import Measurement
from worker.model.plan import TRANSFERS

ValueOf = Callable[[Measurement], "float | None"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """
    One figure.

    Attributes:
        unit: `ms`, `Mbit/s` or `%`.
        value_of: Gives it; None where a measurement has none.
        needs: What a run must be asked for to have it, for a person.
        is_difference: It may be negative, and its median may be 0: no factor of it means anything.
    """

    unit: str
    value_of: ValueOf
    needs: str
    is_difference: bool = False


def in_detail(name: str) -> ValueOf:
    """Give the function that reads a number of a measurement's detail."""

    def value_of(measurement: Measurement) -> float | None:
        value = measurement.detail.get(name)
        return float(value) if isinstance(value, (int, float)) else None

    return value_of


def added_rtt_ms(measurement: Measurement) -> float | None:
    """Give the median RTT under load minus the idle one of the same run, in ms."""
    loaded = measurement.detail.get("rtt_loaded_median_ms")
    idle = measurement.detail.get("rtt_idle_median_ms")
    return None if loaded is None or idle is None else float(loaded) - float(idle)


def jitter_ms(measurement: Measurement) -> float | None:
    """Give the one-way jitter of a UDP test (RFC 3550), else that of round-trip times."""
    smoothed = in_detail("jitter_rfc3550_ms")(measurement)
    return in_detail("jitter_mean_abs_ms")(measurement) if smoothed is None else smoothed


ANSWERS = "--probe ping, tcp or redis"
TESTS = "--probe throughput or udp"

FIGURES = {
    "mean": Figure(unit="ms", value_of=lambda m: m.latency_ms, needs=ANSWERS),
    "min": Figure(unit="ms", value_of=in_detail("rtt_min_ms"), needs=ANSWERS),
    "median": Figure(unit="ms", value_of=in_detail("rtt_median_ms"), needs=ANSWERS),
    "p95": Figure(
        unit="ms", value_of=in_detail("rtt_p95_ms"), needs=f"{ANSWERS}, with --count 20 or more"
    ),
    "max": Figure(unit="ms", value_of=in_detail("rtt_max_ms"), needs=ANSWERS),
    "stddev": Figure(unit="ms", value_of=in_detail("rtt_stddev_ms"), needs=ANSWERS),
    "jitter": Figure(unit="ms", value_of=jitter_ms, needs=f"{ANSWERS}, or udp"),
    "loss": Figure(unit="%", value_of=lambda m: m.packet_loss_pct, needs=f"{ANSWERS}, or udp"),
    "throughput": Figure(unit="Mbit/s", value_of=lambda m: m.throughput_mbps, needs=TESTS),
    "loaded": Figure(unit="ms", value_of=in_detail("rtt_loaded_median_ms"), needs=TESTS),
    "added": Figure(
        unit="ms",
        value_of=added_rtt_ms,
        needs=f"--probe ping, and {TESTS}",
        is_difference=True,
    ),
}
#: What a matrix is called, where its figure's name does not say enough.
TITLES = {"added": "RTT loaded - idle", "loaded": "RTT loaded"}


def usual(probe: str) -> tuple[str, ...]:
    """Give the figures that tell most of a probe's results, the first one first."""
    if probe == "udp":
        return ("throughput", "jitter")
    return ("throughput",) if probe in TRANSFERS else ("mean",)
