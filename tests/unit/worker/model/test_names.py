"""Names and addresses: what passes, what is refused, and what a name resolves to."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.host.resolve import Resolved
from worker.identity import targets
from worker.model.errors import ConfigError, WireError
from worker.model.measurement import Outcome
from worker.model.names import (
    IpLiteral,
    not_of_one_machine,
    own_name,
    plain_ip,
    valid_address,
    valid_name,
)
from worker.model.plan import Plan, PlannedNode, unpack_plan
from worker.monitor.settings import name_from_host

ROUTABLE = "192.0.2.7"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "192.0.2.255", "::1", "fd77::1", "fe80::1%eth0", "fe80::1%br-0.7",
        "hub", "cam-7.local", "cam-7.local.", "xn--bcher-kva.example", "7cams.example", "a" * 63,
        ".".join(["a" * 49] * 5), "0xcafe.example", "localhost", "my_hub", "_a.b",
    ],
)  # fmt: skip
def test_addresses_of_one_machine_pass(address: str) -> None:
    assert valid_address(address) == address


@pytest.mark.parametrize(
    "address",
    [
        # no address and no name
        "", " ", "a b", "-c", "-", "--help", "a..b", ".a", "ü", "a\n", "a\x00b", "a/b",
        "a:b", "$(id)", "http://h", "h:22", "a" * 64, ".".join(["a" * 49] * 6), "1:2", "[::1]",
        "10.0.0.1/8", "@h", "*", "..", "a-.b", "-a.b", "\uff11.0.0.1", "a\u2028", "\x1b[31m",
        # IPv4 in disguise: inet_aton(3) takes all of these
        "0177.0.0.1", "010.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1",
        "0x7f.0x1", "1.2.3.4.", "0X7F000001", "0x", "10.0.0.256", "1.2.3.4.5",
        # IPv4 within IPv6
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::FFFF:0a00:0001", "::ffff:224.0.0.1",
        # scopes
        "fe80::1%", "fe80::1%eth0 -c", "fe80::1%" + "x" * 16, "fe80::1%a%b", "fd77::1%eth0",
        "::1%lo", "fe80::1%../x", "10.0.0.1%eth0",
        # many machines, or none
        "224.0.0.1", "239.255.255.255", "ff02::1", "ff02::1%eth0",
        "0.0.0.0", "::", "255.255.255.255",  # noqa: S104
    ],
)  # fmt: skip
def test_other_addresses_are_refused_in_one_line(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        valid_address(address)
    assert str(caught.value).isprintable()


@given(st.text(max_size=70) | st.from_regex(r"[0-9xXa-f.]{1,20}", fullmatch=True))
def test_what_passes_is_short_printable_ascii_and_no_disguise(text: str) -> None:
    try:
        passed = valid_address(text)
    except ConfigError:
        return
    assert passed.isascii()
    assert passed.isprintable()
    assert not passed.startswith("-")
    if plain_ip(passed) is None:
        with pytest.raises(OSError, match="illegal"):
            socket.inet_aton(passed)


@given(st.ip_addresses())
def test_address_passes_if_and_only_if_it_is_one_machines(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    mapped = isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None
    if mapped or not_of_one_machine(ip):
        with pytest.raises(ConfigError):
            valid_address(str(ip))
    else:
        assert valid_address(str(ip)) == str(ip)


@given(st.text(max_size=70))
def test_name_that_passes_can_be_a_key_and_a_file(text: str) -> None:
    try:
        passed = valid_name(text)
    except ConfigError:
        return
    assert 0 < len(passed) <= 64
    assert passed.isascii()
    assert not set(passed) & set("/:*?%\\ \n")
    assert passed not in (".", "..")
    assert passed[0] != "-"


@pytest.mark.parametrize(
    ("name", "address"),
    [("-x", "10.0.0.2"), ("b\n", "10.0.0.2"), ("b", "-c"), ("b", "224.0.0.1"), ("b", "0x7f.1")],
)
def test_plan_with_an_odd_name_or_address_is_refused(name: str, address: str) -> None:
    nodes = (PlannedNode(name="a", address="10.0.0.1"), PlannedNode(name=name, address=address))
    packed = Plan(nodes=nodes, sources=(0,), targets=(1,)).packed()
    with pytest.raises(WireError):
        unpack_plan(packed)


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.0.9", "loopback"),
        ("::1", "loopback"),
        ("localhost", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::127.0.0.1", "loopback"),
        ("64:ff9b::127.0.0.1", "loopback"),
        ("64:ff9b:1:2::127.0.0.1", "loopback"),
        ("2002:7f00:1::1", "loopback"),
        ("2001:0:c000:207:0:0:80ff:fffe", "loopback"),
        ("64:ff9b::224.0.0.5", "multicast"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("224.0.0.5", "multicast"),
        ("ff02::1%lo", "multicast"),
        ("0.0.0.0", "unspecified"),  # noqa: S104
        ("::", "unspecified"),
        ("255.255.255.255", "broadcast"),
        ("127.255.255.255", "loopback"),
    ],
)
def test_node_with_a_routable_address_refuses(target: str, word: str) -> None:
    looked = targets.Targets([target, "198.51.100.1"], ROUTABLE).judged()
    assert (looked[target].literal, looked[target].outcome) == (None, Outcome.DENIED)
    assert word in looked[target].error
    assert looked["198.51.100.1"] == targets.Looked(IpLiteral("198.51.100.1"))


@given(st.ip_addresses(), st.booleans())
def test_every_address_of_an_answer_is_judged(ip: object, at_home: bool) -> None:
    said = targets.objection(str(ip), at_home)
    assert said is None or said.isprintable()


@given(st.ip_addresses(network="127.0.0.0/8"))
def test_no_form_of_a_loopback_address_passes(ip: ipaddress.IPv4Address) -> None:
    number = int(ip)
    forms = [
        str(ip),
        f"::ffff:{ip}",
        f"::{ip}",
        f"64:ff9b::{ip}",
        str(ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1)),
        str(ipaddress.IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF))),
    ]
    assert all(targets.objection(form, at_home=False) for form in forms)


@pytest.mark.parametrize("target", ["64:ff9b::198.51.100.1", "2002:c633:6401::1", "fd77::1"])
def test_ipv4_address_within_one_of_ipv6_is_measured_when_it_may_be(target: str) -> None:
    assert targets.Targets([target], ROUTABLE).judged()[target].literal == target


@pytest.mark.parametrize("own", ["127.0.0.1", "::1"])
def test_node_on_loopback_may_measure_others_there(own: str) -> None:
    looked = targets.Targets(["127.0.0.2", "224.0.0.1", "64:ff9b::127.0.0.1"], own).judged()
    assert looked["127.0.0.2"].literal == "127.0.0.2"
    assert looked["224.0.0.1"].outcome is Outcome.DENIED
    assert looked["64:ff9b::127.0.0.1"].outcome is Outcome.DENIED


def test_node_is_not_on_loopback_because_a_name_says_so() -> None:
    assert (
        targets.Targets(["127.0.0.2"], "localhost").judged()["127.0.0.2"].outcome is Outcome.DENIED
    )


def test_broadcast_address_of_a_subnet_here_is_known_by_the_kernel() -> None:
    assert targets.is_subnet_broadcast("127.255.255.255")  # of the loopback interface
    assert not targets.is_subnet_broadcast("127.0.0.1")
    assert not targets.is_subnet_broadcast("198.51.100.255")  # nobody knows
    assert not targets.is_subnet_broadcast("fd77::1")


def test_probes_get_the_address_that_was_judged_and_not_the_name() -> None:
    looked = targets.Targets(["localhost"], "127.0.0.1").judged()["localhost"]
    assert looked.literal in ("127.0.0.1", "::1")
    assert looked.outcome is Outcome.OK


def test_name_that_does_not_resolve_is_no_target() -> None:
    looked = targets.Targets(["nosuch.invalid"], ROUTABLE).judged()["nosuch.invalid"]
    assert (looked.literal, looked.outcome) == (None, Outcome.UNRESOLVED)
    assert "nosuch.invalid" in looked.error


@pytest.mark.parametrize("bad", ["127.0.0.1", "224.0.0.1", "::ffff:0.0.0.0"])
def test_one_bad_address_of_a_name_is_enough(bad: str) -> None:
    for literals in (("192.0.2.1", bad), (bad, "192.0.2.1")):
        found = Resolved(tuple(map(IpLiteral, literals)))
        assert targets.judge(found, at_home=False).outcome is Outcome.DENIED


def test_a_node_takes_no_word_of_ours_for_its_name() -> None:
    with pytest.raises(ConfigError, match="--name"):
        own_name("redis")
    assert own_name("redis-1") == "redis-1"
    assert own_name(name_from_host("redis")) == "redis-host"
