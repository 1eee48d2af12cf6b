"""Files of TLS, as openssl makes them, become parts of the URL or one line that names them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from redis.connection import parse_url

from worker.model.errors import ConfigError
from worker.monitor.settings import load_settings
from worker.wire.connection.redis_url import Credentials, with_credentials


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of certificate and key, and one key with a passphrase."""
    folder = tmp_path_factory.mktemp("pem")
    for name in ("one", "two"):
        subject = ["-subj", f"/CN={name}", "-days", "2", "-nodes"]
        made = ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
        _openssl(folder, "req", "-x509", "-newkey", "rsa:2048", *subject, *made)
        (folder / f"{name}.key").chmod(0o600)
    _openssl(folder, "rsa", "-aes256", "-passout", "pass:x", "-in", "one.key", "-out", "locked.key")
    (folder / "both.pem").write_bytes(
        (folder / "one.crt").read_bytes() + (folder / "one.key").read_bytes()
    )
    (folder / "both.pem").chmod(0o600)
    return folder


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def test_tls_files_arrive_as_redis_py_reads_them(pem: Path) -> None:
    odd = pem / "a&b +c.pem"
    odd.write_bytes((pem / "one.crt").read_bytes())
    given = Credentials(ca=str(odd), cert=str(pem / "one.crt"), key=str(pem / "one.key"))
    url = with_credentials("rediss://h:1/0?ssl_ca_path=/x", given)
    found = parse_url(url)
    assert found["ssl_ca_certs"] == str(odd)
    assert found["ssl_certfile"] == str(pem / "one.crt")
    assert found["ssl_keyfile"] == str(pem / "one.key")
    assert found["ssl_ca_path"] == "/x"
    assert with_credentials(url, given) == url
    both = with_credentials("rediss://h", Credentials(cert=str(pem / "both.pem")))
    assert parse_url(both)["ssl_certfile"] == str(pem / "both.pem")


@pytest.mark.parametrize(
    ("url", "files", "words"),
    [
        ("redis://h", {"ca": "one.crt"}, ["one.crt", "rediss://"]),
        ("unix:///h", {"ca": "one.crt"}, ["one.crt", "rediss://"]),
        ("rediss://h", {"ca": "none.crt"}, ["CA file", "none.crt", "No such file"]),
        ("rediss://h", {"ca": "one.key"}, ["CA file", "one.key", "no certificate"]),
        ("rediss://h", {"key": "one.key"}, ["one.key", "--redis-cert"]),
        ("rediss://h", {"cert": "one.crt"}, ["one.crt", "not PEM"]),
        ("rediss://h", {"cert": "one.crt", "key": "two.key"}, ["two.key", "belong together"]),
        ("rediss://h", {"cert": "one.crt", "key": "locked.key"}, ["locked.key", "passphrase"]),
        ("rediss://h?ssl_ca_certs=/other", {"ca": "one.crt"}, ["two files", "/other"]),
        ("rediss://h?ssl_ca_certs=/other", {}, ["CA file", "/other", "No such file"]),
        ("rediss://h?ssl_keyfile=/other", {}, ["/other", "--redis-cert"]),
        ("rediss://h?ssl_certfile=/etc/passwd", {}, ["/etc/passwd", "not PEM"]),
    ],
)
def test_tls_files_that_cannot_work_are_refused_by_their_names(
    pem: Path, url: str, files: dict[str, str], words: list[str]
) -> None:
    given = Credentials(**{name: str(pem / file) for name, file in files.items()})
    with pytest.raises(ConfigError) as caught:
        with_credentials(url, given)
    assert [word for word in words if word not in str(caught.value)] == []


def test_the_monitor_understands_the_same_variables(
    tmp_path: Path, pem: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "filed.pass"
    secret.write_text("filed")
    secret.chmod(0o600)
    environ = {
        "PTZMESH_REDIS_URL": "rediss://me@hub",
        "PTZMESH_REDIS_PASSWORD_FILE": str(secret),
        "PTZMESH_REDIS_CA": str(pem / "one.crt"),
    }
    url = load_settings(environ).redis_url
    assert url == f"rediss://me:filed@hub?ssl_ca_certs={pem / 'one.crt'}"
    assert load_settings(environ, redis_url=url).redis_url == url
    del environ["PTZMESH_REDIS_CA"]
    asked = load_settings(environ, redis_url="redis://:own@other").redis_url
    assert asked == "redis://:own@other"
    assert load_settings(environ, redis_url="redis://x@o").redis_url == "redis://x:filed@o"
    environ["PTZMESH_REDIS_PASSWORD_FILE"] = str(tmp_path / "missing")
    assert load_settings(environ).redis_url is None
    assert "missing" in caplog.text
    assert "filed" not in repr(load_settings({**environ, "PTZMESH_REDIS_URL": "redis://:filed@h"}))
