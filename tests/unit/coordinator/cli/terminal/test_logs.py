"""What a long-lived command logs: its lines, and what must never be in them."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from coordinator.cli.terminal.logs import JsonLines, TextLines

URL = "redis://worker:hunter2%40x@10.0.0.1:6379/0"


def record_of_a_failure() -> logging.LogRecord:
    try:
        raise OSError("AUTH worker hunter2@x failed")
    except OSError as exc:
        return logging.LogRecord(
            "worker.node.supervisor",
            logging.ERROR,
            __file__,
            1,
            "of %s: %s",
            (URL, exc),
            sys.exc_info(),
        )


@pytest.mark.parametrize("lines", [TextLines, JsonLines])
def test_a_password_is_in_no_line_however_it_is_written(
    lines: type[TextLines] | type[JsonLines],
) -> None:
    told = lines(URL).format(record_of_a_failure())
    assert "hunter2" not in told
    assert told.count("AUTH worker ***") >= 2
    assert "Traceback" in told


def test_a_json_line_holds_time_level_logger_message_and_traceback() -> None:
    fields = json.loads(JsonLines(URL).format(record_of_a_failure()))
    assert {*fields} == {"time", "level", "logger", "message", "traceback"}
    assert fields["level"] == "ERROR"
    assert fields["message"] == "of redis://worker:***@10.0.0.1:6379/0: AUTH worker *** failed"
    assert fields["traceback"].endswith("OSError: AUTH worker *** failed")
