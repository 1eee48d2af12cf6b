"""Writes docs/cli.md from the command line itself: `python docs/make_cli.py`."""

from __future__ import annotations

from copy import copy
from pathlib import Path

import click

from coordinator.cli.group import COMMANDS, cli, load
from coordinator.cli.settings.config import FOR_ALL

PAGE = Path(__file__).with_name("cli.md")

#: The commands without --json, as `HEAD` says.
NO_JSON = ("demo", "worker", "cancel")

HEAD = """\
# The command line

```sh
ptzmesh --help
ptzmesh run --help
```

print what this page has, written from it by `python docs/make_cli.py`.

**A setting** is a flag, else a variable (`PTZMESH_<COMMAND>_<OPTION>`, such as
`PTZMESH_RUN_COUNT`), else in the settings file (`--config`, or `/etc/ptzmesh.toml` where it is),
else the default. The file has one table a command, and at its top what is of Redis, for all:

```toml
redis = "redis://10.0.0.1:6379/0"

[run]
count = 20
wait_for_reply = 2.0
```

**Units**: a plain number is in the unit that the help names. A suffix says another: `100ms`, `5s`,
`2m`, `1h`; `500k`, `20M`, `2G` for bits a second; `20M`, `2G` (powers of 1000), `64MiB` (of 1024)
for bytes. Also in variables and in the settings file (`"5s"`).

**Output**: results go to stdout, progress and warnings to stderr. `--json`, of every command but
`demo`, `worker` and `cancel`, prints one JSON object a line, whose `type` (`run`, `measurement`,
`node`, `check`, …) lets one filter fit a mixed stream: `jq -c 'select(.type == "measurement")'`.
Colour only on a terminal, not with `NO_COLOR`, and never as the only sign.

**Exit codes**

| code | meaning |
|---|---|
| 0 | done |
| 1 | a bug in ptzmesh; `--debug` shows more |
| 2 | usage or settings are wrong |
| 3 | Redis cannot be used: no answer, wrong password, too old, full |
| 4 | a run ended with pairs that have no number, or a file does not hold what it should |
| 130 | Ctrl-C; on `run` it detaches, and the run goes on |

**Redis**: every command but `demo` takes these. The URL is also `PTZMESH_REDIS_URL`, else
`REDIS_URL`, and `redis` in the settings file; the others are `PTZMESH_REDIS_CA`, `redis_ca`, and
so on. A password belongs in a file, or in `PTZMESH_REDIS_PASSWORD`
([security](security.md#passwords)).
"""


def page() -> str:
    """Return the page."""
    context = click.Context(cli, info_name="ptzmesh", terminal_width=98, **cli.context_settings)
    sections = [HEAD, _block(_options_of_redis(context)), _section(cli, context, "ptzmesh")]
    for name in COMMANDS:
        command = load(name)
        below = click.Context(command, parent=context, info_name=name, terminal_width=98)
        sections.append(_section(_without_what_all_have(command), below, f"ptzmesh {name}"))
    return "\n".join(sections)


def _options_of_redis(context: click.Context) -> str:
    formatter = click.HelpFormatter(width=98)
    options = [param for param in load("nodes").params if param.name in FOR_ALL.values()]
    records = (option.get_help_record(context) for option in options)
    formatter.write_dl([record for record in records if record])
    return formatter.getvalue()


def _without_what_all_have(command: click.Command) -> click.Command:
    shown = copy(command)
    above = {"as_json", *FOR_ALL.values()}
    assert ("as_json" in {param.name for param in command.params}) is (command.name not in NO_JSON)
    shown.params = [param for param in command.params if param.name not in above]
    shown.add_help_option = False
    return shown


def _section(command: click.Command, context: click.Context, title: str) -> str:
    formatter = click.HelpFormatter(width=98)
    command.format_help(context, formatter)
    return f"## {title}\n\n{_block(formatter.getvalue())}"


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
