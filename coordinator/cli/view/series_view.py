"""How a test looks while it runs: a live table on a terminal, a line a round in a pipe."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coordinator.cli.terminal.cells import UNTIMED, number, percent, rtt_words, why, word
from coordinator.cli.terminal.tables import GAP_CHARS, new_table, shortened
from coordinator.series.series import Round, Series
from worker.model.measurement import Outcome
from worker.model.text import iso_utc

LEVELS = "▁▂▃▄▅▆▇█"
NO_ANSWER = "×"
#: Not measured at all: the source was busy or dead; or of no certain time.
NO_ROUND = "·"
MIN_SPARK_CHARS = 8
#: A longer name is shortened, so that 80 columns hold all numbers and some of the sparkline.
MAX_NAME_CHARS = 14
BAR_WIDTH = 24
#: Redrawing takes CPU from the measuring, which is in this very thread.
FRAME_S = 0.25
#: A sparkline reaches its top at this many times its bottom at least, or noise would look like it.
MIN_SWING = 1.5


class LiveView:
    """Draws a test on a terminal, from the thread that measures, between two echoes."""

    def __init__(self, series: Series, console: Console) -> None:
        """Draw nothing yet."""
        self.series, self.console = series, console
        self.begun, self.drawn = time.monotonic(), 0.0
        self.numbers = results(series, console.width)
        # A thread that draws would hold Python's lock while an echo is sent, and spoil its time.
        self.live = Live(console=console, auto_refresh=False, transient=True)

    def tick(self) -> None:
        """Draw again when it is time to."""
        if time.monotonic() - self.drawn >= FRAME_S:
            self.draw()

    def add(self) -> None:
        """Draw what a new round has changed."""
        self.numbers = results(self.series, self.console.width)
        self.draw()

    def draw(self) -> None:
        """Draw now."""
        self.drawn = time.monotonic()
        head = progress(self.series, self.drawn - self.begun)
        self.live.update(Group(head, Text(), self.numbers), refresh=True)


def progress(series: Series, elapsed_s: float) -> RenderableType:
    """Say what is tested, and how far it has come."""
    options = series.options
    last = series.last_number
    left_s = options.seconds - elapsed_s
    line = Table.grid(padding=(0, 1))
    line.add_row(
        ProgressBar(
            total=options.seconds, completed=min(elapsed_s, options.seconds), width=BAR_WIDTH
        ),
        f"round {0 if last is None else last + 1} of {options.rounds}",
        f"{clock(left_s)} left" if left_s > 0 else "waiting for the last round",
        Text("Ctrl-C ends it and keeps all", style="dim"),
    )
    return Group(Text(series.title, style="bold", no_wrap=True, overflow="ellipsis"), line)


def clock(seconds: float) -> str:
    """
    Write time left.

    >>> [clock(s) for s in (0.2, 61, 28800)]
    ['0:01', '1:01', '8:00:00']
    """
    minutes, rest = divmod(max(0, math.ceil(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def results(series: Series, width: int) -> RenderableType:
    """Draw a row a source: its last round, all of its rounds, and their sparkline."""
    names = shortened(series.sources, MAX_NAME_CHARS) or series.sources
    rows = [_row(series, *pair) for pair in zip(series.sources, names, strict=True)]
    taken = Console(width=width).measure(_table(series, rows)).maximum
    room = max(MIN_SPARK_CHARS, width - taken - GAP_CHARS)
    sparks = [sparkline(series.arrived[source][-room:], room) for source in series.sources]
    shown = [[*row, Text(spark)] for row, spark in zip(rows, sparks, strict=True)]
    return Group(_table(series, shown, last=True), Text(legend("".join(sparks)), style="dim"))


def _table(series: Series, rows: Sequence[Sequence[Text]], *, last: bool = False) -> Table:
    made = new_table()
    made.add_column("source", no_wrap=True)
    mbps = ["Mbit/s"] if series.options.throughput else []
    for name in ("last ms", "last loss", *mbps, "mean ms", "max ms", "loss"):
        made.add_column(name, justify="right", no_wrap=True)
    if last:
        made.add_column("last rounds", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def _row(series: Series, source: str, name: str) -> list[Text]:
    rounds, totals = series.arrived[source], series.totals[source]
    last = rounds[-1] if rounds else None
    mbps = [Text(number(last.throughput_mbps if last else None) or "-")]
    return [
        Text(name, style="bold"),
        rtt_text(last),
        loss_text(last.packet_loss_pct if last else None),
        *(mbps if series.options.throughput else []),
        Text(number(totals.rtt_mean_ms) or "-"),
        Text(number(totals.rtt_max_ms) or "-"),
        loss_text(totals.packet_loss_pct),
    ]


def rtt_text(measured: Round | None) -> Text:
    """Write a round's RTT, or the word for why there is none."""
    if measured is None:
        return Text("-")
    if measured.latency_ms is not None:
        return Text(number(measured.latency_ms), style="green")
    if measured.ping.is_untimed:
        return Text(UNTIMED, style="dim")
    return Text(word(measured.ping.outcome), style="bold red")


def loss_text(value: float | None) -> Text:
    """Write a loss."""
    return Text("-") if value is None else Text(percent(value), style="red" if value else "")


def sparkline(rounds: Sequence[Round], width: int) -> str:
    """Draw the RTTs of the last rounds as one character each, scaled from lowest to highest."""
    points: list[float | str] = []
    for before, measured in zip([None, *rounds], rounds, strict=False):
        points += [NO_ROUND] * (measured.number - before.number - 1 if before else 0)
        if measured.latency_ms is not None:
            points.append(measured.latency_ms)
        else:
            has_no_time = measured.packet_loss_pct is None or measured.ping.is_untimed
            points.append(NO_ROUND if has_no_time else NO_ANSWER)
    shown = points[-width:]
    values = [point for point in shown if isinstance(point, float)]
    low = min(values, default=0.0)
    high = max(max(values, default=0.0), MIN_SWING * low)
    return "".join(p if isinstance(p, str) else _level(p, low, high) for p in shown)


def _level(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 0.0
    return LEVELS[min(len(LEVELS) - 1, int(share * len(LEVELS)))]


def legend(shown: str) -> str:
    """Explain the marks that are there to be seen."""
    parts = [f"{LEVELS[0]} to {LEVELS[-1]} = lowest to highest RTT shown"]
    parts += [f"{NO_ANSWER} = nothing answered"] if NO_ANSWER in shown else []
    parts += [f"{NO_ROUND} = not measured"] if NO_ROUND in shown else []
    return ", ".join(parts)


def round_line(measured: Round) -> str:
    """Write a round as a line of text."""
    ping, test = measured.ping, measured.throughput
    spread = lost = mbps = ""
    if ping.round_trips is not None and measured.latency_ms is not None:
        low, high = ping.round_trips.rtt_min_ms, ping.round_trips.rtt_max_ms
        spread = f"min {number(low)} max {number(high)}"
    # That nothing was answered is said once.
    if measured.packet_loss_pct is not None and ping.outcome is not Outcome.NO_REPLY:
        lost = f"{percent(measured.packet_loss_pct)} lost"
    if measured.throughput_mbps is not None:
        mbps = f"{number(measured.throughput_mbps)} Mbit/s"
    elif test is not None:
        mbps = f"throughput {word(test.outcome)}: {test.error}"
    pair = f"{ping.source} -> {ping.target}"
    parts = (iso_utc(measured.started_at), pair, rtt_words(ping), spread, lost, why(ping), mbps)
    return "  ".join(part for part in parts if part)


def summary_line(series: Series, source: str) -> str:
    """Write all rounds of a source as a line of text."""
    summary = series.summary(source)
    rounds = f"{summary['rounds']} round" + ("" if summary["rounds"] == 1 else "s")
    parts = [f"{rounds} of {series.options.rounds}"]
    if summary["rtt_mean_ms"] is not None:
        rtts = [summary[f"rtt_{of}_ms"] for of in ("min", "mean", "max")]
        parts.append(f"RTT min/mean/max {'/'.join(map(number, rtts))} ms")
    if summary["packet_loss_pct"] is not None:
        lost = summary["sent"] - summary["received"]
        parts.append(f"{lost} of {summary['sent']} echoes lost")
    if summary["throughput_mean_mbps"] is not None:
        parts.append(f"{number(summary['throughput_mean_mbps'])} Mbit/s")
    return f"{source} -> {series.target}: {', '.join(parts)}"
