"""Options of a Redis URL that other programs share: taken, left out with a word, or refused."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.model.errors import ConfigError
from worker.wire.connection import redis_query, server
from worker.wire.connection.redis_url import plain


@pytest.fixture(autouse=True)
def _nothing_said_yet() -> None:
    redis_query._log_once.cache_clear()


@pytest.mark.parametrize(
    ("url", "left"),
    [
        ("redis://hub/0?decode_responses=true", "redis://hub/0"),
        ("redis://hub?socket_timeout=3&client_name=x", "redis://hub?client_name=x"),
        ("redis://hub?ssl_cert_reqs=none", "redis://hub"),
        ("redis://hub?health_check_interval=&x=1", "redis://hub"),
        ("rediss://hub?ssl_cert_reqs=CERT_NONE&a=1", "rediss://hub?ssl_cert_reqs=none"),
        ("unix:///run/redis.sock?db=3&protocol=3", "unix:///run/redis.sock?db=3"),
        ("rediss://hub?ssl=true", "rediss://hub"),
        ("redis://hub?ssl=False", "redis://hub"),
    ],
)
def test_what_is_another_programs_is_left_out_with_one_word(
    url: str, left: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert plain(url) == left
        assert plain(url) == left
    assert len(caplog.records) == 1
    assert "hub" not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "redis://hub?virtual_host=3",
        "redis://hub?master_name=mymaster",
        "redis://hub?ssl=true",
        "rediss://hub?ssl=false",
        "redis://hub?ssl_ca_certs=/etc/ca.pem",
        "redis://hub/1?db=2",
        "redis://hub?db=x",
        "rediss://hub?ssl_cert_reqs=maybe",
        "rediss://hub?ssl_check_hostname=perhaps",
        "redis://hub?client_name=two%20words",
    ],
)
def test_what_changes_the_meaning_is_refused(url: str) -> None:
    for use in (plain, server.connect):
        with pytest.raises(ConfigError, match="the Redis URL's option"):
            use(url)


def test_what_celery_calls_differently_arrives_as_redis_py_calls_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert plain("rediss://h?ssl_cert_reqs=CERT_REQUIRED") == "rediss://h?ssl_cert_reqs=required"
    assert caplog.text == ""


@given(
    st.sampled_from(["redis://h/0", "rediss://h", "unix:///s"]),
    st.lists(
        st.tuples(st.from_regex(r"[a-z_]{1,20}", fullmatch=True), st.text(max_size=5)), max_size=4
    ),
)
def test_no_option_ends_in_a_bug(base: str, pairs: list[tuple[str, str]]) -> None:
    from urllib.parse import urlencode

    known = [*redis_query.TAKEN, *redis_query.TLS_TAKEN, "decode_responses", "retry", "protocol"]
    for names in ([name for name, _ in pairs], known[: len(pairs)]):
        query = urlencode(list(zip(names, [value for _, value in pairs], strict=True)))
        try:
            with server.connect(f"{base}?{query}") as connection:
                connection.connection_pool.make_connection()
        except ConfigError:
            continue
