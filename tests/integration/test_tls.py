"""A mesh over TLS with certificates on both sides; what does not fit is refused in one line."""

from __future__ import annotations

import datetime
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import trustme
from missing import missing

from coordinator.embedded import EmbeddedServer, embedded_server
from integration.guarded import free_port
from integration.nodes import cli, workers
from worker.probes.icmp.engine import icmp_capability
from worker.wire.connection.redis_url import Credentials, with_credentials

pytestmark = pytest.mark.redis

SERVER = shutil.which("redis-server")
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Papers:
    """An authority, another one, and what they have signed: `<name>.crt`, `<name>.key`."""

    folder: Path

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def credentials(self, client: str | None = "client", ca: str = "ca.pem") -> Credentials:
        cert, key = (f"{client}.crt", f"{client}.key") if client else (None, None)
        return Credentials(
            ca=self.path(ca), cert=cert and self.path(cert), key=key and self.path(key)
        )


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("tls")
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    other.cert_pem.write_to_path(str(folder / "other.pem"))
    past = datetime.datetime.now(datetime.timezone.utc) - DAY
    expired = {"not_before": past - DAY, "not_after": past}
    issued = {
        "server": ca.issue_cert("127.0.0.1", "localhost"),
        "elsewhere": ca.issue_cert("elsewhere.example"),
        "old": ca.issue_cert("127.0.0.1", **expired),
        "client": ca.issue_cert("client"),
        "old-client": ca.issue_cert("client", **expired),
        "stranger": other.issue_cert("client"),
    }
    for name, cert in issued.items():
        cert.cert_chain_pems[0].write_to_path(str(folder / f"{name}.crt"))
        (folder / f"{name}.key").touch(mode=0o600)
        cert.private_key_pem.write_to_path(str(folder / f"{name}.key"))
    return Papers(folder)


@contextmanager
def tls_server(papers: Papers, certificate: str, folder: Path) -> Iterator[str]:
    """Run a server that speaks TLS only and wants a client certificate; give its bare URL."""
    url = f"rediss://127.0.0.1:{free_port()}/0"
    options = [
        "bind 127.0.0.1", "port 0", f"tls-port {url.rpartition(':')[2].partition('/')[0]}",
        f"tls-cert-file {papers.path(certificate)}.crt",
        f"tls-key-file {papers.path(certificate)}.key",
        f"tls-ca-cert-file {papers.path('ca.pem')}", "tls-auth-clients yes",
    ]  # fmt: skip
    folder.mkdir()
    full = with_credentials(url, papers.credentials())
    # Whether it is up is asked without looking at its certificate, which may be a wrong one.
    unchecked = f"{full}&ssl_cert_reqs=none"
    assert SERVER is not None
    server = EmbeddedServer(Path(SERVER), folder, unchecked, options)
    server.start()
    try:
        yield url
    finally:
        server.stop()


@pytest.fixture(scope="module")
def servers(papers: Papers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Name of a certificate → the bare URL of a server that has it."""
    if SERVER is None:
        missing("redis-server, which speaks TLS, is not installed")
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(tls_server(papers, name, folder / name))
            for name in ("server", "elsewhere", "old")
        }


@pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")
def test_a_mesh_runs_over_tls(servers: dict[str, str], papers: Papers, tmp_path: Path) -> None:
    url = with_credentials(servers["server"], papers.credentials())
    with (
        redis.Redis.from_url(url) as connection,
        workers(url, connection, tmp_path, ["a", "b"]),
    ):
        probes = ["--probe", "ping", "--probe", "redis"]
        done = cli(url, "run", *probes, "--count", "3", "--csv", str(tmp_path / "metrics.csv"))
        assert done.returncode == 0, done.stderr
        assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 1 + 2 + 2


def ask(
    url: str, papers: Papers, *, client: str | None = "client", ca: str | None = "ca.pem"
) -> subprocess.CompletedProcess[str]:
    """Run a command with options of TLS, as a person would."""
    files = [*(["--redis-ca", papers.path(ca)] if ca else [])]
    if client:
        files += ["--redis-cert", papers.path(f"{client}.crt")]
        files += ["--redis-key", papers.path(f"{client}.key")]
    return cli(url, "nodes", *files)


def test_options_and_a_host_name_that_the_certificate_names_are_enough(
    servers: dict[str, str], papers: Papers
) -> None:
    for url in (servers["server"], servers["server"].replace("127.0.0.1", "localhost")):
        done = ask(url, papers)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("server", "ca", "client", "words"),
    [
        ("server", "other.pem", "client", ["self-signed", "--redis-ca"]),
        ("server", None, "client", ["self-signed", "--redis-ca"]),
        ("elsewhere", "ca.pem", "client", ["not valid for '127.0.0.1'", "host in the URL"]),
        ("old", "ca.pem", "client", ["expired", "renew it there", "clock"]),
        ("server", "ca.pem", None, ["--redis-cert"]),
        ("server", "ca.pem", "stranger", ["--redis-cert"]),
        ("server", "ca.pem", "old-client", ["--redis-cert"]),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_that_says_what_to_do(
    servers: dict[str, str],
    papers: Papers,
    server: str,
    ca: str | None,
    client: str | None,
    words: list[str],
) -> None:
    done = ask(servers[server], papers, client=client, ca=ca)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1, done.stderr
    assert [word for word in words if word not in done.stderr] == [], done.stderr


def test_a_worker_is_refused_as_well(
    servers: dict[str, str], papers: Papers, tmp_path: Path
) -> None:
    url = with_credentials(servers["old"], papers.credentials())
    done = cli(url, "worker", "--name", "a", "--state-dir", str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "expired" in done.stderr


def test_tls_and_plain_do_not_meet_and_each_is_told_of_the_other(
    servers: dict[str, str], papers: Papers, server_binary: Path, tmp_path: Path
) -> None:
    plain = cli(servers["server"].replace("rediss:", "redis:"), "nodes")
    assert plain.returncode == 3
    assert "rediss://" in plain.stderr
    assert plain.stderr.count("\n") == 1
    with embedded_server(tmp_path, binary=server_binary, unix=False) as server:
        secure = ask(server.url.replace("redis:", "rediss:"), papers)
    assert secure.returncode == 3
    assert "it is redis://" in secure.stderr
    waiting, _, error = secure.stderr.rpartition("\nerror: ")
    assert (waiting.count("\n"), error.count("\n")) == (0, 1)
