"""`ptzmesh worker`: be a node."""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path

import click

from coordinator.cli.settings.config import ARGUMENTS
from coordinator.cli.settings.options import FOLDER, label_option, redis_option
from coordinator.cli.settings.policy import policy_options
from coordinator.cli.terminal.logs import log_to_stderr
from worker import __version__
from worker.model.names import RunId, own_name, valid_address
from worker.model.policy import Policy
from worker.wire import keyspace


def default_state_dir() -> Path:
    """
    Return the folder for what a node keeps on disk: systemd's, root's, or the user's own.

    A user id that no file knows, as of a container, has `/` for its home, as Docker gives it.
    """
    if os.environ.get("STATE_DIRECTORY"):  # set by systemd's StateDirectory=
        return Path(os.environ["STATE_DIRECTORY"].split(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/ptzmesh")
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    if base.is_absolute():  # anything else is to be ignored, says the XDG specification
        return base / "ptzmesh"
    try:
        return Path.home() / ".local" / "state" / "ptzmesh"
    except RuntimeError:
        return Path("/.local/state/ptzmesh")


@click.command(
    epilog="""\b
Examples:
  PTZMESH_REDIS_URL=redis://:secret@10.0.0.1 ptzmesh worker
  ptzmesh worker --name cam-7 --address 10.8.0.7 --label site=roof
  ptzmesh worker --link cell-7=1 --max-bitrate 20 --max-bytes-per-day 2000000000
"""
)
@redis_option
@click.option(
    "--name",
    envvar=["PTZMESH_WORKER_NAME", "PTZMESH_NODE"],
    help="Name of the node, unique in the mesh [default: the host name].",
)
@click.option("--address", help="Where others reach the node [default: its address towards Redis].")
@label_option(help="Label of the node, for `run --label`; repeatable.")
@click.option(
    "--state-dir",
    type=FOLDER,
    help="Folder of the node for results that wait for Redis [default: by user].",
)
@policy_options
@click.option(
    "--no-wait", is_flag=True, help="End at once, with exit code 3, when Redis is not there yet."
)
@click.option("-v", "--verbose", is_flag=True, help="Log what is done, not only what is wrong.")
def worker(
    redis_url: str,
    name: str | None,
    address: str | None,
    labels: dict[str, str],
    state_dir: Path | None,
    policy: Policy,
    no_wait: bool,
    verbose: bool,
) -> None:
    """
    Make this machine a node of the mesh, until SIGTERM or Ctrl-C.

    A network or a Redis that is not there yet is waited for.
    """
    import redis

    from coordinator.cli.faults.patience import say_no_more
    from coordinator.cli.settings.reread import Reread
    from coordinator.runs.advance import advance
    from worker.identity.answering import answer
    from worker.identity.context import NodeContext
    from worker.node.allowlist import AllowList, by_fields
    from worker.node.settings import NodeSettings
    from worker.node.supervisor import Supervisor
    from worker.node.sweep import sweep
    from worker.transfer.answer import Request
    from worker.transfer.far import serve
    from worker.wire import rq_jobs
    from worker.wire.rows import Row

    log_to_stderr(redis_url, verbose)
    context = click.get_current_context()
    settings = NodeSettings(
        name=own_name(socket.gethostname() if name is None else name),
        redis_url=redis_url,
        address=None if address is None else valid_address(address),
        labels=labels,
        state_dir=state_dir or default_state_dir(),
        version=__version__,
        policy=policy,
        reread=Reread(context, context.meta[ARGUMENTS]),
        waits_for_redis=not no_wait,
    )
    if not no_wait:
        say_no_more()  # the agent says it, with the cause

    def allow_list(context: NodeContext) -> AllowList:
        def carry_on(run: RunId) -> None:
            advance(rq_jobs.connection_of_job(context.redis_url), run, patient=True)

        def carry_on_after(connection: redis.Redis, row: Row) -> None:
            advance(connection, row.run, patient=True, row=row)

        return {
            keyspace.SWEEP: functools.partial(sweep, context, carry_on_after),
            keyspace.SERVE: by_fields(Request, functools.partial(serve, context)),
            keyspace.ADVANCE: carry_on,
            keyspace.ANSWER: functools.partial(answer, context),
        }

    Supervisor(settings, allow_list).run()
