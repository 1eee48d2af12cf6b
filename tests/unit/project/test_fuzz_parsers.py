"""Every parser keeps its promise for arbitrary bytes, and for good ones that were damaged."""

from __future__ import annotations

import random

import pytest
from fuzz.seeds import seeds
from fuzz.targets import BETWEEN, TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SEEDS = seeds()
#: Pieces that belong somewhere, but not here.
TOKENS = (
    b"", b"\x00", b"\xff", b"nan", b"-1", b"1e999", b"9" * 5000, b"\n", b"\x1b[31m", b"[" * 3000,
    b"true", b"null", b"\xc1", b"\xc7\x00\x00", "²".encode(), b"0x7f", BETWEEN, b'"', b"{}",
)  # fmt: skip


@pytest.mark.parametrize("parser", TARGETS)
def test_parser_lets_what_it_is_meant_for_pass(parser: str) -> None:
    for seed in SEEDS[parser]:
        TARGETS[parser](seed)


@pytest.mark.parametrize("parser", TARGETS)
@given(data=st.binary(max_size=400))
@settings(max_examples=20, deadline=None)
def test_arbitrary_bytes_break_no_parser(parser: str, data: bytes) -> None:
    TARGETS[parser](data)


@pytest.mark.parametrize("parser", TARGETS)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_goods_break_no_parser(parser: str, seed: int) -> None:
    TARGETS[parser](damaged(random.Random(seed), SEEDS[parser]))


def damaged(rng: random.Random, goods: list[bytes]) -> bytes:
    """Change a good input in a few places, as a fuzzer would."""
    data = bytearray(rng.choice(goods))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((0, 1, 2, 4, 20)))
        what = rng.randrange(4)
        if what == 0:
            data[at:end] = rng.choice(TOKENS)
        elif what == 1:
            data[at:end] = rng.randbytes(end - at)
        elif what == 2:
            other = rng.choice(goods)
            cut = rng.randrange(len(other) + 1)
            data[at:end] = other[cut : cut + rng.randint(0, 40)]
        else:
            del data[at:end]
    return bytes(data)
