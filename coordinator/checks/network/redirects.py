"""
The firewall rules of this machine that send its own connections elsewhere, where it may see them.

Reads what `nft -j list ruleset`, `iptables-save` and `ip6tables-save` say; root may. Rules count
that connections from this machine meet: those of translation at the hook `output`, and of the
chains that are reached from there.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: A ruleset of tens of thousands of rules takes a second.
DEADLINE_S = 5.0
#: As iptables writes it: -A CHAIN … -j TARGET …
_APPENDED = re.compile(r"-A (\S+) (?:.*? )?-[jg] (\S+)(?: (.*))?$")
ELSEWHERE = ("redirect", "dnat", "tproxy")

Chain = tuple[str, str, str]


def read_redirects() -> list[str] | None:
    """Return the rules, each as one line; None when this user may read none."""
    found: list[str] = []
    may_read = False
    readers: tuple[tuple[Sequence[str], Callable[[str], list[str]]], ...] = (
        (("iptables-save",), of_iptables),
        (("ip6tables-save",), of_iptables),
        (("nft", "-j", "list", "ruleset"), of_nft),
    )
    for argv, parse in readers:
        said = _said(argv)
        if said is not None:
            may_read = True
            found += [line for line in parse(said) if line not in found]
    return found if may_read else None


def _said(argv: Sequence[str]) -> str | None:
    path = shutil.which(argv[0], path="/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        return None
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
        return None
    return done.stdout if done.returncode == 0 else None


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
        elif table == "nat" and (found := _APPENDED.match(line)):
            rules[found[1]].append((found[2], line))
    return [
        line
        for chain in _reached(["OUTPUT"], {c: [to for to, _ in r] for c, r in rules.items()})
        for to, line in rules[chain]
        if to in ("REDIRECT", "DNAT")
    ]


def of_nft(said: str) -> list[str]:
    """Return the rules of what `nft -j list ruleset` says; what makes no sense holds none."""
    try:
        objects = json.loads(said)["nftables"]
        chains = [one["chain"] for one in objects if "chain" in one]
        rules = [one["rule"] for one in objects if "rule" in one]
        first = [
            _chain(one, one["name"])
            for one in chains
            if (one.get("type"), one.get("hook")) == ("nat", "output")
        ]
        leads_to: defaultdict[Chain, list[Chain]] = defaultdict(list)
        for rule in rules:
            leads_to[_chain(rule, rule["chain"])] += _jumps(rule)
        reached = _reached(first, leads_to)
        return [
            f"nft {rule['family']} {rule['table']} {rule['chain']} handle {rule['handle']}: {what}"
            for rule in rules
            if _chain(rule, rule["chain"]) in reached
            for what in map(_elsewhere, rule["expr"])
            if what
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def _chain(of: Mapping[str, Any], name: str) -> Chain:
    return (str(of["family"]), str(of["table"]), str(name))


def _jumps(rule: Mapping[str, Any]) -> list[Chain]:
    targets = [one.get(kind) for one in rule["expr"] for kind in ("jump", "goto")]
    return [_chain(rule, target["target"]) for target in targets if target]


def _elsewhere(statement: Mapping[str, Any]) -> str:
    """
    Say where a statement sends a connection; empty when it does not.

    >>> _elsewhere({"redirect": {"port": 12300}}), _elsewhere({"dnat": {"addr": "10.0.0.9"}})
    ('redirect to port 12300', 'dnat to addr 10.0.0.9')
    """
    for kind in ELSEWHERE:
        if kind in statement:
            to = statement[kind] or {}
            said = " ".join(f"{key} {value}" for key, value in to.items() if key != "family")
            return f"{kind} to {said}" if said else kind
    return ""


def _reached(first: Sequence[Any], leads_to: Mapping[Any, Sequence[Any]]) -> list[Any]:
    """Return the chains that are reached from the first ones, those too, each once."""
    reached: dict[Any, None] = dict.fromkeys(first)
    left = list(reached)
    while left:
        for chain in leads_to.get(left.pop(), ()):
            if chain not in reached:
                reached[chain] = None
                left.append(chain)
    return list(reached)
