"""What README says one needs to run the tests is what CI installs."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_packages_that_readme_names_are_those_that_ci_installs() -> None:
    listed = re.search(r"^packages=\((.*?)^\)$", (ROOT / ".ci/run").read_text(), re.M | re.S)
    shown = re.findall(r"^apt-get install (.*)$", (ROOT / "README.md").read_text(), re.M)
    assert listed is not None
    assert " ".join(shown).split() == re.sub(r"#.*", "", listed[1]).split()
