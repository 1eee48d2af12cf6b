"""What the two ends of a test pass on is read as it was packed, and checked by one definition."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import msgpack
import pytest

from worker.model.errors import WireError
from worker.model.measurement import Outcome
from worker.node import allowlist
from worker.transfer.answer import Answer, Request, unpack_answer

REQUEST = Request(
    run="r",
    phase=1,
    performer=0,
    token="t.1",  # noqa: S106 - names a test
    number=1,
    family=6,
    idle_rtt_ms=None,
)


@pytest.mark.parametrize(
    "answer",
    [Answer(port=5201, version="3.12"), Answer(outcome=Outcome.TARGET_BUSY, error="no port")],
)
def test_an_answer_is_read_as_it_was_packed(answer: Answer) -> None:
    assert unpack_answer(answer.packed()) == answer


@pytest.mark.parametrize("name", [field.name for field in fields(Answer)])
def test_an_answer_without_one_of_its_parts_is_a_bad_reply(name: str) -> None:
    raw = msgpack.unpackb(Answer(port=5201, version="3.12").packed())
    del raw[name]
    assert unpack_answer(msgpack.packb(raw)).outcome is Outcome.BAD_REPLY


def checked(arguments: dict[str, Any]) -> Request:
    """Take arguments as a worker does: by the allow-list, and then the job's own function."""
    taken: list[Request] = []
    serve = allowlist.by_fields(Request, taken.append)
    job = allowlist.allow_listed({"ptzmesh.serve": serve})
    allowlist._check_arguments(job.parameters["ptzmesh.serve"], arguments)
    serve(**arguments)
    return taken[0]


def test_a_request_comes_through_the_allow_list_as_it_was_asked() -> None:
    assert checked(asdict(REQUEST)) == REQUEST
    assert REQUEST.lease_token == "t"  # noqa: S105 - names a test


@pytest.mark.parametrize("name", [field.name for field in fields(Request)])
def test_a_request_without_or_with_another_kind_of_argument_is_refused(name: str) -> None:
    arguments = asdict(REQUEST)
    with pytest.raises(WireError, match=name):
        checked({**arguments, name: [1]})
    del arguments[name]
    with pytest.raises(WireError, match=name):
        checked(arguments)
