"""Logging of the long-lived commands: text on a terminal, JSON lines otherwise, always stderr."""

from __future__ import annotations

import json
import logging
import sys
import time

from worker.model.text import printable
from worker.wire.connection.server import without_secrets


class TextLines(logging.Formatter):
    """
    Lines for a person, without the secrets of the Redis URL.

    They are blotted out here, once for all that is logged: an error may hold the text of another
    library's, and a traceback what nobody foresaw.
    """

    def __init__(self, redis_url: str) -> None:
        """Blot out what is secret in this URL."""
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self._redis_url = redis_url

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the lines of its traceback."""
        lines = without_secrets(super().format(record), self._redis_url).split("\n")
        return "\n".join(map(printable, lines))


class JsonLines(TextLines):
    """One JSON object a record, without the secrets of the Redis URL; times RFC 3339 in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": without_secrets(record.getMessage(), self._redis_url),
        }
        if record.exc_info:
            traceback = self.formatException(record.exc_info)
            fields["traceback"] = without_secrets(traceback, self._redis_url)
        return json.dumps(fields)


def log_to_stderr(redis_url: str, verbose: bool = False) -> None:
    """Configure logging of this process: ours from INFO on, others' warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter((TextLines if sys.stderr.isatty() else JsonLines)(redis_url))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    for package in ("worker", "coordinator"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.INFO)
