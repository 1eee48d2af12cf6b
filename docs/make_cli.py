"""Writes docs/cli.md from the command line itself: `python docs/make_cli.py`."""

from __future__ import annotations

from pathlib import Path

import click

from coordinator.cli import COMMANDS, cli, load

PAGE = Path(__file__).with_name("cli.md")

HEAD = """\
# The command line

Written from the commands' own help by `python docs/make_cli.py`; a test keeps it so.

**Where a setting comes from**: a flag wins over the environment (`PTZMESH_<COMMAND>_<OPTION>`,
such as `PTZMESH_RUN_COUNT`), that over the settings file (`--config`, or `/etc/ptzmesh.toml` where
it is), that over the default. The file has one table a command, and `redis` at its top for all
(and what goes with it: `redis_password_file`, `redis_ca`, `redis_cert`, `redis_key`):

```toml
redis = "redis://10.0.0.1:6379/0"

[run]
count = 20
wait_for_reply = 2.0
```

**Units**: a plain number is in the unit that the help names. A suffix says another: `100ms`,
`5s`, `2m`, `1h`; `500k`, `20M`, `2G` for bits a second; `20M`, `2G` (powers of 1000), `64MiB` (of
1024) for bytes. The same in the settings file (`"5s"`) and in variables.

**Redis** is `--redis`, else `PTZMESH_REDIS_URL`, else `REDIS_URL`. A password belongs in a file, or
in `PTZMESH_REDIS_PASSWORD`; see [security](security.md).

**Output**: results go to stdout, progress and warnings to stderr. `--json` gives one JSON object a
line. Its `type` says what it is (`run`, `measurement`, `node`, `check`, …), so that one filter fits
a mixed stream: `jq -c 'select(.type == "measurement")'`. Colour only on a terminal, and
not with `NO_COLOR`; nothing is said by colour alone.

**Exit codes**

| code | meaning |
|---|---|
| 0 | done |
| 1 | a bug in ptzmesh; `--debug` shows more |
| 2 | usage or settings are wrong |
| 3 | Redis cannot be used: no answer, wrong password, too old, full |
| 4 | a run ended with pairs that have no number, or a file does not hold what it should |
| 130 | Ctrl-C; on `run` it detaches, and the run goes on |
"""


def page() -> str:
    """Give the whole page."""
    context = click.Context(cli, info_name="ptzmesh", terminal_width=98, **cli.context_settings)
    sections = [HEAD, _section(cli, context, "ptzmesh")]
    for name in COMMANDS:
        command = load(name)
        below = click.Context(command, parent=context, info_name=name, terminal_width=98)
        sections.append(_section(command, below, f"ptzmesh {name}"))
    return "\n".join(sections)


def _section(command: click.Command, context: click.Context, title: str) -> str:
    formatter = click.HelpFormatter(width=98)
    command.format_help(context, formatter)
    return f"## {title}\n\n```text\n{formatter.getvalue().rstrip()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
