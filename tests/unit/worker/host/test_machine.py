"""Which network this machine is on, as the kernel's tables say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.host import machine
from worker.host.machine import default_gateway, mac_of

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0100000A\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
"""
NEIGHBOURS = """\
IP address       HW type     Flags       HW address            Mask     Device
192.168.1.1      0x1         0x2         3C:37:12:00:00:01     *        wlan0
192.168.1.1      0x1         0x2         3C:37:12:00:00:02     *        eth0
10.0.0.1         0x1         0x0         00:00:00:00:00:00     *        wlan0
"""
#: Of a machine with an address on eth0, a second one in the same subnet, and WireGuard.
TRIE = """\
Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
     |-- 192.168.1.100
        /32 host LOCAL
     |-- 192.168.1.7
        /32 host LOCAL
     |-- 192.168.1.255
        /32 link BROADCAST
     |-- 10.8.0.2
        /32 universe UNICAST
"""
SIX = "fe800000000000000000000000000001 02 40 20 80     eth0\n" + (
    "fd770000000000000000000000000009 03 40 00 80      wg0\n"
)


def test_default_router_is_the_one_that_the_kernel_prefers() -> None:
    assert default_gateway(ROUTES) == ("eth0", "192.168.1.1")
    assert mac_of(("eth0", "192.168.1.1"), NEIGHBOURS) == "3c:37:12:00:00:02"
    assert mac_of(("wlan0", "10.0.0.1"), NEIGHBOURS) == ""  # asked for, and not answered yet
    assert mac_of(("eth0", "10.0.0.1"), NEIGHBOURS) == ""
    assert default_gateway("") is None
    assert mac_of(("eth0", "192.168.1.1"), "") == ""


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fib_trie").write_text(TRIE)
    (tmp_path / "if_inet6").write_text(SIX)
    monkeypatch.setattr(machine, "ADDRESSES4", tmp_path / "fib_trie")
    monkeypatch.setattr(machine, "ADDRESSES6", tmp_path / "if_inet6")


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("192.168.1.100", True),
        ("192.168.1.7", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("fd77::9", True),
        ("fe80::1%eth0", True),
        # The same address on another link is another machine's.
        ("fe80::1%eth1", False),
        ("192.168.1.255", False),
        ("192.168.1.10", False),
        ("10.8.0.2", False),
        ("fd77::8", False),
        ("camera.lan", False),
    ],
)
def test_own_address_is_one_of_this_namespaces_interfaces(address: str, own: bool) -> None:
    assert machine.is_own(address) is own


def test_machine_whose_kernel_tells_nothing_has_only_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BOOT_ID", "NAMESPACE", "ROUTES", "NEIGHBOURS", "ADDRESSES4", "ADDRESSES6"):
        monkeypatch.setattr(machine, name, tmp_path / "missing")
    assert (machine.boot_id(), machine.network_namespace(), machine.gateway_mac()) == ("", "", "")
    assert machine.is_own("127.0.0.1")
    assert not machine.is_own("10.0.0.1")
