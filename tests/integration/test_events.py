"""Events: what changed at a node is told once, and is in nobody's way."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from samples import RUN, fields_of, file_rows, fill
from waiting import wait_until

from coordinator.checks.mesh import groups
from coordinator.collect.collector import Collector
from coordinator.collect.csvfile import CsvFile, Holds
from coordinator.collect.cursor import Cursor
from coordinator.collect.eventfile import EventFile
from coordinator.collect.groups import group_position
from coordinator.results.events import read_events
from coordinator.results.results import read
from coordinator.results.stream import last_id
from integration.collecting import following
from integration.nodes import cli
from worker.model import version
from worker.model.errors import ConfigError
from worker.model.policy import Policy
from worker.node.registration.changes import LEAST_S, Changes
from worker.node.registration.facts import NoFile, Said
from worker.node.registration.instance import Instance
from worker.node.settings import NodeSettings
from worker.node.supervisor import Supervisor
from worker.wire import keyspace, scripts
from worker.wire.event import Event
from worker.wire.node_record import WATCHED, Node

pytestmark = pytest.mark.redis

KEY = keyspace.node_key("a")


def record(**more: Any) -> Node:
    said: dict[str, Any] = {"address": "10.0.0.1", "iperf3": "3.12", **more}
    return Node(name="a", **said)


def told(connection: redis.Redis) -> list[tuple[str, str, str]]:
    return [(one.what, one.old, one.new) for _, one in read_events(connection)]


def a_minute_passes(connection: redis.Redis) -> None:
    for what in WATCHED:
        at = cast("bytes | None", connection.hget(KEY, f"told_at:{what}"))
        if at is not None:
            connection.hset(KEY, f"told_at:{what}", repr(float(at) - LEAST_S))


@pytest.fixture
def known(connection: redis.Redis) -> redis.Redis:
    """A Redis that has a record of the node a, of which nothing was told."""
    connection.hset(KEY, "address", "10.0.0.1")
    return connection


def put_event(connection: redis.Redis, number: int, node: str = "a", stream_id: str = "*") -> str:
    fields = {
        "v": version.WIRE_VERSION, "kind": "event", "time": f"2026-01-02T03:04:05.{number:03}Z",
        "node": node, "what": "address", "old": f"10.0.0.{number}", "new": f"10.0.1.{number}",
    }  # fmt: skip
    added = connection.xadd(keyspace.RESULTS, cast("Any", fields), id=stream_id)
    return cast("bytes", added).decode()


def test_new_node_is_no_event_and_each_change_is_one(known: redis.Redis) -> None:
    changes = Changes("a")
    changes.report(known, record())
    changes.report(known, record())
    assert told(known) == []
    changes.report(known, record(address="10.0.0.2", iperf3=""))
    changes.report(known, record(address="10.0.0.2", iperf3=""))
    assert told(known) == [("address", "10.0.0.1", "10.0.0.2"), ("iperf3", "3.12", "")]
    (first, _) = [one for _, one in read_events(known)]
    assert (first.node, first.time.tzinfo is not None) == ("a", True)


def test_change_before_the_first_word_of_a_new_node_is_an_event(known: redis.Redis) -> None:
    changes = Changes("a")
    changes.begin(record())
    changes.report(known, record(address="10.0.0.2"))
    assert told(known) == [("address", "10.0.0.1", "10.0.0.2")]
    Changes("a").report(known, record(address="10.0.0.2"))
    assert len(told(known)) == 1


def test_what_flaps_is_told_once_a_minute_as_it_is_then(known: redis.Redis) -> None:
    changes = Changes("a")
    for number in (1, 2, 3, 4):
        changes.report(known, record(address=f"10.0.0.{number}"))
    assert told(known) == [("address", "10.0.0.1", "10.0.0.2")]
    changes.report(known, record(address="10.0.0.4", labels={"site": "roof"}))
    assert told(known)[1:] == [("labels", "{}", '{"site": "roof"}')]
    a_minute_passes(known)
    changes.report(known, record(address="10.0.0.4", labels={"site": "roof"}))
    assert told(known)[2:] == [("address", "10.0.0.2", "10.0.0.4")]
    # There and back within the minute is nothing to tell.
    changes.report(known, record(address="10.0.0.5", labels={"site": "roof"}))
    changes.report(known, record(address="10.0.0.4", labels={"site": "roof"}))
    a_minute_passes(known)
    changes.report(known, record(address="10.0.0.4", labels={"site": "roof"}))
    assert len(told(known)) == 3


def test_restart_tells_what_changed_meanwhile_and_nothing_twice(known: redis.Redis) -> None:
    Changes("a").report(known, record())
    a_minute_passes(known)
    Changes("a").report(known, record(version="2"))
    Changes("a").report(known, record(version="2"))
    assert told(known) == [("version", "", "2")]


def test_redis_that_lost_its_data_is_told_what_changes_then(known: redis.Redis) -> None:
    changes = Changes("a")
    changes.report(known, record())
    known.flushall()
    changes.report(known, record(address="10.0.0.2"))
    assert known.exists(KEY) == 0, "half a record that never expires"
    known.hset(KEY, "address", "10.0.0.2")
    changes.report(known, record(address="10.0.0.2"))
    assert told(known) == [("address", "10.0.0.1", "10.0.0.2")]


def test_event_waits_for_room_and_goes_by_the_way_of_results(known: redis.Redis) -> None:
    changes = Changes("a")
    changes.report(known, record())
    fill(known, 1)
    known.hset(keyspace.LIMITS, "stream_entries", 1)
    changes.report(known, record(address="10.0.0.2"))
    assert told(known) == []
    known.delete(keyspace.LIMITS)
    # The mesh's pace is booked out for a minute; a heartbeat does not wait for it.
    known.hset(keyspace.PACE, "next", repr(scripts.redis_seconds(known) + 50))
    changes.report(known, record(address="10.0.0.2"))
    assert told(known) == []
    known.delete(keyspace.PACE)
    changes.report(known, record(address="10.0.0.2"))
    assert told(known) == [("address", "10.0.0.1", "10.0.0.2")]


def test_heartbeat_tells_what_the_settings_file_changed(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    class Changed(NoFile):
        """A settings file that says what the test wants."""

        said: Said | None = None

        def __call__(self) -> Said | None:
            return self.said

    changed = Changed()
    settings = NodeSettings(
        name="a",
        redis_url=redis_url,
        address="127.0.0.1",
        labels={},
        state_dir=tmp_path,
        version="0",
        policy=Policy(),
        reread=changed,
    )
    agent = Supervisor(settings, lambda _: {})
    agent.heartbeats.instance = Instance(token="a", file="")  # noqa: S106 - of a name
    agent.record = agent._describe(connection)
    agent._heartbeat(connection)
    changed.said = Said(labels={"site": "roof"}, policy=Policy(ports=(6000, 6001)))
    agent._look_at_settings()
    agent._heartbeat(connection)
    agent._heartbeat(connection)
    assert told(connection) == [
        ("labels", "{}", '{"site": "roof"}'),
        ("ports", "5201-5216", "6000-6001"),
    ]
    assert connection.hget(KEY, "labels") == b'{"site": "roof"}'


def mixed(connection: redis.Redis) -> None:
    """Fill the stream with rows, events before, between and behind them."""
    put_event(connection, 1)
    fill(connection, 5)
    put_event(connection, 2, "b")
    fill(connection, 5, first=5)
    put_event(connection, 3)


def test_readers_of_measurements_pass_over_events(
    connection: redis.Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    mixed(connection)
    assert len(list(read(connection))) == 10
    assert len(list(read(connection, run=RUN))) == 10
    assert caplog.records == []
    printed = cli(redis_url, "results", "--json")
    assert (len(printed.stdout.splitlines()), printed.stderr) == (10, "")
    rows = cli(redis_url, "collect", "--csv", "-")
    assert (len(rows.stdout.splitlines()), rows.stderr) == (11, "")


def test_collector_passes_events_and_its_group_with_it(
    connection: redis.Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mesh.csv"
    caplog.set_level(logging.INFO)
    for number in range(3):  # only events: the file has no row yet, and is nobody's second
        put_event(connection, number)
        Collector(connection, path, group="g").drain()
    mixed(connection)
    for _ in range(3):
        Collector(connection, path, group="g").drain()
        assert len(file_rows(path)) == 10
        assert group_position(connection, "g") == last_id(connection)
    put_event(connection, 4)
    Collector(connection, path, group="g").drain()
    # All that the group has passed is trimmed, the file's last row too: nothing was lost.
    connection.xtrim(keyspace.RESULTS, minid=last_id(connection))
    Collector(connection, path, group="g").drain()
    fill(connection, 2, first=10)
    Collector(connection, path, group="g").drain()
    assert len(file_rows(path)) == 12
    assert [one.message for one in caplog.records] == []
    assert not path.with_name("mesh.csv.bad").exists()


def test_doctor_asks_for_no_collector_where_there_are_only_events(connection: redis.Redis) -> None:
    def warned() -> list[str]:
        now = scripts.redis_seconds(connection)
        return [one.status.value for one in groups(connection, now)]

    put_event(connection, 1)
    assert warned() == ["ok"]
    fill(connection, 1)
    assert warned() == ["warn"]


def event_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_collector_writes_each_event_once_where_asked(
    connection: redis.Redis, tmp_path: Path
) -> None:
    path, events = tmp_path / "mesh.csv", tmp_path / "events.csv"
    mixed(connection)
    for _ in range(3):
        Collector(connection, path, group="g", events=events).drain()
        assert [row["old"] for row in event_rows(events)] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    # An earlier file's are not repeated, whatever rows are behind the file's last one.
    events.rename(tmp_path / "events.csv.1")
    Collector(connection, path, group="g", events=events).drain()
    assert not events.exists()
    put_event(connection, 4)
    fill(connection, 1, first=10)
    Collector(connection, path, group="g", events=events).drain()
    assert [row["old"] for row in event_rows(events)] == ["10.0.0.4"]
    assert len(file_rows(path)) == 11


def test_event_is_not_passed_over_when_redis_lost_its_data_and_its_clock_went_back(
    connection: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    path, events = tmp_path / "mesh.csv", tmp_path / "events.csv"
    fill(connection, 5)
    put_event(connection, 1)
    Collector(connection, path, events=events).drain()
    with following(redis_url, path, events) as collector:
        fill(connection, 1, first=5)
        wait_until(lambda: collector.rows == 1, "the file has its first row")
        connection.delete(keyspace.RESULTS)
        put_event(connection, 2, stream_id="1000-0")
        connection.xadd(keyspace.RESULTS, fields_of(6), id="1001-0")
        wait_until(lambda: collector.rows == 2, "the file has 2 rows")
    assert [row["old"] for row in event_rows(events)] == ["10.0.0.1", "10.0.0.2"]


def test_event_is_not_lost_to_a_crash_before_or_after_it_is_written(
    connection: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, events = tmp_path / "mesh.csv", tmp_path / "events.csv"
    mixed(connection)
    for owner, name in ((EventFile, "append"), (CsvFile, "append"), (Cursor, "passed")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, _interrupted)
            with pytest.raises(KeyboardInterrupt):
                Collector(connection, path, group="g", events=events).drain()
    with events.open("ab") as file:
        file.write(b"2026-01-02T")  # torn
    Collector(connection, path, group="g", events=events).drain()
    assert [row["old"] for row in event_rows(events)] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert len(file_rows(path)) == 10


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_file_that_is_none_of_events_is_left_as_it_is(
    connection: redis.Redis, tmp_path: Path
) -> None:
    path, events = tmp_path / "mesh.csv", tmp_path / "events.csv"
    mixed(connection)
    events.write_text("mine\n")
    with pytest.raises(ConfigError, match="is no file of events"):
        Collector(connection, path, group="g", events=events).drain()
    assert events.read_text() == "mine\n"
    with CsvFile(path, Holds.STREAM) as file:
        assert file.last is None
    Collector(connection, path, group="g", events=tmp_path / "other.csv").drain()
    assert len(event_rows(tmp_path / "other.csv")) == 3


def test_event_that_makes_no_sense_is_set_aside(connection: redis.Redis, tmp_path: Path) -> None:
    path = tmp_path / "mesh.csv"
    connection.xadd(keyspace.RESULTS, {"v": version.WIRE_VERSION, "kind": "event", "node": "a"})
    connection.xadd(keyspace.RESULTS, {"v": 99, "kind": "event"})
    put_event(connection, 1)
    assert len(list(read_events(connection))) == 1
    collector = Collector(connection, path, group="g", events=tmp_path / "events.csv")
    collector.drain()
    assert collector.bad == 2
    assert len(path.with_name("mesh.csv.bad").read_text().splitlines()) == 2


def test_command_lists_events(redis_url: str, connection: redis.Redis) -> None:
    said = cli(redis_url, "events")
    assert (said.stdout, said.stderr) == ("", "no event is in the stream\n")
    mixed(connection)
    listed = cli(redis_url, "events").stdout
    assert listed.split()[:5] == ["time", "node", "what", "old", "new"]
    assert listed.count("address") == 3
    lines = [json.loads(line) for line in cli(redis_url, "events", "--json").stdout.splitlines()]
    assert [line["node"] for line in lines] == ["a", "b", "a"]
    assert lines[0] == {
        "type": "event", "time": "2026-01-02T03:04:05.001Z", "node": "a", "what": "address",
        "old": "10.0.0.1", "new": "10.0.1.1", "stream_id": lines[0]["stream_id"],
    }  # fmt: skip
    assert cli(redis_url, "events", "--node", "b", "--json").stdout.count('"node": "b"') == 1
    assert cli(redis_url, "events", "--since", "1h", "--json").stdout.count("\n") == 3
    old = Event.from_fields(dict(cast("Any", connection.xrange(keyspace.RESULTS))[0][1]))
    assert old.new == "10.0.1.1"
