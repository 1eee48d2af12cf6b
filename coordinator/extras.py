"""How to get one of our extras, in the words of the way in which this copy was installed."""

from __future__ import annotations

import json
import shlex
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: What fits every way of installing; the page has the commands.
IN_GENERAL = "install ptzmesh again with its extra {extra}: see docs/install.md"


def how_to_install(extra: str) -> str:
    """
    Return the command that adds an extra to this copy, or where it is described.

    ptzmesh is on no index: the command needs the checkout or the wheel that this copy came from,
    which the installer notes (direct_url.json, PEP 610).
    """
    try:
        noted = metadata.distribution("ptzmesh").read_text("direct_url.json")
        where = urlsplit(str(json.loads(noted or "{}").get("url", "")))
    except (metadata.PackageNotFoundError, ValueError):
        return IN_GENERAL.format(extra=extra)
    source = Path(unquote(where.path))
    if where.scheme != "file" or not source.exists() or find_spec("pip") is None:
        return IN_GENERAL.format(extra=extra)
    return shlex.join([sys.executable, "-m", "pip", "install", f"{source}[{extra}]"])
