"""
Programs of another architecture, run by qemu-user through the kernel's binfmt_misc.

Needs root and Debian's qemu-user-static. An entry of binfmt_misc is the whole machine's: ours comes
before any other, and its name tells which process made it, so that none outlives it for long.
"""

from __future__ import annotations

import itertools
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.commands import CommandFailed, run
from missing import missing

BINFMT = Path("/proc/sys/fs/binfmt_misc")
#: Of our entries: then come a process and a serial number.
PREFIX = "ptzmesh-test-"
_serial = itertools.count()

#: argv[0] is kept (P); qemu is opened now, for programs in another root, too (F); and rights come
#: from the program's file, not from qemu's (C, with O): a capability counts as it does natively.
FLAGS = "POCF"

#: First bytes of an ELF file, 64 bits, little endian, executable or shared (elf(5)); its machine
#: comes next. What says nothing of that is masked out.
MAGIC = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00"
MASK = b"\xff" * 7 + b"\x00" + b"\xff" * 8 + b"\xfe\xff" + b"\xff\xff"


@dataclass(frozen=True)
class Architecture:
    """
    An architecture of the image.

    Attributes:
        name: As Debian and engines call it.
        machine: As the kernel calls it.
        elf_machine: `e_machine` of its programs (elf.h).
        qemu: Program that emulates it.
    """

    name: str
    machine: str
    elf_machine: int
    qemu: str

    @property
    def is_native(self) -> bool:
        """Tell whether this machine runs its programs itself."""
        return platform.machine() == self.machine


ARCHITECTURES = {
    one.name: one
    for one in (
        Architecture("amd64", "x86_64", 62, "qemu-x86_64-static"),
        Architecture("arm64", "aarch64", 183, "qemu-aarch64-static"),
    )
}


def native() -> Architecture:
    """Give this machine's architecture."""
    found = [one for one in ARCHITECTURES.values() if one.is_native]
    if not found:
        missing(f"the image is for {' and '.join(ARCHITECTURES)}, not for {platform.machine()}")
    return found[0]


@contextmanager
def runnable(architecture: Architecture) -> Iterator[None]:
    """Let programs of the architecture run on this machine until the end of the block."""
    if architecture.is_native:
        yield
        return
    if os.geteuid() != 0:
        missing(f"to emulate {architecture.name} needs root")
    qemu = shutil.which(architecture.qemu)
    if qemu is None:
        missing(f"{architecture.qemu} is not installed; Debian has it in qemu-user-static")
    with _binfmt_misc():
        _remove_leftovers()
        name = f"{PREFIX}{os.getpid()}-{next(_serial)}"
        magic = _escaped(MAGIC + architecture.elf_machine.to_bytes(2, "little"))
        (BINFMT / "register").write_text(f":{name}:M::{magic}:{_escaped(MASK)}:{qemu}:{FLAGS}")
        try:
            yield
        finally:
            (BINFMT / name).write_text("-1")


def _remove_leftovers() -> None:
    """Remove the entries whose process is dead: it was killed."""
    for entry in BINFMT.glob(f"{PREFIX}*"):
        pid = entry.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            entry.write_text("-1")


def _escaped(raw: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in raw)


@contextmanager
def _binfmt_misc() -> Iterator[None]:
    """Mount what entries are made in, unless it is there."""
    mounts = not (BINFMT / "register").exists()
    if mounts:
        try:
            run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)])
        except CommandFailed as exc:
            missing(f"this kernel has no binfmt_misc to emulate with: {exc.stderr.strip()}")
    try:
        yield
    finally:
        if mounts:
            run(["umount", str(BINFMT)])
