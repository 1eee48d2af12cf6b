"""What stands in a cell: numbers, percentages, and a word for each outcome; readable as text."""

from __future__ import annotations

from rich.text import Text

from coordinator.results.matrix import Cell, Matrix
from worker.model.measurement import Measurement, Outcome

#: What a cell says when it has no number, and how the legend spells it out.
WORDS = {
    Outcome.NO_REPLY: ("lost", "no reply"),
    Outcome.UNREACHABLE: ("unreach", "unreachable"),
    Outcome.UNRESOLVED: ("no-name", "name does not resolve"),
    Outcome.REFUSED: ("refused", "refused"),
    Outcome.TIMEOUT: ("timeout", "timed out"),
    Outcome.TARGET_BUSY: ("busy", "target busy"),
    Outcome.DENIED: ("denied", "denied by the node"),
    Outcome.OVER_BUDGET: ("budget", "over the data budget"),
    Outcome.SOURCE_LOST: ("dead", "source lost"),
    Outcome.TARGET_LOST: ("t-dead", "target lost"),
    Outcome.WRONG_HOST: ("wrong", "another host answered"),
    Outcome.UNVERIFIED: ("unverif", "who answered is not known"),
    Outcome.INTERCEPTED: ("proxied", "answered by a proxy on the way"),
    Outcome.TOOL_MISSING: ("no-tool", "tool or right missing"),
    Outcome.BAD_REPLY: ("bad", "bad reply"),
    Outcome.CANCELLED: ("cancel", "cancelled"),
    Outcome.CRASHED: ("crash", "sweep crashed"),
}
#: The pair was measured, but has no such figure.
NO_FIGURE = "n/a"
#: It was answered, but its source lost the CPU while it sent, or its clock was set.
UNTIMED = "untimed"
WHY_UNTIMED = "answered, at no certain time (the source was busy, or its clock set)"
#: Loss from which a cell is red.
BAD_LOSS_PCT = 5


def number(value: float | None) -> str:
    """
    Write a number for people: three digits that matter.

    >>> [number(v) for v in (0.05123, 1.234, 12.34, 123.4, 1234.5, -0.0143, None)]
    ['0.051', '1.23', '12.3', '123', '1234', '-0.014', '']
    """
    if value is None:
        return ""
    if abs(value) < 1:
        return f"{value:.3f}"
    return f"{value:.{max(0, 3 - len(str(int(abs(value)))))}f}"


def percent(value: float) -> str:
    """
    Write a percentage for people: two digits that matter, and 0 and 100 only where it is that.

    >>> [percent(v) for v in (0.0, 0.004, 0.5, 5.0, 33.333, 99.9, 100.0)]
    ['0%', '<0.01%', '0.5%', '5%', '33%', '>99%', '100%']
    """
    if 0 < value < 0.01:
        return "<0.01%"
    if 99 < value < 100:
        return ">99%"
    return f"{value:.0f}%" if value >= 10 else f"{value:.2g}%"


def word(outcome: Outcome) -> str:
    """Return the word for an outcome that a cell has room for."""
    return WORDS[outcome][0] if outcome in WORDS else outcome.value


def rtt_words(measurement: Measurement) -> str:
    """Write a round-trip time on a line, or why an answer has none; empty without an answer."""
    if measurement.is_untimed:
        return f"{UNTIMED}: {WHY_UNTIMED}"
    return "" if measurement.latency_ms is None else f"{number(measurement.latency_ms)} ms"


def why(measurement: Measurement) -> str:
    """Write on a line why a pair has no number; empty where it has one."""
    outcome = measurement.outcome
    return "" if outcome is Outcome.OK else f"{word(outcome)}: {measurement.error}"


def figure(matrix: Matrix, value: float | None) -> str:
    """Write a value of a matrix; empty when there is none."""
    if matrix.unit == "%":
        return "" if value is None else percent(value)
    return number(value)


def cell_text(matrix: Matrix, cell: Cell, limit: float | None) -> Text:
    """Write one cell: the number, `*` when it is beyond the limit, the loss when there is one."""
    if cell.value is None:
        if cell.outcome is Outcome.OK:
            return Text(UNTIMED if cell.is_untimed else NO_FIGURE, style="dim")
        return Text(word(cell.outcome), style="bold red")
    stands_out = matrix.is_beyond(cell, limit)
    text = figure(matrix, cell.value) + ("*" if stands_out else "")
    style = "red" if stands_out else "green"
    loss_pct = cell.loss_pct or (cell.value if matrix.unit == "%" else None)
    if loss_pct:
        text += "" if matrix.unit == "%" else f" {percent(loss_pct)}"
        style = "red" if stands_out or loss_pct >= BAD_LOSS_PCT else "yellow"
    return Text(text, style=style)
