"""`ptzmesh test` as a person runs it, from here."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from datetime import datetime
from pathlib import Path

import forked
import pytest
from waiting import wait_until

from integration.cli_test_calls import (
    PROGRAM,
    SILENT,
    check_places,
    document,
    environment,
    pictures,
    run,
    under_way,
)
from integration.guarded import free_port
from worker.model.text import parse_iso_utc
from worker.probes.icmp.engine import icmp_capability
from worker.probes.iperf3.tool import find_iperf3

pytestmark = pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")


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
