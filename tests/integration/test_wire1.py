"""
What the wire version before left behind is read: results, runs, files, a node's disk.

The files of tests/data/wire1 were written by ptzmesh 0.1.0 of wire version 1: two nodes, one run of
three probes.
"""

from __future__ import annotations

import base64
import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import redis
from samples import fields_of

from coordinator.collect.collector import Collector
from coordinator.collect.csvfile import CsvFile
from coordinator.results import results, stream
from coordinator.runs.runs import of_run, read_run
from integration.nodes import cli
from worker.model.csv_columns import CSV_COLUMNS, WIRE_1_CSV_COLUMNS
from worker.model.measurement import Outcome
from worker.monitor.records import metrics_csv
from worker.publish.outbox import Outbox
from worker.wire import keyspace

pytestmark = pytest.mark.redis

WIRE_1 = Path(__file__).parents[1] / "data" / "wire1"


def raw(value: Any) -> Any:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value


def restore(connection: redis.Redis) -> str:
    """Put back what was in Redis, the stream at its own ids; give the run's id."""
    for stream_id, fields in json.loads((WIRE_1 / "stream.json").read_text()):
        entry = {name: raw(value) for name, value in fields.items()}
        connection.xadd(keyspace.RESULTS, entry, id=stream_id)
    run = json.loads((WIRE_1 / "run.json").read_text())
    record = {name: raw(value) for name, value in run["hash"].items()}
    connection.hset(keyspace.run_key(run["id"]), mapping=record)
    connection.zadd(keyspace.RUNS, {run["id"]: float(record["created"])})
    return str(run["id"])


def rows_in(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def collected(tmp_path: Path) -> Path:
    """A file that the version before collected."""
    return Path(shutil.copy(WIRE_1 / "collected.csv", tmp_path))


def test_a_run_and_its_results_are_shown(connection: redis.Redis, redis_url: str) -> None:
    run = restore(connection)
    assert read_run(connection, run).published == 6
    measured = [one for _, one in of_run(connection, run)]
    assert {one.probe for one in measured} == {"ping", "tcp", "redis"}
    assert {one.outcome for one in measured} == {Outcome.OK}
    shown = cli(redis_url, "show", run, "--json")
    assert shown.returncode == 0, shown.stderr
    listed = cli(redis_url, "runs", "--json")
    assert run in listed.stdout
    assert not listed.stderr


def test_they_are_collected_with_the_present_columns(
    connection: redis.Redis, tmp_path: Path, collected: Path
) -> None:
    restore(connection)
    fresh = tmp_path / "fresh.csv"
    collector = Collector(connection, fresh)
    collector.drain()
    assert collector.bad == 0
    then, now = rows_in(collected), rows_in(fresh)
    assert tuple(now[0]) == CSV_COLUMNS
    assert [{name: row[name] for name in then[0]} for row in now] == then


def test_a_file_that_it_began_goes_on_in_its_own_columns(
    connection: redis.Redis, collected: Path
) -> None:
    restore(connection)
    before = rows_in(collected)
    connection.xadd(keyspace.RESULTS, fields_of(1))
    Collector(connection, collected).drain()
    after = rows_in(collected)
    assert after[:-1] == before
    assert tuple(after[0]) == WIRE_1_CSV_COLUMNS
    assert after[-1]["source"] == fields_of(1)["source"]
    assert after[-1]["stream_id"] == stream.last_id(connection)
    with CsvFile(collected) as file:
        assert file.cursor == after[-1]["stream_id"]


def test_the_monitor_adds_to_a_file_that_it_began(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(",".join(WIRE_1_CSV_COLUMNS) + "\n")
    (_, sent) = json.loads((WIRE_1 / "stream.json").read_text())[0]
    entry = {name.encode(): _bytes(raw(value)) for name, value in sent.items()}
    measured = results.Measurement.from_fields(entry)
    assert metrics_csv.append(path, [measured]) == 1
    (row,) = csv.DictReader(path.read_text().splitlines())
    assert (row["source"], row["sent"], row["stream_id"]) == (measured.source, "3", "")


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def test_results_on_the_disk_are_sent(connection: redis.Redis, tmp_path: Path) -> None:
    restore(connection)
    connection.delete(keyspace.RESULTS)
    box = Outbox(Path(shutil.copy(WIRE_1 / "cam-1.outbox", tmp_path)))
    box.set_aside_others()
    box.resend(connection)
    assert box.waiting_bytes() == 0
    sent = [one for _, one in results.read(connection)]
    assert [(one.source, one.probe) for one in sent] == [("cam-1", "ping"), ("cam-1", "tcp")]
