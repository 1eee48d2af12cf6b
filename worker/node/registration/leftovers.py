"""
Results that a worker of another name left in a node's state folder: after a rename, for example.

They are sent under the name that measured them, unless a worker of that name is alive here, which
sends them itself. Those of runs that this Redis does not know are left alone: the folder may have
been that of a worker of another mesh.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from worker.model.names import RunId
from worker.node.registration.state_folder import lock, owner_path
from worker.publish.outbox import Outbox, left_in, outbox_path
from worker.wire import keyspace

logger = logging.getLogger(__name__)


class Leftovers:
    """What others have left in a folder, sent one after another, for some seconds a heartbeat."""

    def __init__(self, folder: Path, name: str) -> None:
        """Look into the folder of this node, which sends what is its own by itself."""
        self.folder, self.name = folder, name
        self._ours: set[str] = set()
        self._strange: set[str] = set()
        self._last = ""

    def waiting(self) -> list[str]:
        """Return the names that have left something that may be sent."""
        return [n for n in left_in(self.folder) if n != self.name and n not in self._strange]

    def resend(self, connection: redis.Redis) -> list[RunId]:
        """
        Publish what one of them has left, for some seconds.

        Returns:
            Ids of the runs of which this call completed a phase.

        Raises:
            redis.RedisError: Redis did not answer.
        """
        # In turns: one whose file cannot be made shorter holds up no other.
        for name in sorted(self.waiting(), key=lambda name: (name <= self._last, name)):
            outbox = Outbox(outbox_path(self.folder, name))
            with _without_worker(self.folder, name) as is_left:
                if is_left and self._may_be_sent(connection, name, outbox):
                    self._last = name
                    return outbox.resend(connection)
        return []

    def _may_be_sent(self, connection: redis.Redis, name: str, outbox: Outbox) -> bool:
        try:
            return self._is_of_this_mesh(connection, name, outbox)
        except OSError as exc:  # another user's: no reason for this node to end
            self._strange.add(name)
            text = "results that node %s left are not sent, as its files cannot be used: %s"
            logger.warning(text, name, exc)
            return False

    def _is_of_this_mesh(self, connection: redis.Redis, name: str, outbox: Outbox) -> bool:
        if name in self._ours:
            return True
        outbox.set_aside_others()
        size = outbox.waiting_bytes()
        if not size:
            return False
        keys = [keyspace.run_key(run) for run in outbox.runs()]
        if keys and connection.exists(*keys):
            self._ours.add(name)
            text = "node %s left %d bytes of results in this folder: they are sent"
            logger.info(text, name, size)
            return True
        self._strange.add(name)
        logger.warning(
            "results that node %s left in %s are not sent: this Redis knows none of their runs; if "
            "they are of another mesh, start a worker of that mesh under that name",
            name,
            outbox.path,
        )
        return False


@contextmanager
def _without_worker(folder: Path, name: str) -> Iterator[bool]:
    """Hold a name's file; yield whether it could be had, which means that no worker has it."""
    try:
        file = owner_path(folder, name).open("a+")
    except OSError as exc:
        logger.debug("what %s left cannot be looked at: %s", name, exc)
        yield False
        return
    with file:
        yield lock(file)
