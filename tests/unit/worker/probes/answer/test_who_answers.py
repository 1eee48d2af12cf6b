"""Who cannot be asked has not answered, and nothing has failed."""

from __future__ import annotations

import os
import resource

from worker.probes.answer.who_answers import Question, who_answers


def test_without_a_socket_nobody_answers() -> None:
    asked = [Question(address=each, port=9, secret=b"s") for each in ("127.0.0.1", "::1")]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.dup(0)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, hard))
    try:
        assert who_answers(asked, "n") == {}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
