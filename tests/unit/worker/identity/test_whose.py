"""What a row's records say of pairs whose other node is another machine. Pure."""

from __future__ import annotations

from pathlib import Path

from worker.identity.context import NodeContext
from worker.identity.identity import Allowance
from worker.identity.whose import Whose
from worker.model.measurement import Outcome
from worker.model.names import IpLiteral
from worker.model.options import ThroughputOptions
from worker.model.plan import Plan, PlannedNode, TargetNode
from worker.model.policy import Policy
from worker.probes.iperf3.tool import NOT_THERE
from worker.wire.node_record import Record
from worker.wire.rows import Row

A, B = PlannedNode(name="a", address="192.0.2.1"), PlannedNode(name="b", address="b.example")
#: B's name leads to this very machine, which B is not.
HERE = TargetNode(name="b", address=IpLiteral("127.0.0.1"))


def test_address_of_a_wrong_host_is_that_of_the_target_whichever_end_performs() -> None:
    plan = Plan(
        nodes=(A, B),
        sources=(0, 1),
        targets=(0, 1),
        options={"throughput": ThroughputOptions(reverse=True)},
    )
    context = NodeContext(
        name="a", address=A.address, redis_url="redis://nowhere", outbox_path=Path("a.outbox"),
        policy=Policy(), iperf3=NOT_THERE, should_stop=lambda: False,
    )  # fmt: skip
    records = {"b": Record(address="b.example", boot="another", netns="1", seen_s=1.0)}
    whose = Whose(
        context=context,
        row=Row(run="r", plan=plan, phase=0, performer=0),
        records=records,
        allowed=Allowance(9),
    )
    found = whose.part({(0, 1): HERE, (1, 0): HERE}, lambda: False).findings
    assert [(one.outcome, one.source, one.target, one.address) for one in found] == [
        (Outcome.WRONG_HOST, "a", "b", "127.0.0.1"),
        (Outcome.WRONG_HOST, "b", "a", "192.0.2.1"),
    ]


def test_two_names_that_lead_to_one_address_are_asked_whose_it_is() -> None:
    """As of a name whose owner has another address by now, and which DNS does not know yet."""
    nodes = tuple(PlannedNode(name=name, address=f"{name}.example") for name in "abc")
    plan = Plan(nodes=nodes, sources=(0,), targets=(1, 2))
    context = NodeContext(
        name="a", address=A.address, redis_url="redis://127.0.0.1:1",
        outbox_path=Path("missing/a.outbox"), policy=Policy(), iperf3=NOT_THERE,
        should_stop=lambda: False,
    )  # fmt: skip
    records = {
        node.name: Record(address=node.address, boot=node.name, netns="1", seen_s=1.0)
        for node in nodes
    }
    row = Row(run="r", plan=plan, phase=0, performer=0)
    b, c = (TargetNode(name=name, address=IpLiteral("192.0.2.7")) for name in "bc")
    parted = Whose(context=context, row=row, records=records, allowed=Allowance(9)).part(
        {(0, 1): b, (0, 2): c}, lambda: False
    )
    assert not parted.ready
    assert {one.target: one.outcome for one in parted.findings} == {
        "b": Outcome.UNVERIFIED,
        "c": Outcome.UNVERIFIED,
    }
    # The one that was looked up first is known when the other is.
    whose = Whose(context=context, row=row, records=records, allowed=Allowance(9))
    assert whose.part({(0, 1): b}, lambda: False).ready
    assert not whose.part({(0, 2): c}, lambda: False).ready
