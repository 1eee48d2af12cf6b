"""
A test of one target over time: its rounds, and the JSON document they make.

Pure. What nothing answered is None in every list, and null in the document.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import fmean
from typing import Any

from coordinator.series.options import SeriesOptions
from worker.model.detail import times_to_ns
from worker.model.measurement import Measurement
from worker.model.rtt import packet_loss_pct, rtt_statistics
from worker.model.text import in_time, iso_utc
from worker.wire.clock_offset import beyond_doubt_ms

#: Version of the JSON document; raised whenever a key changes its meaning.
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one source measured in one interval: `number` counts these from 0."""

    number: int
    ping: Measurement
    throughput: Measurement | None = None

    @property
    def source(self) -> str:
        """Who measured."""
        return self.ping.source

    @property
    def started_at(self) -> datetime:
        """When the first echo was sent: on Redis' clock where the node's differs beyond doubt."""
        detail = self.ping.detail
        if not beyond_doubt_ms(detail.clock_offset_ms, detail.clock_offset_uncertainty_ms):
            return self.ping.started_at
        return self.ping.started_at - timedelta(milliseconds=detail.clock_offset_ms or 0.0)

    @property
    def latency_ms(self) -> float | None:
        """Mean round-trip time; None when nothing answered."""
        return self.ping.latency_ms

    @property
    def packet_loss_pct(self) -> float | None:
        """Loss in percent; None when nothing was sent."""
        return self.ping.packet_loss_pct

    @property
    def throughput_mbps(self) -> float | None:
        """Goodput; None when there was no test, or it failed."""
        return self.throughput.throughput_mbps if self.throughput else None

    def to_json(self) -> dict[str, Any]:
        """Return one JSON-ready object: the ping's record, and the throughput test's within."""
        record = {"round": self.number, **_record(self.ping)}
        record["started_at"] = iso_utc(self.started_at)
        if self.throughput is not None:
            record["throughput_mbps"] = self.throughput_mbps
            record["throughput"] = _record(self.throughput)
        return record


@dataclass(kw_only=True)
class Totals:
    """One source's rounds as they add up; cheap, as a live view asks after every round."""

    rounds: int = 0
    answered: int = 0
    sent: int = 0
    received: int = 0
    rtts: int = 0
    rtt_sum_ms: float = 0.0
    rtt_max_ms: float | None = None

    def add(self, measured: Round) -> None:
        """Take a round."""
        self.rounds += 1
        if (trips := measured.ping.round_trips) is None:
            return
        rtts_ms = trips.answered_rtts_ms
        self.answered += bool(trips.received)
        self.sent += trips.sent
        self.received += trips.received
        self.rtts += len(rtts_ms)
        self.rtt_sum_ms += sum(rtts_ms)
        self.rtt_max_ms = max([*rtts_ms, self.rtt_max_ms or 0.0]) if self.rtts else None

    @property
    def rtt_mean_ms(self) -> float | None:
        """Mean of all echoes; None when nothing answered."""
        return self.rtt_sum_ms / self.rtts if self.rtts else None

    @property
    def packet_loss_pct(self) -> float | None:
        """Loss of all echoes; None when nothing was sent."""
        return packet_loss_pct(self.sent, self.received)


@dataclass(kw_only=True)
class Series:
    """
    A test as far as it has come.

    Attributes:
        target: As it was asked for.
        address: The address that is measured.
        ended_at: None while it goes on.
        interrupted: Somebody ended it early.
        arrived: What has arrived, by source.
        totals: The same, added up.
    """

    target: str
    address: str
    sources: Sequence[str]
    options: SeriesOptions
    started_at: datetime
    ended_at: datetime | None = None
    interrupted: bool = False
    arrived: dict[str, list[Round]] = field(init=False)
    totals: dict[str, Totals] = field(init=False)

    def __post_init__(self) -> None:
        """Begin without rounds."""
        self.arrived = {source: [] for source in self.sources}
        self.totals = {source: Totals() for source in self.sources}

    def add(self, measured: Round) -> None:
        """Take a round."""
        self.arrived[measured.source].append(measured)
        self.totals[measured.source].add(measured)

    def of(self, source: str) -> list[Round]:
        """Return one source's rounds in order of time; one that was late may have come last."""
        return sorted(self.arrived[source], key=lambda measured: measured.started_at)

    @property
    def last_number(self) -> int | None:
        """The last round of which anything has arrived; None before the first."""
        return max((each[-1].number for each in self.arrived.values() if each), default=None)

    @property
    def title(self) -> str:
        """What is tested, and by whom."""
        named = "" if self.address == self.target else f" ({self.address})"
        by = self.sources[0] if len(self.sources) == 1 else f"{len(self.sources)} nodes"
        echoes = f"{self.options.count} echo" + ("" if self.options.count == 1 else "es")
        tested = " and throughput" if self.options.throughput else ""
        every, total = in_time(self.options.interval_s), in_time(self.options.duration_s)
        return f"{self.target}{named} from {by}: {echoes}{tested} every {every} for {total}"

    def summary(self, source: str) -> dict[str, Any]:
        """Summarise one source's rounds in a few numbers, each None when it is not defined."""
        mine, totals = self.of(source), self.totals[source]
        trips = [each.ping.round_trips for each in mine if each.ping.round_trips]
        rtts = rtt_statistics([rtt for each in trips for rtt in each.rtts_ms])
        mbps = [each.throughput_mbps for each in mine if each.throughput_mbps is not None]
        return {
            "rounds": totals.rounds,
            "answered": totals.answered,
            "sent": totals.sent,
            "received": totals.received,
            "packet_loss_pct": totals.packet_loss_pct,
            "rtt_min_ms": rtts.rtt_min_ms,
            "rtt_mean_ms": rtts.rtt_mean_ms,
            "rtt_median_ms": rtts.rtt_median_ms,
            "rtt_p95_ms": rtts.rtt_p95_ms,
            "rtt_max_ms": rtts.rtt_max_ms,
            "throughput_min_mbps": min(mbps, default=None),
            "throughput_mean_mbps": fmean(mbps) if mbps else None,
            "throughput_max_mbps": max(mbps, default=None),
        }

    def failures(self) -> list[str]:
        """Return what never came, a line each: a source without an answer, or without a test."""
        lines = []
        for source in self.sources:
            mine = self.of(source)
            if not self.totals[source].answered:
                why = _why([each.ping for each in mine])
                lines.append(f"{self.target} never answered {source}{why}")
            tests = [each.throughput for each in mine if each.throughput is not None]
            if self.options.throughput and all(t.throughput_mbps is None for t in tests):
                lines.append(f"no throughput test from {source} ended well{_why(tests)}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """
        Return the document: first the keys of PTZJEPA's own tool, then ours.

        Its lists are the first source's; `series` has the same ones of each source.
        """
        ping = self.options.ping
        each = [self._source_json(source) for source in self.sources]
        return {
            "target": self.target,
            "test_duration": _plain(self.options.duration_s),
            "interval": _plain(self.options.interval_s),
            **{name: each[0][name] for name in ("timestamps", "latencies", "packet_losses")},
            "schema": SCHEMA,
            "address": self.address,
            "sources": list(self.sources),
            "started_at": iso_utc(self.started_at),
            "ended_at": iso_utc(self.ended_at) if self.ended_at else None,
            "interrupted": self.interrupted,
            "rounds_planned": self.options.rounds,
            "count": ping.count,
            "echo_interval_s": ping.interval_s,
            "wait_s": ping.wait_s,
            "size_bytes": ping.size_bytes,
            "warm_up": ping.warm_up,
            "series": each,
        }

    def _source_json(self, source: str) -> dict[str, Any]:
        mine = self.of(source)
        lists: dict[str, Any] = {
            "timestamps": [iso_utc(each.started_at) for each in mine],
            "latencies": [each.latency_ms for each in mine],
            "packet_losses": [each.packet_loss_pct for each in mine],
        }
        if self.options.throughput is not None:
            lists["throughputs"] = [each.throughput_mbps for each in mine]
        summary, rounds = times_to_ns(self.summary(source)), [each.to_json() for each in mine]
        return {"source": source, **lists, "summary": summary, "rounds": rounds}


def file_stem(target: str, epoch: int) -> str:
    """
    Name a test's files as PTZJEPA's own tool does.

    >>> file_stem("10.0.0.1", 1700000000), file_stem("fe80::1%eth0", 1700000000)
    ('network_test_10_0_0_1_1700000000', 'network_test_fe80__1_eth0_1700000000')
    """
    return f"network_test_{re.sub(r'[^A-Za-z0-9-]', '_', target)}_{epoch}"


def _record(measurement: Measurement) -> dict[str, Any]:
    """Return a measurement's record without its place in a stream, which is the collector's."""
    record = measurement.to_json()
    del record["stream_id"]
    return record


def _why(measurements: Sequence[Measurement]) -> str:
    """Return the last error as the end of a sentence."""
    errors = [each.error for each in measurements if each.error]
    return f": {errors[-1]}" if errors else ""


def _plain(seconds: float) -> float | int:
    """Write whole seconds as such, as PTZJEPA's own tool does."""
    return int(seconds) if seconds == int(seconds) else seconds
