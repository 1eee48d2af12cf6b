"""Datagrams of the answering port: authentic, told apart, and never an amplifier."""

from __future__ import annotations

import pytest

from worker.probes.answer.packet import (
    LEAST_BYTES,
    Kind,
    answer,
    challenge_of,
    read_reply,
    read_request,
    request,
)

SECRET, OTHER = b"s" * 16, b"t" * 16


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("size", [LEAST_BYTES, 1472, 9000])
def test_reply_is_of_the_least_size_or_of_its_requests_and_never_longer(
    kind: Kind, size: int
) -> None:
    asked = request(kind, "cam-1", SECRET, size)
    assert len(asked) == size
    reply = answer(asked, "cam-2", SECRET)
    assert reply is not None
    assert len(reply) == (size if kind is Kind.BOTH_WAYS else LEAST_BYTES)
    said = read_reply(reply, asked, SECRET)
    assert said is not None
    assert (said.name, said.kind, said.size) == ("cam-2", kind, len(reply))


def test_who_does_not_know_the_secret_is_not_answered_and_not_believed() -> None:
    asked = request(Kind.WHO, "a", SECRET)
    assert answer(asked, "b", OTHER) is None
    forged = answer(request(Kind.WHO, "a", OTHER), "b", OTHER)
    assert forged is not None
    assert read_reply(forged, asked, SECRET) is None


def test_reply_is_to_its_own_request_only() -> None:
    first, second = (request(Kind.WHO, "a", SECRET) for _ in range(2))
    assert challenge_of(first) != challenge_of(second)
    reply = answer(first, "b", SECRET)
    assert reply is not None
    assert challenge_of(reply) == challenge_of(first)
    assert read_reply(reply, second, SECRET) is None


def test_request_is_no_reply_and_a_reply_is_no_request() -> None:
    asked = request(Kind.WHO, "a", SECRET)
    assert read_reply(asked, asked, SECRET) is None
    reply = answer(asked, "b", SECRET)
    assert reply is not None
    assert read_request(reply, SECRET) is None  # else two ports would answer each other for ever


def test_every_changed_byte_and_every_other_length_is_noticed() -> None:
    asked = request(Kind.WHO, "a", SECRET)
    for at in range(LEAST_BYTES):
        changed = bytes([*asked[:at], asked[at] ^ 1, *asked[at + 1 :]])
        assert answer(changed, "b", SECRET) is None, at
        assert answer(asked[:at], "b", SECRET) is None
    assert answer(asked + b"\0", "b", SECRET) is None


@pytest.mark.parametrize("size", [0, LEAST_BYTES - 1, 65508])
def test_size_that_no_datagram_of_ours_has_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        request(Kind.ONE_WAY, "a", SECRET, size)
