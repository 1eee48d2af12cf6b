"""The matrix of a run: what each source measured of each target, and what stands out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from sys import intern

from coordinator.results.figures import FIGURES, TITLES, Figure
from worker.model.errors import ConfigError
from worker.model.measurement import Measurement, Outcome
from worker.model.plan import Plan
from worker.model.probe import Probe
from worker.probes.spent import spent

#: A pair this many times over the mesh's median RTT stands out (below it for throughput).
FAR_FACTOR = 3.0
#: A difference stands out from this many standard deviations over the median, estimated from the
#: median absolute deviation (1.4826 of it in a normal distribution): Hampel's identifier, 1974.
FAR_DEVIATIONS, MAD_TO_STDDEV = 3.0, 1.4826
#: A smaller one is of no interest to anybody.
LEAST_ADDED_MS = 1.0


@dataclass(frozen=True, slots=True)
class Cell:
    """
    One pair's headline.

    Attributes:
        value: Of the matrix' figure; None when there is none.
        loss_pct: Packet loss in percent, where the probe has one.
        error: One line, empty when `ok`.
        is_untimed: It was answered, but of no answer the time is certain.
    """

    value: float | None
    loss_pct: float | None
    outcome: Outcome
    error: str
    is_untimed: bool = False


@dataclass
class Matrix:
    """
    Cells of one probe by (source, target); grows as results arrive.

    Attributes:
        figure: What a cell's value is.
        sources: Row names, in the plan's order.
        targets: Column names, in the plan's order.
        sample: Targets that each source measures; None is all.
    """

    kind: Probe
    title: str
    figure: Figure
    sources: Sequence[str]
    targets: Sequence[str]
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    sample: int | None = None

    def add(self, measurement: Measurement) -> None:
        """Fill a cell."""
        # A mesh of a thousand nodes has a million cells; each name is kept once.
        self.cells[intern(measurement.source), intern(measurement.target)] = Cell(
            self.figure.value_of(measurement),
            None if self.unit == "%" else measurement.packet_loss_pct,
            measurement.outcome,
            measurement.error,
            measurement.is_untimed,
        )

    @property
    def probe(self) -> str:
        """The name of the probe."""
        return self.kind.name

    @property
    def unit(self) -> str:
        """Unit of the values: `ms`, `Mbit/s` or `%`."""
        return self.figure.unit

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
        return _median(self._values())

    def _values(self) -> list[float]:
        return [cell.value for cell in self.cells.values() if cell.value is not None]

    @property
    def limit(self) -> float | None:
        """
        The value beyond which a pair stands out from the mesh, to the worse.

        None where nothing can stand out: a loss speaks for itself, and so does a mesh without one.
        """
        values = self._values()
        if not values or self.unit == "%":
            return None
        typical = median(values)
        if self.figure.minus:
            spread = MAD_TO_STDDEV * median(abs(value - typical) for value in values)
            return typical + max(LEAST_ADDED_MS, FAR_DEVIATIONS * spread)
        if typical <= 0:
            return None
        return typical / FAR_FACTOR if self.unit == "Mbit/s" else typical * FAR_FACTOR

    def is_beyond(self, cell: Cell, limit: float | None) -> bool:
        """Return whether a cell's value stands out; the limit is asked for once for all cells."""
        if cell.value is None or limit is None:
            return False
        return cell.value < limit if self.unit == "Mbit/s" else cell.value > limit

    def value(self, source: str, target: str) -> float | None:
        """Return one pair's value; None when there is none (yet)."""
        cell = self.cells.get((source, target))
        return cell.value if cell else None

    def rows(self) -> list[list[float | None]]:
        """Return the values as rows of sources by columns of targets; None on the diagonal."""
        return [[self.value(s, t) for t in self.targets] for s in self.sources]

    def unfinished(self) -> list[str]:
        """List the sources of which some pair is not here yet."""
        count = Counter(source for source, _ in self.cells)
        targets, sample = set(self.targets), self.sample
        return [
            s
            for s in self.sources
            if count[s] < (len(targets) - (s in targets) if sample is None else sample)
        ]

    def outcomes(self) -> Counter[Outcome]:
        """Count the outcomes."""
        return Counter(cell.outcome for cell in self.cells.values())

    def worst(self, count: int) -> list[tuple[str, str, Cell]]:
        """Return the pairs that answered worst: by loss, then by value."""
        sign = -1 if self.unit == "Mbit/s" else 1
        answered = ((s, t, c) for (s, t), c in self.cells.items() if c.value is not None)
        return nsmallest(
            count, answered, key=lambda x: (-(x[2].loss_pct or 0), -sign * (x[2].value or 0))
        )

    def node_medians(self) -> list[tuple[str, float | None, float | None]]:
        """Return per node the median as source and as target, the worst first."""
        names = list(dict.fromkeys([*self.sources, *self.targets]))
        by_source: dict[str, list[float]] = {name: [] for name in names}
        by_target: dict[str, list[float]] = {name: [] for name in names}
        for (source, target), cell in self.cells.items():
            if cell.value is not None:
                by_source[source].append(cell.value)
                by_target[target].append(cell.value)
        medians = [(n, _median(by_source[n]), _median(by_target[n])) for n in names]
        sign = 1 if self.unit == "Mbit/s" else -1
        missing = float("-inf")
        return sorted(medians, key=lambda x: missing if x[2] is None else sign * x[2])


@dataclass
class Report:
    """
    The matrices of a run, by title, and what its tests cost.

    Attributes:
        matrices: One a probe; with `wide`, one more for each probe that loads a link.
        bytes_by_node: What tests with two ends sent and received, as far as they know it.
        bytes_are_least: One of them broke in the middle, and may have moved more.
    """

    matrices: dict[str, Matrix]
    bytes_by_node: Counter[str] = field(default_factory=Counter)
    bytes_are_least: bool = False

    def add(self, measurement: Measurement) -> None:
        """Take a measurement into every matrix of its probe."""
        of_probe = [one for one in self.matrices.values() if one.probe == measurement.probe]
        for matrix in of_probe:
            matrix.add(measurement)
        if any(matrix.kind.has_two_ends for matrix in of_probe):
            cost = spent([measurement])
            self.bytes_by_node[measurement.source] += cost.bytes
            self.bytes_by_node[measurement.target] += cost.bytes
            self.bytes_are_least |= cost.is_least


def make_report(
    plan: Plan,
    measurements: Iterable[Measurement] = (),
    *,
    wide: bool = False,
    figures: Sequence[str] = (),
) -> Report:
    """
    Make a run's report and fill it.

    Args:
        wide: Also how much a load adds to the RTT.
        figures: Names of `FIGURES`, instead of the usual ones of each probe.

    Raises:
        ConfigError: No measurement has such a figure.
    """
    names = [node.name for node in plan.nodes]
    sources, targets = [names[i] for i in plan.sources], [names[i] for i in plan.targets]
    report = Report({})
    for probe in plan.probes:
        kind = plan.kind(probe)
        columns, sample = ([kind.target], None) if kind.target else (targets, plan.sample)
        added = ("added",) if wide and kind.has_two_ends else ()
        for name in figures or (*kind.figures, *added):
            title = probe if name == kind.figures[0] else f"{probe}: {TITLES.get(name, name)}"
            report.matrices[title] = Matrix(
                kind, title, FIGURES[name], sources, columns, sample=sample
            )
    for measurement in measurements:
        report.add(measurement)
    if figures:
        # A probe may have none of them.
        report.matrices = {k: one for k, one in report.matrices.items() if one.median is not None}
        if not report.matrices:
            needs = "; ".join(f"{name} needs {FIGURES[name].needs}" for name in figures)
            raise ConfigError(f"the run has no {' or '.join(figures)}: {needs}")
    return report


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def median(values: Iterable[float]) -> float:
    """
    Return the middle value, or the mean of the middle two; `statistics` is long to import.

    >>> median([3.0, 1.0, 2.0]), median([4.0, 1.0])
    (2.0, 2.5)
    """
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
