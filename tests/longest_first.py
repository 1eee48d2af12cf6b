"""
A plugin for many tests at once: files that take long begin first, as all end soonest so.

`seconds.txt` says how long each takes; `make test OPTIONS=--renew-seconds` writes it anew. Files
that share a dear fixture go to one process. At the end stands what was left to `make test-long`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_name("seconds.txt")
#: Of a file of tests that is not in the table, so that it does not begin last.
UNKNOWN_S = 30.0
#: Less is of no matter for the order.
LEAST_S = 0.5

#: The image is built once a process: whatever looks at it is tested there.
TOGETHER = {
    f"tests/deploy/test_{name}.py": "image" for name in ("compose_mesh", "container", "image")
}

#: In a worker of xdist, and in what it tells at its end.
LEFT = "ptzmesh_left"


def file_of(node_id: str) -> str:
    """Give the file that a test is in."""
    return node_id.partition("::")[0]


def in_order(node_ids: Iterable[str], seconds: Mapping[str, float]) -> list[str]:
    """Give tests by how long their file takes; those of one file stay in their order."""

    def rank(node_id: str) -> tuple[float, str]:
        file = file_of(node_id)
        # A module of a package is here for its doctests.
        return -seconds.get(file, UNKNOWN_S if file.startswith("tests/") else 0.0), file

    return sorted(node_ids, key=rank)


def parsed(table: str) -> dict[str, float]:
    """Give the seconds of each file."""
    pairs = (line.split(maxsplit=1) for line in table.splitlines())
    return {name: float(seconds) for seconds, name in pairs}


def written(seconds: Mapping[str, float]) -> str:
    """Give the table, the longest first."""
    rows = sorted((-round(s, 1), name) for name, s in seconds.items() if s >= LEAST_S)
    return "".join(f"{-spent:.1f} {name}\n" for spent, name in rows)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--renew-seconds",
        action="store_true",
        help="write how long each file took into tests/seconds.txt, by which they are ordered",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_LongestFirst(config), "longest first")


class _LongestFirst:
    """
    What one process of pytest knows.

    Attributes:
        left: Tests marked `long` that were deselected.
        spent: Seconds that each file took.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.left: set[str] = set()
        self.spent: Counter[str] = Counter()

    @property
    def is_worker(self) -> bool:
        return hasattr(self.config, "workerinput")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.is_worker:
            by_id = {item.nodeid: item for item in items}
            items[:] = [by_id[one] for one in in_order(by_id, parsed(TABLE.read_text()))]

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        if config.getoption("dist") != "loadfile":
            return None
        from xdist.scheduler import LoadFileScheduling

        class Scheduling(LoadFileScheduling):
            def _split_scope(self, nodeid: str) -> str:
                return TOGETHER.get(file_of(nodeid), file_of(nodeid))

        return Scheduling(config, log)

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        self.left |= {item.nodeid for item in items if item.get_closest_marker("long")}

    def pytest_sessionfinish(self) -> None:
        if self.is_worker:
            self.config.workeroutput[LEFT] = sorted(self.left)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.left |= set(getattr(node, "workeroutput", {}).get(LEFT, ()))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Not its duration: that of a test which ran beside others is no time of this file.
        self.spent[file_of(report.nodeid)] += report.stop - report.start

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.config.getoption("renew_seconds"):
            known = parsed(TABLE.read_text()) | self.spent
            TABLE.write_text(written({f: s for f, s in known.items() if (ROOT / f).exists()}))
        if self.left and "not long" in self.config.getoption("markexpr"):
            terminalreporter.section(f"left to make test-long: {len(self.left)} tests")
            for file, tests in sorted(Counter(map(file_of, self.left)).items()):
                terminalreporter.write_line(f"{tests:3} of {file}")
