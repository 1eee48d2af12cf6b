"""Nothing that stands in Redis becomes an argument of iperf3 unless it was checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import msgpack
import pytest

from worker.model.errors import WireError
from worker.model.options import ThroughputOptions, UdpOptions
from worker.model.plan import Plan, PlannedNode, unpack_plan
from worker.probes.iperf3.client import client_argv
from worker.probes.iperf3.record import Ends
from worker.probes.iperf3.tool import Iperf3

IPERF3 = Iperf3("/usr/bin/iperf3", "3.12", (3, 12))
PLAN = Plan(
    nodes=(PlannedNode(name="a", address="10.0.0.1"), PlannedNode(name="b", address="b.lan")),
    sources=(0, 1),
    targets=(0, 1),
    options={
        "throughput": ThroughputOptions(duration_s=1, bitrate_mbps=5, congestion="cubic", dscp=8),
        "udp": UdpOptions(duration_s=1, bitrate_mbps=5),
    },
)
HOSTILE = (
    "--server", "-D", "--logfile=/etc/passwd", "-F/etc/shadow", "10.0.0.1 --server", "x;reboot",
    "$(reboot)", "`reboot`", "../../etc", "a\n-s", "", "\x00", "cubic --server", b"--server", -1, 0,
    1e308, float("nan"), float("inf"), 2**62, True, None, ["--server"], {"a": "--server"},
)  # fmt: skip

FLAGS = {
    "--client", "--port", "--json", "--connect-timeout", "--parallel", "--time", "--omit",
    "--bytes", "--bitrate", "--length", "--udp", "--congestion", "--dscp", "--reverse", "--bidir",
}  # fmt: skip
#: A number, the name of a module, an address or a host name: nothing with a dash in front.
VALUE = re.compile(r"\d{1,19}|[A-Za-z0-9][A-Za-z0-9.:%_-]*")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the path of every value in a packed plan."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in inner:
        yield (*path, key)
        if isinstance(one, (dict, list)):
            yield from places(one, (*path, key))


def changed(raw: dict[str, Any], path: tuple[Any, ...], value: object) -> bytes:
    copy = deepcopy(raw)
    place: Any = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return bytes(msgpack.packb(copy))


def commands(plan: Plan) -> Iterator[list[str]]:
    for probe in [p for p in plan.probes if plan.kind(p).has_two_ends and not plan.lacks(p)]:
        for performer in range(len(plan.nodes)):
            for one in plan.encounters(probe, performer):
                near, far = plan.nodes[performer], plan.nodes[one.far]
                ends = Ends(run="r", near=near, far=far, port=5201)
                for options in one.tests:
                    yield client_argv(IPERF3, ends, options, None)


def test_a_plan_that_was_tampered_with_gives_iperf3_no_argument_of_its_own() -> None:
    raw = msgpack.unpackb(PLAN.packed())
    taken = 0
    for path in places(raw):
        for hostile in HOSTILE:
            try:
                plan = unpack_plan(changed(raw, path, hostile))
            except WireError:
                continue
            for argv in commands(plan):
                taken += 1
                assert argv[0] == IPERF3.path
                for word in argv[1:]:
                    assert word in FLAGS or VALUE.fullmatch(word), f"{path} {hostile!r}: {argv}"
    assert taken > 100


@pytest.mark.parametrize("field", ["address", "name"])
@pytest.mark.parametrize("hostile", [one for one in HOSTILE if isinstance(one, str)])
def test_an_address_or_name_that_is_none_makes_the_whole_plan_refused(
    field: str, hostile: str
) -> None:
    raw = msgpack.unpackb(PLAN.packed())
    with pytest.raises(WireError):
        unpack_plan(changed(raw, ("nodes", 0, field), hostile))
