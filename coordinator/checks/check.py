"""One thing that was looked at, and how it stands. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

#: The name of the check whose failure means that Redis cannot be used.
REACHABLE = "reachable"


class Status(str, Enum):
    """How a check ended; `skipped` was not looked at, and the message says why."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


class Area(str, Enum):
    """What a check is about."""

    REDIS = "redis"
    MACHINE = "machine"
    MESH = "mesh"


@dataclass(frozen=True, kw_only=True)
class Check:
    """
    How one thing stands.

    Attributes:
        message: What was found, with its figures, in one line.
        fix: What to do about it: a command where there is one. Empty when all is fine.
        values: The figures by name; the unit ends the name. None where there is no figure.
    """

    area: Area
    name: str
    status: Status
    message: str
    fix: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return one JSON-ready object."""
        return {
            "check": self.name,
            "area": self.area.value,
            "status": self.status.value,
            "values": dict(self.values),
            "message": self.message,
            "fix": self.fix,
        }


def judged(
    area: Area,
    name: str,
    message: str,
    values: Mapping[str, Any] | None = None,
    *,
    fail: bool = False,
    warn: bool = False,
    fix: str = "",
) -> Check:
    """Make a check that failed, warns, or is ok and then needs no fix."""
    status = Status.FAIL if fail else Status.WARN if warn else Status.OK
    fix = "" if status is Status.OK else fix
    return Check(area=area, name=name, status=status, message=message, fix=fix, values=values or {})


def failed(area: Area, name: str, error: str) -> Check:
    """Make a check of an error, which says what helps behind a semicolon."""
    message, _, fix = error.partition("; ")
    return judged(area, name, message, fail=True, fix=fix)


def skipped(area: Area, name: str, why: str) -> Check:
    """Make a check that was not done."""
    return Check(area=area, name=name, status=Status.SKIPPED, message=why)


def exit_code(checks: Iterable[Check]) -> int:
    """
    Return what `ptzmesh doctor` exits with: the worst of what failed, 0 when nothing did.

    3 Redis cannot be used, 2 something of this machine or of Redis' settings, 4 of the mesh.
    """
    failures = {(check.area, check.name) for check in checks if check.status is Status.FAIL}
    if (Area.REDIS, REACHABLE) in failures:
        return 3
    if any(area is not Area.MESH for area, _ in failures):
        return 2
    return 4 if failures else 0
