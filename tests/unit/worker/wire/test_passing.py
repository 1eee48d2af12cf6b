"""Names, addresses, addresses of Redis: what is accepted."""

from __future__ import annotations

import pytest
import redis

from worker.model.errors import ConfigError, RedisUnavailable, WireError
from worker.model.names import valid_address, valid_name
from worker.wire import rq_jobs
from worker.wire.connection import server


@pytest.mark.parametrize("name", ["a", "cam-7", "hub.lan", "A_1", "x" * 64])
def test_plain_names_pass(name: str) -> None:
    assert valid_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-x", "x-", "a b", "a\n", "ü", "a/b", "a:b", "x" * 65, "*", ".."]
)
def test_odd_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        valid_name(name)


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "fd77::1", "fe80::1%eth0", "cam-7.local", "127.0.0.3", "hub"]
)
def test_addresses_of_one_machine_pass(address: str) -> None:
    assert valid_address(address) == address


@pytest.mark.parametrize(
    "address",
    ["", "-c", "10.0.0.256", "224.0.0.1", "ff02::1", "0.0.0.0", "::", "255.255.255.255", "a b"],  # noqa: S104
)
def test_addresses_of_none_or_many_are_refused(address: str) -> None:
    with pytest.raises(ConfigError):
        valid_address(address)


def test_safe_url_has_no_secret() -> None:
    assert "hunter2" not in server.safe_url("rediss://u:hunter2@h:6379/1?ssl_ca_certs=x")


def test_secret_is_blotted_out_in_either_spelling() -> None:
    url = "redis://:p%40ss@h"
    assert server.without_secrets("p@ss and p%40ss", url) == "*** and ***"


def test_url_that_is_none_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigError) as caught:
        server.connect("http://:hunter2@h")
    assert "hunter2" not in str(caught.value)


def test_every_connection_has_the_time_outs_that_notice_a_silent_cut() -> None:
    settings = server.connect("redis://h").connection_pool.connection_kwargs
    keepalive = dict(settings["socket_keepalive_options"])
    assert settings["socket_keepalive"] is True
    assert settings["socket_connect_timeout"] <= 10
    assert settings["socket_timeout"] <= 30
    assert keepalive


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (redis.AuthenticationError("WRONGPASS invalid"), "password"),
        (redis.exceptions.OutOfMemoryError("OOM command not allowed"), "full"),
        (redis.ConnectionError("Error 111"), "does not answer"),
    ],
)
def test_redis_trouble_is_one_line_that_says_what_to_do(error: redis.RedisError, word: str) -> None:
    said = server.unavailable(error, "redis://h")
    assert isinstance(said, RedisUnavailable)
    assert said.exit_code == 3
    assert word in str(said)
    assert "\n" not in str(said)


@pytest.mark.parametrize("payload", [b"\xc1", b"\x93\x01", b"\x81\xa1a" + b"\x91" * 2000])
def test_payload_that_is_no_msgpack_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError):
        rq_jobs.MsgpackSerializer.loads(payload)


def test_payload_over_the_bound_is_not_looked_at() -> None:
    with pytest.raises(WireError, match="over"):
        rq_jobs.MsgpackSerializer.loads(b"\xc0" * (rq_jobs.MAX_PAYLOAD_BYTES + 1))
