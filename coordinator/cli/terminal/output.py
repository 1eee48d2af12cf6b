"""What programs read on stdout: JSON objects that say what they are, and rows of CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from worker.model.csv_columns import CSV_COLUMNS

if TYPE_CHECKING:
    from worker.model.measurement import Measurement

#: Each kind of object that `--json` prints, in its `type`.
KINDS = (
    "check", "collected", "collector", "cost", "event", "limits", "lockers", "measurement", "node",
    "round", "run", "series", "started", "verification",
)  # fmt: skip


def print_json(kind: str, values: Mapping[str, Any]) -> None:
    """Print one JSON object on a line, with its `type` first, so that one filter fits them all."""
    if kind not in KINDS:
        raise ValueError(f"{kind} is no kind of object")
    # Also last, as a far node names what is in a measurement's detail.
    click.echo(json.dumps({"type": kind} | dict(values) | {"type": kind}))


def print_csv(results: Iterable[tuple[str, Measurement]]) -> None:
    """Print measurements with their stream ids as the CSV that a collector writes, each at once."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for stream_id, measurement in results:
        writer.writerow(measurement.to_row(stream_id))
        sys.stdout.flush()
