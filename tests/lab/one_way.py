"""
Measure one way: numbered datagrams with the time they were sent, read against the kernel's receipt.

The ground truth for delay and loss in one direction, which ping and its round trips cannot tell
apart. All namespaces share one clock, so nothing needs synchronising. `one_way_ms` is for tests;
run as a program it is one of the two ends.
"""

import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # as a program, on a node, this file has no package around it
    from lab.node import Node

PORT = 9000

#: Between two datagrams: 1000 are on their way within a second, and no queue overflows.
PACE_S = 0.0005

#: All datagrams wait in the receiver's buffer until the end; each takes below 1 kB there.
BUFFER_BYTES = 16 * 2**20

#: On two processors the last datagrams may be behind the connection that says they were sent.
LAST_S = 0.5

#: Of socket(7); Python's socket module does not name them.
SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35


def one_way_ms(source: "Node", target: "Node", log: Path, *, count: int) -> list[float]:
    """
    Send `count` datagrams from `source` to `target`.

    Args:
        source: Sender.
        target: Receiver.
        log: A new file, for what the receiver prints.
        count: How many.

    Returns:
        One-way delay of each datagram that arrived, in milliseconds.
    """
    program = [sys.executable, "-IS", __file__]
    receiver = target.start([*program, "receive", target.address], log=log)
    target.wait_until_listening(PORT)
    source.run([*program, "send", target.address, str(count)])
    receiver.wait(120)
    return [float(line) for line in log.read_text().splitlines()]


def receive(address: str) -> None:
    """Keep datagrams until someone connects with TCP, then print their delays."""
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        udp.bind((address, PORT))
        with socket.create_server((address, PORT)) as tcp:
            tcp.accept()[0].close()
        udp.settimeout(LAST_S)
        with suppress(TimeoutError):
            while True:
                payload, ancillary, _, _ = udp.recvmsg(8, 64)
                seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
                (sent_ns,) = struct.unpack("!q", payload)
                sys.stdout.write(f"{(seconds * 10**9 + nanoseconds - sent_ns) / 1e6}\n")


def send(address: str, count: int) -> None:
    """Send the datagrams; the TCP connection afterwards says that there are no more."""
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        for _ in range(count):
            udp.sendto(struct.pack("!q", time.time_ns()), (address, PORT))
            time.sleep(PACE_S)
    socket.create_connection((address, PORT)).close()


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(sys.argv[2])
    else:
        send(sys.argv[2], int(sys.argv[3]))
