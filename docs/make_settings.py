"""Writes the tables of docs/settings.md from the options: `python docs/make_settings.py`."""

from __future__ import annotations

from pathlib import Path

import click

from coordinator.cli import COMMANDS, load
from coordinator.cli.settings.config import FOR_ALL

PAGE = Path(__file__).with_name("settings.md")
#: What comes after this line is made.
MARK = "<!-- made by docs/make_settings.py -->\n"


def page() -> str:
    """Give the whole page: its own beginning, and the tables anew."""
    head = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    return head + MARK + "\n" + "\n".join(_table(name) for name in COMMANDS)


def _table(name: str) -> str:
    options = [one for one in load(name).params if isinstance(one, click.Option)]
    rows = [_row(name, one) for one in options if one.name not in FOR_ALL.values()]
    if not rows:
        return ""
    head = "| flag | variable | default |\n|---|---|---|\n"
    return f"### [{name}]\n\n{head}" + "".join(rows)


def _row(command: str, option: click.Option) -> str:
    own = option.envvar or []
    variables = [own] if isinstance(own, str) else own
    shown = ", ".join(f"`{one}`" for one in variables)
    default = option.get_default(click.Context(load(command)), call=False)
    known = isinstance(default, (str, int, float, tuple)) and not isinstance(default, bool)
    nothing = not known or default == ()
    said = "" if nothing else f"`{_plain(default)}`"
    return f"| `{max(option.opts, key=len)}` | {shown} | {said} |\n"


def _plain(default: object) -> str:
    return ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
