"""`ptzmesh test` as a person runs it: from here, and from real nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import forked
import pytest
import redis
from waiting import wait_until

from coordinator.embedded import EmbeddedServer
from integration.guarded import free_port
from integration.nodes import workers
from worker.model.text import parse_iso_utc
from worker.probes.icmp.engine import icmp_capability
from worker.probes.iperf3.tool import find_iperf3
from worker.wire import keyspace

pytestmark = pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")

PROGRAM = [*forked.START, "test"]
#: A network of its own, whose loopback answers no echo: nothing outside can answer for it.
SILENT = [
    "unshare", "--user", "--map-root-user", "--net", "sh", "-ec",
    'ip link set lo up; echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all; exec "$@"', "sh",
]  # fmt: skip


def environment(url: str | None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("PTZMESH_REDIS_URL", "REDIS_URL")}
    return kept | ({"PTZMESH_REDIS_URL": url} if url else {})


def run(
    folder: Path, *words: str, url: str | None = None, before: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    if before is None:
        return forked.run([*PROGRAM, *words], env=environment(url), timeout=300)
    command = [*before, *PROGRAM, *words]
    return subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env=environment(url),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@contextmanager
def under_way(
    folder: Path, *words: str, url: str | None = None
) -> Iterator[tuple[subprocess.Popen[str], list[dict[str, Any]]]]:
    """Run a test with --json; its rounds come into the list as they are printed."""
    process = forked.start(
        [*PROGRAM, *words, "--json", "--out", str(folder)],
        env=environment(url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    rounds: list[dict[str, Any]] = []

    def read() -> None:
        assert process.stdout is not None
        rounds.extend(json.loads(line) for line in process.stdout)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield process, rounds
    finally:
        process.kill()
        reader.join()
        process.communicate()


def document(folder: Path) -> dict[str, Any]:
    (found,) = folder.glob("network_test_*.json")
    loaded: dict[str, Any] = json.loads(found.read_text())
    return loaded


def pictures(folder: Path) -> list[Path]:
    found = list(folder.glob("network_test_*.png"))
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in found)
    return found


def check_places(series: dict[str, Any], begun: str, interval_s: float, planned: int) -> None:
    """Each round is at its place; one that a busy machine held up came late, or was left out."""
    numbers = [one["round"] for one in series["rounds"]]
    assert numbers == sorted(set(numbers) & set(range(planned)))
    assert len(numbers) >= 2
    for number, text in zip(numbers, series["timestamps"], strict=True):
        after_s = (parse_iso_utc(text) - parse_iso_utc(begun)).total_seconds()
        # When the one before began late, up to half an interval before its place.
        assert after_s > (number - 0.5) * interval_s - 0.01


# --- from here


def test_files_have_the_keys_and_names_of_ptzjepa_s_own_tool(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    began = time.time()
    done = run(tmp_path, "127.0.0.1", "-d", "6", "-i", "2", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = document(tmp_path)
    assert (found["target"], found["test_duration"], found["interval"]) == ("127.0.0.1", 6, 2)
    check_places(found["series"][0], found["started_at"], 2, 3)
    times = [parse_iso_utc(text).timestamp() for text in found["timestamps"]]
    assert began - 0.01 < times[0] < times[-1] < time.time()
    assert len(found["latencies"]) == len(times)
    assert all(0 < latency < 1000 for latency in found["latencies"])
    assert found["packet_losses"] == [0.0] * len(times)
    (picture,) = pictures(tmp_path)
    epoch = int(datetime.fromisoformat(found["started_at"].replace("Z", "+00:00")).timestamp())
    assert picture.name == f"network_test_127_0_0_1_{epoch}.png"
    assert len(done.stdout.splitlines()) == len(times) + 1, "a line a round, and one for all"


def test_json_lines_are_the_rounds_of_the_file(tmp_path: Path) -> None:
    words = ("::1", "-d", "2", "-i", "1", "--count", "3", "--no-plot", "--json")
    done = run(tmp_path, *words, "--out", str(tmp_path))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one.pop("type") for one in lines} == {"round"}
    assert lines == document(tmp_path)["series"][0]["rounds"]
    assert {(one["sent"], len(one["rtts_ms"])) for one in lines} == {(3, 3)}
    assert [one["round"] for one in lines] in ([0, 1], [0], [1])  # one held up may be left out
    assert pictures(tmp_path) == []


def test_target_that_never_answers_is_a_finding(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    if subprocess.run([*SILENT, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a network namespace")
    words = ("127.0.0.1", "-d", "2", "-i", "1", "--out", str(tmp_path))
    done = run(tmp_path, *words, before=SILENT)
    assert done.returncode == 4, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: 127.0.0.1 never answered")
    found = document(tmp_path)
    assert 1 <= (rounds := len(found["timestamps"])) <= 2  # one held up may be left out
    assert (found["latencies"], found["packet_losses"]) == ([None] * rounds, [100.0] * rounds)
    assert len(pictures(tmp_path)) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("no-such-host.invalid",),
        ("--", "-x"),
        ("-x",),
        ("224.0.0.1",),
        ("127.0.0.1", "-d", "0"),
        ("127.0.0.1", "-i", "0"),
        ("127.0.0.1", "-d", "soon"),
        ("127.0.0.1", "--out", "/proc/nowhere"),
        ("127.0.0.1", "--throughput", "-i", "1"),
        ("127.0.0.1", "--bitrate", "5"),
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_and_nothing_is_measured(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    more = () if "--out" in words else ("--out", str(tmp_path))
    done = run(tmp_path, *more, *words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("ImportError('no matplotlib here')", "[plot]'"),
        ("OSError('no writable cache directory')", "MPLCONFIGDIR"),
    ],
)
def test_without_a_picture_the_test_is_measured_and_written(
    tmp_path: Path, raised: str, said: str
) -> None:
    (tmp_path / "matplotlib.py").write_text(f"raise {raised}")
    before = ["env", f"PYTHONPATH={tmp_path}"]
    out = tmp_path / "out"
    words = ("127.0.0.1", "-d", "1", "-i", "1", "--out", str(out))
    done = run(tmp_path, *words, before=before)
    assert done.returncode == 0, done.stderr
    assert [path.suffix for path in out.iterdir()] == [".json"]
    assert done.stderr.count("no picture: ") == 1
    assert said in " ".join(done.stderr.split())


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with under_way(tmp_path, "127.0.0.1", "-d", "60", "-i", "1") as (process, rounds):
        wait_until(lambda: len(rounds) >= 2, "two rounds")
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    found = document(tmp_path)
    assert found["interrupted"] is True
    assert len(found["latencies"]) == len(rounds) >= 2
    assert len(pictures(tmp_path)) == 1


def test_reader_that_goes_away_loses_no_data(tmp_path: Path) -> None:
    words = ["127.0.0.1", "-d", "60", "-i", "1", "--no-plot", "--out", str(tmp_path)]
    command = [*PROGRAM, *words]
    with forked.start(command, env=environment(None), stdout=subprocess.PIPE) as it:
        assert it.stdout is not None
        it.stdout.readline()
        it.stdout.close()
        it.wait(120)
    assert len(document(tmp_path)["latencies"]) >= 1


def test_throughput_against_a_standing_server(tmp_path: Path) -> None:
    iperf3 = find_iperf3()
    if iperf3.fault:
        pytest.skip("iperf3 is not installed")
    port = str(free_port())
    command = [iperf3.path, "-s", "-p", port, "--forceflush"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        assert any("listening" in line for line in server.stdout)
        words = ("127.0.0.1", "--throughput", "--bitrate", "20", "-d", "10", "-i", "5")
        done = run(tmp_path, *words, "--port", port, "--no-plot", "--out", str(tmp_path))
    finally:
        server.kill()
        server.communicate()
    assert done.returncode == 0, done.stderr
    found = document(tmp_path)["series"][0]
    assert all(1 < mbps < 25 for mbps in found["throughputs"])  # less where it was held up
    assert 1 <= len(found["throughputs"]) <= 2


# --- with Redis


@pytest.fixture
def mesh(redis_url: str, connection: redis.Redis, tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "nodes"
    folder.mkdir()
    with workers(redis_url, connection, folder, ["cam-1", "hub", "cam-2"]):
        yield redis_url


BAD_NODES = [
    ("hub", "--nodes", "cam-1,nobody"),
    ("nobody", "--nodes", "cam-1"),
    ("127.0.0.2", "--nodes", "cam-1"),
    ("hub", "--nodes", "hub"),
    ("hub", "--nodes", "cam-1", "--throughput", "--port", "5201"),
    ("hub", "--nodes", "cam-1", "-d", "28800"),
]


@pytest.mark.redis
def test_target_may_be_the_name_of_a_node(tmp_path: Path, mesh: str) -> None:
    out = tmp_path / "out"
    words = ("hub", "-d", "1", "-i", "1", "--no-plot", "--out", str(out))
    assert run(tmp_path, *words, url=mesh).returncode == 0
    assert (document(out)["target"], document(out)["address"]) == ("hub", "127.0.0.2")


@pytest.mark.redis
def test_silent_redis_does_not_keep_a_host_from_being_tested(tmp_path: Path) -> None:
    words = ("localhost", "-d", "1", "-i", "1", "--no-plot", "--out", str(tmp_path))
    done = run(tmp_path, *words, url="redis://127.0.0.1:1")
    assert done.returncode == 0
    assert "taken for a host name" in done.stderr


@pytest.mark.redis
def test_nodes_test_at_once_and_each_has_its_series(
    tmp_path: Path, mesh: str, connection: redis.Redis
) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    words = ("hub", "--nodes", "cam-1,cam-2", "-d", "12", "-i", "3", "--out", str(out))
    done = run(tmp_path, *words, url=mesh)
    assert done.returncode == 0, done.stderr
    found = document(out)
    assert found["sources"] == ["cam-1", "cam-2"]
    for series in found["series"]:
        check_places(series, found["started_at"], 3, 4)
        assert all(0 < latency < 1000 for latency in series["latencies"])
        assert {one["target"] for one in series["rounds"]} == {"hub"}
    assert len(pictures(out)) == 1
    rounds = [one for series in found["series"] for one in series["rounds"]]
    runs = {one["run"] for one in rounds}
    numbers = {one["round"] for one in rounds}
    assert connection.zcard(keyspace.RUNS) == len(runs) == len(numbers), "one run a round"
    assert len(rounds) > len(runs), "of all sources"


@pytest.mark.redis
def test_bad_nodes_are_refused_before_anything_is_enqueued(
    tmp_path: Path, mesh: str, connection: redis.Redis
) -> None:
    for words in BAD_NODES:
        done = run(tmp_path, *words, "--out", str(tmp_path / "out"), url=mesh)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), (words, done.stderr)
        assert connection.zcard(keyspace.RUNS) == 0, words


@pytest.mark.redis
def test_ctrl_c_keeps_what_nodes_measured(tmp_path: Path, mesh: str) -> None:
    out = tmp_path / "out"
    words = ("hub", "--nodes", "cam-1", "-d", "60", "-i", "1", "--no-plot")
    with under_way(out, *words, url=mesh) as (process, rounds):
        wait_until(lambda: len(rounds) >= 2, "two rounds")
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    assert len(document(out)["latencies"]) == len(rounds) >= 2


@pytest.mark.redis
def test_throughput_of_nodes_goes_through_the_mesh(tmp_path: Path, mesh: str) -> None:
    if find_iperf3().fault:
        pytest.skip("iperf3 is not installed")
    out = tmp_path / "out"
    words = ("hub", "--nodes", "cam-1,cam-2", "--throughput", "--bitrate", "20")
    done = run(tmp_path, *words, "-d", "1", "-i", "5", "--no-plot", "--out", str(out), url=mesh)
    assert done.returncode == 0, done.stderr
    for series in document(out)["series"]:
        (mbps,) = series["throughputs"]
        assert 1 < mbps < 25  # less where it was held up


@pytest.mark.redis
def test_node_that_dies_leaves_a_gap_and_the_others_go_on(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    out, folder = tmp_path / "out", tmp_path / "nodes"
    folder.mkdir()
    words = ("hub", "--nodes", "cam-1,cam-2", "-d", "20", "-i", "2", "--no-plot")
    with (
        workers(redis_url, connection, folder, ["cam-1", "hub", "cam-2"]) as nodes,
        under_way(out, *words, url=redis_url) as (process, rounds),
    ):
        wait_until(lambda: len({one["source"] for one in rounds}) == 2, "a round of both")
        nodes["cam-2"].kill()
        killed_at = len(rounds)
        assert process.wait(300) == 0
    found = {one["source"]: one for one in document(out)["series"]}
    assert len([one for one in rounds[killed_at:] if one["source"] == "cam-1"]) >= 3
    assert None not in found["cam-1"]["latencies"]
    lost = [one for one in found["cam-2"]["rounds"] if one["outcome"] == "source_lost"]
    assert lost
    assert all(one["latency_ms"] is None for one in lost)
    assert all(one["packet_loss_pct"] is None for one in lost)


@pytest.mark.redis
def test_redis_that_is_away_for_a_while_costs_only_the_rounds_of_that_time(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    out, folder = tmp_path / "out", tmp_path / "nodes"
    folder.mkdir()
    words = ("hub", "--nodes", "cam-1", "-d", "600", "-i", "2", "--no-plot")
    with (
        redis.Redis.from_url(redis_server.url) as connection,
        workers(redis_server.url, connection, folder, ["cam-1", "hub"]),
        under_way(out, *words, url=redis_server.url) as (process, rounds),
    ):
        wait_until(lambda: len(rounds) >= 2, "two rounds")
        redis_server.kill()
        time.sleep(4)  # as long as it is away
        redis_server.start()
        before = answered(rounds)
        wait_until(lambda: answered(rounds) >= before + 2, "two rounds after it came back")
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    found = document(out)["series"][0]["rounds"]
    assert answered(found) >= 4
    assert answered(found) < max(one["round"] for one in found) + 1, "some were left out"


def answered(rounds: list[dict[str, Any]]) -> int:
    return len([one for one in rounds if one["latency_ms"] is not None])


@pytest.mark.redis
def test_redis_that_does_not_come_back_ends_the_test_and_keeps_what_was_measured(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    out, folder = tmp_path / "out", tmp_path / "nodes"
    folder.mkdir()
    words = ("hub", "--nodes", "cam-1", "-d", "12", "-i", "2", "--no-plot")
    with (
        redis.Redis.from_url(redis_server.url) as connection,
        workers(redis_server.url, connection, folder, ["cam-1", "hub"]),
        under_way(out, *words, url=redis_server.url) as (process, rounds),
    ):
        wait_until(lambda: len(rounds) >= 1, "a round")
        redis_server.kill()
        assert process.wait(300) == 3
    assert len(document(out)["latencies"]) >= 1
