"""The tests of near with one far node, under a lease of both."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import redis

from worker.identity.sizes import path_mtu
from worker.model.measurement import Measurement, Outcome
from worker.model.options import deadline_s
from worker.model.plan import Encounter, TargetNode
from worker.probes.iperf3.carried import carried_bytes
from worker.probes.iperf3.client import measure
from worker.probes.iperf3.record import Ends, Options, findings
from worker.probes.iperf3.tool import Iperf3
from worker.transfer.answer import Answer, Request
from worker.transfer.asking import LEASE_LOST, Gone, ask, last_word, no_longer_heard
from worker.transfer.keeper import Keeper
from worker.transfer.leases import Lease
from worker.wire.connection.away import AWAY
from worker.wire.rows import Row, end_lost

logger = logging.getLogger(__name__)

#: What a test ends with whose far end died in it.
ENDS_AS_LOST = (Outcome.TIMEOUT, Outcome.BAD_REPLY, Outcome.NO_REPLY)
#: What a client's test ends with whose server failed.
SERVER_MAY_HAVE_FAILED = (Outcome.BAD_REPLY, Outcome.TIMEOUT, Outcome.REFUSED)
#: RQ's time-out of far's job, beyond the test's own deadline.
SERVE_EXTRA_S = 60


@dataclass
class Meeting:
    """
    The tests of one encounter.

    Attributes:
        connection: To the mesh's Redis.
        iperf3: Near's.
        row: Near's.
        encounter: What near tests with far.
        lease: Of both.
        idle_rtt_ms: Between the two; None where it is not known.
        should_stop: Asked a few times a second.
        results: The measurements.
        broken_off: Of a test that was ended with its row: it is measured again, or unwanted.
    """

    connection: redis.Redis
    iperf3: Iperf3
    row: Row
    encounter: Encounter
    lease: Lease
    idle_rtt_ms: float | None
    should_stop: Callable[[], bool]
    results: list[Measurement] = field(default_factory=list)
    broken_off: list[Measurement] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Name the two ends; far has yet to answer its port."""
        nodes = self.row.plan.nodes
        near, far = nodes[self.row.performer], nodes[self.encounter.far]
        assert isinstance(far, TargetNode)  # noqa: S101 - `sweep` leaves no other pair
        self.far, self.ends = far, Ends(run=self.row.run, near=near, far=far, port=0)

    def hold(self) -> None:
        """Do the tests, one after the other, until stopped."""
        # Of a test with a bound the worst case is reserved.
        is_bounded = self.row.plan.test(self.row.probe).worst_case_bytes is not None
        carried = None if is_bounded else partial(carried_bytes, self.far.address)
        keeper = Keeper(self.connection, self.lease, carried=carried)
        # Far was looked up as the lease was taken; before a later test that is a while ago.
        known = self.lease.found.far_missing_s if self.lease.found else None
        for number, options in enumerate(self.encounter.tests):
            request = self._request(number)
            answer = self._ask(request, options, keeper, None if number else known)
            if answer is None:
                return
            if isinstance(answer, Gone):
                nothing = findings(self.ends, options, Outcome.TARGET_LOST, "")
                self.results += self._lost(nothing, answer)
            elif answer.outcome is not Outcome.OK:
                self.results += findings(self.ends, options, answer.outcome, answer.error)
            else:
                measured = self._measure(options, answer, keeper)
                if measured[0].outcome is not Outcome.CANCELLED:
                    self.results += self._unless_lost(self._with_last_word(request, measured))
                elif self.should_stop():
                    self.broken_off = measured
                    return
                else:
                    self.results += [
                        replace(one, outcome=Outcome.TARGET_BUSY, error=LEASE_LOST)
                        for one in measured
                    ]

    def _request(self, number: int) -> Request:
        return Request(
            run=self.row.run,
            phase=self.row.phase,
            performer=self.row.performer,
            token=f"{self.lease.token}.{number}",
            number=number,
            family=6 if ":" in self.far.address else 4,
            idle_rtt_ms=self.idle_rtt_ms,
        )

    def _ask(
        self, request: Request, options: Options, keeper: Keeper, missing_s: float | None
    ) -> Answer | Gone | None:
        try:
            return ask(
                self.connection,
                self.far.name,
                request,
                timeout_s=int(deadline_s(options, self.idle_rtt_ms)) + SERVE_EXTRA_S,
                keeper=keeper,
                should_stop=self.should_stop,
                missing_s=missing_s,
                far_way_s=self.lease.way_s,
            )
        except AWAY as exc:
            return Answer(outcome=Outcome.TIMEOUT, error=f"Redis was away: {exc}")

    def _measure(self, options: Options, answer: Answer, keeper: Keeper) -> list[Measurement]:
        return measure(
            replace(self.ends, port=answer.port, far_version=answer.version or None),
            options,
            iperf3=self.iperf3,
            idle_rtt_ms=self.idle_rtt_ms,
            should_stop=lambda: self.should_stop() or keeper.lost(),
            find_mtu=partial(path_mtu, self.connection, self.row.name, self.far.name),
        )

    def _with_last_word(self, request: Request, measured: list[Measurement]) -> list[Measurement]:
        """Add far's word of its own failure, of which near saw the consequence."""
        if measured[0].outcome not in SERVER_MAY_HAVE_FAILED:
            return measured
        word = last_word(self.connection, self.far.name, request, self.lease.way_s)
        return [replace(one, error=f"{word}{_here(one)}") for one in measured] if word else measured

    def _unless_lost(self, measured: list[Measurement]) -> list[Measurement]:
        """Mark a test that failed where far is gone by now."""
        if measured[0].outcome not in ENDS_AS_LOST:
            return measured
        try:
            gone = no_longer_heard(self.connection, self.far.name)
        except AWAY as exc:
            logger.debug("it is not known whether %s is gone: %s", self.far.name, exc)
            return measured
        return self._lost(measured, gone) if gone else measured

    def _lost(self, measured: list[Measurement], gone: Gone) -> list[Measurement]:
        """Mark each pair with which of its ends is far, which is gone."""
        return [
            replace(one, outcome=outcome, error=f"{error}{_here(one)}")
            for one in measured
            for outcome, error in [end_lost(one.source, self.far.name, gone.why)]
        ]


def _here(measurement: Measurement) -> str:
    return f" (here: {measurement.error})" if measurement.error else ""
