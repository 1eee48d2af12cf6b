"""The figures of a measurement that a matrix can show: what each is, its unit, where it stands."""

from __future__ import annotations

from dataclasses import dataclass

from worker.model.measurement import Measurement
from worker.model.probe import PROBES

#: Columns that are no part of a record's detail.
_OF_RECORD = ("latency_ms", "packet_loss_pct", "throughput_mbps")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """
    One figure.

    Attributes:
        unit: `ms`, `Mbit/s` or `%`.
        columns: Where records have it: the first of them that is there.
        minus: Of the detail; it is the difference to this, which may be negative, and whose median
            may be 0: no factor of it means anything.
        asked_as: What a run must be asked for to have it, around the probes that fill the columns.
    """

    unit: str
    columns: tuple[str, ...]
    minus: str = ""
    asked_as: str = "{}"

    def value_of(self, measurement: Measurement) -> float | None:
        """Read it; None where a measurement has none."""
        values = (_number(measurement, column) for column in self.columns)
        value = next((value for value in values if value is not None), None)
        if not self.minus or value is None:
            return value
        less = _number(measurement, self.minus)
        return None if less is None else value - less

    @property
    def needs(self) -> str:
        """What a run must be asked for to have it, for a person."""
        *others, last = [
            probe.name
            for probe in PROBES.values()
            if any(probe.fills(column) for column in self.columns)
        ]
        return self.asked_as.format(f"--probe {', '.join(others)} or {last}")


def _number(measurement: Measurement, column: str) -> float | None:
    holder = measurement if column in _OF_RECORD else measurement.detail
    value = getattr(holder, column, None)
    return float(value) if isinstance(value, (int, float)) else None


FIGURES = {
    "mean": Figure(unit="ms", columns=("latency_ms",)),
    "min": Figure(unit="ms", columns=("rtt_min_ms",)),
    "median": Figure(unit="ms", columns=("rtt_median_ms",)),
    "p95": Figure(unit="ms", columns=("rtt_p95_ms",), asked_as="{}, with --count 20 or more"),
    "max": Figure(unit="ms", columns=("rtt_max_ms",)),
    "stddev": Figure(unit="ms", columns=("rtt_stddev_ms",)),
    "jitter": Figure(unit="ms", columns=("jitter_rfc3550_ms", "jitter_mean_abs_ms")),
    "loss": Figure(unit="%", columns=("packet_loss_pct",)),
    "throughput": Figure(unit="Mbit/s", columns=("throughput_mbps",)),
    "loaded": Figure(unit="ms", columns=("rtt_loaded_median_ms",)),
    "added": Figure(
        unit="ms",
        columns=("rtt_loaded_median_ms",),
        minus="rtt_idle_median_ms",
        asked_as="--probe ping, and {}",
    ),
}
#: What a matrix is called, where its figure's name does not say enough.
TITLES = {"added": "RTT loaded - idle", "loaded": "RTT loaded"}
