"""Ethernet frames about one IPv4 address: asking who has it, saying who has it, and reading such frames.

Used by `netfabric.vip`. ARP after RFC 826; a probe and an announcement have the shape of RFC 5227, sections 1.1 and 2.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

ETH_P_ARP = 0x0806
REQUEST, REPLY = 1, 2
_HEADER = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_BROADCAST = b"\xff" * 6
_NOBODY = b"\x00" * 6
_NO_ADDRESS = "0.0.0.0"  # noqa: S104 - nothing is bound: it is what the sender of a probe has


@dataclass(frozen=True, slots=True)
class Arp:
    """What an ARP frame says. MACs are 6 bytes, addresses in dotted form."""

    operation: int
    sender_mac: bytes
    sender: str
    target: str


def probe(mac: bytes, address: str) -> bytes:
    """Return the frame that asks who has an address, without saying that anybody has one (sender 0.0.0.0)."""
    return _frame(mac, REQUEST, _NO_ADDRESS, _NOBODY, address)


def announcements(mac: bytes, address: str) -> tuple[bytes, bytes]:
    """Return the frames that say that `mac` has the address now: as a request, and as the reply that some devices want."""
    return (
        _frame(mac, REQUEST, address, _NOBODY, address),
        _frame(mac, REPLY, address, mac, address),
    )


def parse(frame: bytes) -> Arp | None:
    """Return what an Ethernet frame says; None for anything but ARP of IPv4 over Ethernet."""
    if len(frame) < _HEADER.size + _ARP.size:
        return None
    _, _, kind = _HEADER.unpack_from(frame)
    hardware, protocol, mac_length, ip_length, operation, mac, sender, _, target = _ARP.unpack_from(
        frame, _HEADER.size
    )
    if (kind, hardware, protocol, mac_length, ip_length) != (ETH_P_ARP, 1, 0x0800, 6, 4):
        return None
    return Arp(operation, mac, socket.inet_ntoa(sender), socket.inet_ntoa(target))


def taken_by(said: Arp, address: str, *, own_mac: bytes) -> bool:
    """Tell whether a frame shows that another machine has the address, or is about to take it (RFC 5227, 2.1.1)."""
    if said.sender_mac == own_mac:
        return False
    has = said.sender == address
    wants = said.operation == REQUEST and said.sender == _NO_ADDRESS and said.target == address
    return has or wants


def mac_text(mac: bytes) -> str:
    """Return a MAC as people write it."""
    return mac.hex(":")


def _frame(mac: bytes, operation: int, sender: str, target_mac: bytes, target: str) -> bytes:
    return _HEADER.pack(_BROADCAST, mac, ETH_P_ARP) + _ARP.pack(
        1,
        0x0800,
        6,
        4,
        operation,
        mac,
        socket.inet_aton(sender),
        target_mac,
        socket.inet_aton(target),
    )
