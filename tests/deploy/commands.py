"""Are a command and its settings, as a file for deployment has them, ones that ptzmesh has?"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from forked import START

from coordinator.cli.group import COMMANDS, cli, load
from worker.wire.connection.redis_url import URL_VARIABLES
from worker.wire.connection.redis_url import VARIABLES as REDIS_VARIABLES

#: Nothing listens there.
NOWHERE = "redis://someone@127.0.0.1:1/0"
REDIS_UNREACHABLE = 3


def examples(file: Path) -> dict[str, str]:
    """Give the settings of an example of an environment file; what is commented out included."""
    lines = [line.removeprefix("#") for line in file.read_text().splitlines()]
    return dict(line.split("=", 1) for line in lines if line.startswith("PTZMESH_"))


def variables_of(command: str) -> set[str]:
    """Give every variable that a command reads; click says nothing of one that none reads."""
    found = set(REDIS_VARIABLES)
    for prefix, parameters in (("", cli.params), (f"{command}_", load(command).params)):
        for parameter in parameters:
            if isinstance(parameter, click.Option) and parameter.name is not None:
                own = parameter.envvar or ()
                found |= {own} if isinstance(own, str) else set(own)
                found.add(f"PTZMESH_{prefix}{parameter.name}".upper())
    return found


def check_command(arguments: Sequence[str], variables: Mapping[str, str], folder: Path) -> None:
    """
    Fail unless ptzmesh takes the arguments and reads the variables.

    It is run with them, but for where Redis is: it must come as far as not finding one.
    """
    command = arguments[0]
    assert command in COMMANDS
    ours = {name for name in variables if name.startswith("PTZMESH_")}
    assert sorted(ours - variables_of(command)) == []
    password = folder / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    changed = {name: NOWHERE for name in URL_VARIABLES if name in variables}
    if "PTZMESH_REDIS_PASSWORD_FILE" in ours:
        changed["PTZMESH_REDIS_PASSWORD_FILE"] = str(password)
    here = [str(folder / "file.csv") if word.endswith(".csv") else word for word in arguments]
    said = subprocess.run(
        [*START, *here],
        env={
            **{name: value for name, value in os.environ.items() if "REDIS" not in name},
            "PTZMESH_REDIS_URL": NOWHERE,
            "STATE_DIRECTORY": str(folder),
            "PTZMESH_WORKER_NO_WAIT": "true",
            **variables,
            **changed,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert said.returncode == REDIS_UNREACHABLE, said.stderr
