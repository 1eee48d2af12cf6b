"""The drop-in and an unchanged PTZJEPA on the same lockers; what is recorded, and who is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from locker_contender import INSIDE, LOCKERS
from ptzjepa import OlderLockers, UnchangedLockers
from waiting import wait_until

from coordinator.embedded import EmbeddedServer, embedded_server
from worker.model.measurement import Measurement, Outcome
from worker.monitor import MultiLockerSystem, guard, process, read_lockers, watch_lockers
from worker.monitor.beside import Beside
from worker.monitor.lockers import lockers
from worker.monitor.lockers.lockers import MEASURED_SHARE
from worker.monitor.lockers.notes import note
from worker.wire import keyspace

pytestmark = pytest.mark.redis

TESTS = Path(__file__).parents[1]
PREFIX = "file_lockers"
SYSTEMS = (MultiLockerSystem, UnchangedLockers)
MakeLockers = Callable[..., Any]


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PTZMESH_NODE", "cam-7")
    for name in ("PTZMESH_REDIS_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(process, "_process", process._Process())
    monkeypatch.setattr(guard, "_logged_at", {})
    yield
    process.recorder().close(0.0)


@pytest.fixture
def server(server_binary: Path, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """PTZJEPA connects by host and port."""
    with embedded_server(tmp_path / "tcp", binary=server_binary, unix=False) as running:
        yield running


@pytest.fixture
def plain(server: EmbeddedServer) -> Iterator[redis.Redis]:
    opened = redis.Redis.from_url(server.url)
    yield opened
    opened.close()


@pytest.fixture
def make(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeLockers]:
    """Make systems of either class that do not wait long."""
    monkeypatch.setattr(lockers.MultiLockerSystem, "_measure_beside", lambda _self: None)
    url, made = urlsplit(server.url), []

    def factory(kind: MakeLockers, **options: float) -> Any:
        chosen = {"expire_in_sec": 60, "acquire_timeout": 0.25, **options}
        system = kind(url.hostname, url.port, url.password, PREFIX, 4, **chosen)
        made.append(system)
        return system

    yield factory
    for system in made:
        system.redis.close()


def records(plain: redis.Redis, count: int) -> list[Measurement]:
    """Wait for so many locker records and give them."""
    wait_until(lambda: plain.xlen(keyspace.RESULTS) >= count, f"{count} records are in the stream")
    entries: Any = plain.xrange(keyspace.RESULTS)
    return [Measurement.from_fields(fields) for _, fields in entries]


@pytest.mark.parametrize("holder", SYSTEMS)
@pytest.mark.parametrize("other", SYSTEMS)
def test_whoever_holds_a_locker_keeps_the_other_out(
    make: MakeLockers, plain: redis.Redis, holder: MakeLockers, other: MakeLockers
) -> None:
    first, second = make(holder), make(other)
    assert first.acquire_locker(0) == 0
    assert plain.get(f"{PREFIX}:0") == first.identifier.encode()
    assert 30_000 < plain.pttl(f"{PREFIX}:0") <= 60_000
    assert second.acquire_locker(0) is None
    assert first.acquire_locker(0) is None
    assert second.release_locker(0) is False
    assert first.release_locker(0) is True
    assert first.release_locker(0) is False
    assert second.acquire_locker(0) == 0


@pytest.mark.parametrize("holder", SYSTEMS)
@pytest.mark.parametrize("other", SYSTEMS)
def test_an_expired_locker_is_the_next_ones_and_not_freed_by_the_last(
    make: MakeLockers, plain: redis.Redis, holder: MakeLockers, other: MakeLockers
) -> None:
    first, second = make(holder, expire_in_sec=1), make(other)
    assert first.acquire_locker(3) == 3
    wait_until(lambda: not plain.exists(f"{PREFIX}:3"), "locker 3 expires")
    assert second.acquire_locker(3) == 3
    assert first.release_locker(3) is False
    assert second.release_locker(3) is True


def test_the_older_call_takes_whichever_locker_is_free(
    server: EmbeddedServer, make: MakeLockers, plain: redis.Redis
) -> None:
    url = urlsplit(server.url)
    older = OlderLockers(str(url.hostname), url.port or 0, url.password, PREFIX, 4, 60)
    ours, numbered = make(MultiLockerSystem, expire_in_sec=1), make(UnchangedLockers)
    assert older.acquire_locker() == 0
    assert ours.acquire_locker() == 1
    assert 0 < plain.pttl(f"{PREFIX}:1") <= 1_000
    assert (numbered.acquire_locker(2), numbered.acquire_locker(3)) == (2, 3)
    wait_until(lambda: not plain.exists(f"{PREFIX}:1"), "locker 1 expires")
    assert ours.release_locker(1) is False
    assert older.acquire_locker() == 1
    assert ours.acquire_locker() is None
    assert numbered.release_locker(2) is True
    assert ours.acquire_locker() == 2
    assert ours.release_locker(2) is True
    last = [one for one in records(plain, 5) if one.error.startswith("each locker")]
    assert [(one.target, one.detail.more["locker"]) for one in last] == [(f"{PREFIX}:any", None)]
    waiters = read_lockers(plain, PREFIX, None).waiters
    assert None in [waiter.locker for waiter in waiters]
    older.redis.close()


def test_expiry_where_none_is_given(server: EmbeddedServer, plain: redis.Redis) -> None:
    url = urlsplit(server.url)
    ours = MultiLockerSystem(str(url.hostname), url.port or 0, url.password, PREFIX, 4)
    assert (ours.acquire_locker(), ours.acquire_locker(1)) == (0, 1)
    assert 5_000 < plain.pttl(f"{PREFIX}:0") <= 10_000
    assert 1_000_000 < plain.pttl(f"{PREFIX}:1") <= 1_800_000
    ours.redis.close()


def test_thousands_of_contended_acquisitions_none_lost_none_double(
    server: EmbeddedServer, plain: redis.Redis, tmp_path: Path
) -> None:
    url, rounds = urlsplit(server.url), 1500
    for n in range(LOCKERS):
        (tmp_path / f"locker-{n}").write_bytes(INSIDE.pack(0, 0))
    running = []
    for number, kind in enumerate(("ours", "unchanged") * 3):
        argv = [sys.executable, str(TESTS / "locker_contender.py"), kind, str(url.port)]
        argv += [str(url.password), str(tmp_path), str(number), str(rounds)]
        running.append(subprocess.Popen(argv, stdout=subprocess.PIPE))
    told = [json.loads(process.communicate(timeout=300)[0]) for process in running]
    taken = [sum(one["taken"][n] for one in told) for n in range(LOCKERS)]
    counted = [INSIDE.unpack((tmp_path / f"locker-{n}").read_bytes())[0] for n in range(LOCKERS)]
    assert sum(taken) == len(running) * rounds
    assert counted == taken
    assert [one["doubled"] for one in told] == [0] * len(running)
    assert [one["not_freed"] for one in told] == [0] * len(running)
    # Else the test would have tested nothing.
    assert sum(one["contended"] for one in told) > 2000
    assert not plain.exists(*(f"{PREFIX}:{n}" for n in range(LOCKERS)))


def test_each_operation_is_a_record(make: MakeLockers, plain: redis.Redis) -> None:
    # So long that it tries again and again, however long an attempt takes.
    mine, other = make(MultiLockerSystem, acquire_timeout=3.0), make(UnchangedLockers)
    mine.acquire_locker(0)
    mine.release_locker(0)
    other.acquire_locker(1)
    mine.acquire_locker(1)
    taken, freed, refused = records(plain, 3)
    assert {m.probe for m in (taken, freed, refused)} == {"locker"}
    assert (taken.source, taken.target, taken.address) == ("cam-7", f"{PREFIX}:0", "127.0.0.1")
    assert (taken.outcome, freed.outcome) == (Outcome.OK, Outcome.OK)
    assert taken.latency_ms is not None
    assert 0 < taken.latency_ms <= taken.detail.more["elapsed_s"] * 1000
    assert (taken.detail.more["operation"], taken.detail.more["contended"]) == ("acquire", 0)
    assert taken.detail.more["identifier"] == mine.identifier
    assert 0 <= freed.detail.more["held_s"] < 30
    assert freed.detail.more["expired"] is False
    assert 30 < freed.detail.more["left_s"] <= 60
    assert refused.outcome is Outcome.TARGET_BUSY
    assert refused.detail.more["contended"] == refused.detail.more["attempts"] >= 3
    assert 3.0 <= refused.detail.more["elapsed_s"] < 60


def test_a_locker_that_expired_under_its_holder_is_told(
    make: MakeLockers, plain: redis.Redis
) -> None:
    mine = make(MultiLockerSystem, expire_in_sec=1)
    mine.acquire_locker(0)
    taken_at = time.monotonic()
    wait_until(lambda: not plain.exists(f"{PREFIX}:0"), "locker 0 expires")
    held_s = time.monotonic() - taken_at
    assert mine.release_locker(0) is False
    assert mine.release_locker(0) is False
    _, expired, never_held = records(plain, 3)
    assert (expired.outcome, expired.detail.more["expired"]) == (Outcome.DENIED, True)
    # As its holder knows it: the key began to expire while the answer was on its way.
    assert held_s <= expired.detail.more["held_s"] < held_s + 30
    assert never_held.detail.more["expired"] is None


def test_a_redis_that_is_away_raises_as_it_would_and_is_recorded(
    make: MakeLockers, server: EmbeddedServer, plain: redis.Redis
) -> None:
    mine = make(MultiLockerSystem)
    server.stop()
    with pytest.raises(redis.ConnectionError):
        mine.acquire_locker(0)
    with pytest.raises(redis.ConnectionError):
        mine.release_locker(0)
    server.start()
    assert mine.acquire_locker(0) == 0
    told = records(plain, 3)
    assert [m.outcome for m in told] == [Outcome.UNREACHABLE, Outcome.UNREACHABLE, Outcome.OK]


def test_numpys_numbers_are_lockers_as_well(make: MakeLockers, plain: redis.Redis) -> None:
    numpy = pytest.importorskip("numpy")
    mine = make(MultiLockerSystem)
    assert mine.acquire_locker(numpy.int64(2)) == 2
    assert records(plain, 1)[0].detail.more["locker"] == 2


def test_the_way_to_redis_is_measured_at_start_and_on_a_tenth_of_operations(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(Beside, "submit", lambda _self, key, _job: asked.append(key))
    url = urlsplit(server.url)
    mine = MultiLockerSystem(str(url.hostname), int(url.port or 0), url.password, PREFIX, 4)
    assert asked == ["redis/127.0.0.1"]
    mine._random.seed(1)
    for _ in range(500):
        mine.acquire_locker(0)
        mine.release_locker(0)
    assert 0.05 < (len(asked) - 1) / 500 < 2 * MEASURED_SHARE
    mine.redis.close()


def test_measuring_that_fails_changes_no_operation(
    make: MakeLockers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(lockers, "record", broken)
    monkeypatch.setattr(lockers, "recorder", broken)
    mine = make(MultiLockerSystem)
    assert mine.acquire_locker(0) == 0
    assert mine.release_locker(0) is True
    assert "broken on purpose" in caplog.text


def test_the_hosts_random_numbers_are_left_alone(make: MakeLockers) -> None:
    import random

    random.seed(7)
    expected = [random.random() for _ in range(3)]
    random.seed(7)
    mine = make(MultiLockerSystem)
    found = []
    for _ in range(3):
        mine.acquire_locker(0)
        found.append(random.random())
        mine.release_locker(0)
    assert found == expected


def test_holders_waiters_and_slow_operations_are_seen(
    make: MakeLockers, plain: redis.Redis
) -> None:
    mine, other = make(MultiLockerSystem, acquire_timeout=0.35), make(UnchangedLockers)
    mine.acquire_locker(0)
    other.acquire_locker(2)
    mine.acquire_locker(2)
    records(plain, 2)
    view = read_lockers(plain)
    known, unknown = view.lockers
    assert (known.locker, known.node, known.pid) == (0, "cam-7", os.getpid())
    assert known.held_s is not None
    assert 0 <= known.held_s < 30
    assert (unknown.locker, unknown.node, unknown.held_s) == (2, None, None)
    assert unknown.identifier == other.identifier
    assert unknown.left_s is not None
    assert 30 < unknown.left_s <= 60
    (waiter,) = view.waiters
    assert (waiter.locker, waiter.node, waiter.identifier) == (2, "cam-7", mine.identifier)
    assert (view.slowest[0].locker, view.slowest[0].outcome) == (2, "target_busy")
    assert view.slowest[0].elapsed_s >= 0.35


def test_lockers_are_watched_by_their_own_redis_and_across_its_absence(
    make: MakeLockers,
    server: EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = make(MultiLockerSystem)
    mine.acquire_locker(0)
    views = watch_lockers(PREFIX, interval_s=0.01)
    assert [found.locker for found in next(views).lockers] == [0]
    server.stop()
    monkeypatch.setattr("worker.monitor.lockers.view.log_once", lambda *_args: server.start())
    assert next(views).lockers == ()
    views.close()  # type: ignore[attr-defined]  # it is a generator


def test_without_a_redis_nothing_is_watched(caplog: pytest.LogCaptureFixture) -> None:
    assert list(watch_lockers()) == []
    assert "no Redis is configured" in caplog.text


def test_as_many_lockers_are_looked_at_as_a_holder_said(
    make: MakeLockers, plain: redis.Redis
) -> None:
    mine = make(MultiLockerSystem)
    mine.num_lockers = 1234
    mine.acquire_locker(0)
    plain.set(f"{PREFIX}:1233", "far")
    records(plain, 1)
    view = read_lockers(plain)
    assert view.looked_at == 1234
    assert [(found.locker, found.left_s is None) for found in view.lockers] == [
        (0, False),
        (1233, True),
    ]


def test_rubbish_under_our_keys_does_not_hide_the_lockers(plain: redis.Redis) -> None:
    plain.set(f"{PREFIX}:0", b"\xff\xfe\n")
    plain.set("ptzmesh:monitor:holder:\ufffd\ufffd?", b"\xc1")
    plain.zadd(f"ptzmesh:monitor:waiters:{PREFIX}", {b"\xc1": 1e12, b"\x01": 1e12})
    view = read_lockers(plain)
    assert (len(view.lockers), view.waiters) == (1, ())


def test_notes_are_bounded(make: MakeLockers, plain: redis.Redis) -> None:
    mine = make(MultiLockerSystem)
    for _ in range(40):
        mine.acquire_locker(0)
        mine.release_locker(0)
    told = records(plain, 80)
    note(plain, told)
    assert len(read_lockers(plain).slowest) == 20
    for key in plain.scan_iter("ptzmesh:monitor:*"):
        assert 0 < plain.ttl(key) <= 8 * 24 * 3600


def test_no_look_scans_the_keyspace(make: MakeLockers, plain: redis.Redis) -> None:
    make(MultiLockerSystem).acquire_locker(0)
    records(plain, 1)
    plain.config_resetstat()
    read_lockers(plain)
    used = {name.removeprefix("cmdstat_") for name in plain.info("commandstats")}
    assert not used & {"keys", "scan"}
