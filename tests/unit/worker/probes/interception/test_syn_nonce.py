"""What is said over a connection of which SYN came, and what a kernel kept of it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.probes.interception import syn_nonce
from worker.probes.interception.syn_nonce import NOT_KEPT, Seen

SECRET = b"k" * 16
IP4, IP6 = bytes([0x45]) + bytes(19), bytes([0x60]) + bytes(39)


def syn(options: bytes) -> bytes:
    padded = options + bytes(-len(options) % 4)
    return bytes(12) + bytes([(20 + len(padded)) // 4 << 4, 2]) + bytes(6) + padded


@pytest.mark.parametrize(
    ("packet", "mss"),
    [
        (IP4 + syn(bytes.fromhex("020405b4")), 1460),
        (IP6 + syn(bytes.fromhex("0101080a0000000100000000020401f4")), 500),
        (IP4 + syn(bytes.fromhex("0101040200")), NOT_KEPT),
        (IP4 + syn(bytes.fromhex("0001020401f4")), NOT_KEPT),
        (b"", NOT_KEPT),
    ],
)
def test_offered_size_is_read_from_a_syn(packet: bytes, mss: int) -> None:
    assert syn_nonce.offered_mss(packet) == mss


@given(st.binary(max_size=120))
def test_nonsense_offers_nothing_that_fails(noise: bytes) -> None:
    assert 0 <= syn_nonce.offered_mss(noise) <= 0xFFFF
    assert 0 <= syn_nonce.offered_mss(IP4 + noise) <= 0xFFFF
    assert syn_nonce.read_question(noise, SECRET) is None
    assert syn_nonce.read_reply(noise, b"c" * 16, SECRET) is None


def test_word_counts_only_from_who_knows_the_secret_and_only_for_its_question() -> None:
    challenge = b"c" * 16
    assert syn_nonce.read_question(syn_nonce.question(challenge, SECRET), SECRET) == challenge
    assert syn_nonce.read_question(syn_nonce.question(challenge, b"other"), SECRET) is None
    said = syn_nonce.reply(400, challenge, SECRET)
    assert syn_nonce.read_reply(said, challenge, SECRET) == 400
    assert syn_nonce.read_reply(said, b"d" * 16, SECRET) is None
    assert syn_nonce.read_reply(said, challenge, b"other") is None
    assert syn_nonce.read_reply(struct.pack("!H", 401) + said[2:], challenge, SECRET) is None


@pytest.fixture
def port() -> Iterator[int]:
    listener = syn_nonce.listen(0)
    assert listener is not None
    ended = threading.Event()
    arguments = (listener, SECRET, time.monotonic() + 60, ended.is_set)
    thread = threading.Thread(target=syn_nonce.answer_until, args=arguments)
    thread.start()
    yield listener.getsockname()[1]
    ended.set()
    thread.join()


def test_syn_comes_straight_over_both_versions_beside_one_that_says_nothing(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)):
        assert syn_nonce.ask("127.0.0.1", port, SECRET) is Seen.STRAIGHT
        assert syn_nonce.ask("::1", port, SECRET) is Seen.STRAIGHT


def test_who_does_not_know_the_secret_has_no_word(port: int) -> None:
    assert syn_nonce.ask("127.0.0.1", port, b"other") is Seen.UNSEEN


def test_closed_port_says_nothing_of_the_way() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert syn_nonce.ask("127.0.0.1", bound.getsockname()[1], SECRET) is Seen.UNKNOWN
