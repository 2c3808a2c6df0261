"""ICMP echo messages as bytes: the question, and what in a packet is an answer.

Used by `netfabric.ping`. RFC 792 (IPv4; checksum of RFC 1071) and RFC 4443, section 4 (IPv6, where the kernel fills in the
checksum, which covers addresses that only it knows).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PAYLOAD_BYTES = 16
_HEADER = struct.Struct("!BBHHH")
_REQUEST = {4: 8, 6: 128}
_REPLY = {4: 0, 6: 129}
_IPV4_BYTES_MIN = 20


@dataclass(frozen=True, slots=True)
class Echo:
    """What a question holds and its answer must repeat. `identifier` and `sequence` are 16 bits each."""

    identifier: int
    sequence: int
    payload: bytes


def request(version: int, echo: Echo) -> bytes:
    """Return the message that asks for an echo; `version` is of IP, 4 or 6."""
    kind = _REQUEST[version]
    bare = _HEADER.pack(kind, 0, 0, echo.identifier, echo.sequence) + echo.payload
    if version == 6:
        return bare
    return _HEADER.pack(kind, 0, checksum(bare), echo.identifier, echo.sequence) + echo.payload


def reply(version: int, message: bytes) -> Echo | None:
    """Return what an answer repeats; None if the message is none, or is damaged."""
    if len(message) < _HEADER.size:
        return None
    kind, code, _, identifier, sequence = _HEADER.unpack_from(message)
    if (kind, code) != (_REPLY[version], 0):
        return None
    if version == 4 and checksum(message):
        return None
    return Echo(identifier, sequence, message[_HEADER.size :])


def without_ip_header(packet: bytes) -> bytes:
    """Return the message in an IPv4 packet, as raw sockets give it; empty if the packet is too short for its own header."""
    if len(packet) < _IPV4_BYTES_MIN:
        return b""
    header_bytes = 4 * (packet[0] & 0x0F)
    return packet[header_bytes:] if header_bytes >= _IPV4_BYTES_MIN else b""


def checksum(message: bytes) -> int:
    """Return the complement of the ones' complement sum of 16-bit words (RFC 1071); 0 over a message that holds its own."""
    padded = message + b"\x00" * (len(message) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
