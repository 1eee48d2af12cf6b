"""Run a tool to its end and, when it fails, say what it said."""

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence


class CommandFailed(subprocess.CalledProcessError):
    """A tool that exited non-zero; the message holds the end of its output."""

    def __str__(self) -> str:
        """Exit status and argv, then what the tool printed."""
        said = f"{self.stdout or ''}{self.stderr or ''}".strip()
        return f"{super().__str__()}\n{said[-2000:]}"


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 120.0,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """
    Run `argv` to its end with its output captured as text.

    Args:
        argv: Program and arguments.
        stdin: What it reads; None is an empty input.
        env: Variables added to this process's own.
        timeout_s: Later than this it is killed and subprocess.TimeoutExpired raised.
        check: Raise CommandFailed on a non-zero exit.
    """
    done = subprocess.run(
        list(argv),
        input=stdin or "",
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        # Linux shares the processor out among sessions first: beside fifty workers, each of which
        # leads its own, all that the tests run would have one share (CONFIG_SCHED_AUTOGROUP).
        start_new_session=True,
    )
    if check and done.returncode:
        raise CommandFailed(done.returncode, list(argv), done.stdout, done.stderr)
    return done


def ip_batch(lines: Iterable[str], *, namespace: str | None = None, force: bool = False) -> None:
    """
    Give `ip` many commands in one process: a process a command would take seconds.

    Args:
        lines: `ip` commands without the leading `ip`.
        namespace: The network namespace they act in; None for this process's own.
        force: Go on after a command that fails, and do not raise.
    """
    inside = ["-n", namespace] if namespace else []
    run(
        ["ip", *inside, *(["-force"] if force else []), "-batch", "-"],
        stdin="\n".join(lines) + "\n",
        check=not force,
    )
