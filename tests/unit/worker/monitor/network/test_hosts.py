"""What may be measured: names and addresses, never an option of some tool."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.model.errors import ConfigError
from worker.model.names import valid_address
from worker.monitor.network.hosts import MAX_HOSTS, parse_hosts


@pytest.mark.parametrize("host", ["edge-7", "cam1", "a.b.example", "10.0.0.1", "fd00::1", "n0"])
def test_hosts_pass(host: str) -> None:
    assert valid_address(host) == host


@pytest.mark.parametrize(
    "host",
    ["", "-c", "--help", "10.0.0.256", "a b", "a;b", "a/b", "a\n", "ü", "0.0.0.0", "::"],  # noqa: S104 - refused
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ConfigError):
        valid_address(host)


@given(st.text())
def test_any_text_is_a_list_of_hosts_or_a_config_error(text: str) -> None:
    try:
        hosts = parse_hosts(text)
    except ConfigError:
        return
    assert all(not host.startswith("-") and host.isprintable() for host in hosts)
    assert len(set(hosts)) == len(hosts)


def test_empty_list_is_no_host() -> None:
    assert parse_hosts("") == parse_hosts(" , ,") == ()


def test_a_mesh_is_not_measured_from_here() -> None:
    with pytest.raises(ConfigError, match="ptzmesh run"):
        parse_hosts(",".join(f"10.0.0.{n}" for n in range(MAX_HOSTS + 1)))
