"""
The only work that a worker executes.

Whoever can write to this Redis can ask for a measurement and run nothing else: functions are
resolved from a mapping that the process was started with, never imported by name; payloads are
msgpack; arguments are those that the function has, of its types; and a record with a field that
ours do not have (callbacks, webhooks, dependencies, retries, repeats, handlers) is refused whole.
What is refused never reaches a work-horse.
"""

from __future__ import annotations

import inspect
import math
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from rq.exceptions import NoSuchJobError, StopRequested
from rq.job import Job

from worker.model.errors import ForeignWork, WireError
from worker.model.names import RunId
from worker.model.text import MAX_LINE_CHARS
from worker.node.refusals import Cause
from worker.wire import keyspace, rq_jobs, scripts

AllowList = Mapping[str, Callable[..., None]]
T = TypeVar("T")

#: What RQ itself takes for an id, of a length that no id of ours has.
JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
#: Field names and values, as Redis counts them; RQ's worker adds a few to ours.
MAX_RECORD_FIELDS, MAX_RECORD_BYTES = 64, 2 * rq_jobs.MAX_PAYLOAD_BYTES
MOST = (MAX_RECORD_FIELDS, MAX_RECORD_BYTES)
#: Longest value of a field that is not the payload.
MAX_FIELD_BYTES = 512
MAX_TEXT_CHARS = 255
_SECONDS = re.compile(rb"[0-9]{1,6}")


class Refused(NoSuchJobError):  # noqa: N818 - it reads as the state it is
    """
    A record that is not executed; RQ takes it for no job at all and goes on.

    Attributes:
        cause: What can have brought it about.
        is_ours: Its origin is a queue of ours, so what remains of it may be forgotten.
    """

    def __init__(self, reason: str, cause: Cause = Cause.FOREIGN, *, is_ours: bool = False) -> None:
        """Say why."""
        super().__init__(reason)
        self.cause, self.is_ours = cause, is_ours


class _OtherCall(WireError):  # noqa: N818 - as above
    """A job or an argument that this version does not have; another one may."""


def by_fields(kind: Callable[..., T], function: Callable[[T], None]) -> Callable[..., None]:
    """Return a function whose parameters are a dataclass's fields, of one that takes the object."""

    def call(**fields: Any) -> None:
        function(kind(**fields))

    call.__signature__ = inspect.signature(kind, eval_str=True)  # type: ignore[attr-defined]  # PEP 362
    return call


class AllowListedJob(Job):
    """
    A job whose function comes from the allow-list and that has no callbacks.

    Relied on of RQ: its `fetch` makes a job of an id and calls `refresh`, which reads the record
    and calls `restore`; the work-horse calls `func` with the payload's named arguments.
    """

    allowed: ClassVar[AllowList] = {}
    #: Name of a function → its parameters and their types.
    parameters: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    #: Job → what `job_record` said of it, where that came with its id.
    came_along: ClassVar[dict[str, Any]] = {}

    @property
    def func(self) -> Callable[..., None]:
        """The function; the name was checked when the record was read."""
        return self.allowed[str(self.func_name)]

    def to_dict(self, include_meta: bool = True, include_result: bool = True) -> dict[str, Any]:
        """Return the record, which has no field but ours, whatever this version of RQ knows."""
        record = super().to_dict(include_meta=False, include_result=False)
        return {name: value for name, value in record.items() if name in rq_jobs.JOB_FIELDS}

    @classmethod
    def fetch(cls, id: str, connection: Any = None, serializer: Any = None) -> Job:
        """
        Read a job.

        Raises:
            NoSuchJobError: There is none, or it is refused.
        """
        if not JOB_ID.fullmatch(id.partition(":")[0]):
            raise Refused("the job's id is invalid")
        return super().fetch(id, connection=connection, serializer=serializer)

    def refresh(self) -> None:
        """
        Read the record again.

        Raises:
            NoSuchJobError: There is none, or it is refused.
        """
        raw = self.came_along.pop(self.id, None)
        if raw is None:
            raw = scripts.script(self.connection, "job_record")([self.key], MOST)
        if isinstance(raw, bytes):
            raise Refused(raw.decode(errors="replace"))
        if not raw:
            raise NoSuchJobError(f"No such job: {self.key}")
        self.restore(dict(zip(raw[::2], raw[1::2], strict=True)))

    def restore(self, raw_data: Mapping[bytes, bytes]) -> Any:
        """
        Read the record's fields.

        Raises:
            Refused: Not what a job of ours has.
        """
        try:
            restored = super().restore(_checked(raw_data))
            self.result_ttl, self.failure_ttl = 0, rq_jobs.JOB_TTL_S
            self._check()
        except StopRequested:  # SIGTERM: the worker is to end, and nothing is wrong here
            raise
        except Exception as exc:
            # Whatever a hostile record makes RQ raise, the worker must outlive it.
            plain = isinstance(exc, (WireError, NoSuchJobError))
            reason = str(exc) if plain else f"{type(exc).__name__}: {exc}"
            is_ours = raw_data.get(b"origin", b"").startswith(b"ptzmesh:")
            cause = _cause(exc, raw_data)
            raise Refused(reason[:MAX_LINE_CHARS], cause, is_ours=is_ours) from exc
        return restored

    def _check(self) -> None:
        payload = rq_jobs.MsgpackSerializer.loads(self.data)
        if not isinstance(payload, list) or len(payload) != 4:
            raise WireError("the payload is not a function with its arguments")
        name, instance, args, kwargs = payload
        if not isinstance(name, str) or name not in self.allowed or instance is not None:
            error = f"{str(name)[:80]!r} is not on the allow-list"
            like_ours = instance is None and str(name).startswith(keyspace.JOB_PREFIX)
            raise (_OtherCall if like_ours else ForeignWork)(error)
        if args or not isinstance(kwargs, dict):
            raise WireError("arguments must be named")
        _check_arguments(self.parameters[name], kwargs)
        if self.timeout is None or not 0 < self.timeout <= rq_jobs.MAX_JOB_S:
            raise WireError(f"timeout ({self.timeout}) must be 1 to {rq_jobs.MAX_JOB_S} s")


def allow_listed(allowed: AllowList) -> type[AllowListedJob]:
    """
    Make the job class of a worker that runs these functions and no other.

    The functions' parameters are named, and each is `str`, `int` or `float | None`.
    """
    parameters = {name: _parameters_of(function) for name, function in allowed.items()}
    members = {"allowed": allowed, "parameters": parameters}
    return type("AllowListedJob", (AllowListedJob,), members)


def _cause(exc: Exception, raw: Mapping[bytes, bytes]) -> Cause:
    """Return what can have made a record so: one without its work is the rest of a complete one."""
    if isinstance(exc, _OtherCall):
        return Cause.VERSION
    is_whole = bool(raw.get(b"data")) and bool(raw.get(b"timeout"))
    return Cause.FOREIGN if is_whole or isinstance(exc, ForeignWork) else Cause.DAMAGED


def _checked(raw: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the fields that are ours; refuse when another one says something."""
    kept: dict[bytes, bytes] = {}
    for name, value in raw.items():
        if name.decode(errors="replace") not in rq_jobs.JOB_FIELDS:
            # RQ itself writes the names of callbacks that a job does not have.
            if value:
                raise ForeignWork(f"field {name[:80].decode(errors='replace')!r} is not ours")
            continue
        if name != b"data" and len(value) > MAX_FIELD_BYTES:
            raise WireError(f"{name.decode()} ({len(value)} bytes) is over {MAX_FIELD_BYTES}")
        kept[name] = value
    if not _SECONDS.fullmatch(kept.get(b"timeout", b"")):
        raise WireError(f"timeout ({kept.get(b'timeout', b'')[:20]!r}) must be whole seconds")
    _check_size(kept.get(b"data", b""))
    return kept


def _check_size(packed: bytes) -> None:
    """Refuse a payload that is too long, before and after RQ's compression."""
    if len(packed) > rq_jobs.MAX_PAYLOAD_BYTES:
        raise WireError(f"payload ({len(packed)} bytes) is over {rq_jobs.MAX_PAYLOAD_BYTES}")
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed, rq_jobs.MAX_PAYLOAD_BYTES)
    except zlib.error:
        return  # not compressed; RQ takes it as it is
    if unpacker.unconsumed_tail:
        raise WireError(f"payload is over {rq_jobs.MAX_PAYLOAD_BYTES} bytes when unpacked")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT_CHARS and value.isprintable()


def _is_index(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _is_number(value: object) -> bool:
    return value is None or (type(value) in (int, float) and math.isfinite(value))  # type: ignore[arg-type]  # a number by its type


#: A parameter's type → what passes for it, and how that is called.
_KINDS: Mapping[object, tuple[Callable[[object], bool], str]] = {
    str: (_is_text, "a short printable text"),
    RunId: (_is_text, "a short printable text"),
    int: (_is_index, "a whole number"),
    float | None: (_is_number, "a number or nothing"),
}


def _parameters_of(function: Callable[..., None]) -> dict[str, object]:
    signature = inspect.signature(function, eval_str=True)
    kinds = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    for name, kind in kinds.items():
        if kind not in _KINDS:
            raise TypeError(f"parameter {name} of {function} is of a type that no job can have")
    return kinds


def _check_arguments(parameters: Mapping[str, object], given: Mapping[object, object]) -> None:
    unknown = [name for name in given if name not in parameters]
    if unknown:
        raise _OtherCall(f"argument {str(unknown[0])[:80]!r} is not known")
    for name, kind in parameters.items():
        if name not in given:
            raise _OtherCall(f"argument {name!r} is missing")
        fits, called = _KINDS[kind]
        if not fits(given[name]):
            raise _OtherCall(f"argument {name!r} ({str(given[name])[:40]!r}) must be {called}")
