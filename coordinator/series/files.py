"""Where a test's files go, and writing them: JSON first, then the picture."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from coordinator.series.plot import draw
from coordinator.series.series import Series, file_stem
from worker.host.whole_file import write_whole
from worker.model.errors import ConfigError

#: Where PTZJEPA keeps what outlives a container.
PERSISTENCE = Path("/persistence")


class DataNotWritten(ConfigError):  # noqa: N818 - named for the state it is, as its siblings
    """The JSON file could not be written; what was measured is only in memory."""


def default_folder() -> Path:
    """Return `/persistence` where it can be written, else the current folder."""
    good = PERSISTENCE.is_dir() and os.access(PERSISTENCE, os.W_OK | os.X_OK)
    return PERSISTENCE if good else Path()


def usable(folder: Path) -> Path:
    """
    Make the folder if need be, and a file in it: a right to write is no room to write.

    Raises:
        ConfigError: Either fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"ptzmesh")
    except OSError as exc:
        raise ConfigError(
            f"out ({folder}) cannot be written: {exc.strerror}; say another --out"
        ) from exc
    return folder


def save(series: Series, folder: Path, *, plot: bool) -> Iterator[tuple[str, Path]]:
    """
    Write the files; yield what each is and where.

    Raises:
        DataNotWritten: Not even the JSON file.
        ConfigError: The picture cannot be written.
    """
    stem = _free_stem(series, folder)
    path = folder / f"{stem}.json"
    text = json.dumps(series.to_json(), allow_nan=False) + "\n"
    try:
        write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
    except OSError as exc:
        raise DataNotWritten(_not_written(path, exc)) from exc
    yield "data", path
    if plot:
        path = folder / f"{stem}.png"
        try:
            write_whole(path, lambda part: draw(series, part))
        except OSError as exc:
            raise ConfigError(_not_written(path, exc)) from exc
        yield "picture", path


def _not_written(path: Path, exc: OSError) -> str:
    return f"file ({path}) cannot be written: {exc.strerror}; make room, or say another --out"


def _free_stem(series: Series, folder: Path) -> str:
    """Name the files by the second in which the test began, or the next one that is free."""
    epoch = int(series.started_at.timestamp())
    while (folder / f"{file_stem(series.target, epoch)}.json").exists():
        epoch += 1
    return file_stem(series.target, epoch)
