"""How a test looks while it runs: a live table on a terminal, a line a round in a pipe."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coordinator.cli.terminal.cells import UNTIMED, WHY_UNTIMED, number, percent, word
from coordinator.cli.terminal.tables import GAP_CHARS, new_table, shortened
from coordinator.series.series import Round, Series, Summary
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


def headline(series: Series) -> str:
    """Say what is tested, and by whom."""
    named = "" if series.address == series.target else f" ({series.address})"
    many = len(series.sources)
    by = series.sources[0] if many == 1 else f"{many} nodes"
    options = series.options
    echoes = "1 echo" if options.count == 1 else f"{options.count} echoes"
    tested = " and throughput" if options.throughput else ""
    asked = f"{echoes}{tested} every {options.interval_s:g} s for {options.duration_s:g} s"
    return f"{series.target}{named} from {by}: {asked}"


def progress(series: Series, elapsed_s: float) -> RenderableType:
    """Say what is tested, and how far it has come."""
    options = series.options
    last = series.last_number
    left_s = options.seconds - elapsed_s
    left = f"{clock(left_s)} left" if left_s > 0 else "waiting for the last round"
    done_s = min(elapsed_s, options.seconds)
    line = Table.grid(padding=(0, 1))
    line.add_row(
        ProgressBar(total=options.seconds, completed=done_s, width=BAR_WIDTH),
        f"round {0 if last is None else last + 1} of {options.rounds}",
        left,
        Text("Ctrl-C ends it and keeps all", style="dim"),
    )
    return Group(Text(headline(series), style="bold", no_wrap=True, overflow="ellipsis"), line)


def clock(seconds: float) -> str:
    """
    Write time left.

    >>> [clock(s) for s in (0.2, 61, 28800)]
    ['0:01', '1:01', '8:00:00']
    """
    whole = max(0, -int(-seconds // 1))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def results(series: Series, width: int) -> RenderableType:
    """Give a row a source: its last round, all of its rounds, and their sparkline."""
    names = shortened(series.sources, MAX_NAME_CHARS) or series.sources
    rows = [_row(series, *one) for one in zip(series.sources, names, strict=True)]
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
    one = rounds[-1] if rounds else None
    mbps = [Text(number(one.throughput_mbps if one else None) or "-")]
    return [
        Text(name, style="bold"),
        rtt_text(one),
        loss_text(one.packet_loss_pct if one else None),
        *(mbps if series.options.throughput else []),
        Text(number(totals.rtt_mean_ms) or "-"),
        Text(number(totals.rtt_max_ms) or "-"),
        loss_text(totals.packet_loss_pct),
    ]


def rtt_text(one: Round | None) -> Text:
    """Write a round's RTT, or the word for why there is none."""
    if one is None:
        return Text("-")
    if one.latency_ms is not None:
        return Text(number(one.latency_ms), style="green")
    if one.ping.is_untimed:
        return Text(UNTIMED, style="dim")
    outcome = one.ping.outcome
    return Text(word(outcome), style="bold red")


def loss_text(value: float | None) -> Text:
    """Write a loss."""
    return Text("-") if value is None else Text(percent(value), style="red" if value else "")


def sparkline(rounds: Sequence[Round], width: int) -> str:
    """Give the RTTs of the last rounds as one character each, scaled from lowest to highest."""
    chars: list[float | str] = []
    for place, one in enumerate(rounds):
        missing = one.number - rounds[place - 1].number - 1 if place else 0
        chars += [NO_ROUND] * missing
        chars.append(_mark(one) if one.latency_ms is None else one.latency_ms)
    shown = chars[-width:]
    values = [value for value in shown if isinstance(value, float)]
    low = min(values, default=0.0)
    high = max(max(values, default=0.0), MIN_SWING * low)
    return "".join(one if isinstance(one, str) else _level(one, low, high) for one in shown)


def _mark(one: Round) -> str:
    has_no_time = one.packet_loss_pct is None or one.ping.is_untimed
    return NO_ROUND if has_no_time else NO_ANSWER


def _level(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 0.0
    return LEVELS[min(len(LEVELS) - 1, int(share * len(LEVELS)))]


def legend(shown: str) -> str:
    """Explain the marks that are there to be seen."""
    parts = [f"{LEVELS[0]} to {LEVELS[-1]} = lowest to highest RTT shown"]
    parts += [f"{NO_ANSWER} = nothing answered"] if NO_ANSWER in shown else []
    parts += [f"{NO_ROUND} = not measured"] if NO_ROUND in shown else []
    return ", ".join(parts)


def round_line(one: Round) -> str:
    """Give a round as a line of text."""
    ping, test = one.ping, one.throughput
    rtt = "" if one.latency_ms is None else f"{number(one.latency_ms)} ms"
    if ping.is_untimed:
        rtt = f"{UNTIMED}: {WHY_UNTIMED}"
    trips, spread = ping.round_trips, ""
    if trips is not None and one.latency_ms is not None:
        spread = f"min {number(trips.rtt_min_ms)} max {number(trips.rtt_max_ms)}"
    # That nothing was answered is said once.
    has_loss = one.packet_loss_pct is not None and ping.outcome is not Outcome.NO_REPLY
    lost = f"{percent(one.packet_loss_pct or 0)} lost" if has_loss else ""
    said = "" if ping.outcome is Outcome.OK else _said(ping.outcome, ping.error)
    mbps = ""
    if test is not None:
        mbps = f"{number(one.throughput_mbps)} Mbit/s" if one.throughput_mbps is not None else ""
        mbps = mbps or f"throughput {_said(test.outcome, test.error)}"
    parts = (iso_utc(one.started_at), f"{ping.source} -> {ping.target}", rtt, spread, lost, said)
    return "  ".join(part for part in (*parts, mbps) if part)


def _said(outcome: Outcome, error: str) -> str:
    return f"{word(outcome)}: {error}"


def summary_line(series: Series, source: str) -> str:
    """Give all rounds of a source as a line of text."""
    whole = series.summary(source)
    rounds = f"{whole.rounds} round" + ("" if whole.rounds == 1 else "s")
    parts = [f"{rounds} of {series.options.rounds}", *_rtts(whole), *_lost(whole)]
    if whole.throughput_mean_mbps is not None:
        parts.append(f"{number(whole.throughput_mean_mbps)} Mbit/s")
    return f"{source} -> {series.target}: {', '.join(parts)}"


def _rtts(whole: Summary) -> list[str]:
    if whole.rtt_mean_ms is None:
        return []
    low, mean, high = (number(v) for v in (whole.rtt_min_ms, whole.rtt_mean_ms, whole.rtt_max_ms))
    return [f"RTT min/mean/max {low}/{mean}/{high} ms"]


def _lost(whole: Summary) -> list[str]:
    if whole.packet_loss_pct is None:
        return []
    return [f"{whole.sent - whole.received} of {whole.sent} echoes lost"]
