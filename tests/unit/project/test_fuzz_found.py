"""What fuzzing has found, one example each; docs/fuzzing.md says how."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import msgpack
import pytest

from coordinator.cli.settings.config import read_config
from coordinator.collect.csvfile import CSV_COLUMNS, HEADER, CsvFile, rows_of
from worker.model import fields
from worker.model.errors import ConfigError, WireError
from worker.model.measurement import Outcome
from worker.model.names import valid_address
from worker.model.plan import Plan, PlannedNode
from worker.monitor.lockers import view
from worker.publish import outbox
from worker.transfer import answer, idle_rtt
from worker.wire import room, run_record
from worker.wire.node_record import Node


@pytest.mark.parametrize(
    "body", [0, [1], [1, 2], [-1, {}], ["1", {}], [1, {1: "x"}], [1, {"v": 1}]]
)
def test_outbox_frame_that_holds_no_letter_is_given_up(body: Any) -> None:
    packed = bytes(msgpack.packb(body))
    size, crc = len(packed).to_bytes(4, "big"), zlib.crc32(packed).to_bytes(4, "big")
    assert list(outbox._frames(outbox.MARK + size + crc + packed)) == []


@pytest.mark.parametrize("started", [math.nan, math.inf, 1e300, -1e18, 7.3e15])
def test_operation_on_a_locker_at_no_time_of_this_world_is_left_out(started: float) -> None:
    assert view._operation(["acquire", 1, "a", started, "ok"], 1.0) is None


def test_texts_that_others_noted_of_lockers_are_printable() -> None:
    found = view._operation(["\x1b[31m", 1, "a\nb", 1767323045.5, "ok"], 1.0)
    assert found is not None
    assert (found.operation + found.node).isprintable()
    held = view._locker(1, "x", 1.0, {"node": ["a"], "pid": "7", "expire_s": "soon"})
    assert (held.node, held.pid, held.held_s) == (None, None, None)


INVALID = ["x", "²", "-", "9" * 5000, "nan", "1e999", "\xff-\xff"]


def node_with(field: str, value: str) -> Node:
    record = {"address": b"10.0.0.1", field: value.encode("latin-1", "replace")}
    return Node.read([record.get(name) for name in Node.names()], name="a")


@pytest.mark.parametrize(
    "field", ["outbox", "ports", "wire", "redis_commands_per_s", "clock_offset_ms"]
)
@pytest.mark.parametrize("value", [*INVALID, ""])
def test_number_of_a_node_that_is_none_is_absent(field: str, value: str) -> None:
    attribute = {"outbox": "outbox_bytes"}.get(field, field)
    assert getattr(node_with(field, value), attribute) in (None, 0)


@pytest.mark.parametrize("field", ["bytes_per_day", "links"])
@pytest.mark.parametrize("value", [*INVALID, "[]", '{"-a": 1}', '{"a": 1e400}', "[" * 100_000])
def test_record_whose_limits_are_none_is_refused(field: str, value: str) -> None:
    with pytest.raises(WireError):
        node_with(field, value)


@pytest.mark.parametrize("address", ["", "-c", "224.0.0.1", "10.0.0.1\n"])
def test_record_whose_address_is_none_is_refused(address: str) -> None:
    with pytest.raises(WireError):
        node_with("address", address)


def test_labels_nested_without_end_are_none() -> None:
    assert node_with("labels", "[" * 100_000).labels == {}


@pytest.mark.parametrize("port", [math.inf, math.nan, 1.5, "80", None, True, -1, 2**70 // 2**10])
def test_port_that_is_none_is_a_bad_reply(port: Any) -> None:
    word = {"port": port, "version": "3.12", "outcome": "ok", "error": ""}
    assert answer.unpack_answer(msgpack.packb(word)).outcome is Outcome.BAD_REPLY


@pytest.mark.parametrize(
    "raw",
    [
        [],
        {1: [1.0, None, "10.0.0.1"]},
        {"b": 1.0},
        {"b": [1.0, None]},
        *({"b": [bad, None, "10.0.0.1"]} for bad in ("1", math.nan, -1, 1e9, None, True)),
        {"b": [1.0, "1", "10.0.0.1"]},
        {"b": [1.0, math.nan, "10.0.0.1"]},
        {"b": [1.0, None, 1]},
    ],
)
def test_idle_round_trip_times_that_are_none_are_refused(raw: Any) -> None:
    with pytest.raises(WireError):
        idle_rtt.unpack_rtts(msgpack.packb(raw))


@pytest.mark.parametrize("value", [b"x", b"-1", b"1.5", b"9" * 30, b"\xb2", b"1_0"])
def test_limit_that_is_no_number_is_refused_with_the_next_step(value: bytes) -> None:
    with pytest.raises(WireError, match="ptzmesh limits"):
        room.unpack_limits([value])


@pytest.mark.parametrize("value", [b"x", b"nan", b"inf", b"", None, b"\xff"])
def test_clock_offset_that_is_none_is_absent(value: bytes | None) -> None:
    assert fields.number_or_none(value) is None


@pytest.mark.parametrize("text", ["a = " + "9" * 5000, "a = " + "[" * 100_000, "\udcff"])
def test_settings_file_that_cannot_be_read_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError):
        read_config(str(path), {})


ROW = b"2026-01-02T03:04:05.678Z,h" + b"," * (len(CSV_COLUMNS) - 2) + b"1-0\n"


@pytest.mark.parametrize("middle", [b"\xaa\n", b"x\n", b'"' + b"x" * 200_000 + b"\n"])
def test_csv_with_a_damaged_middle_is_refused_when_it_is_read(
    tmp_path: Path, middle: bytes
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(HEADER + middle + ROW)
    with CsvFile(path), pytest.raises(ConfigError, match="not a row"):
        list(rows_of(path))


@pytest.mark.parametrize("last", [b"x,y\n", b"x" * 200_000 + b"\n"])
def test_csv_that_is_none_of_ours_is_left_as_it_is_torn_line_and_all(
    tmp_path: Path, last: bytes
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(HEADER + last + b"torn")
    with pytest.raises(ConfigError):
        CsvFile(path)
    assert path.read_bytes() == HEADER + last + b"torn"


@pytest.mark.parametrize("address", ["::ffff:fe8:1%0\x06:f", "ff02::1%\x1b[31m"])
def test_address_that_is_refused_is_shown_in_printable_text(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        valid_address(address)
    assert str(caught.value).isprintable()


PLAN = Plan(
    nodes=(PlannedNode(name="a", address="10.0.0.1"), PlannedNode(name="b", address="10.0.0.2")),
    sources=(0,),
    targets=(1,),
)
RUN = {"status": b"running", "phase": b"0", "created": b"1.5"}


def test_run_of_these_tests_is_read_when_nothing_is_wrong_with_it() -> None:
    assert run_record.from_fields("r", RUN, PLAN).phase == 0


@pytest.mark.parametrize(
    "damage",
    [
        {"phase": b"x"}, {"phase": b"7"}, {"phase": b"-1"}, {"created": b"nan"}, {"created": b""},
        {"closed": b"inf"}, {"status": b"\xff"}, {"done:ping": b"many"}, {"ok:ping": b"1.5"},
    ],
)  # fmt: skip
def test_run_with_a_damaged_field_is_refused(damage: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        run_record.from_fields("r", RUN | damage, PLAN)
