"""Whom a node asks which handshake came. Pure."""

from __future__ import annotations

from worker.identity.proxies import to_ask
from worker.probes.interception.interception import ONE_HOP, End, Sign

MOST = 256

KEYS: dict[End, str] = {(f"10.0.{i // 250}.{i % 250}", 5216): f"key-{i}" for i in range(999)}
ENDS = list(KEYS)


def test_who_has_not_said_it_lately_is_asked() -> None:
    few = {end: KEYS[end] for end in ENDS[:5]}
    assert set(to_ask(few, {}, {"key-1", "key-3"}, MOST)) == {ENDS[0], ENDS[2], ENDS[4]}


def test_sign_is_asked_about_first_and_though_it_was_said_lately() -> None:
    asked = to_ask(KEYS, {ENDS[998]: Sign(hint=ONE_HOP)}, {"key-998"}, MOST)
    assert asked[0] == ENDS[998]
    assert len(set(asked)) == len(asked) == MOST + 1


def test_row_of_a_large_mesh_asks_some_and_a_later_one_the_others() -> None:
    known: set[str] = set()
    while some := to_ask(KEYS, {}, known, MOST):
        assert len(some) <= MOST
        known |= {KEYS[end] for end in some}
    assert known == set(KEYS.values())
