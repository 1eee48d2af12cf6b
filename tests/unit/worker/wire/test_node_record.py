"""A node's record: what is written is read, and nothing but its own module knows the names."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

from worker.wire.liveness import ALIVE_S
from worker.wire.node_record import (
    HOLDER,
    RQ_WORKERS,
    STOPPED,
    TOLD,
    TOLD_AT,
    WATCHED,
    Clock,
    Node,
    Part,
    Record,
)

ROOT = Path(__file__).parents[4]
NODE = Node(
    name="a",
    address="10.0.0.1",
    labels={"site": "roof"},
    boot="b0",
    netns="4026531840",
    gateway="3c:37:12:00:00:01",
    accepts=True,
    since=1767323045.123456,
    links={"cell-7": 1},
    bytes_per_day=2_000_000_000,
    clock_offset_ms=-0.125,
    outbox_bytes=4096,
    version="1.0.0",
    icmp="raw",
    iperf3="3.12",
    iperf3_fault="no SCTP",
    ports=(5201, 5216),
    settings_fault="port (x) is no number",
    redis_commands_per_s=1.5,
    redis_bytes_per_day=3_400_000,
    host="roof.example",
    pid=4711,
)


def read(part: type[Part], said: dict[str, str], **known: object) -> Part:
    values = [said[name].encode() if name in said else None for name in part.names()]
    return part.read(values, **known)


@pytest.mark.parametrize("node", [NODE, replace(NODE, stopped=True, accepts=False)])
def test_what_is_written_is_read(node: Node) -> None:
    assert read(Node, node.to_fields(), name="a") == node
    record = read(Record, node.to_fields())
    assert vars(record).items() <= vars(node).items()


def test_clock_is_no_more_certain_than_its_estimate() -> None:
    clock = Clock(clock_offset_ms=-0.1234567, clock_offset_uncertainty_ms=0.2199)
    assert [*clock.to_fields().values()] == ["-0.123", "0.221"]
    assert [*Clock().to_fields().values()] == ["", ""]


def test_node_that_says_only_where_it_is_can_do_nothing_and_is_of_no_version() -> None:
    found = read(Node, {"address": "10.0.0.1"}, name="a")
    assert found == Node(name="a", address="10.0.0.1", wire=0)
    assert not found.accepts


def test_node_lives_while_it_was_heard_of_late_and_has_not_said_goodbye() -> None:
    heard = replace(NODE, seen_s=ALIVE_S)
    assert [heard.state, heard.alive] == ["alive", True]
    assert replace(heard, stopped=True).state == "stopped"
    assert replace(heard, seen_s=ALIVE_S + 0.1).state == NODE.state == "silent"


def test_json_has_what_a_node_says_and_how_it_is() -> None:
    shown = replace(NODE, seen_s=1.5).to_json()
    assert shown.keys() == {*vars(NODE), "state", "alive"}
    assert (shown["labels"], shown["state"]) == ({"site": "roof"}, "alive")


#: Fields whose names are words of other things, too: columns of a measurement, options, states.
ALSO_OTHERS = frozenset(
    {
        *("accepts", "address", "file", "gateway", "host", "icmp", "iperf3", "labels", "links"),
        *("outbox", "pid", "ports", "since", "stopped", "version", "wire"),
        *("clock_offset_ms", "clock_offset_uncertainty_ms"),
    }
)
FIELDS = frozenset({*Node.names(), *HOLDER, *WATCHED, STOPPED, TOLD, TOLD_AT})
FIELDS |= {*RQ_WORKERS.values()}


def texts_in(tree: ast.AST) -> set[str]:
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and type(n.value) is str}


def named_in(path: Path) -> set[str]:
    """Return the fields that a module names: the unmistakable ones, others beside a node's key."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = (n for n in ast.walk(tree) if isinstance(n, ast.Call) and n.args)
    of_nodes = (n for n in calls if "node_key" in ast.unparse(n.args[0]))
    beside = {text for call in of_nodes for text in texts_in(call)}
    return (texts_in(tree) & FIELDS - ALSO_OTHERS) | (beside & FIELDS)


def test_no_other_module_names_a_field() -> None:
    paths = [path for room in ("worker", "coordinator") for path in (ROOT / room).rglob("*.py")]
    named = {path.relative_to(ROOT).as_posix(): named_in(path) for path in paths}
    assert named.pop("worker/wire/node_record.py") >= FIELDS - ALSO_OTHERS
    assert {path: names for path, names in named.items() if names} == {}


def test_each_field_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")
    section = page.partition("## What a node says of itself")[2].partition("\n## ")[0]
    listed = {name.partition("<")[0] for name in re.findall(r"`([a-z0-9_]+[^`]*)`", section)}
    assert listed >= FIELDS


def test_no_script_names_a_field() -> None:
    for name in ("heard", "beat", "heartbeat", "records", "goodbye", "events"):
        lines = (ROOT / "worker/wire/lua" / f"{name}.lua").read_text(encoding="utf-8").splitlines()
        code = "\n".join(line for line in lines if not line.startswith("--"))
        assert not [field for field in FIELDS if f"'{field}'" in code], name
