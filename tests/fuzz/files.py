"""Parsers of files, each as a function of bytes: see `targets`."""

from __future__ import annotations

import tempfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from coordinator.cli.group import parameters
from coordinator.cli.settings.config import read_config
from coordinator.collect import badfile, csvfile
from worker.identity import verified
from worker.model.errors import ConfigError, WireError
from worker.monitor.ptzjepa import config
from worker.publish import outbox
from worker.publish.outbox import Letter


def outbox_frames(data: bytes) -> None:
    """A damaged outbox gives the letters that are whole, and each can be kept again."""
    with suppress(WireError):
        for letter in outbox._frames(data):
            assert isinstance(letter, Letter)
            assert outbox._frame(letter)


def outbox_body(data: bytes) -> None:
    """A frame whose checksum is right may still hold anything."""
    head = outbox.MARK + len(data).to_bytes(4, "big") + zlib.crc32(data).to_bytes(4, "big")
    outbox_frames(head + data)


def verified_file(data: bytes) -> None:
    """A file of what was verified is read as times by text, or as nothing, and can be added to."""
    with _file(data, "a.verified") as path:
        assert all(isinstance(at, float) for at in verified.read_verified(path).values())
        verified.keep_verified(path, ["x"])
        assert "x" in verified.read_verified(path)


def settings_file(data: bytes) -> None:
    """A settings file is refused in one line, or a table a command."""
    with _file(data, "ptzmesh.toml") as path, suppress(ConfigError):
        commands = {"worker": lambda: parameters("worker"), "run": lambda: parameters("run")}
        read_config(str(path), commands)


def ptzjepa_file(data: bytes) -> None:
    """PTZJEPA's own file is refused in one line, or names a Redis."""
    with _file(data, "config.yaml") as path, suppress(ConfigError):
        config.redis_url_from(path)


def csv_file(data: bytes) -> None:
    """A collector's file is refused and left as it is, or goes on after its last row."""
    with _file(data, "x.csv") as path:
        with suppress(ConfigError):
            list(csvfile.rows_of(path))
        try:
            with csvfile.CsvFile(path):
                assert path.read_bytes().endswith(b"\n")
                with suppress(ConfigError):
                    list(csvfile.rows_of(path))
        except ConfigError:
            assert path.read_bytes() == data


def bad_file(data: bytes) -> None:
    """Entries that are set aside go to the end of whatever is there, once."""
    with _file(data, "x.csv.bad") as path:
        entry: Any = ((b"1-0", [b"\xff", b"\xfe"]), WireError("no"))
        there = b'{"stream_id": "1-0"' in data
        for _ in range(2):
            badfile.set_aside(path.with_suffix(""), [entry])
        if not there:
            assert path.read_bytes().count(b'{"stream_id": "1-0"') == 1


class _file:  # noqa: N801 - reads as a function
    """A file with these bytes, for as long as the block."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name = data, name

    def __enter__(self) -> Path:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / self.name
        path.write_bytes(self.data)
        return path

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()
