"""Parsers of what the network and iperf3 send, each as a function of bytes: see `targets`."""

from __future__ import annotations

import socket

from worker.model import names
from worker.model.text import one_line
from worker.probes.answer import packet as answer_packet
from worker.probes.icmp import packet as icmp_packet
from worker.probes.iperf3.parse import parse_report

#: Of the answering port whose datagrams are fuzzed.
ANSWER_SECRET = b"s" * 16


def answer_request(data: bytes) -> None:
    """A datagram has no answer, or one that is not longer, and is read by who asked."""
    answer = answer_packet.answer(data, "b", ANSWER_SECRET)
    if answer is not None:
        assert len(answer) <= len(data)
        said = answer_packet.read_reply(answer, data, ANSWER_SECRET)
        assert said is not None
        assert said.name == "b"


def answer_reply(data: bytes) -> None:
    """A datagram is no reply to our request, or names a node."""
    asked = answer_packet.request(answer_packet.Kind.WHO, "a", ANSWER_SECRET)
    for secret in (ANSWER_SECRET, b""):
        said = answer_packet.read_reply(data, asked, secret)
        assert said is None or names.NAME.fullmatch(said.name)
    answer_packet.challenge_of(data)


def iperf3_report(data: bytes) -> None:
    """What iperf3 prints is a report, whatever it is, under every option; no number is absurd."""
    for udp, reverse, bidir in ((False, False, False), (True, True, False), (True, False, True)):
        found = parse_report(data, data[:200], udp=udp, reverse=reverse, bidir=bidir)
        assert found.error == one_line(found.error)
        for flow in (found.outbound, found.inbound):
            if flow is not None and flow.throughput_mbps is not None:
                assert 0 <= flow.throughput_mbps < 1e12


def icmp(data: bytes) -> None:
    """A packet is one of our echoes' replies, an error that quotes one, or nothing."""
    for family in (socket.AF_INET, socket.AF_INET6):
        codec = icmp_packet.EchoCodec(
            family, identifier=7, nonce=b"n" * icmp_packet.NONCE_BYTES, targets=3, size_bytes=56
        )
        reply = codec.reply(data, icmp_packet.ipv4_payload_start(data))
        assert reply is None or reply.serial >= 0
        codec.reply(data, 0)
        quoted = codec.quoted(data, 1000)
        assert quoted is None or 0 <= quoted <= 1000
    error = icmp_packet.parse_extended_error(data)
    assert error is None or str(error).isprintable()
