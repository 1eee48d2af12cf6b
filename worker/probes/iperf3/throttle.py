"""
Whether this machine was slowed down: by heat, by its power supply, or by its container's quota.

Reads files of the kernel; one that is not there says nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

#: Times that a core was slowed for heat (x86-64), and that a quota stopped this container.
THERMAL = "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"
QUOTA = ("sys/fs/cgroup/cpu.stat", "sys/fs/cgroup/cpu/cpu.stat")
#: Raspberry Pi firmware: bits 0 to 3 are under-voltage, capped, throttled, and soft limit, now.
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
FIRMWARE_NOW = 0xF


@dataclass(frozen=True)
class Throttle:
    """What the kernel says at one moment; None where it says nothing."""

    thermal: int | None
    quota: int | None
    firmware: bool | None


def read_throttle(root: Path = Path("/")) -> Throttle:
    """Read the counters below `root`."""
    thermal = [number for path in root.glob(THERMAL) if (number := _integer(path)) is not None]
    firmware = _integer(root / FIRMWARE, 16)
    return Throttle(
        thermal=sum(thermal) if thermal else None,
        quota=next((n for path in QUOTA if (n := _throttled(root / path)) is not None), None),
        firmware=None if firmware is None else bool(firmware & FIRMWARE_NOW),
    )


def throttled_by(before: Throttle, after: Throttle) -> str | None:
    """
    Name what slowed this machine down between two moments; None when nothing is known to have.

    >>> throttled_by(Throttle(3, 0, None), Throttle(4, 0, None))
    'heat'
    >>> throttled_by(Throttle(3, None, None), Throttle(3, 7, None)) is None
    True
    """
    if _grew(before.thermal, after.thermal):
        return "heat"
    if _grew(before.quota, after.quota):
        return "CPU quota"
    return "heat or power" if after.firmware else None


def _grew(before: int | None, after: int | None) -> bool:
    return before is not None and after is not None and after > before


def _throttled(path: Path) -> int | None:
    match = re.search(r"^nr_throttled +([0-9]+) *$", _text(path), re.MULTILINE)
    return int(match[1]) if match else None


def _integer(path: Path, base: int = 10) -> int | None:
    try:
        return int(_text(path), base)
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
