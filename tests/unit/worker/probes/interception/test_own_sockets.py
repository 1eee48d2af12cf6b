"""The table of sockets, as a kernel wrote it, and the true one of this machine."""

from __future__ import annotations

import socket

from worker.probes.interception.own_sockets import connected_to, far_end_here

#: /proc/net/tcp and tcp6 on a little-endian machine.
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:300C 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   1: 0100007F:300C 01014F0A:D431 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0
   2: 01014F0A:D431 09004064:0016 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0
"""
#: A connection of this machine with itself, and one to elsewhere that has the same port of ours.
SHARED = """\
   1: 01014F0A:18EB 01014F0A:D431 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0
   2: 01014F0A:D431 01014F0A:18EB 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0
   3: 01014F0A:D431 09004064:0016 01 00000000:00000000 00:00000000 00000000     0        0 4 1 0
"""
#: What of that is of a socket that takes both versions of IP is in the other table.
SHARED6 = SHARED.replace(
    "1: 01014F0A:18EB 01014F0A:D431",
    "1: 0000000000000000FFFF000001014F0A:18EB 0000000000000000FFFF000001014F0A:D431",
)
FAR = "100.64.0.9"
TABLE6 = """\
   0: 0000000000000000FFFF00000100007F:300D 0000000000000000FFFF000001014F0A:D432 01 00000000:0
   1: 000079FD000000000000000001000000:300E 000079FD000000000000000002000000:D433 01 00000000:0
"""


def test_other_end_of_a_connection_is_found_by_where_it_leads() -> None:
    assert connected_to(TABLE, "10.79.1.1", 0xD431, FAR) == 12300
    assert connected_to(TABLE, "10.79.1.1", 0xD430, FAR) is None
    assert connected_to(TABLE, FAR, 22, "10.79.1.1") == 0xD431


def test_ipv4_within_ipv6_and_ipv6_are_found() -> None:
    assert connected_to(TABLE6, "10.79.1.1", 0xD432, FAR) == 12301
    assert connected_to(TABLE6, "fd79::2", 0xD433, "fd79::9") == 12302


def test_port_that_another_connection_has_too_is_no_sign_that_this_one_ends_here() -> None:
    for table in (SHARED, SHARED6):
        assert connected_to(table, "10.79.1.1", 0xD431, FAR) is None
        # It is its own other end where it leads there.
        assert connected_to(table, "10.79.1.1", 0xD431, "10.79.1.1") == 6379
    redirected = SHARED + TABLE
    assert connected_to(redirected, "10.79.1.1", 0xD431, FAR) == 12300


def test_connection_of_this_machine_with_itself_has_its_other_end_here() -> None:
    for family, loopback in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with (
            socket.create_server((loopback, 0), family=family) as server,
            socket.create_connection(server.getsockname()[:2]) as client,
        ):
            own, port = client.getsockname()[:2], server.getsockname()[1]
            assert far_end_here(*own, loopback) == port
