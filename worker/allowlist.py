"""
The only work that a worker executes.

Whoever can write to this Redis can ask for a measurement and run nothing else: functions are
resolved from a mapping that the process was started with, never imported by name; payloads are
msgpack; and the callbacks, webhooks, dependencies, retries and repeats that a job record may carry
are dropped when it is read. What is refused never reaches a work-horse.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from rq.exceptions import NoSuchJobError
from rq.job import Job

from worker import wire
from worker.errors import WireError

logger = logging.getLogger(__name__)

AllowList = Mapping[str, Callable[..., None]]


def allow_listed(allowed: AllowList) -> type[Job]:
    """Make the job class of a worker that runs these functions and no other."""

    class AllowListedJob(Job):
        """A job whose function comes from the allow-list and that has no callbacks."""

        @property
        def func(self) -> Callable[..., None]:
            """The function; the name was checked when the record was read."""
            return allowed[str(self.func_name)]

        def restore(self, raw_data: Mapping[bytes, bytes]) -> Any:
            """
            Read the record, and drop everything in it that could run something else.

            Raises:
                NoSuchJobError: Refused. RQ then goes on with the next job.
            """
            try:
                _check_size(raw_data.get(b"data", b""))
                restored = super().restore(raw_data)
                self._forget_extras()
                self._check(allowed)
            except NoSuchJobError:
                raise
            except Exception as exc:
                # Whatever a hostile record makes RQ raise, the worker must outlive it.
                reason = exc if isinstance(exc, WireError) else f"{type(exc).__name__}: {exc}"
                logger.warning("job %s refused: %s", self.id[:80], str(reason)[:200])
                self.connection.expire(self.key, wire.JOB_TTL_S)
                raise NoSuchJobError(f"job {self.id} refused: {reason}") from exc
            return restored

        def _forget_extras(self) -> None:
            self._success_callback_name = self._failure_callback_name = None
            self._stopped_callback_name = None
            self.webhooks = []
            self._dependency_ids = []
            self.group_id = None
            self.retries_left = self.repeats_left = None
            self.meta = {}
            self.failure_ttl = wire.JOB_TTL_S
            self.result_ttl = 0

        def _check(self, allowed: AllowList) -> None:
            if self.func_name not in allowed or self.instance is not None:
                raise WireError(f"{str(self.func_name)[:80]!r} is not on the allow-list")
            if self.args:
                raise WireError("arguments must be named")
            if not isinstance(self.kwargs, dict):
                raise WireError("arguments are not a map")
            if self.timeout is None or not 0 < float(self.timeout) <= wire.MAX_JOB_S:
                raise WireError(f"timeout ({self.timeout}) must be 1 to {wire.MAX_JOB_S} s")

    return AllowListedJob


def _check_size(packed: bytes) -> None:
    """Refuse a payload that is too long, before and after RQ's compression."""
    if len(packed) > wire.MAX_PAYLOAD_BYTES:
        raise WireError(f"payload ({len(packed)} bytes) is over {wire.MAX_PAYLOAD_BYTES}")
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed, wire.MAX_PAYLOAD_BYTES)
    except zlib.error:
        return  # not compressed; RQ takes it as it is
    if unpacker.unconsumed_tail:
        raise WireError(f"payload is over {wire.MAX_PAYLOAD_BYTES} bytes when unpacked")
