"""What an operator says of Redis apart becomes one URL, or one line that says what is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
import redis
from redis.connection import parse_url

from coordinator.cli.group import COMMANDS, load, parameters
from coordinator.cli.settings.config import read_config
from coordinator.cli.settings.options import redis_option
from worker.model.errors import ConfigError
from worker.wire.connection import server
from worker.wire.connection.redis_trouble import trouble
from worker.wire.connection.redis_url import VARIABLES, Credentials, with_credentials

MARKER = "hunter2"
ODD = "p@ss/w#rd%41 ?&+ü"


def understood(url: str) -> dict[str, Any]:
    """Give what redis-py reads from a URL."""
    found: dict[str, Any] = parse_url(url)
    return found


@pytest.mark.parametrize(
    "url",
    ["redis://worker@hub:6379/2", "rediss://worker@hub", "unix://worker@/run/redis.sock?db=2"],
)
def test_password_that_is_said_apart_arrives_as_it_is(url: str) -> None:
    found = understood(with_credentials(url, Credentials(password=ODD)))
    assert (found["username"], found["password"]) == ("worker", ODD)
    without = understood(url)
    assert {k: v for k, v in found.items() if k in without} == without


def test_url_without_user_gets_the_password_alone() -> None:
    found = understood(with_credentials("redis://[fd77::1]:6380", Credentials(password=ODD)))
    assert found["password"] == ODD
    assert "username" not in found
    assert found["host"] == "fd77::1"


@pytest.mark.parametrize("url", ["unix:///run/redis.sock", "redis://h", "redis://u:p@h:1/2?db=2"])
def test_url_to_which_nothing_is_added_stays_as_it_is(url: str) -> None:
    assert with_credentials(url, Credentials()) == url


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_password_file_is_one_line(tmp_path: Path, end: str) -> None:
    file = tmp_path / "pass"
    file.write_bytes((ODD + end).encode())
    file.chmod(0o600)
    found = understood(with_credentials("redis://h", Credentials(password_file=str(file))))
    assert found["password"] == ODD


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"a\nb\n", "one line"),
        (b"a\x00b", "one line"),
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * 5000, "one line"),
    ],
)
def test_password_file_that_is_none_is_refused(
    tmp_path: Path, content: bytes | None, word: str
) -> None:
    file = tmp_path / "pass"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=word) as caught:
        with_credentials("redis://h", Credentials(password_file=str(file)))
    assert str(file) in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_file_that_every_user_can_read_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    file = tmp_path / "pass"
    file.write_text("hunter2")
    file.chmod(mode)
    with_credentials("redis://h", Credentials(password_file=str(file)))
    assert ("chmod o-r" in caplog.text) is warned
    assert "hunter2" not in caplog.text


def test_two_passwords_are_refused_and_one_said_twice_is_not(tmp_path: Path) -> None:
    file = tmp_path / "pass"
    file.write_text("hunter2")
    file.chmod(0o600)
    named = str(file)
    for url, given in [
        ("redis://:other@h", Credentials(password=MARKER)),
        ("redis://:other@h", Credentials(password_file=named)),
        ("unix:///run/r?password=other", Credentials(password=MARKER)),
        ("redis://h", Credentials(password=MARKER, password_file=named)),
    ]:
        with pytest.raises(ConfigError, match="two passwords") as caught:
            with_credentials(url, given)
        assert "hunter2" not in str(caught.value)
        assert "other" not in str(caught.value)
    once = with_credentials("redis://h", Credentials(password=ODD))
    assert with_credentials(once, Credentials(password=ODD)) == once


@pytest.mark.parametrize(
    "url",
    ["redis://:hun/ter2@h", "redis://:12#ter2@h:6379", "redis://:12?ter2@h", "redis://[::1",
     "http://:hunter2@h", "redis://:hunter2@h:port", "redis://:hunter2@h/0x", "redis://:hunter2@h/mesh",
     ":hunter2@h", "", "redis://:hunter2@a..b", "redis://:hunter2@" + 64 * "a"],
)  # fmt: skip
def test_url_that_is_none_is_refused_and_nothing_of_it_is_told(url: str) -> None:
    for refuses in (lambda: with_credentials(url, Credentials()), lambda: server.connect(url)):
        with pytest.raises(ConfigError) as caught:
            refuses()
        assert "ter2" not in str(caught.value)
        # A traceback shows causes and contexts, too.
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert "ter2" not in server.safe_url(url)


def test_what_is_secret_is_blotted_out_wherever_it_stands_in_the_url() -> None:
    url = "rediss://user:p%40ss@h:1/0?ssl_password=key%2Bword&password=third+one"
    said = f"{url} p@ss p%40ss key+word key%2Bword third one"
    blotted = server.without_secrets(said, url)
    for secret in ("p@ss", "p%40ss", "key+word", "key%2Bword", "third one", "third+one"):
        assert secret not in blotted
    assert server.safe_url(url) == "rediss://h:1/0"


def test_credentials_do_not_show_their_password() -> None:
    assert "hunter2" not in repr(Credentials(password=MARKER))


@pytest.mark.parametrize(
    ("error", "scheme", "word"),
    [
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "rediss", "without TLS"),
        ("Timeout connecting to server", "rediss", "without TLS"),
        ("Connection closed by server.", "rediss", "--redis-cert"),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] alert", "rediss", "--redis-cert"),
        ("Connection reset by peer", "redis", "rediss://"),
        ("Error 2 connecting to h:1. No such file or directory.", "rediss", "files"),
        ("[X509: NO_CERTIFICATE_OR_CRL_FOUND] no certificate", "rediss", "files"),
        ("Error 111 connecting. Connection refused.", "rediss", None),
        ("Timeout connecting to server", "redis", None),
        ("Connection closed by server.", "unix", None),
    ],
)
def test_an_error_of_tls_is_told_apart_from_others(
    error: str, scheme: str, word: str | None
) -> None:
    sentence, _ = trouble(error, scheme)
    assert (word in sentence) if word else not re.search("TLS|rediss", sentence)


def test_a_missing_file_of_tls_is_no_missing_socket_and_is_not_waited_for() -> None:
    error = redis.ConnectionError("Error 2 connecting to h:1. No such file or directory.")
    told = {url: server.unavailable(error, url) for url in ("rediss://h:1", "unix:///h")}
    assert {url: one.passes for url, one in told.items()} == {
        "rediss://h:1": False,
        "unix:///h": True,
    }
    assert "socket" not in str(told["rediss://h:1"])


def test_a_key_without_its_certificate_is_refused_wherever_it_is_used() -> None:
    with pytest.raises(ConfigError, match="needs its certificate"):
        server.connect("rediss://h?ssl_keyfile=/k.pem")


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def url_of(settings: dict[str, Any], *flags: str) -> str:
    """Run a command that has `redis_option`, and give what it got."""

    @click.command()
    @redis_option
    def show(redis_url: str) -> None:
        click.echo(redis_url, nl=False)

    from click.testing import CliRunner

    done = CliRunner().invoke(show, flags, default_map=settings, catch_exceptions=False)
    return done.stdout


def settings_file(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "ptzmesh.toml"
    path.write_text(text)
    known = {name: (lambda name=name: parameters(name)) for name in COMMANDS}
    return read_config(str(path), known)


def secret_file(tmp_path: Path, password: str) -> str:
    path = tmp_path / f"{password}.pass"
    path.write_text(password)
    path.chmod(0o600)
    return str(path)


def test_flag_and_variable_name_the_password_file(
    tmp_path: Path, clean: pytest.MonkeyPatch
) -> None:
    clean.setenv("PTZMESH_REDIS_URL", "redis://me@h")
    clean.setenv("PTZMESH_REDIS_PASSWORD_FILE", secret_file(tmp_path, "one"))
    assert url_of({}) == "redis://me:one@h"
    assert url_of({}, "--redis-password-file", secret_file(tmp_path, "two")) == "redis://me:two@h"
    clean.delenv("PTZMESH_REDIS_PASSWORD_FILE")
    clean.setenv("PTZMESH_REDIS_PASSWORD", "three")
    assert url_of({}) == "redis://me:three@h"
    assert url_of({}, "--redis", "redis://other") == "redis://:three@other"


def test_the_files_password_goes_to_the_files_redis_only(
    tmp_path: Path, clean: pytest.MonkeyPatch
) -> None:
    named = secret_file(tmp_path, "filed")
    text = f'redis = "redis://me@hub"\nredis_password_file = "{named}"\n'
    found = settings_file(tmp_path, text + '[runs]\nredis = "redis://elsewhere"\n')
    assert url_of(found["nodes"]) == "redis://me:filed@hub"
    assert url_of(found["runs"]) == "redis://elsewhere"
    assert url_of(found["nodes"], "--redis", "redis://stranger") == "redis://stranger"
    clean.setenv("PTZMESH_REDIS_PASSWORD", "said")
    assert url_of(found["nodes"]) == "redis://me:said@hub"


@pytest.mark.parametrize("name", [name for name in COMMANDS if "redis" in parameters(name)])
def test_every_command_takes_the_same_of_redis(name: str) -> None:
    options = {option for one in load(name).params for option in one.opts}
    files = {"--redis-password-file", "--redis-ca", "--redis-cert", "--redis-key"}
    assert {"--redis"} | files <= options
    assert "--redis-password" not in options


def test_the_settings_file_takes_all_at_the_top(tmp_path: Path) -> None:
    entries = ("redis", "redis_password_file", "redis_ca", "redis_cert", "redis_key")
    found = settings_file(tmp_path, "".join(f'{entry} = "x"\n' for entry in entries))
    assert set(found["nodes"].values()) == {"x"}
    assert len(found["nodes"]) == len(entries)
