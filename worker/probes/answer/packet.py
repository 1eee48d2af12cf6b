"""
The datagrams of a node's answering port: who are you, and do datagrams of this size pass? Pure.

Both ways have one form: a header, a name, a tag, and zeros up to the size. The tag is an
HMAC-SHA256 (RFC 2104, cut to 128 bits as its section 5 allows) under the secret of the port, which
only readers of this Redis know; a reply's tag covers the request's, so it answers that request and
no other. No reply is longer than its request: the port amplifies nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from dataclasses import dataclass
from enum import IntEnum

from worker.model.names import NAME

MAGIC = b"PTZA"
CHALLENGE_BYTES, TAG_BYTES, NAME_BYTES = 8, 16, 64
#: Magic, kind, length of the name, size of the whole datagram, challenge.
_HEADER = struct.Struct(f"!4sBBH{CHALLENGE_BYTES}s{NAME_BYTES}s")
#: Smallest datagram, and size of every reply but those of `BOTH_WAYS`.
LEAST_BYTES = _HEADER.size + TAG_BYTES
#: The largest that UDP over IPv4 carries.
MOST_BYTES = 65507
_REPLY = 0x80


class Kind(IntEnum):
    """What a request asks for."""

    #: A name: that of the node which has the secret.
    WHO = 1
    #: A small reply to a request of any size.
    ONE_WAY = 2
    #: A reply of the request's own size.
    BOTH_WAYS = 3


@dataclass(frozen=True, kw_only=True)
class Datagram:
    """What an authentic request or reply says; `size` is of all of it, in bytes."""

    kind: Kind
    name: str
    size: int
    challenge: bytes


def request(kind: Kind, near: str, secret: bytes, size: int = LEAST_BYTES) -> bytes:
    """
    Make a request of `size` bytes (without UDP's and IP's headers), with a challenge of its own.

    >>> len(request(Kind.ONE_WAY, "cam-1", b"s", 1400))
    1400
    """
    if not LEAST_BYTES <= size <= MOST_BYTES:
        raise ValueError(f"size ({size}) must be within {LEAST_BYTES} and {MOST_BYTES} bytes")
    return _pack(kind, near, secrets.token_bytes(CHALLENGE_BYTES), size, secret)


def read_request(data: bytes, secret: bytes) -> Datagram | None:
    """Read a request; None when it is not one, or its maker does not know the secret."""
    return _read(data, secret)


def answer(data: bytes, name: str, secret: bytes) -> bytes | None:
    """
    Make the reply of node `name` to what came; None where it is not a request of ours.

    >>> reply = answer(asked := request(Kind.WHO, "cam-1", b"s"), "cam-2", b"s")
    >>> read_reply(reply, asked, b"s").name, answer(asked, "cam-2", b"another")
    ('cam-2', None)
    """
    if (asked := read_request(data, secret)) is None:
        return None
    size = asked.size if asked.kind is Kind.BOTH_WAYS else LEAST_BYTES
    return _pack(asked.kind, name, asked.challenge, size, secret, in_reply_to=data)


def read_reply(data: bytes, asked: bytes, secret: bytes) -> Datagram | None:
    """Read the reply to a request; None when it is not one, or its maker has not the secret."""
    return _read(data, secret, in_reply_to=asked)


def challenge_of(data: bytes) -> bytes:
    """Return what tells requests apart, and a reply's request; of no datagram of ours, anything."""
    return data[8 : 8 + CHALLENGE_BYTES]


def _pack(
    kind: Kind,
    name: str,
    challenge: bytes,
    size: int,
    secret: bytes,
    in_reply_to: bytes | None = None,
) -> bytes:
    number = kind if in_reply_to is None else kind | _REPLY
    encoded = name.encode("ascii")
    head = _HEADER.pack(MAGIC, number, len(encoded), size, challenge, encoded)
    return (head + _tag(secret, head, in_reply_to)).ljust(size, b"\0")


def _tag(secret: bytes, head: bytes, in_reply_to: bytes | None) -> bytes:
    before = b"" if in_reply_to is None else in_reply_to[_HEADER.size : LEAST_BYTES]
    return hmac.new(secret, head + before, hashlib.sha256).digest()[:TAG_BYTES]


def _read(data: bytes, secret: bytes, in_reply_to: bytes | None = None) -> Datagram | None:
    if len(data) < LEAST_BYTES or not data.startswith(MAGIC):
        return None
    head, tag = data[: _HEADER.size], data[_HEADER.size : LEAST_BYTES]
    if not hmac.compare_digest(tag, _tag(secret, head, in_reply_to)):
        return None
    _, number, length, size, challenge, padded = _HEADER.unpack(head)
    name = padded[:length].decode("ascii", "replace")
    kind = number if in_reply_to is None else number ^ _REPLY
    if size != len(data) or kind not in set(Kind) or not NAME.fullmatch(name):
        return None
    return Datagram(kind=Kind(kind), name=name, size=size, challenge=challenge)
