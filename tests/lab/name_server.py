"""
A DNS server in the lab, which answers as a test wants: differently each time, or not at all.

`NameServer` starts it on a node and makes other nodes ask it; this file itself is what runs there.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

from lab.net import Lab
from lab.node import Node

#: Files below the folder of a namespace stand in the place of those below /etc (ip-netns(8)).
ETC = Path("/etc/netns")
TYPES = {1: "A", 28: "AAAA"}
NXDOMAIN, SERVFAIL, SILENT = "nxdomain", "servfail", "silent"
CODES = {NXDOMAIN: 3, SERVFAIL: 2}
HEADER = struct.Struct("!6H")

#: What is said of one name, by type: the first time, the second, …, and the last one ever after;
#: addresses separated by spaces, or one of the words above. A type that is not there has none.
Says = Mapping[str, Sequence[str]]


class NameServer:
    """The server on a node."""

    def __init__(self, lab: Lab, node: Node, table: Mapping[str, Says]) -> None:
        """Start it; the lab ends it."""
        self.address, self.log = node.address, lab.directory / "names.log"
        self.log.touch()
        program = [sys.executable, __file__, json.dumps(table), str(self.log), node.address]
        node.start(program, env={"PYTHONPATH": str(Path(__file__).parent.parent)}, log=self.log)

    def asked(self) -> Counter[str]:
        """Give how often each name was asked for, as `A name`."""
        return Counter(self.log.read_text().splitlines())


@contextmanager
def etc(node: Node, **files: str) -> Iterator[None]:
    """Give programs that are started on a node other files in /etc: resolv_conf, hosts."""
    folder = ETC / node.namespace
    folder.mkdir(parents=True)
    try:
        for name, text in files.items():
            (folder / name.replace("_", ".")).write_text(text)
        yield
    finally:
        shutil.rmtree(folder)


def asking(server: NameServer) -> str:
    """Give a resolv.conf; the resolver's own patience, 5 s twice, is the usual one."""
    return f"nameserver {server.address}\n"


def reply(query: bytes, name: str, kind: str, said: str) -> bytes:
    literals = [] if said in CODES else [ip_address(one).packed for one in said.split()]
    flags = 0x8180 | CODES.get(said, 0)
    number = struct.unpack_from("!H", query)[0]
    question = query[HEADER.size : HEADER.size + len(name) + 6]
    wire = HEADER.pack(number, flags, 1, len(literals), 0, 0) + question
    for packed in literals:
        wire += struct.pack("!HHHIH", 0xC00C, 1 if kind == "A" else 28, 1, 0, len(packed)) + packed
    return wire


def question(query: bytes) -> tuple[str, str]:
    labels, at = [], HEADER.size
    while size := query[at]:
        labels.append(query[at + 1 : at + 1 + size].decode())
        at += 1 + size
    return ".".join(labels), TYPES.get(struct.unpack_from("!H", query, at + 1)[0], "")


def answer(table: Mapping[str, Says], log: Path, address: str) -> None:
    counts: Counter[str] = Counter()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, log.open("a") as asked:
        server.bind((address, 53))
        while True:
            query, sender = server.recvfrom(4096)
            name, kind = question(query)
            key = f"{kind} {name}"
            asked.write(key + os.linesep)
            asked.flush()
            says = table.get(name, {"A": [NXDOMAIN], "AAAA": [NXDOMAIN]}).get(kind, [""])
            said = says[min(counts[key], len(says) - 1)]
            counts[key] += 1
            if said != SILENT:
                server.sendto(reply(query, name, kind, said), sender)


if __name__ == "__main__":
    answer(json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
