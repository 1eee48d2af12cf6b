"""Building and recognising echoes; the bytes that arrive are hostile."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.probes.icmp.packet import (
    HEADED,
    HEADER,
    MIN_SIZE_BYTES,
    NONCE_BYTES,
    EchoCodec,
    Reply,
    ipv4_payload_start,
    parse_extended_error,
)

NONCE = bytes(range(100, 100 + NONCE_BYTES))
families = st.sampled_from([socket.AF_INET, socket.AF_INET6])


def codec(
    family: int = socket.AF_INET, *, targets: int = 3, size_bytes: int = 56, nonce: bytes = NONCE
) -> EchoCodec:
    return EchoCodec(family, identifier=0xBEEF, nonce=nonce, targets=targets, size_bytes=size_bytes)


def reply_to(request: bytes, family: int = socket.AF_INET) -> bytes:
    return bytes([0 if family == socket.AF_INET else 129]) + request[1:]


def ones_complement_sum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(
    families,
    st.integers(1, 70_000),
    st.integers(0, 2**31),
    st.integers(MIN_SIZE_BYTES, 1400),
    st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES),
)
def test_every_request_has_a_right_checksum_and_size(
    family: int, targets: int, serial: int, size_bytes: int, nonce: bytes
) -> None:
    request = codec(family, targets=targets, size_bytes=size_bytes, nonce=nonce).request(serial)
    assert len(request) == 8 + size_bytes
    assert ones_complement_sum(request) == 0xFFFF


@given(families, st.integers(1, 70_000), st.integers(0, 2**31), st.integers(24, 1400))
def test_a_reply_names_its_echo_even_when_the_sequence_wrapped(
    family: int, targets: int, serial: int, size_bytes: int
) -> None:
    echoes = codec(family, targets=targets, size_bytes=size_bytes)
    message = reply_to(echoes.request(serial), family)
    assert echoes.reply(message, 0) == Reply(serial, whole=True)
    assert echoes.reply(bytes(20) + message, 20) == Reply(serial, whole=True)


def test_a_reply_that_lost_or_changed_payload_is_not_whole() -> None:
    echoes = codec()
    message = reply_to(echoes.request(5))
    for damaged in (message[:-1], message + b"\0", message[:-1] + b"!"):
        assert echoes.reply(damaged, 0) == Reply(5, whole=False)


def test_requests_errors_and_strangers_are_no_replies() -> None:
    echoes = codec()
    request = echoes.request(5)
    message = reply_to(request)
    assert echoes.reply(request, 0) is None
    assert codec(nonce=bytes(NONCE_BYTES)).reply(message, 0) is None
    assert codec(targets=2).reply(message, 0) is None
    for at in (0, 1, 4, 5, 6, 7, 8, 23, 24, 27, 30, 31):
        changed = bytearray(message)
        changed[at] ^= 0x40
        assert echoes.reply(bytes(changed), 0) is None, at


@given(st.binary(max_size=200), st.integers(-1, 220), families)
def test_hostile_bytes_are_refused_and_never_raise(data: bytes, start: int, family: int) -> None:
    echoes = codec(family)
    assert echoes.reply(data, start) is None
    assert echoes.quoted(data, 10**6) is None or len(data) < HEADED.size
    assert ipv4_payload_start(data) in {-1, *range(20, 61, 4)}


@given(st.integers(0, 63), st.integers(0, 7), st.integers(0, 64))
def test_a_flipped_bit_or_a_cut_never_names_another_echo_that_was_sent(
    byte: int, bit: int, cut: int
) -> None:
    echoes = codec()
    message = bytearray(reply_to(echoes.request(7)))
    message[byte] ^= 1 << bit
    found = echoes.reply(bytes(message[:cut]), 0)
    assert found is None or found.serial == 7 or found.serial > 0xFFFF


@given(st.integers(1, 1000), st.integers(0, 200_000), st.integers(0, 65_535))
def test_eight_quoted_bytes_name_the_latest_echo_with_that_sequence(
    targets: int, serial: int, sent_since: int
) -> None:
    echoes = codec(targets=targets)
    quote = echoes.request(serial)[: HEADER.size]
    assert echoes.quoted(quote, serial + sent_since) == serial


@given(st.integers(0, 200_000), st.integers(HEADED.size, 64), st.integers(0, 200_000))
def test_a_full_quote_names_its_echo_however_many_follow(
    serial: int, length: int, sent_since: int
) -> None:
    echoes = codec()
    assert echoes.quoted(echoes.request(serial)[:length], serial + sent_since) == serial


@given(st.integers(0, 200_000), st.integers(HEADED.size, 64))
def test_a_quote_of_what_was_not_sent_yet_is_ignored(latest: int, length: int) -> None:
    echoes = codec()
    assert echoes.quoted(echoes.request(latest + 1)[:length], latest) is None


@given(st.integers(0, 200_000), st.integers(HEADER.size + 1, 64))
def test_a_quote_without_our_nonce_is_ignored_however_short(serial: int, length: int) -> None:
    forged = codec(nonce=bytes(NONCE_BYTES)).request(serial)[:length]
    assert codec().quoted(forged, serial) is None


def test_a_quote_before_anything_was_sent_is_ignored() -> None:
    assert codec().quoted(codec().request(0)[:8], -1) is None


def extended_error(origin: int, kind: int, code: int, offender: bytes) -> bytes:
    return struct.pack("=IBBBBII", 113, origin, kind, code, 0, 0, 0) + offender


V4 = struct.pack("=HH", socket.AF_INET, 0) + bytes([10, 0, 0, 1]) + bytes(8)
V6 = struct.pack("=HHI", socket.AF_INET6, 0, 0) + bytes(15) + b"\1" + bytes(4)


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (extended_error(2, 3, 1, V4), "host unreachable, said 10.0.0.1"),
        (extended_error(2, 3, 13, V4), "prohibited, said 10.0.0.1"),
        (extended_error(2, 3, 99, V4), "unreachable, said 10.0.0.1"),
        (extended_error(2, 11, 0, V4), "ttl exceeded, said 10.0.0.1"),
        (extended_error(2, 12, 0, V4[:4]), "parameter problem, said an unknown router"),
        (extended_error(3, 2, 0, V6), "packet too big, said ::1"),
        (extended_error(3, 1, 3, V6), "host unreachable, said ::1"),
    ],
)
def test_an_icmp_error_says_what_and_who(raw: bytes, line: str) -> None:
    assert str(parse_extended_error(raw)) == line


def test_errors_of_this_host_and_other_messages_are_left_to_sendto() -> None:
    assert parse_extended_error(extended_error(1, 3, 1, V4)) is None
    assert parse_extended_error(extended_error(2, 5, 1, V4)) is None


@given(st.binary(max_size=64))
@example(extended_error(3, 1, 0, V6[:20]))
def test_hostile_error_messages_never_raise(raw: bytes) -> None:
    found = parse_extended_error(raw)
    assert found is None or found.said_by
