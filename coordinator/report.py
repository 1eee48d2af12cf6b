"""
The matrix of a run: what each source measured of each target, and what stands out.

Pure: made from measurements as they come; how it looks on a terminal is the command line's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from statistics import median
from sys import intern

from worker.measurement import Measurement, Outcome
from worker.plan import REDIS_TARGET, TRANSFERS, Plan
from worker.probes.iperf3_record import spent_bytes

#: A pair this many times over the mesh's median RTT stands out (below it for throughput).
FAR_FACTOR = 3.0


ValueOf = Callable[[Measurement], "float | None"]


@dataclass(frozen=True, slots=True)
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
        title: What the values are.
        unit: Of `Cell.value`: `ms` or `Mbit/s`.
        sources: Row names, in the plan's order.
        targets: Column names, in the plan's order.
        value_of: Gives the value of a measurement.
        cells: What has arrived.
        sample: Targets that each source measures; None is all.
    """

    probe: str
    title: str
    unit: str
    sources: Sequence[str]
    targets: Sequence[str]
    value_of: ValueOf
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    sample: int | None = None

    def add(self, measurement: Measurement) -> None:
        """Fill a cell."""
        # A mesh of a thousand nodes has a million cells; each name is kept once.
        self.cells[intern(measurement.source), intern(measurement.target)] = Cell(
            self.value_of(measurement),
            measurement.packet_loss_pct,
            measurement.outcome,
            measurement.error,
        )

    @property
    def pair_count(self) -> int:
        """Cells that there will be."""
        if self.sample is not None:
            return len(self.sources) * self.sample
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
        targets, sample = set(self.targets), self.sample
        return [
            s for s in self.sources
            if count[s] < (len(targets) - (s in targets) if sample is None else sample)
        ]

    def outcomes(self) -> Counter[Outcome]:
        """Count the outcomes."""
        return Counter(cell.outcome for cell in self.cells.values())

    def worst(self, count: int) -> list[tuple[str, str, Cell]]:
        """Give the pairs that answered worst: by loss, then by value."""
        sign = 1 if self.unit == "ms" else -1
        answered = ((s, t, c) for (s, t), c in self.cells.items() if c.value is not None)
        return nsmallest(
            count, answered, key=lambda x: (-(x[2].loss_pct or 0), -sign * (x[2].value or 0))
        )

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


@dataclass
class Report:
    """
    The matrices of a run, by title, and what its tests cost.

    Attributes:
        matrices: One a probe; with `wide`, one more for each probe that loads a link.
        bytes_by_node: What tests with two ends sent and received, as far as they know it.
    """

    matrices: dict[str, Matrix]
    bytes_by_node: Counter[str] = field(default_factory=Counter)

    def add(self, measurement: Measurement) -> None:
        """Take a measurement into every matrix of its probe."""
        for matrix in self.matrices.values():
            if matrix.probe == measurement.probe:
                matrix.add(measurement)
        if measurement.probe in TRANSFERS:
            cost = spent_bytes([measurement]) or 0
            self.bytes_by_node[measurement.source] += cost
            self.bytes_by_node[measurement.target] += cost


def make_report(
    plan: Plan, measurements: Iterable[Measurement] = (), *, wide: bool = False
) -> Report:
    """Make a run's report and fill it; `wide` adds how much a load adds to the RTT."""
    names = [node.name for node in plan.nodes]
    sources, targets = [names[i] for i in plan.sources], [names[i] for i in plan.targets]
    report = Report({})

    def put(probe: str, title: str, unit: str, value: ValueOf) -> None:
        columns, sample = (
            ([REDIS_TARGET], None) if probe == "redis" else (targets, plan.sample)
        )
        report.matrices[title] = Matrix(
            probe, title, unit, sources, columns, value, sample=sample
        )

    for probe in plan.probes:
        if probe in TRANSFERS:
            put(probe, probe, "Mbit/s", lambda m: m.throughput_mbps)
            if wide:
                put(probe, f"{probe}: RTT loaded - idle", "ms", added_rtt_ms)
        else:
            put(probe, probe, "ms", lambda m: m.latency_ms)
    for measurement in measurements:
        report.add(measurement)
    return report


def added_rtt_ms(measurement: Measurement) -> float | None:
    """Give the median RTT under load minus the idle one of the same run, in ms."""
    loaded = measurement.detail.get("rtt_loaded_median_ms")
    idle = measurement.detail.get("rtt_idle_median_ms")
    return None if loaded is None or idle is None else float(loaded) - float(idle)


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None
