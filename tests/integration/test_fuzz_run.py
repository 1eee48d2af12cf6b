"""
The coverage-guided fuzzer runs, and finds nothing among the same inputs each time.

`make fuzz` takes others, and longer.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent.parent / "fuzz" / "run.py"
#: Inputs for each parser; some seconds.
INPUTS = 10_000

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed: pip install '.[fuzz]' (Linux x86-64, Python 3.11-3.13)",
)


@pytest.mark.parametrize("parser", ["job_record", "plan_json", "measurement", "iperf3_report"])
def test_fuzzer_runs_and_finds_nothing_soon(parser: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(RUN), parser, "-seed=1", f"-runs={INPUTS}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    executed = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    assert executed is not None
    assert int(executed[1]) > 100
    assert not list(tmp_path.glob("crash-*"))
