"""Writes the tables of docs/settings.md from the options: `python docs/make_settings.py`."""

from __future__ import annotations

from pathlib import Path

import click

from coordinator.cli.group import COMMANDS, load
from coordinator.cli.settings.config import FOR_ALL

PAGE = Path(__file__).with_name("settings.md")
#: What comes after this line is made.
MARK = "<!-- made by docs/make_settings.py -->\n"


def page() -> str:
    """Return the page: its own beginning, and the tables made again."""
    head = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    return head + MARK + "\n" + "\n".join(_table(name) for name in COMMANDS)


def _table(name: str) -> str:
    options = [param for param in load(name).params if isinstance(param, click.Option)]
    rows = [_row(name, option) for option in options if option.name not in FOR_ALL.values()]
    if not rows:
        return ""
    head = "| flag | variable | default |\n|---|---|---|\n"
    return f"### [{name}]\n\n{head}" + "".join(rows)


def _row(command: str, option: click.Option) -> str:
    own = option.envvar or []
    variables = [own] if isinstance(own, str) else own
    shown = ", ".join(f"`{variable}`" for variable in variables)
    default = option.get_default(click.Context(load(command)), call=False)
    defaults = default if isinstance(default, tuple) else (default,)
    plain = [str(v) for v in defaults if isinstance(v, (str, int, float)) and v is not False]
    value = f"`{', '.join(plain)}`" if plain else ""
    return f"| `{max(option.opts, key=len)}` | {shown} | {value} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
