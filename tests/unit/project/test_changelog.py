"""The changelog keeps to keepachangelog.com, and its newest entry is what is here."""

from __future__ import annotations

import re
from pathlib import Path

from worker import __version__

LINES = (Path(__file__).parents[3] / "CHANGELOG.md").read_text().splitlines()
VERSIONS = [line for line in LINES if line.startswith("## ")]
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
RELEASED = re.compile(r"## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d")


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def test_newest_entry_is_this_version_or_what_comes_next() -> None:
    assert VERSIONS[0] in ("## [Unreleased]",) or f"## [{__version__}] - " in VERSIONS[0]


def test_versions_are_dated_and_the_newest_comes_first() -> None:
    released = [RELEASED.fullmatch(line) for line in VERSIONS if line != "## [Unreleased]"]
    assert all(released)
    found = [numbers(match.group(1)) for match in released if match]
    assert found == sorted(set(found), reverse=True)
    assert all(version <= numbers(__version__) for version in found)


def test_changes_are_grouped_by_their_kind() -> None:
    assert LINES[0] == "# Changelog"
    kinds = [line.removeprefix("### ") for line in LINES if line.startswith("### ")]
    assert set(kinds) <= set(KINDS)
    first_item = next(place for place, line in enumerate(LINES) if line.startswith("- "))
    assert any(line.startswith("### ") for line in LINES[:first_item])
