"""What a fuzzer starts from: for each parser, what it is meant for."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict
from pathlib import Path

import msgpack
from samples import measurement

from coordinator.collect.csvfile import HEADER
from fuzz.network import ANSWER_SECRET
from fuzz.targets import BETWEEN, TARGETS, of_hash
from worker.model.plan import Plan, PlannedNode
from worker.model.probe import PROBES, with_options
from worker.model.version import WIRE_VERSION
from worker.probes.answer import packet
from worker.probes.answer.packet import Kind
from worker.publish import outbox
from worker.publish.outbox import Letter
from worker.transfer.answer import Answer, Request
from worker.wire import rq_jobs

DATA = Path(__file__).parent.parent / "data"

PLAN = Plan(
    nodes=(
        PlannedNode(name="a", address="10.0.0.1"),
        PlannedNode(name="b", address="fd77::2", accepts=False),
        PlannedNode(name="c", address="edge-7.lan"),
    ),
    sources=(0, 1),
    targets=(0, 1, 2),
    options=with_options(PROBES),
)
READY = Answer(port=5201, version="3.12")
REQUEST = Request(
    run="r",
    phase=3,
    performer=0,
    token="t.0",  # noqa: S106 - names a test
    number=0,
    family=4,
    idle_rtt_ms=1.5,
)
RTTS = {"b": (11.5, 10.25, "10.0.0.2"), "c": (0.25, None, "fe80::1%eth0")}
JOBS = (
    ["ptzmesh.sweep", None, [], {"run": "20260102T030405000-abcd", "phase": 0, "performer": 1}],
    ["ptzmesh.serve", None, [], asdict(REQUEST)],
)
NODE = {
    b"address": b"10.0.0.1",
    b"labels": b'{"site": "roof"}',
    b"version": b"0.1.0",
    b"wire": b"1",
    b"icmp": b"raw",
    b"iperf3": b"3.12",
    b"accepts": b"1",
    b"links": b'{"cell-7": 1}',
    b"ports": b"5201-5216",
    b"bytes_per_day": b"1000000",
    b"outbox": b"0",
    b"redis_commands_per_s": b"1.5",
    b"clock_offset_ms": b"-0.123",
    b"clock_offset_uncertainty_ms": b"0.21",
    b"stopped": b"",
}
OPERATION = ["acquire", 3, "a", 1767323045.5, "ok"]
HOLDER = {"node": "a", "pid": 7, "expire_s": 60}
TOML = b'redis = "redis://h"\n[worker]\nname = "a"\n[run]\ncount = 3\n'
YAML = b"redis:\n  host: h\n  port: 6379\n  password: 'p w'\nother: 1\n"
CELLS = b"2026-01-02T03:04:05.678Z,10.0.0.1" + b"," * (HEADER.count(b",") - 2) + b",17-3\n"


def _job(payload: object, compressed: bool) -> bytes:
    data = bytes(msgpack.packb(payload))
    return of_hash({
        b"data": zlib.compress(data) if compressed else data,
        b"origin": b"ptzmesh:node:a",
        b"timeout": b"60",
        b"status": b"queued",
        b"created_at": b"2026-01-02T03:04:05.000000Z",
        b"enqueued_at": b"2026-01-02T03:04:05.000000Z",
        b"description": b"ptzmesh.sweep",
        b"result_ttl": b"0",
        b"failure_ttl": b"86400",
        b"success_callback_name": b"",
    })  # fmt: skip


def _newer_plan() -> bytes:
    """Give a plan of which this version knows neither a probe nor an option."""
    raw = msgpack.unpackb(PLAN.packed())
    more = {"ends": 2, "target": "", "seconds": 4.5, "options": {"reverse": True, "a": 1}}
    raw["phases"] += [{**more, "probe": "quic"}, {**more, "probe": "mtu", "ends": 1}]
    raw["phases"][0]["options"]["ttl"] = 5
    return bytes(msgpack.packb(raw))


def _pinned() -> list[dict[bytes, bytes]]:
    """Give an entry of each kind of record of wire version 2."""
    pinned = json.loads((DATA / "wire2.json").read_text())
    found = []
    for name in (each for each in pinned if each != "numbers"):
        fields = {key.encode(): value.encode() for key, value in pinned[name]["fields"].items()}
        found.append(fields | {b"detail": bytes.fromhex(pinned[name]["fields"]["detail"])})
    return found


def _numbered(packed: bytes) -> bytes:
    """Give a detail in JSON, in which each key is a text."""
    return json.dumps(msgpack.unpackb(packed, strict_map_key=False)).encode()


def _as_json(packed: bytes) -> bytes:
    return json.dumps(msgpack.unpackb(packed)).encode()


def _icmp() -> list[bytes]:
    error = bytes.fromhex("71000000020301000000000000000000") + bytes.fromhex("020000000a000001")
    from worker.probes.icmp.packet import NONCE_BYTES, EchoCodec

    echoes = []
    for family, kind in ((2, 0), (10, 129)):
        codec = EchoCodec(family, identifier=7, nonce=b"n" * NONCE_BYTES, targets=3, size_bytes=56)
        request = codec.request(5)
        echoes += [request, bytes([kind]) + request[1:]]
    return [*echoes, bytes([0x45]) + bytes(19) + echoes[1], error]


def _asked(kind: Kind) -> bytes:
    return packet.request(kind, "a", ANSWER_SECRET, packet.LEAST_BYTES + 10)


EVENT = {
    b"v": str(WIRE_VERSION).encode(),
    b"kind": b"event",
    b"time": b"2026-01-02T03:04:05.678Z",
    b"node": b"cam-1",
    b"what": b"address",
    b"old": b"10.0.0.1",
    b"new": b"",
}


def seeds() -> dict[str, list[bytes]]:
    """Give the seeds of every parser."""
    letters = [Letter(n, measurement(n)) for n in (1, 3)]
    frames = [outbox._frame(letter) for letter in letters]
    bodies = [frame[outbox.HEADER_BYTES :] for frame in frames]
    ready = READY.packed()
    found = {
        "job_record": [_job(payload, packed) for payload in JOBS for packed in (True, False)],
        "payload": [bytes(msgpack.packb(job)) for job in JOBS],
        "plan": [PLAN.packed(), _newer_plan()],
        "plan_json": [_as_json(PLAN.packed()), _as_json(_newer_plan())],
        "measurement": [of_hash(entry) for entry in _pinned()],
        "detail": [entry[b"detail"] for entry in _pinned()],
        "detail_json": [_numbered(entry[b"detail"]) for entry in _pinned()],
        "event": [of_hash(EVENT)],
        "outbox_frames": [*frames, b"".join(frames)],
        "outbox_body": bodies,
        "outbox_json": [json.dumps([1, {"v": "1", "run": "r", "error": ""}]).encode()],
        "node_record": [of_hash(NODE)],
        "node_lookup": [
            BETWEEN.join(
                (
                    *(b"10.0.0.1", b"b-1", b"402", b"3c:37:12:00:00:01", b'{"site": "roof"}'),
                    *(b"1767323045.5", b"", b"1.5"),
                )
            ),
            BETWEEN.join((b"10.0.0.1", b"", b"", b"", b"[]", b"", b"1", b"nan")),
        ],
        "verified_file": [b'{"a|10.0.0.1||10.0.0.2|b|1.5": 4102444800.0, "c": 1}', b"[]", b"{}"],
        "node_links": [b'{"cell-7": 1, "hub": 2}', b"1000000"],
        "idle_rtts": [bytes(msgpack.packb(RTTS)), b"1.5"],
        "idle_rtts_json": [json.dumps(RTTS).encode()],
        "limits": [of_hash({b"a": b"1000000", b"b": b"268435456", b"c": b"1", b"d": b"2"})],
        "ready_reply": [ready],
        "ready_reply_json": [_as_json(ready)],
        "answering_port": [b"0a" * 16, b"0a" * 16 + b" 5216", b"0a" * 16 + b" 0"],
        "answer_request": [_asked(kind) for kind in Kind],
        "answer_reply": [packet.answer(_asked(kind), "b", ANSWER_SECRET) or b"" for kind in Kind],
        "iperf3_report": [path.read_bytes() for path in sorted(DATA.glob("iperf3-*"))],
        "icmp": _icmp(),
        "locker_values": [bytes(msgpack.packb(value)) for value in (OPERATION, HOLDER)],
        "locker_values_json": [json.dumps(value).encode() for value in (OPERATION, HOLDER)],
        "settings_file": [TOML],
        "ptzjepa_file": [YAML],
        "csv_file": [HEADER, HEADER[:9], HEADER + CELLS, HEADER + CELLS + CELLS[:30]],
        "bad_file": [b'{"stream_id": "1-0", "why": "x", "fields": {}}\n{"stre'],
        "texts": [
            t.encode()
            for t in (
                "cam-7",
                "10.0.0.1",
                "::ffff:127.0.0.1",
                "fe80::1%eth0",
                "0x7f000001",
                "127.1",
                "localhost",
                "224.0.0.1",
                "22:30-05:00",
                "5201-5216",
                "cell-7=1",
            )
        ],
        "refusal": [b"job", b"\x1b[31mred\n"],
    }
    assert found.keys() == TARGETS.keys()
    assert max(map(len, found["job_record"])) < rq_jobs.MAX_PAYLOAD_BYTES
    return found
