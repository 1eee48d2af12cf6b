"""`network_stats` reads as PTZJEPA's does, and does not grow."""

from __future__ import annotations

from worker.monitor.network.stats import NetworkStats


def test_reads_as_a_dict_of_lists() -> None:
    stats = NetworkStats()
    stats.add("hub", {"host": "hub", "latency_ms": 1.0})
    assert stats["hub"][-1]["latency_ms"] == 1.0
    assert stats["never"] == []
    assert ("hub" in stats, "never" in stats) == (True, False)
    assert {host: len(metrics) for host, metrics in stats.items()} == {"hub": 1}


def test_memory_is_bounded_and_the_newest_stay() -> None:
    stats = NetworkStats(max_hosts=3, max_metrics=5)
    for number in range(100):
        stats.add(f"host-{number % 10}", {"n": number})
    assert list(stats) == ["host-7", "host-8", "host-9"]
    for number in range(10):
        stats.add("host-9", {"n": number})
    assert [metrics["n"] for metrics in stats["host-9"]] == [5, 6, 7, 8, 9]


def test_what_is_given_out_is_a_copy() -> None:
    stats = NetworkStats()
    stats.add("hub", {"latency_ms": 1.0})
    stats["hub"][0]["latency_ms"] = 2.0
    stats["hub"].clear()
    assert stats["hub"] == [{"latency_ms": 1.0}]
