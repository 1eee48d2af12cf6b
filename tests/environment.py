"""
Nothing of the caller's environment reaches a test, or a program that a test starts.

What a shell, an editor, a service or another project has set (`PYTEST_ADDOPTS`, `PTZMESH_*`,
`REDIS_URL`, `COLUMNS`, `NO_COLOR`, `PYTHONPATH`, `GIT_DIR`, …) would change what is tested. So this
is a list of what is kept, not of what is taken away. What pytest itself reads before it comes here
is taken away in the Makefile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping

_KEPT = (
    # Where programs and their files are, and whose they are.
    r"PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|PYENV_\w+|VIRTUAL_ENV",
    # How letters are written.
    r"LANG|LC_ALL|LC_CTYPE",
    # The way to pip's index and to Debian's mirror: proxies, and authorities that are trusted.
    r"PIP_\w+|(?i:https?|ftp|no|all)(?i:_proxy)|SSL_CERT_(?:FILE|DIR)|REQUESTS_CA_BUNDLE",
    r"CURL_CA_BUNDLE",
    # Said to the tests themselves, or by pytest.
    r"CI|PTZMESH_TEST_\w+|PYTEST_XDIST_\w+|PYTEST_CURRENT_TEST|PY_COLORS",
)
_is_kept = re.compile("|".join(_KEPT)).fullmatch


def cleaned(environ: Mapping[str, str]) -> dict[str, str]:
    """Give what a test may see; pytest itself has no colours where the caller wants none."""
    colours = {"PY_COLORS": "0"} if environ.get("NO_COLOR") else {}
    return colours | {name: value for name, value in environ.items() if _is_kept(name)}


def clean(environ: MutableMapping[str, str]) -> None:
    """Take from an environment what no test may see."""
    kept = cleaned(environ)
    environ.clear()
    environ.update(kept)
