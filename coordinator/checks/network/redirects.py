"""
The firewall rules of this machine that send its own connections elsewhere, where it may see them.

Reads what `nft -j list ruleset`, `iptables-save` and `ip6tables-save` print; root may. Rules count
that connections from this machine meet: those of translation at the hook `output`, and of the
chains that are reached from there.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

#: A ruleset of tens of thousands of rules takes a second.
DEADLINE_S = 5.0
#: As iptables writes it: -A CHAIN … -j TARGET …
_APPENDED = re.compile(r"-A (\S+) (?:.*? )?-[jg] (\S+)(?: (.*))?$")
ELSEWHERE = ("redirect", "dnat", "tproxy")

Chain = tuple[str, str, str]


def read_redirects() -> list[str]:
    """Return the rules, each as one line and once; none where this user may not read them."""
    rules: dict[str, None] = {}
    for command in ("iptables-save", "ip6tables-save"):
        rules |= dict.fromkeys(of_iptables(_printed(command)))
    return [*(rules | dict.fromkeys(of_nft(_printed("nft", "-j", "list", "ruleset"))))]


def _printed(*argv: str) -> str:
    path = shutil.which(argv[0], path="/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        return ""
    try:
        done = subprocess.run(
            [path, *argv[1:]],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DEADLINE_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def of_iptables(saved: str) -> list[str]:
    """
    Return the rules of what `iptables-save` says.

    >>> of_iptables("*nat\\n-A OUTPUT -p tcp -j REDIRECT --to-ports 12300\\nCOMMIT")
    ['-A OUTPUT -p tcp -j REDIRECT --to-ports 12300']
    """
    rules: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif table == "nat" and (rule := _APPENDED.match(line)):
            rules[rule[1]].append((rule[2], line))
    return [
        line
        for chain in _reached(["OUTPUT"], {c: [to for to, _ in r] for c, r in rules.items()})
        for to, line in rules[chain]
        if to in ("REDIRECT", "DNAT")
    ]


def of_nft(printed: str) -> list[str]:
    """Return the rules of what `nft -j list ruleset` prints; what makes no sense holds none."""
    try:
        objects = json.loads(printed)["nftables"]
        chains = [each["chain"] for each in objects if "chain" in each]
        rules = [each["rule"] for each in objects if "rule" in each]
        first = [
            _chain(chain, chain["name"])
            for chain in chains
            if (chain.get("type"), chain.get("hook")) == ("nat", "output")
        ]
        leads_to: defaultdict[Chain, list[Chain]] = defaultdict(list)
        for rule in rules:
            leads_to[_chain(rule, rule["chain"])] += _jumps(rule)
        reached = _reached(first, leads_to)
        return [
            f"nft {rule['family']} {rule['table']} {rule['chain']} handle {rule['handle']}: {to}"
            for rule in rules
            if _chain(rule, rule["chain"]) in reached
            for to in map(_elsewhere, rule["expr"])
            if to
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def _chain(of: Mapping[str, Any], name: str) -> Chain:
    return (str(of["family"]), str(of["table"]), str(name))


def _jumps(rule: Mapping[str, Any]) -> list[Chain]:
    targets = [each.get(kind) for each in rule["expr"] for kind in ("jump", "goto")]
    return [_chain(rule, target["target"]) for target in targets if target]


def _elsewhere(statement: Mapping[str, Any]) -> str:
    """
    Return where a statement sends a connection; empty when it does not.

    >>> _elsewhere({"redirect": {"port": 12300}}), _elsewhere({"dnat": {"addr": "10.0.0.9"}})
    ('redirect to port 12300', 'dnat to addr 10.0.0.9')
    """
    for kind in ELSEWHERE:
        if kind in statement:
            fields = (statement[kind] or {}).items()
            to = " ".join(f"{key} {value}" for key, value in fields if key != "family")
            return f"{kind} to {to}" if to else kind
    return ""


def _reached(first: Sequence[Any], leads_to: Mapping[Any, Sequence[Any]]) -> list[Any]:
    """Return the chains that are reached from the first ones, those too, each once."""
    reached = list(dict.fromkeys(first))
    for chain in reached:  # which grows meanwhile
        reached += [to for to in dict.fromkeys(leads_to.get(chain, ())) if to not in reached]
    return reached
