"""The picture of a test over time, as matplotlib draws it."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from rounds_made import BEGUN, LOST, a_round, a_series

from coordinator.series import plot
from coordinator.series.options import SeriesOptions
from coordinator.series.series import Round
from worker.model.measurement import Measurement, Outcome
from worker.model.options import ThroughputOptions

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("hours", [0, 8])
def test_labels_of_the_time_axis_do_not_overlap(hours: int) -> None:
    interval_s = 5 if not hours else 60
    options = SeriesOptions(duration_s=hours * 3600 or 60, interval_s=interval_s)
    rounds = [a_round(n * interval_s // 5, [1.0 + n % 3]) for n in range(options.rounds)]
    figure = plot.make_figure(a_series(rounds, options=options))
    figure.canvas.draw()
    labels = figure.axes[0].get_xticklabels()
    boxes = sorted((one.get_window_extent().x0, one.get_window_extent().x1) for one in labels)
    assert 4 <= len(boxes) <= 12
    assert all(left[1] < right[0] for left, right in pairwise(boxes))


def test_pictures_are_drawn_without_a_display_whatever_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    both = SeriesOptions(throughput=ThroughputOptions(duration_s=1))
    nobody = a_round(0, [1.0])
    unknown = Round(number=1, ping=Measurement(
        run="test", probe="ping", source="cam-1", target="hub", address="10.0.0.1",
        started_at=BEGUN + timedelta(seconds=5), outcome=Outcome.SOURCE_LOST, error="gone",
    ))  # fmt: skip
    for number, series in enumerate(
        (
            a_series([]),
            a_series([a_round(0, LOST)]),
            a_series([nobody, unknown], sources=["cam-1", "cam-2"]),
            a_series([a_round(0, [1.0], mbps=9.0), a_round(1, [0.0], tested=True)], options=both),
            a_series([a_round(0, [1.0], tested=True)], options=both),
        )
    ):
        path = tmp_path / f"{number}.png"
        plot.draw(series, path)
        assert path.read_bytes().startswith(b"\x89PNG")


def test_legend_names_what_is_there_to_be_seen() -> None:
    def named(*rounds: Round) -> list[str]:
        legend = plot.make_figure(a_series(rounds)).axes[0].get_legend()
        assert legend is not None
        return [text.get_text() for text in legend.get_texts()]

    assert named(a_round(0, [1.0])) == ["min to max", "mean of a round"]
    assert named(a_round(0, [1.0]), a_round(1, LOST))[-1] == "loss"
