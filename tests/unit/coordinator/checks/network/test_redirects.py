"""Rules that send connections elsewhere, as nftables 1.0.6 and iptables 1.8.9 print them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.checks.network.redirects import of_iptables, of_nft

#: What sshuttle makes with its method nft, a translation of one port, and one of what comes in.
NFT = """\
{"nftables": [
{"metainfo": {"version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1}},
{"table": {"family": "ip", "name": "nat", "handle": 1}},
{"chain": {"family": "ip", "table": "nat", "name": "sshuttle-12300", "handle": 1}},
{"chain": {"family": "ip", "table": "nat", "name": "output", "handle": 2, "type": "nat",
"hook": "output", "prio": -100, "policy": "accept"}},
{"chain": {"family": "ip", "table": "nat", "name": "pre", "handle": 3, "type": "nat", "hook":
"prerouting", "prio": -100, "policy": "accept"}},
{"rule": {"family": "ip", "table": "nat", "chain": "sshuttle-12300", "handle": 4, "expr":
[{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right":
{"prefix": {"addr": "127.0.0.0", "len": 8}}}}, {"return": null}]}},
{"rule": {"family": "ip", "table": "nat", "chain": "sshuttle-12300", "handle": 5, "expr":
[{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}, {"redirect":
{"port": 12300}}]}},
{"rule": {"family": "ip", "table": "nat", "chain": "output", "handle": 6, "expr": [{"jump":
{"target": "sshuttle-12300"}}]}},
{"rule": {"family": "ip", "table": "nat", "chain": "output", "handle": 7, "expr": [{"match":
{"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": "10.1.2.3"}},
{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right":
80}}, {"dnat": {"addr": "10.9.9.9", "port": 8080}}]}},
{"rule": {"family": "ip", "table": "nat", "chain": "pre", "handle": 8, "expr": [{"match":
{"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 99}},
{"redirect": {"port": 100}}]}}
]}
"""
#: What sshuttle makes with its method nat; Docker's; and what only others' connections meet.
IPTABLES = """\
*mangle
:OUTPUT ACCEPT [0:0]
-A OUTPUT -p tcp -j DNAT --to-destination 192.0.2.1
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:sshuttle-12300 - [0:0]
-A PREROUTING -p tcp -j REDIRECT --to-ports 3128
-A OUTPUT -j sshuttle-12300
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
-A sshuttle-12300 -m addrtype --dst-type LOCAL -j RETURN
-A sshuttle-12300 -p tcp -j REDIRECT --to-ports 12300
COMMIT
"""


def test_nft_rules_are_those_that_connections_from_here_meet() -> None:
    assert of_nft(NFT) == [
        "nft ip nat sshuttle-12300 handle 5: redirect to port 12300",
        "nft ip nat output handle 7: dnat to addr 10.9.9.9 port 8080",
    ]


def test_iptables_rules_are_those_that_connections_from_here_meet() -> None:
    assert sorted(of_iptables(IPTABLES)) == [
        "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80",
        "-A sshuttle-12300 -p tcp -j REDIRECT --to-ports 12300",
    ]


def test_chains_that_lead_to_each_other_end() -> None:
    looped = "*nat\n-A OUTPUT -j a\n-A a -j b\n-A b -j a\n-A b -p tcp -j REDIRECT\nCOMMIT\n"
    assert of_iptables(looped) == ["-A b -p tcp -j REDIRECT"]


@given(st.text(max_size=200))
def test_nonsense_has_no_rule(text: str) -> None:
    assert of_nft(text) == []
    assert of_nft('{"nftables": [' + text + "]}") == []
    of_iptables("*nat\n-A OUTPUT " + text)
