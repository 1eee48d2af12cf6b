"""
The parsers of untrusted input, each as a function of bytes that raises when a promise is broken.

A parser refuses in the one way that its docstring names; whatever else comes out of it ends a
process of ours. The same functions serve hypothesis (`test_fuzz_parsers.py`) and atheris (`run`).
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from unittest.mock import patch

import msgpack
import samples

from coordinator.results import results
from fuzz.files import (
    bad_file,
    csv_file,
    outbox_body,
    outbox_frames,
    ptzjepa_file,
    settings_file,
    verified_file,
)
from fuzz.network import answer_reply, answer_request, icmp, iperf3_report
from worker.identity import answering
from worker.model import cost, fields, names, plan, policy
from worker.model.errors import ConfigError, WireError
from worker.model.measurement import Measurement, csv_row
from worker.model.record.csv_line import csv_lines, usual_lines
from worker.monitor.lockers import view
from worker.node.allowlist import Refused, allow_listed, by_fields
from worker.node.refusals import Cause, entry_of
from worker.probes import traffic
from worker.transfer import idle_rtt
from worker.transfer.answer import Request, unpack_answer
from worker.wire import room, rq_jobs
from worker.wire.connection import server
from worker.wire.event import Event
from worker.wire.node_record import Limits, Node, Record

Target = Callable[[bytes], None]

#: What parts the names and values of a hash in a fuzzer's input.
BETWEEN = b"\n--\n"
#: Smallest input that a fuzzer need not go beyond; every parser has a bound of its own.
MAX_INPUT_BYTES = 64 * 1024


def as_hash(data: bytes) -> dict[bytes, bytes]:
    """Read an input as a Redis hash: name, value, name, value, …"""
    parts = data.split(BETWEEN)
    return dict(zip(parts[::2], parts[1::2], strict=False))


def of_hash(fields: dict[bytes, bytes]) -> bytes:
    """Give the input that `as_hash` reads so."""
    return BETWEEN.join(part for pair in fields.items() for part in pair)


def _sweep(run: str, phase: int, performer: int) -> None: ...


def _request(request: Request) -> None: ...


_serve = by_fields(Request, _request)
JOB_CLASS = allow_listed({"ptzmesh.sweep": _sweep, "ptzmesh.serve": _serve})


def job_record(data: bytes) -> None:
    """A job's record is refused, or it is one of ours with just our arguments."""
    job = JOB_CLASS(
        "fuzz", connection=server.connect("redis://h"), serializer=rq_jobs.MsgpackSerializer
    )
    try:
        job.restore(as_hash(data))
    except Refused:
        return
    assert job.func in (_sweep, _serve)
    assert not job.args
    assert set(job.kwargs) in (
        {"run", "phase", "performer"},
        {field.name for field in dataclasses.fields(Request)},
    )
    assert job.timeout is not None
    assert 0 < job.timeout <= rq_jobs.MAX_JOB_S
    assert job.success_callback is job.failure_callback is job.stopped_callback is None
    assert not job.webhooks
    assert not job._dependency_ids
    assert not job.retries_left
    assert not job.repeats_left


def payload(data: bytes) -> None:
    """A payload is a plain value, or refused."""
    with suppress(WireError):
        rq_jobs.MsgpackSerializer.loads(data)


def plan_of(data: bytes) -> None:
    """A plan is refused, or whole: its pairs have bits of their own, and its cost is known."""
    try:
        found = plan.unpack_plan(data)
    except WireError:
        return
    if len(found.nodes) > 20:
        return
    for node in found.nodes:
        names.valid_name(node.name)
        names.valid_address(node.address)
    for probe in found.probes:
        pairs = list(found.pairs(probe))
        assert len({found.bit(*pair) for pair in pairs}) == len(pairs) == found.count(probe)
        assert cost.phase_seconds(found, probe) >= 0
        performed = [p for one in found.performers(probe) for p in found.pairs_of(probe, one)]
        assert sorted(performed) == sorted(pairs)
    traffic.bytes_per_node(found, lambda *_: True)
    assert plan.unpack_plan(found.packed()) == found


def measurement(data: bytes) -> None:
    """An entry of the stream is refused, or a row of one line; both readers agree."""
    fields = as_hash(data)
    try:
        row = csv_row(fields, b"1-0")
    except WireError:
        assert not _is_read(fields), "the readers disagree"
        assert usual_lines([(b"1-0", _flat(fields))])[0] is None
        return
    found = Measurement.from_fields(fields)
    assert found.to_row("1-0") == row
    text = csv_lines([row])
    assert text.count("\n") == 1
    assert usual_lines([(b"1-0", _flat(fields))])[0] in (None, text)
    shown = json.dumps(found.to_json("1-0"), allow_nan=False, sort_keys=True)
    again = Measurement.from_fields(as_entry(found))
    assert json.dumps(again.to_json("1-0"), sort_keys=True) == shown
    assert again.to_row("1-0") == row


def as_entry(found: Measurement) -> dict[bytes, bytes]:
    """Give the fields of a measurement as Redis gives them back."""
    written = found.to_fields().items()
    return {k.encode(): v if isinstance(v, bytes) else v.encode() for k, v in written}


def detail(data: bytes) -> None:
    """So is a detail, and what else a map may hold that is packed as one."""
    measurement(of_hash(as_entry(samples.measurement(1)) | {b"detail": data}))


def detail_json(data: bytes) -> None:
    """And where the names of a JSON object stand for themselves, or are numbers of names."""
    with suppress(ValueError, RecursionError, OverflowError):
        if isinstance(given := json.loads(data), dict):
            named = {int(key) if key.isdecimal() else key: value for key, value in given.items()}
            detail(bytes(msgpack.packb(named)))


def event(data: bytes) -> None:
    """An event is refused, or a row of one line; no reader takes it for a measurement."""
    fields = as_hash(data)
    try:
        found = Event.from_fields(fields)
    except WireError:
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(found.to_row("1-0"))
    assert text.getvalue().count("\n") == 1
    json.dumps(found.to_json("1-0"), allow_nan=False)
    with patch.object(results, "log_bad", _no_bad):
        assert list(results.measurements_in([(b"1-0", _flat(fields))])) == []


def _flat(fields: dict[bytes, bytes]) -> list[bytes]:
    return [one for pair in fields.items() for one in pair]


def _no_bad(*_: object) -> None:
    raise AssertionError("an event is no bad entry")


def _is_read(fields: dict[bytes, bytes]) -> bool:
    try:
        Measurement.from_fields(fields)
    except WireError:
        return False
    return True


def node_record(data: bytes) -> None:
    """A node's record is read, whatever of it makes no sense, and shown as JSON; or refused."""
    raw = as_hash(data)
    with suppress(WireError):
        found = Node.read([raw.get(n.encode()) for n in Node.names()], name="a", seen_s=1.0)
        json.dumps(found.to_json(), allow_nan=False)
        assert all(isinstance(text, str) for text in found.to_fields().values())


def node_lookup(data: bytes) -> None:
    """What a node reads of another before it measures it is the record of a node, or refused."""
    count = len(Record.names())
    values = [part or None for part in data.split(BETWEEN)][:count]
    with suppress(WireError):
        found = Record.read([*values, *[None] * (count - len(values))], seen_s=1.0)
        assert isinstance(found.site, str)
        assert found.address


def node_links(data: bytes) -> None:
    """A node's shared links and budget are refused, or what the lease's script can work with."""
    with suppress(WireError):
        assert all(0 <= n < 2**53 for n in Limits.read([data, None]).links.values())
    with suppress(WireError):
        budget = Limits.read([None, data]).bytes_per_day
        assert budget is None or 0 <= budget < 2**53


def idle_rtts(data: bytes) -> None:
    """Idle round-trip times are refused, or milliseconds."""
    with suppress(WireError):
        for median_ms, least_ms, _ in idle_rtt.unpack_rtts(data).values():
            assert 0 <= median_ms < 60_000
            assert least_ms is None or 0 <= least_ms < 60_000
    fields.number_or_none(data)


def limit_values(data: bytes) -> None:
    """A limit is refused, or a number that Redis' scripts can work with."""
    with suppress(WireError):
        found = room.unpack_limits(list(as_hash(data).values())[: len(room.DEFAULTS)])
        assert all(0 <= value < 2**53 for value in found.values())


def ready_reply(data: bytes) -> None:
    """A responder's word is an answer, whatever it is; a port is one."""
    answer = unpack_answer(data)
    assert answer.outcome.value != "ok" or 1 <= answer.port <= 65535


def answering_port(data: bytes) -> None:
    """What Redis has of an answering port is refused, or a secret and maybe a port."""
    with suppress(WireError):
        found = answering.unpack_port(data)
        assert found.number is None or 0 <= found.number <= 65535
        assert len(found.secret) == answering.SECRET_BYTES


def locker_values(data: bytes) -> None:
    """What programs noted of lockers is shown in printable text, or left out."""
    facts = view._unpacked(data)
    for elapsed_s in (0.0, 1.5):
        operation = view._operation(facts, elapsed_s)
        assert operation is None or all(str(v).isprintable() for v in vars(operation).values())
    if isinstance(facts, dict):
        held = vars(view._locker(1, "x", 1.0, facts))
        assert all(str(value).isprintable() for value in held.values())
        json.dumps(held, allow_nan=False)


def texts(data: bytes) -> None:
    """Names, addresses, hours, ports, links: each passes as it is, or is refused in one line."""
    text = data.decode("utf-8", "replace")
    parsers: list[Callable[[str], object]] = [
        names.valid_name,
        names.valid_address,
        policy.parse_hours,
        names.parse_ports,
        lambda t: policy.parse_links([t]),
    ]
    for parser in parsers:
        said = ""
        try:
            parser(text)
        except ConfigError as exc:
            said = str(exc)
        assert said.isprintable()
    with suppress(ConfigError):
        passed = names.valid_address(text)
        assert passed.isascii()
        assert passed.isprintable()
        assert not passed.startswith("-")
        ip = names.plain_ip(passed)
        if ip is None:
            with suppress(OSError):
                socket.inet_aton(passed)
                raise AssertionError(f"{passed} is an address in disguise")


def refusal(data: bytes) -> None:
    """A note is one bounded line, whatever is noted."""
    text = data.decode("utf-8", "replace")
    noted = entry_of("a", text, text, Cause.FOREIGN, left_out=len(data))
    assert len(json.dumps(noted)) < 8000
    assert all(value.isprintable() for value in noted.values())


def packed_json(data: bytes) -> bytes:
    """Turn JSON into msgpack, so that a text fuzzer reaches behind the codec; else as it is."""
    try:
        return bytes(msgpack.packb(json.loads(data)))
    except (ValueError, RecursionError, OverflowError):
        return data


def behind_msgpack(parser: Target) -> Target:
    """Give a parser that takes JSON for what it reads as msgpack."""
    return lambda data: parser(packed_json(data))


TARGETS: dict[str, Target] = {
    "job_record": job_record,
    "payload": payload,
    "plan": plan_of,
    "plan_json": behind_msgpack(plan_of),
    "measurement": measurement,
    "detail": detail,
    "detail_json": detail_json,
    "event": event,
    "outbox_frames": outbox_frames,
    "outbox_body": outbox_body,
    "outbox_json": behind_msgpack(outbox_body),
    "node_record": node_record,
    "node_lookup": node_lookup,
    "verified_file": verified_file,
    "node_links": node_links,
    "idle_rtts": idle_rtts,
    "idle_rtts_json": behind_msgpack(idle_rtts),
    "limits": limit_values,
    "ready_reply": ready_reply,
    "ready_reply_json": behind_msgpack(ready_reply),
    "answering_port": answering_port,
    "answer_request": answer_request,
    "answer_reply": answer_reply,
    "iperf3_report": iperf3_report,
    "icmp": icmp,
    "locker_values": locker_values,
    "locker_values_json": behind_msgpack(locker_values),
    "settings_file": settings_file,
    "ptzjepa_file": ptzjepa_file,
    "csv_file": csv_file,
    "bad_file": bad_file,
    "texts": texts,
    "refusal": refusal,
}
