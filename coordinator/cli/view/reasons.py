"""Why pairs have no number, and what helps: a few lines under a matrix."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.text import Text

from coordinator.cli.terminal.cells import word
from coordinator.results.matrix import Report
from worker.model.measurement import Outcome
from worker.model.text import some

#: More reasons than this are a list for a program.
MAX_REASONS = 6
#: How long each of several waited, or that a node was silent, makes no other reason.
SECONDS = re.compile(r"\b[0-9.]+ s\b")
#: Pairs that are named of each.
PAIRS_NAMED = 2

_LOOK_BETWEEN = "look from both ends: ptzmesh doctor --between {source} {target}"
_LOOK_AT_SOURCE = "look on {source}: ptzmesh doctor"
#: What helps whatever led to the outcome; where the error itself says it, nothing.
HELPS = {
    Outcome.NO_REPLY: _LOOK_BETWEEN,
    Outcome.UNREACHABLE: _LOOK_BETWEEN,
    Outcome.REFUSED: _LOOK_BETWEEN,
    Outcome.TIMEOUT: _LOOK_BETWEEN,
    Outcome.BAD_REPLY: _LOOK_BETWEEN,
    Outcome.UNRESOLVED: "on {source}: getent hosts NAME must give an address; or start {target}'s "
    "worker with an --address that is a number",
    Outcome.TARGET_BUSY: "run it again, when no other tests are under way: ptzmesh runs",
    Outcome.OVER_BUDGET: "ask for less (--bytes, --duration), or wait for the next day (UTC)",
    Outcome.SOURCE_LOST: "is it there: ptzmesh nodes; what it says: the log of its worker",
    Outcome.TARGET_LOST: "is it there: ptzmesh nodes; what it says: the log of its worker",
    Outcome.CRASHED: "see the log of the worker that is named",
}


def reasons(report: Report, run: str) -> Iterable[Text]:
    """Yield a line for each reason, with the pairs that it holds for, the most frequent first."""
    matrices = {matrix.probe: matrix for matrix in report.matrices.values()}
    pairs: dict[tuple[str, Outcome, str], list[tuple[str, str]]] = {}
    errors: dict[tuple[str, Outcome, str], str] = {}
    for probe, matrix in matrices.items():
        for pair, cell in matrix.cells.items():
            if cell.outcome is not Outcome.OK:
                alike = (probe, cell.outcome, SECONDS.sub("", cell.error))
                pairs.setdefault(alike, []).append(pair)
                errors.setdefault(alike, cell.error)
    ordered = sorted(pairs.items(), key=lambda item: -len(item[1]))
    for reason, those in ordered[:MAX_REASONS]:
        probe, outcome, _ = reason
        named = some((f"{source} -> {target}" for source, target in those), PAIRS_NAMED)
        yield Text(f"{probe} {named}: {word(outcome)}: {errors[reason]}")
        helps = HELPS.get(outcome, "")
        if matrices[probe].kind.target and helps is _LOOK_BETWEEN:
            helps = _LOOK_AT_SOURCE  # what it measures is no node
        if helps:
            source, target = those[0]
            yield Text(f"  {helps.format(source=source, target=target)}", style="dim")
    if more := sum(len(those) for _, those in ordered[MAX_REASONS:]):
        yield Text(f"and {more} pairs for other reasons: ptzmesh results --run {run}")
