"""What a caller has set is not seen by the tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from environment import cleaned

ROOT = Path(__file__).parents[2]
#: Each would change what some test sees.
OF_A_CALLER = {
    "PYTEST_ADDOPTS": "--no-such-option",
    "PYTEST_PLUGINS": "no_such_plugin",
    "PYTHONPATH": "/nowhere",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONOPTIMIZE": "1",
    "PTZMESH_REDIS_URL": "redis://elsewhere",
    "PTZMESH_RUN_COUNT": "7",
    "REDIS_URL": "redis://elsewhere",
    "STATE_DIRECTORY": "/nowhere",
    "COLUMNS": "20",
    "NO_COLOR": "1",
    "TERM": "dumb",
    "MPLBACKEND": "nonsense",
    "MAKEFLAGS": "j7",
    "GIT_DIR": "/nowhere",
}
#: Without these they would not run, or would skip what they must not.
KEPT = {"PATH": "/bin", "HOME": "/root", "CI": "true", "https_proxy": "x", "PIP_CERT": "x"}


def test_environment_of_a_test_has_what_is_needed_to_run_and_no_setting_of_the_callers() -> None:
    assert cleaned(OF_A_CALLER | KEPT) == KEPT | {"PY_COLORS": "0"}


def test_environment_is_clean_once_the_tests_are_collected() -> None:
    seen = subprocess.run(
        [sys.executable, "-c", "import conftest, json, os; print(json.dumps(dict(os.environ)))"],
        env={**os.environ, **OF_A_CALLER, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert json.loads(seen).keys() & OF_A_CALLER.keys() == set()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    "name", ["PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTHONPATH", "PYTHONOPTIMIZE"]
)
def test_make_gives_pytest_no_option_of_the_callers(name: str) -> None:
    said = subprocess.run(
        ["make", "--no-print-directory", "--eval=said:; @env", "said"],
        env={**os.environ, **OF_A_CALLER, "MAKEFLAGS": ""},
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert name not in {line.partition("=")[0] for line in said.splitlines()}
