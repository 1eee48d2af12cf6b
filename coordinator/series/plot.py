"""
Draws a test as a PNG: round-trip times with the loss behind them, and throughput where asked.

Needs matplotlib (our extra `plot`), imported when it is needed, and no display.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from importlib import import_module
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordinator.extras import how_to_install
from coordinator.series.series import Round, Series
from worker.model.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN, FIRST_PANEL_IN, PANEL_IN, MARGIN_IN, DPI = 10.0, 3.0, 2.1, 1.0, 120
#: Panels above this many are squeezed into the same height: PNG readers have limits of their own.
MAX_HEIGHT_IN = 60.0
#: With more rounds than this, marks would cover the line.
MAX_MARKS = 150
#: A bar of loss is at least this share of the axis wide, so that one lost echo in 8 h is seen.
MIN_BAR_SHARE = 1 / 500
#: Line colours that stay apart from that of loss (Okabe and Ito's palette).
RTT_COLOUR, LOSS_COLOUR = "#0072B2", "#D55E00"
#: Opaque, as bars that overlap would be darker, and darker is not more.
SHADE_COLOUR = "#F3C9AE"
#: Bars a little wider than their interval leave no seam between two.
SEAM = 1.03
#: Least seconds that a picture shows, so that two ticks are never the same second.
MIN_SPAN_S = 6.0
#: Ticks of years, months, days, hours, minutes, seconds; and where one of these begins again.
TIME_FORMATS = ("%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S")
MIDNIGHT_FORMATS = ("", "%Y", "%d %b", "%d %b", "%H:%M", "%H:%M:%S")
COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P")

Point = tuple[datetime, "float | None"]


def why_no_picture() -> str | None:
    """Import matplotlib now, and return why nothing can be drawn; None when it can."""
    # It logs at length where it keeps its cache, and that it makes one.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        import_module("matplotlib.figure")
        import_module("matplotlib.dates")
    except ImportError as exc:
        return f"it needs matplotlib ({one_line(str(exc))}); to have it: {how_to_install('plot')}"
    except OSError as exc:
        return (
            f"matplotlib has no place for its cache ({one_line(str(exc))}); "
            "let MPLCONFIGDIR or TMPDIR name a folder that can be written"
        )
    return None


def draw(series: Series, path: Path) -> None:
    """
    Draw a test into a PNG.

    Raises:
        OSError: The file cannot be written.
    """
    make_figure(series).savefig(path, dpi=DPI, format="png")


def make_figure(series: Series) -> Figure:
    """Draw a panel a source, and one for the throughput of all."""
    from matplotlib.figure import Figure

    sources = list(series.sources)
    more = len(sources) - 1 + (series.options.throughput is not None)
    height_in = min(MAX_HEIGHT_IN, MARGIN_IN + FIRST_PANEL_IN + more * PANEL_IN)
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    ratios = [FIRST_PANEL_IN, *[PANEL_IN] * more]
    grid = figure.subplots(1 + more, 1, sharex=True, squeeze=False, height_ratios=ratios)
    panels: list[Axes] = [row[0] for row in grid]
    times = [r.started_at for each in series.arrived.values() for r in each] or [series.started_at]
    begin, end = min(times), max(times)
    span_s, interval_s = (end - begin).total_seconds(), series.options.interval_s
    margin = timedelta(seconds=max(interval_s, MIN_SPAN_S - span_s) / 2)
    panels[-1].set_xlim(_number(begin - margin), _number(end + margin))
    for source, panel in zip(sources, panels, strict=False):
        _draw_rtts(panel, series, source)
    if series.options.throughput is not None:
        _draw_throughput(panels[-1], series)
    _legend(figure, panels[0])
    _label_time(panels[-1], begin)
    title = f"Network test of {series.title}{', ended early' if series.interrupted else ''}"
    figure.suptitle(title, x=0.02, ha="left", fontsize=12, parse_math=False)
    return figure


def with_gaps(points: Sequence[tuple[int, datetime, float | None]]) -> list[Point]:
    """
    Return the points of a line that is broken where nothing answered, and where rounds are missing.

    Args:
        points: Number of the round, time, value.

    >>> noon = datetime(2026, 1, 2, 12)
    >>> [value for _, value in with_gaps([(0, noon, 1.0), (1, noon, None), (5, noon, 2.0)])]
    [1.0, None, None, 2.0]
    """
    line: list[Point] = []
    for index, (number, time, value) in enumerate(points):
        if index and number - points[index - 1][0] > 1:
            before = points[index - 1][1]
            line.append((before + (time - before) / 2, None))
        line.append((time, value))
    return line


def _draw_rtts(axes: Axes, series: Series, source: str) -> None:
    rounds = series.of(source)
    _draw_losses(axes, series, rounds)
    few = len(rounds) <= MAX_MARKS
    answered = [r for r in rounds if r.latency_ms is not None]
    rtts_ms = [_rtts_ms(r) for r in answered]
    times, highs = [_number(r.started_at) for r in answered], [max(each) for each in rtts_ms]
    look: dict[str, Any] = {"color": RTT_COLOUR, "alpha": 0.3, "lw": 5 if few else 0.8}
    axes.vlines(times, [min(each) for each in rtts_ms], highs, label="min to max", **look)
    times, means = _line([(r.number, r.started_at, r.latency_ms) for r in rounds])
    mark = "o" if few else ""
    axes.plot(times, means, color=RTT_COLOUR, lw=1.2, marker=mark, ms=3.5, label="mean of a round")
    _begin_at_zero(axes, highs, "nothing answered")
    axes.set_ylabel("RTT (ms)")
    axes.set_title(_heading(series, source), loc="left", fontsize=9, parse_math=False)
    axes.grid(axis="y", alpha=0.3)


def _rtts_ms(answered: Round) -> Sequence[float]:
    trips = answered.ping.round_trips
    return (trips and trips.answered_rtts_ms) or [answered.latency_ms or 0.0]


def _heading(series: Series, source: str) -> str:
    totals = series.totals[source]
    rtt = "" if totals.rtt_mean_ms is None else f"mean {totals.rtt_mean_ms:.4g} ms, "
    loss = totals.packet_loss_pct
    lost = "nothing was sent" if loss is None else f"{loss:.3g}% of {totals.sent} echoes lost"
    return f"{source} → {series.target}: {rtt}{lost}"


def _draw_losses(axes: Axes, series: Series, rounds: Sequence[Round]) -> None:
    """Shade loss behind the line: a bar a round, as high as its loss on the axis at the right."""
    behind = axes.twinx()
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
    begin, end = axes.get_xlim()
    width = max(SEAM * series.options.interval_s / 86400, (end - begin) * MIN_BAR_SHARE)
    lost = [(r, loss) for r in rounds if (loss := r.packet_loss_pct)]
    if lost:
        times, losses = [_number(r.started_at) for r, _ in lost], [loss for _, loss in lost]
        behind.bar(times, losses, width=width, color=SHADE_COLOUR, lw=0, label="loss")
    unknown = [_number(r.started_at) for r in rounds if r.packet_loss_pct is None]
    if unknown:
        hatched: dict[str, Any] = {"color": "none", "ec": "0.6", "hatch": "///", "lw": 0}
        behind.bar(unknown, 100, width=width, label="not measured", **hatched)
    behind.set_ylim(0, 100)
    behind.set_ylabel("loss (%)", color=LOSS_COLOUR)
    behind.tick_params(axis="y", colors=LOSS_COLOUR)


def _draw_throughput(axes: Axes, series: Series) -> None:
    drawn: list[float] = []
    for source, colour, shape in zip(series.sources, cycle(COLOURS), cycle(MARKS), strict=False):
        rounds = series.of(source)
        times, values = _line([(r.number, r.started_at, r.throughput_mbps) for r in rounds])
        mark = shape if len(rounds) <= MAX_MARKS else ""
        axes.plot(times, values, color=colour, marker=mark, ms=3.5, lw=1.2, label=source)
        drawn += values
    _begin_at_zero(axes, drawn, "no test ended well")
    axes.set_ylabel("Mbit/s")
    axes.set_title("throughput at the receiver", loc="left", fontsize=9)
    axes.grid(axis="y", alpha=0.3)
    if len(series.sources) > 1:
        _place_legend(axes, *axes.get_legend_handles_labels())


def _begin_at_zero(axes: Axes, values: Sequence[float], otherwise: str) -> None:
    """Let the axis begin at 0, which a reader takes it to do; say so when it has no values."""
    known = [value for value in values if not math.isnan(value)]
    if known:
        axes.set_ylim(0, max(known) * 1.1 or 1)
        return
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.text(0.5, 0.5, otherwise, transform=axes.transAxes, ha="center", va="center")


def _legend(figure: Figure, first: Axes) -> None:
    """Name the first panel's lines and all that is shaded in any panel, once."""
    handles, labels = first.get_legend_handles_labels()
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            if label in ("loss", "not measured") and label not in labels:
                handles.append(handle)
                labels.append(label)
    _place_legend(first, handles, labels)


def _place_legend(axes: Axes, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Put a legend above the panel at the right, where it covers nothing."""
    above: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0)}
    axes.legend(handles, labels, **above, ncols=6, frameon=False, fontsize=8, borderaxespad=0.2)


def _label_time(axes: Axes, first: datetime) -> None:
    dates: Any = import_module("matplotlib.dates")  # its types are not whole
    locator = dates.AutoDateLocator(minticks=4, maxticks=9)
    formatter = dates.ConciseDateFormatter(
        locator, formats=TIME_FORMATS, zero_formats=MIDNIGHT_FORMATS, show_offset=False
    )
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(formatter)
    axes.set_xlabel(f"time (UTC), {first:%Y-%m-%d} from {first:%H:%M:%S}")


def _line(points: Sequence[tuple[int, datetime, float | None]]) -> tuple[list[float], list[float]]:
    """Return a broken line as matplotlib takes it: days since 1970, and NaN for a gap."""
    line = with_gaps(points)
    values = [math.nan if value is None else value for _, value in line]
    return [_number(time) for time, _ in line], values


def _number(time: datetime) -> float:
    """Return a time as matplotlib counts it: days since 1970."""
    return time.timestamp() / 86400
