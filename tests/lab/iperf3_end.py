"""
One end of an iperf3 test, run on a node of the lab: `serve` or `measure`, with JSON as argument.

`serve` prints the port once it listens, and at the end how it ended; `measure` prints one JSON
object a measurement.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from worker.model.options import ThroughputOptions, UdpOptions
from worker.model.plan import PlannedNode, TargetNode
from worker.probes.iperf3.client import measure
from worker.probes.iperf3.record import Ends
from worker.probes.iperf3.server import serve_one_test
from worker.probes.iperf3.tool import find_iperf3


def say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def serve(asked: dict[str, Any]) -> None:
    iperf3 = find_iperf3()
    assert not iperf3.fault
    ended = serve_one_test(
        iperf3,
        asked["address"],
        range(5201, 5204),
        idle_s=asked["idle_s"],
        deadline_s=asked["deadline_s"],
        on_ready=say,
    )
    say([ended.outcome.value, ended.error, ended.port])


def ask(asked: dict[str, Any]) -> None:
    ends = Ends(
        run="r1",
        near=PlannedNode(name="near", address=asked["near"]),
        far=TargetNode(name="far", address=asked["far"]),
        port=asked["port"],
        far_version="3.12",
    )
    kind = UdpOptions if asked["udp"] else ThroughputOptions
    found = measure(
        ends,
        kind(**asked["options"]),
        iperf3=find_iperf3(),
        idle_rtt_ms=asked["idle_rtt_ms"],
    )
    for measurement in found:
        say(measurement.to_json())


if __name__ == "__main__":
    {"serve": serve, "measure": ask}[sys.argv[1]](json.loads(sys.argv[2]))
