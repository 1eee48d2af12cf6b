"""Prints constraints: every dependency at the oldest version that pyproject.toml allows."""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: A name, its first version, and what else is said of it.
REQUIREMENT = re.compile(r"([\w-]+)>=([\w.]+)(?:,[^;]*)?(;.*)?")


def oldest(pyproject: str) -> list[str]:
    """Give the core dependencies, each with its lower bound as its version."""
    found = []
    for each in tomllib.loads(pyproject)["project"]["dependencies"]:
        bound = REQUIREMENT.fullmatch(each)
        if bound is None:
            raise ValueError(f"{each} has no lower bound")
        found.append(f"{bound[1]}=={bound[2]}{bound[3] or ''}")
    return found


if __name__ == "__main__":
    sys.stdout.write("\n".join(oldest(Path("pyproject.toml").read_text(encoding="utf-8"))) + "\n")
