"""A test over time: its options, when rounds are due, its document, and how it is shown."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from rich.console import Console
from rounds_made import BEGUN, LOST, a_round, a_series

from coordinator.cli.view.series_view import (
    LEVELS,
    progress,
    results,
    round_line,
    rtt_text,
    sparkline,
)
from coordinator.extras import how_to_install
from coordinator.series import plot
from coordinator.series.files import save, usable
from coordinator.series.here import Ticks, from_here
from coordinator.series.options import MAX_ROUNDS, SeriesOptions
from worker.model.errors import ConfigError
from worker.model.options import ThroughputOptions
from worker.model.plan import PlannedNode
from worker.model.text import iso_utc

# --- options


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"duration_s": 0}, "duration"),
        ({"duration_s": float("nan")}, "duration"),
        ({"interval_s": 0}, "interval"),
        ({"interval_s": -1}, "interval"),
        ({"count": 0}, "count"),
        ({"interval_s": 0.5, "count": 100}, "count"),
        ({"duration_s": 7 * 86400, "interval_s": 1}, f"at most {MAX_ROUNDS}"),
        ({"interval_s": 2, "throughput": ThroughputOptions(duration_s=1)}, "too short"),
    ],
)
def test_what_cannot_be_measured_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SeriesOptions(**wrong)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("interval_s", [0.5, 1, 2, 5, 60, 3600])
@pytest.mark.parametrize("count", [1, 5, 10])
def test_last_reply_of_a_round_is_not_waited_for_into_the_next(
    interval_s: float, count: int
) -> None:
    options = SeriesOptions(interval_s=interval_s, count=count, duration_s=7200)
    assert options.ping.seconds <= interval_s


@pytest.mark.parametrize(
    ("options", "warm_up"),
    [
        (SeriesOptions(interval_s=3.4), True),
        (SeriesOptions(interval_s=3.3), False),
        (SeriesOptions(interval_s=5, throughput=ThroughputOptions(duration_s=1)), False),
        (SeriesOptions(interval_s=5, warm_up=False), False),
    ],
)
def test_an_echo_goes_ahead_of_a_round_where_there_is_time_for_it(
    options: SeriesOptions, warm_up: bool
) -> None:
    assert options.ping.warm_up is warm_up
    assert options.round_seconds <= options.interval_s


def test_rounds_are_those_that_begin_within_the_duration() -> None:
    assert SeriesOptions(duration_s=60, interval_s=5).rounds == 12
    assert SeriesOptions(duration_s=61, interval_s=5).rounds == 13
    assert SeriesOptions(duration_s=2, interval_s=5).rounds == 1


# --- when rounds are due


def test_rounds_keep_to_the_clock_and_are_not_made_up_for() -> None:
    now = 100.0
    ticks = Ticks(SeriesOptions(duration_s=50, interval_s=5), clock=lambda: now)
    assert (ticks.left_s, ticks.take()) == (0.0, 0)
    now = 101.0
    assert ticks.left_s == 4.0
    now = 105.1
    assert (ticks.left_s <= 0, ticks.take()) == (True, 1)
    now = 122.0  # a round that took 17 s: rounds 2 and 3 are gone, 4 is only 2 s late
    assert ticks.take() == 4
    now = 148.0  # nearer to round 10, which there is not
    assert ticks.take() is None
    assert ticks.over


def test_a_test_that_is_stopped_measures_no_further_round() -> None:
    target = PlannedNode(name="hub", address="127.0.0.1")
    assert list(from_here("cam-1", target, SeriesOptions(), should_stop=lambda: True)) == []


# --- the document


def test_document_has_the_keys_of_ptzjepa_s_own_tool_first() -> None:
    document = a_series([a_round(0, [1.0, 3.0])]).to_json()
    seed = ["target", "test_duration", "interval", "timestamps", "latencies", "packet_losses"]
    assert list(document)[:6] == seed
    assert document["target"] == "hub"
    assert (document["test_duration"], document["interval"]) == (60, 5)
    assert document["timestamps"] == [iso_utc(BEGUN)]
    assert (document["latencies"], document["packet_losses"]) == ([2.0], [0.0])


def test_what_nothing_answered_is_null_and_never_zero() -> None:
    series = a_series([a_round(0, [1.0]), a_round(1, LOST), a_round(2, [None, 2.0])])
    document = json.loads(json.dumps(series.to_json(), allow_nan=False))
    assert document["latencies"] == [1.0, None, 2.0]
    assert document["packet_losses"] == [0.0, 100.0, 50.0]
    assert document["series"][0]["rounds"][1]["rtts_ms"] == [None] * 5
    assert document["series"][0]["rounds"][1]["outcome"] == "no_reply"
    summary = document["series"][0]["summary"]
    assert (summary["rounds"], summary["answered"]) == (3, 2)
    assert (summary["sent"], summary["received"]) == (8, 2)
    assert (summary["rtt_min_ms"], summary["rtt_mean_ms"]) == (1.0, 1.5)
    assert summary["packet_loss_pct"] == 75.0


def test_each_source_has_lists_of_its_own_in_order_of_time() -> None:
    rounds = [a_round(1, [2.0]), a_round(0, [1.0]), a_round(0, [9.0], source="cam-2")]
    document = a_series(rounds, sources=["cam-1", "cam-2"]).to_json()
    assert document["sources"] == ["cam-1", "cam-2"]
    assert [one["source"] for one in document["series"]] == ["cam-1", "cam-2"]
    assert [one["latencies"] for one in document["series"]] == [[1.0, 2.0], [9.0]]
    assert document["latencies"] == [1.0, 2.0]


def test_throughput_is_in_the_document_only_when_asked_for() -> None:
    assert "throughputs" not in a_series([a_round(0, [1.0])]).to_json()["series"][0]
    options = SeriesOptions(throughput=ThroughputOptions(duration_s=1))
    rounds = [a_round(0, [1.0], mbps=95.5), a_round(1, [1.0], tested=True)]
    found = a_series(rounds, options=options).to_json()["series"][0]
    assert found["throughputs"] == [95.5, None]
    assert found["rounds"][1]["throughput"]["error"] == "Connection refused"


def test_times_of_a_node_are_on_the_clock_of_redis() -> None:
    one = a_round(0, [1.0], offset_ms=2500.0, uncertainty_ms=1.0)
    assert one.started_at == BEGUN - timedelta(seconds=2.5)
    assert one.to_json()["started_at"] == iso_utc(BEGUN - timedelta(seconds=2.5))


@pytest.mark.parametrize("uncertainty_ms", [999.5, None])
def test_times_are_not_corrected_by_what_may_be_no_offset(uncertainty_ms: float | None) -> None:
    one = a_round(0, [1.0], offset_ms=999.0, uncertainty_ms=uncertainty_ms)
    assert one.started_at == BEGUN


def test_a_target_that_never_answers_is_named_with_its_reason() -> None:
    assert a_series([a_round(0, LOST), a_round(1, [None, 1.0])]).failures() == []
    assert a_series([a_round(0, LOST)], sources=["cam-1", "cam-2"]).failures() == [
        "hub never answered cam-1: none of 5 echoes was answered in time",
        "hub never answered cam-2",
    ]


def test_throughput_tests_that_all_failed_are_named() -> None:
    options = SeriesOptions(throughput=ThroughputOptions(duration_s=1))
    failed = a_series([a_round(0, [1.0], tested=True)], options=options)
    assert failed.failures() == ["no throughput test from cam-1 ended well: Connection refused"]
    good = a_series([a_round(0, [1.0], tested=True), a_round(1, [1.0], mbps=1)], options=options)
    assert good.failures() == []


# --- the files


def test_files_have_names_like_ptzjepa_s_and_never_replace_others(tmp_path: Path) -> None:
    series = a_series([a_round(0, [1.0])])
    epoch = int(BEGUN.timestamp())
    (tmp_path / f"network_test_hub_{epoch}.json").write_text("an older test")
    found = dict(save(series, tmp_path, plot=False))
    assert found == {"data": tmp_path / f"network_test_hub_{epoch + 1}.json"}
    assert json.loads(found["data"].read_text())["latencies"] == [1.0]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    assert usable(tmp_path / "new" / "one").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        usable(tmp_path / "file" / "below")


# --- the picture


def test_a_line_has_gaps_where_nothing_answered_and_where_rounds_are_missing() -> None:
    rounds = [a_round(0, [1.0]), a_round(1, LOST), a_round(2, [3.0]), a_round(7, [4.0])]
    points = [(one.number, one.started_at, one.latency_ms) for one in rounds]
    assert [value for _, value in plot.with_gaps(points)] == [1.0, None, 3.0, None, 4.0]


def test_missing_matplotlib_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    reason = plot.why_no_picture()
    assert reason is not None
    assert how_to_install("plot") in reason


# --- the screen


def test_sparkline_marks_what_nothing_answered_and_what_was_not_measured() -> None:
    rounds = [a_round(0, [1.0]), a_round(1, LOST), a_round(4, [9.0])]
    assert sparkline(rounds, 20) == f"{LEVELS[0]}×··{LEVELS[-1]}"
    assert sparkline(rounds, 2) == f"·{LEVELS[0]}"


def test_an_answer_of_no_certain_time_is_no_failure_and_says_so() -> None:
    one = a_round(1, [1.0])
    ping = replace(one.ping, latency_ms=None, detail=replace(one.ping.detail, times_refused=1))
    untimed = replace(one, ping=ping)
    assert sparkline([a_round(0, [1.0]), untimed], 20) == f"{LEVELS[0]}·"
    assert rtt_text(untimed).plain == "untimed"
    assert "untimed: answered, at no certain time" in round_line(untimed)


def test_noise_is_not_drawn_as_a_swing() -> None:
    assert set(sparkline([a_round(n, [20 + 0.1 * (n % 2)]) for n in range(8)], 20)) == {LEVELS[0]}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("throughput", [False, True])
def test_live_view_fits_and_is_readable_without_colour(width: int, throughput: bool) -> None:
    name = "a-camera-with-a-very-long-name"
    options = SeriesOptions(throughput=ThroughputOptions(duration_s=1) if throughput else None)
    rounds = [a_round(n, LOST if n == 7 else [100.0 + n], source=name) for n in range(200)]
    series = a_series(rounds, sources=["cam-1", name], options=options)
    console = Console(width=width, no_color=True, force_terminal=False)
    with console.capture() as capture:
        console.print(progress(series, 30.0))
        console.print(results(series, width))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "Ctrl-C" in text
    assert " left" in text
    row = next(line for line in lines if line.startswith("…ery-long-name"))
    assert "299" in row
    assert row.count("…") == 1, "the name is shortened, the newest round is not left out"
    assert width - 2 <= len(row.rstrip()) <= width


def test_a_line_of_text_says_what_a_round_found() -> None:
    assert round_line(a_round(0, [1.0, 3.0, None, None])) == (
        "2026-01-02T03:04:05.000Z  cam-1 -> hub  2.00 ms  min 1.00 max 3.00  50% lost"
    )
    assert "lost: none of 5 echoes was answered in time" in round_line(a_round(0, LOST))
    assert "95.5 Mbit/s" in round_line(a_round(0, [1.0], mbps=95.5))
    refused = round_line(a_round(0, [1.0], tested=True))
    assert "throughput refused: Connection refused" in refused
