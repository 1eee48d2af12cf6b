"""
The bridge from the release before this one (wire version 1), against the release itself.

What it left is read, collected and sent; its nodes and ours share a Redis and refuse each other by
name. `tests/integration/test_wire1.py` holds the same of files that it wrote once.
"""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from integration.nodes import cli, workers
from waiting import wait_until

from coordinator.embedded import EmbeddedServer, embedded_server
from release.previous import (
    ALL,
    OLD,
    ROOT,
    SHORT,
    Left,
    Previous,
    build,
    cut_off,
    end,
    json_lines,
    leave,
)
from worker import __version__

pytestmark = [
    pytest.mark.redis,
    pytest.mark.release,
    pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not installed"),
]

OURS = ("hub", "roof")
THEIRS = {name: f"{name} (ptzmesh 0.1.0, wire 1)" for name in OLD}
NEWER = {name: f"{name} (ptzmesh {__version__}, wire 2)" for name in OURS}


@pytest.fixture(scope="session")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Previous:
    return build(tmp_path_factory.mktemp("previous"))


@pytest.fixture(scope="module")
def left(previous: Previous, server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Left:
    return leave(previous, server_binary, tmp_path_factory.mktemp("left"))


def listed(url: str, *command: str) -> list[dict[str, Any]]:
    """Read what a command of ours says with --json."""
    return json_lines(cli(url, *command, "--json").stdout)


def rows_in(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def aside(folder: Path) -> list[str]:
    """Name what was not understood: files beside a CSV, and beside an outbox."""
    beside = [*folder.rglob("*.bad"), *folder.rglob("*.outbox.*")]
    return [path.name for path in beside]


def is_as(now: dict[str, Any], then: dict[str, Any]) -> bool:
    """Tell whether each field is as the previous release said it; there may be more by now."""
    return {name: now.get(name) for name in then} == then


def test_what_it_left_is_read_and_collected_as_it_wrote_it(
    left: Left, connection: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    left.restore(connection)
    for name in ("results", "runs"):
        done = cli(redis_url, name, "--json")
        assert (done.returncode, done.stderr) == (0, ""), name
        now, then = json_lines(done.stdout), left.said[name]
        assert len(now) == len(then), name
        assert all(map(is_as, now, then)), (name, now, then)
    assert is_as(listed(redis_url, "limits")[0]["cap"], left.said["limits"][0]["cap"])
    assert {line["probe"] for line in left.said["results"]} == {
        *("ping", "tcp", "redis", "throughput", "udp", "locker")
    }
    fresh, begun = tmp_path / "fresh.csv", left.copy_of("begun.csv", tmp_path)
    for file in (fresh, begun):
        done = cli(redis_url, "collect", "--csv", str(file))
        assert (done.returncode, aside(tmp_path)) == (0, []), done.stderr
    then, now = rows_in(begun), rows_in(fresh)
    assert [row["stream_id"] for row in now] == [
        one.decode() for one, _ in connection.xrange("ptzmesh:results")
    ]
    assert [{name: row[name] for name in then[0]} for row in now] == then
    head = (left.folder / "begun.csv").read_text()
    assert begun.read_text().startswith(head)


def test_a_run_of_it_is_shown_and_verified_by_its_outcome(
    left: Left, connection: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    left.restore(connection)
    file = left.copy_of("begun.csv", tmp_path)
    assert cli(redis_url, "collect", "--csv", str(file)).returncode == 0
    expected = {"done": (10, 0), "cancelled": (6, 0), "half": (2, 4)}
    for name, (rows, verifying) in expected.items():
        run = left.runs[name]
        shown = cli(redis_url, "show", run, "--json")
        assert (shown.returncode, shown.stderr) == (0, ""), name
        now, then = json_lines(shown.stdout), left.said[name]
        assert len(now) == len(then) == 1 + rows
        assert all(map(is_as, now, then)), (name, now, then)
        table = cli(redis_url, "show", run)
        assert table.returncode == 0, name
        assert all(node in table.stdout for node in OLD)
        verified = cli(redis_url, "verify", run, "--csv", str(file), "--json")
        assert verified.returncode == verifying, (name, verified.stdout, verified.stderr)
        assert f'"rows": {rows}' in verified.stdout
        assert len(listed(redis_url, "results", "--run", run)) == rows
    whole = tmp_path / "whole.csv"
    done = cli(redis_url, "results", "--run", left.runs["done"], "--csv", str(whole))
    assert done.returncode == 0, done.stderr
    assert len(rows_in(whole)) == 10
    assert aside(tmp_path) == []


def test_what_its_monitor_left_is_read_and_its_file_goes_on(
    left: Left, connection: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    left.restore(connection)
    shown = listed(redis_url, "lockers")[0]
    (then,) = left.said["lockers"]
    for (holder,) in (shown["lockers"], then["lockers"]):
        assert holder.pop("held_s") >= 0
        assert holder.pop("left_s") <= 1800
    assert is_as(shown, then)
    assert shown["lockers"][0]["node"] == "ptz-1"
    own = left.copy_of("own.csv", tmp_path)
    before = rows_in(own)
    script = (
        "from worker.monitor import configure, log_network_metrics, save_network_stats_to_csv\n"
        f"configure(source='ptz-1', redis_url={redis_url!r})\n"
        "log_network_metrics('127.0.0.1', throughput=False, count=2)\n"
        f"save_network_stats_to_csv({str(own)!r})\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    after = rows_in(own)
    assert after[:-1] == before
    assert [row["source"] for row in after] == ["ptz-1"] * 6
    assert after[0].keys() == after[-1].keys()


@pytest.mark.long
def test_an_open_run_that_no_node_of_it_is_left_for_is_given_up(
    left: Left, connection: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    left.restore(connection)
    shutil.copytree(left.folder / "state", tmp_path / "state")
    with workers(redis_url, connection, tmp_path, OLD):
        wait_until(
            lambda: listed(redis_url, "runs")[0]["status"] == "cancelled",
            "the run whose nodes are gone is given up",
        )
        assert cli(redis_url, "run", "--count", "1").returncode == 0
    assert connection.lrange("ptzmesh:refused", 0, -1) == []
    assert len(listed(redis_url, "results", "--run", left.runs["half"])) == 2
    assert aside(tmp_path) == []


def test_ours_has_a_version_of_its_own(previous: Previous, tmp_path: Path) -> None:
    """Else no wheel of ours would replace the other, and no line would say which is which."""
    said = previous.output("", "--version", folder=tmp_path)
    assert said == "ptzmesh, version 0.1.0\n"
    assert __version__ != "0.1.0"


def test_each_right_that_a_user_gets_or_loses_is_in_the_page_of_the_upgrade(
    previous: Previous,
) -> None:
    """Who loads the users of one release too early, or too late, stops the other."""
    users = Path("docker") / "redis" / "users.acl"
    now, then = rights((ROOT / users).read_text()), rights((previous.tree / users).read_text())
    page = (ROOT / "docs" / "upgrade.md").read_text().partition("## From wire version 1")[2]
    changed = {(user, right) for user in now for right in now[user] ^ then[user]}
    assert changed
    assert [one for one in changed if not all(word.partition("|")[0] in page for word in one)] == []


def rights(users: str) -> dict[str, set[str]]:
    lines = [line.split() for line in users.splitlines() if line.startswith("user ")]
    return {name: set(words) for _, name, *words in lines}


@pytest.fixture(scope="module")
def mixed(
    previous: Previous, server_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    """A mesh of two nodes of it and two of ours."""
    folder = tmp_path_factory.mktemp("mixed")
    with (
        embedded_server(folder, binary=server_binary) as server,
        redis.Redis.from_url(server.url) as connection,
        previous.workers(server.url, OLD, folder),
        workers(server.url, connection, folder, OURS, first=11),
    ):
        yield server


@pytest.mark.long
def test_each_trigger_leaves_the_others_nodes_out_by_name_and_runs_its_own(
    mixed: EmbeddedServer, previous: Previous, tmp_path: Path
) -> None:
    ours = cli(mixed.url, "run", "--count", "1", "--new", "--json")
    theirs = previous.run(mixed.url, "run", "--count", "1", "--new", "--json", folder=tmp_path)
    for done, own in ((ours, OURS), (theirs, OLD)):
        assert done.returncode == 0, done.stderr
        measured = [line for line in json_lines(done.stdout) if "outcome" in line]
        assert {(line["source"], line["outcome"]) for line in measured} == {
            (name, "ok") for name in own
        }
    said = f"left out, as versions differ: upgrade {', '.join(THEIRS.values())}; here is ptzmesh"
    assert said in words(ours.stderr)
    said = "left out, as versions differ: upgrade ptzmesh 0.1.0, wire 1, here; newer are"
    assert f"{said} {', '.join(NEWER.values())}" in words(theirs.stderr)


@pytest.mark.long
def test_each_trigger_refuses_a_node_of_the_other_that_is_named(
    mixed: EmbeddedServer, previous: Previous, tmp_path: Path
) -> None:
    named = ("run", "--nodes", "cam-1,hub")
    ours, theirs = cli(mixed.url, *named), previous.run(mixed.url, *named, folder=tmp_path)
    here = f"ptzmesh {__version__}, wire 2"
    assert (ours.returncode, ours.stderr) == (
        *(2, f"error: upgrade {THEIRS['cam-1']}; here is {here}\n"),
    )
    assert (theirs.returncode, theirs.stderr) == (
        *(2, f"error: upgrade ptzmesh 0.1.0, wire 1, here; newer are {NEWER['hub']}\n"),
    )


@pytest.mark.long
def test_runs_of_both_at_once_end_whole_and_no_job_is_refused(
    mixed: EmbeddedServer, previous: Previous, tmp_path: Path
) -> None:
    command = ("run", "--detach", *ALL, *SHORT, "--new")
    theirs = previous.output(mixed.url, *command, folder=tmp_path).strip()
    ours = cli(mixed.url, *command).stdout.strip()

    def have_ended() -> bool:
        runs = [run for run in listed(mixed.url, "runs") if run["run"] in (ours, theirs)]
        return {"done"} == {run["status"] for run in runs}

    wait_until(have_ended, "both runs are done")
    file = tmp_path / "mesh.csv"
    assert cli(mixed.url, "collect", "--csv", str(file)).returncode == 0
    for run in (ours, theirs):
        verified = cli(mixed.url, "verify", run, "--csv", str(file))
        assert verified.returncode == 0, verified.stderr
        rows = [row for row in rows_in(file) if row["run_id"] == run]
        assert {row["outcome"] for row in rows} == {"ok"}, rows
    assert aside(tmp_path) == []
    with redis.Redis.from_url(mixed.url) as connection:
        assert connection.lrange("ptzmesh:refused", 0, -1) == []


@pytest.mark.long
def test_a_run_of_it_that_is_cancelled_here_is_ended_by_its_own_nodes(
    mixed: EmbeddedServer, previous: Previous, tmp_path: Path
) -> None:
    start = ("run", "--detach", "--count", "2000", "--new")
    run = previous.output(mixed.url, *start, folder=tmp_path).strip()
    cancelled = cli(mixed.url, "cancel", run)
    assert cancelled.returncode == 0, cancelled.stderr
    wait_until(
        lambda: len(listed(mixed.url, "results", "--run", run)) == 2,
        "each pair has a row",
    )
    rows = listed(mixed.url, "results", "--run", run)
    assert {(row["source"], row["outcome"]) for row in rows} == {(x, "cancelled") for x in OLD}


@pytest.mark.long
def test_a_node_that_is_upgraded_within_a_run_of_it_denies_its_row_by_both_versions(
    previous: Previous, redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    start = ("run", "--detach", "--count", "50")
    with previous.workers(redis_url, OLD, tmp_path) as nodes:
        run = previous.output(redis_url, *start, folder=tmp_path).strip()
        wait_until(
            lambda: bool(connection.hexists(f"ptzmesh:run:{run}", "started:0:1")), "it measures"
        )
        end(nodes[1:], signal.SIGTERM)
        with workers(redis_url, connection, tmp_path, OLD[1:], first=2):
            wait_until(lambda: listed(redis_url, "runs")[0]["status"] == "done", "the run is done")
    rows = {row["source"]: row for row in listed(redis_url, "results")}
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "cam-1": "ok",
        "cam-2": "denied",
    }
    assert "the run is of wire version 1, this ptzmesh has 2" in rows["cam-2"]["error"]


@pytest.mark.long
def test_results_that_its_nodes_kept_while_redis_was_away_are_sent_after_their_upgrade(
    previous: Previous, redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    url, state = redis_server.url, tmp_path / "state"
    boxes = [state / f"{name}.outbox" for name in OLD]
    with previous.workers(url, OLD, tmp_path) as nodes:
        start = ("run", "--detach", "--count", "40")
        run = previous.output(url, *start, folder=tmp_path).strip()
        with redis.Redis.from_url(url) as connection:
            begun = ("started:0:0", "started:0:1")
            wait_until(
                lambda: all(connection.hexists(f"ptzmesh:run:{run}", each) for each in begun),
                "both nodes measure",
            )
        redis_server.kill()
        wait_until(
            lambda: all(box.exists() and box.stat().st_size for box in boxes),
            "both nodes have kept what they measured",
        )
        cut_off(nodes)
    redis_server.start()
    with redis.Redis.from_url(url) as connection, workers(url, connection, tmp_path, OLD):
        wait_until(lambda: not any(box.stat().st_size for box in boxes), "all is sent")
    rows = listed(url, "results")
    assert {(row["source"], row["target"]) for row in rows} == {OLD, OLD[::-1]}
    assert [(row["run"], row["outcome"], row["sent"]) for row in rows] == [(run, "ok", 40)] * 2
    file = tmp_path / "mesh.csv"
    assert cli(url, "collect", "--csv", str(file)).returncode == 0
    assert cli(url, "verify", run, "--csv", str(file)).returncode == 0
    assert aside(tmp_path) == []


def words(text: str) -> str:
    """Undo the line breaks of a narrow screen."""
    return " ".join(text.split())
