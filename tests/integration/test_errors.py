"""
Each cause that leads to an error has its own advice, as docs/troubleshooting.md says.

The commands run in this process, as a hundred starts of Python would take a minute.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from coordinator.cli import main
from integration.causes import CASES, World

pytestmark = pytest.mark.redis

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()

#: Cause → what is said in this case where the page has a `…`.
SAYS = {
    "somebody wrote a limit by hand": "limit stream_bytes (…) is no number",
    "a typo in a node's name": "node ('bb') is not registered…known nodes: a, b",
    "a node is named in a Redis that has none": "node ('a') is not registered",
    "all nodes have an older version": (
        "upgrade a (ptzmesh 1.0.0, wire 1), b (ptzmesh 1.0.0, wire 1)"
    ),
    "a named node has a newer version": ("upgrade…, here; newer are a (ptzmesh 9.0, wire 99)"),
    "no node has the label": "the plan has no pair:…labels of live nodes are none",
    "a named node has no address of that family": "node a is registered at",
    "a sample is larger than the mesh": "sample (5)…must be at most 1, the others of a node",
    "a node pings without the right to ping fast": (
        "interval (0.001)…"
        "must be at least 0.01 s: node a pings through a datagram socket; see docs/privileges.md"
    ),
    "no run was ever started": "run ('last'): there is none yet",
    "a typo in a run's id": "run ('1999') is not known",
    "it fits several runs": "run ('2') is ambiguous",
    "a run has ended": "run (…) has ended already…(done)",
    "a run is forgotten": (
        "run (…) is not known…it is over a week old, newer ones needed its room, "
        "or Redis lost its data; see: ptzmesh runs"
    ),
    "the run did not measure the figure": (
        "the run has no throughput…throughput needs --probe throughput or udp"
    ),
    "another process writes the file": "another process collects into rows.csv",
    "the file is of another program": "the file (rows.csv) does not begin with our columns",
    "the folder is not there": (
        "the file (none/rows.csv) cannot be opened…No such file or directory; choose another --csv"
    ),
    "the file is a device": "the path (/dev/null)…must be a regular file: choose another --csv",
    "a file of whole runs for collect": "the file (rows.csv) holds whole runs",
    "a collector's file for a run": "the file (rows.csv) is a collector's",
    "the last line was edited": (
        "the last line of rows.csv is not a row of ours…repair it, or choose another --csv"
    ),
    "events go into a file of another program": "the file (mine.txt) is no file of events",
    "events go into a folder that is not there": "the file (none/events.csv) cannot be written",
    "events to standard output": "Invalid value for '--events':",
    "rows of a run to standard output": "Invalid value for '--csv':",
    "standard output, and more": (
        "--csv - goes with none of…--group, --events and --json; see: ptzmesh collect --help"
    ),
    "two things at once": "--list and --forget exclude each other",
    "a typo in a collector's name": "collector ('g') is not known…known: none",
    "a space in a collector's name": "group ('a b')…must be 1 to 255 printable ASCII, no spaces",
    "no file to verify": "the file (rows.csv) cannot be read",
    "another program's file to verify": ("the file (rows.csv) does not begin with our columns"),
    "another run's file": "run …: 0 rows for 2 pairs:",
    "the run is still open": "run … (running): 1 rows for 2 pairs:",
    "the run is not collected to its end": "run … (done): 1 rows for 2 pairs:",
    "the file was edited": "run …: 2 rows for 2 pairs:",
    "another format in a picture's name": "Invalid value for '--svg':",
    "a picture's folder is not there": "picture (none/mesh.svg) cannot be written",
    "the target is neither a name in DNS nor a node": (
        "target (no.such.invalid) does not resolve…and no node of that name is known"
    ),
    "a port in a target": (
        "address ('10.0.0.1:80')…an IPv4 or IPv6 address or a host name, without a port"
    ),
    "the target is a node without an address of that family": "target (a) is a node at 10.0.0.1",
    "the target's address leads to this machine itself": (
        "target (hub) is registered at 127.0.0.1, which from here is this machine itself"
    ),
    "the target is one of the sources": "node (a)",
    "rounds from nodes follow too fast": "interval (0.6)…must be at least 1 s from nodes",
    "a test has too many rounds": "interval (1) makes 604800 rounds…at least 31 s",
    "a round has too many echoes": "count (100) is too much for an interval of 0.6 s…at most 18",
    "a round is too short for its throughput": (
        "interval (1) is too short…a round with its throughput test may take"
    ),
    "a bit rate without a throughput test": "bitrate is of a throughput test",
    "the folder of a test cannot be made": "out (/proc/none) cannot be written",
    "one node twice to doctor": "two different nodes are needed…(a is named twice)",
    "the settings file is not there": "settings file (none.toml) cannot be read",
    "the settings file is no TOML": "settings file (s.toml) is not TOML…Expected",
    "a typo in a command's name": ("settings file (s.toml) has unknown entries…wroker"),
    "a typo in an option's name": ("settings file (s.toml): [run]…has no option cuont"),
    "several values instead of one": (
        'settings file (s.toml): [run]…count must be one value: count = "…"'
    ),
    "one value instead of a list": (
        'settings file (s.toml): [run]…nodes must be a list: nodes = ["…"]'
    ),
    "a wrong value in the settings file": ("settings file (s.toml):…'many' is not a valid integer"),
    "a wrong value in a variable": "PTZMESH_RUN_COUNT:…'many' is not a valid integer",
    "a wrong value, typed": (
        "Invalid value for '-c' / '--count':…'many' is not a valid integer; see: ptzmesh run --help"
    ),
    "a value is out of bounds": "count (0)…must be between 1 and 10000",
    "a time has no unit that is known": (
        "Invalid value for '-i' / '--interval':…is not in seconds: write 5, 5s, 100ms, 2m, 3h or 7d"
    ),
    "a time lies ahead": "Invalid value for --since:",
    "a space in a name": "node name ('cam 1')",
    "an empty name, as of an unset variable": "node name ('')",
    "a name is a word of ours": "node name (redis) is what the probe of Redis calls its target",
    "an empty address": ("address ('')…must be an IPv4 or IPv6 address or a host name"),
    "a port in an address": (
        "address ('hub:6379')…an IPv4 or IPv6 address or a host name, without a port"
    ),
    "an address of no one machine": (
        "address (224.0.0.1) is not the address of one machine…multicast"
    ),
    "IPv4 in the form of IPv6": ("address (::ffff:10.0.0.1)…must be written as 10.0.0.1"),
    "a label has no value": "label ('site')",
    "a label's value is too long": "label ('site=x",
    "hours are no times of day": "hours ('22-5')…must look like 22:30-05:00",
    "ports are no range": "ports ('5201')…must look like 5201-5216",
    "ports are those of the system": "first port (80)…must be between 1024 and 65535",
    "a link has no capacity": "link ('cell')…must look like cell-7=1",
    "nothing listens there": "Redis at redis://127.0.0.1:1 does not answer",
    "the name of Redis' host is a typo": (
        "Redis at redis://no.such.invalid has a name that does not resolve"
    ),
    "no socket of that name": "Redis at unix:///none.sock has no socket of that name",
    "the password file is not there": (
        "password file (none) cannot be read…No such file or directory"
    ),
    "the password file has two lines": (
        "password file (p)…must hold the password in one line, and no more"
    ),
    "a password in the URL and another in a file": (
        "two passwords of Redis are given:…in its URL and by a file (p); keep one"
    ),
    "TLS files for a URL without TLS": "TLS file (…) is of no use with redis://",
    "a CA file that has no certificate": "CA file (…)…holds no certificate in PEM form",
    "a key without its certificate": "TLS key (…)…needs its certificate: --redis-cert FILE",
    "an option in the URL that means another database": (
        "the Redis URL's option db…must be a number, and that of its path; keep one"
    ),
}


@pytest.fixture(scope="module")
def _logging_as_before() -> Iterator[None]:
    """A command configures logging for its process, which here is that of all tests."""
    root, ours = logging.getLogger(), [logging.getLogger(one) for one in ("worker", "coordinator")]
    before = root.level, list(root.handlers), [one.level for one in ours]
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for one, level in zip(ours, before[2], strict=True):
        one.setLevel(level)


@pytest.fixture
def world(
    redis_url: str,
    connection: redis.Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    _logging_as_before: None,
) -> Iterator[World]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PTZMESH_REDIS_URL", redis_url)
    made = World(redis_url, connection, tmp_path)
    yield made
    connection.config_set("maxmemory", 0)
    for one in made.held:
        one.close()


def said(typed: str, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> Said:
    """Type a line as in a shell: variables first, then what follows `ptzmesh`."""
    words = shlex.split(typed)
    while "=" in words[0]:
        patch.setenv(*words.pop(0).split("=", 1))
    with pytest.raises(SystemExit) as caught:
        main(words)
    shown = capsys.readouterr()
    return Said(caught.value.code, shown.out, shown.err)


class Said(NamedTuple):
    """What a command said."""

    code: object
    out: str
    err: str


class Row(NamedTuple):
    """What the page says of a cause: one of these errors, advice that is in it, the exit code."""

    errors: list[str]
    advice: str
    code: str


def table() -> Iterator[tuple[str, Row]]:
    """Yield each cause with its row; an empty first cell is the error above it."""
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE):
        usual = "3" if section.startswith("Redis\n") else "2"
        for head, rows in re.findall(
            r"^(\| error.*)\n\|[-|]+\n((?:\|.*\n?)+)", section, re.MULTILINE
        ):
            if head.count("|") != 4:
                continue
            errors: list[str] = []
            for row in rows.splitlines():
                error, causes, fix = (cell.strip() for cell in row[1:-1].split("|"))
                errors = re.findall(r"`([^`]+)`", error) or errors
                advice, code = re.match("`([^`]+)`", fix), re.search(r"exit code (\d)", fix)
                said = Row(errors, advice[1] if advice else "", code[1] if code else usual)
                for cause in causes.split("; "):
                    yield re.split(r": | \(", cause)[0], said


def is_said(text: str, line: str) -> bool:
    """Return whether the line begins with the text, whose `…` may be anything."""
    return re.match("error: " + ".*".join(map(re.escape, text.split("…"))), line) is not None


ROWS = [(cause, row) for cause, row in table() if cause in CASES]
TABLE = dict(ROWS)


def test_each_cause_that_is_tried_has_one_row() -> None:
    assert sorted(cause for cause, _ in ROWS) == sorted(CASES)
    assert SAYS.keys() <= CASES.keys()


@pytest.mark.parametrize("cause", CASES)
def test_cause_has_the_error_and_the_advice_that_the_page_says(
    cause: str, world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed, prepare = CASES[cause]
    prepare(world)
    code, out, err = said(typed, capsys, monkeypatch)
    row = TABLE[cause]
    (line,) = err.splitlines()
    assert any(is_said(error, line) for error in row.errors)
    assert is_said(SAYS.get(cause, "…"), line)
    assert row.advice in line
    assert str(code) == row.code
    # `verify` lists the pairs before it fails.
    assert not out or typed.startswith("verify")
