"""
The matrix of a run: what each source measured of each target, and what stands out.

Pure: made from measurements as they come; how it looks on a terminal is the command line's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from worker.measurement import Measurement, Outcome
from worker.plan import Plan

#: A pair this many times over the mesh's median RTT stands out (below it for throughput).
FAR_FACTOR = 3.0


@dataclass(frozen=True)
class Cell:
    """
    One pair's headline.

    Attributes:
        value: RTT in ms, or Mbit/s for throughput probes; None when there is none.
        loss_pct: Packet loss in percent, where the probe has one.
        outcome: What became of the pair.
        error: One line, empty when `ok`.
    """

    value: float | None
    loss_pct: float | None
    outcome: Outcome
    error: str


@dataclass
class Matrix:
    """
    Cells of one probe by (source, target); grows as results arrive.

    Attributes:
        probe: The probe.
        unit: Of `Cell.value`: `ms` or `Mbit/s`.
        sources: Row names, in the plan's order.
        targets: Column names, in the plan's order.
        cells: What has arrived.
    """

    probe: str
    unit: str
    sources: Sequence[str]
    targets: Sequence[str]
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)

    def add(self, measurement: Measurement) -> None:
        """Fill a cell."""
        value = measurement.latency_ms if self.unit == "ms" else measurement.throughput_mbps
        self.cells[measurement.source, measurement.target] = Cell(
            value, measurement.packet_loss_pct, measurement.outcome, measurement.error
        )

    @property
    def pair_count(self) -> int:
        """Cells that there will be."""
        both = len(set(self.sources) & set(self.targets))
        return len(self.sources) * len(self.targets) - both

    @property
    def median(self) -> float | None:
        """Median of the cells' values, None when there is none."""
        values = [cell.value for cell in self.cells.values() if cell.value is not None]
        return median(values) if values else None

    def is_far(self, cell: Cell, typical: float | None) -> bool:
        """Tell whether a cell's value stands out from the mesh's median, to the worse."""
        if cell.value is None or not typical:
            return False
        if self.unit == "ms":
            return cell.value > FAR_FACTOR * typical
        return cell.value < typical / FAR_FACTOR

    def value(self, source: str, target: str) -> float | None:
        """Give one pair's value; None when there is none (yet)."""
        cell = self.cells.get((source, target))
        return cell.value if cell else None

    def rows(self) -> list[list[float | None]]:
        """Give the values as rows of sources by columns of targets; None on the diagonal."""
        return [[self.value(s, t) for t in self.targets] for s in self.sources]

    def unfinished(self) -> list[str]:
        """Give the sources of which some pair is not here yet."""
        count = Counter(source for source, _ in self.cells)
        return [s for s in self.sources if count[s] < len(set(self.targets) - {s})]

    def outcomes(self) -> Counter[Outcome]:
        """Count the outcomes."""
        return Counter(cell.outcome for cell in self.cells.values())

    def worst(self, count: int) -> list[tuple[str, str, Cell]]:
        """Give the pairs that answered worst: by loss, then by value."""
        sign = 1 if self.unit == "ms" else -1
        answered = [(s, t, c) for (s, t), c in self.cells.items() if c.value is not None]
        answered.sort(key=lambda x: (-(x[2].loss_pct or 0), -sign * (x[2].value or 0)))
        return answered[:count]

    def node_medians(self) -> list[tuple[str, float | None, float | None]]:
        """Give per node the median as source and as target, the worst first."""
        names = list(dict.fromkeys([*self.sources, *self.targets]))
        by_source: dict[str, list[float]] = {name: [] for name in names}
        by_target: dict[str, list[float]] = {name: [] for name in names}
        for (source, target), cell in self.cells.items():
            if cell.value is not None:
                by_source[source].append(cell.value)
                by_target[target].append(cell.value)
        medians = [(n, _median(by_source[n]), _median(by_target[n])) for n in names]
        sign = -1 if self.unit == "ms" else 1
        missing = float("-inf")
        return sorted(medians, key=lambda x: missing if x[2] is None else sign * x[2])


def matrices(plan: Plan, measurements: Iterable[Measurement] = ()) -> dict[str, Matrix]:
    """Make one matrix a probe, and fill them."""
    made = {
        probe: Matrix(
            probe=probe,
            unit="Mbit/s" if probe in ("throughput", "udp") else "ms",
            sources=[plan.nodes[index].name for index in plan.sources],
            targets=[plan.nodes[index].name for index in plan.targets],
        )
        for probe in plan.probes
    }
    for measurement in measurements:
        if measurement.probe in made:
            made[measurement.probe].add(measurement)
    return made


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None
