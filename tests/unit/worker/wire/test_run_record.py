"""The fields of a run's hash are named in one file, and in the docs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.model.plan import Plan, PlannedNode
from worker.wire import run_record

ROOT = Path(__file__).parents[4]
FIELDS = {
    value for name, value in vars(run_record).items() if name.isupper() and isinstance(value, str)
}
COUNTS = {run_record.PAIRS, run_record.DONE, run_record.OK}
#: Of one row, one source or one probe: behind the colon is which.
MANY = (*run_record.RowFields._fields, *COUNTS, run_record.rtt_field(0).partition(":")[0])
STATUSES = {run_record.IS_RUNNING, run_record.IS_DONE, run_record.IS_CANCELLED}
ONE_EACH = FIELDS - COUNTS - STATUSES
#: What other records and calls have by the same name.
OTHERS = {
    ("coordinator/runs/row_state.py", "status"): "of RQ's job",
    ("worker/transfer/asking.py", "status"): "of RQ's job",
    ("worker/wire/rq_jobs.py", "status"): "of RQ's job",
    ("worker/wire/rows.py", "phase"): "an argument of the job `sweep`",
}


def texts_of(path: Path) -> Iterator[str]:
    """Yield the texts in a module that knows keys, or in a script."""
    text = path.read_text()
    if path.suffix == ".lua":
        code = re.sub(r"--.*", "", text)
        yield from re.findall(r"'([^']*)'", code)
    elif "keyspace" in text:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
                value = node.value
                yield value.decode("latin-1") if isinstance(value, bytes) else value


def modules() -> list[Path]:
    paths = (p for side in ("coordinator", "worker") for p in (ROOT / side).rglob("*"))
    return [p for p in paths if p.suffix in (".py", ".lua") and p.name != "run_record.py"]


def test_only_the_run_record_names_a_field_of_it() -> None:
    named = {
        (path.relative_to(ROOT).as_posix(), text)
        for path in modules()
        for text in texts_of(path)
        if text in ONE_EACH or text.startswith(tuple(f"{name}:" for name in MANY))
    }
    assert named <= OTHERS.keys()


def test_each_field_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "keys.md").read_text()
    section = page.partition("## What is kept of a run")[2].partition("\n## ")[0]
    listed = {name.partition(":")[0] for name in re.findall(r"`([a-z]+[^`]*)`", section)}
    assert {*ONE_EACH, *MANY} <= listed


PLAN = Plan(
    nodes=(PlannedNode(name="a", address="10.0.0.1"), PlannedNode(name="b", address="10.0.0.2")),
    sources=(0,),
    targets=(1,),
)


def test_a_run_that_begins_is_read_as_it_was_written() -> None:
    fields = run_record.to_fields(PLAN, by="me")
    fields |= {run_record.CREATED: "1.5", run_record.BEGUN: "7-0"}
    raw = {name: str(value).encode() for name, value in fields.items()}
    run = run_record.from_fields("r", raw, PLAN)
    assert (run.is_open, run.phase, run.created, run.begun, run.by) == (True, 0, 1.5, "7-0", "me")
    assert (run.published, run.failed, run.newest, run.closed) == (0, 0, None, None)


@pytest.mark.parametrize("raw", [b"", b"x", b"nan", b"\xff"])
def test_invalid_mark_is_long_ago(raw: bytes) -> None:
    marks = run_record.row_marks([raw] * len(run_record.RowFields._fields))
    assert (marks.started, marks.seen, marks.unserved, marks.attempts) == (0.0, 0.0, 0.0, 0)


def test_row_of_which_nothing_is_noted() -> None:
    marks = run_record.row_marks([None] * len(run_record.RowFields._fields))
    assert marks == run_record.RowMarks(None, None, None, None, 0, "")
