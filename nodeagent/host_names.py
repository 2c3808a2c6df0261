"""What a host calls itself when the operator does not say: its name and its address.

Used by init and join. Both can be given explicitly, which always wins.
"""

from __future__ import annotations

import re
import socket

import msgspec

from core.command import run
from core.errors import InvalidError
from nodeagent.joining.doorkeeper import checked_address

TIMEOUT_S = 5.0
NOT_FOR_HOSTS = ("virbr", "docker", "kbr")


class _Address(msgspec.Struct):
    local: str = ""
    scope: str = ""


class _Link(msgspec.Struct):
    ifname: str
    addr_info: tuple[_Address, ...] = ()


def own_name() -> str:
    """Return this host's short name, made to fit our rules for names."""
    short = socket.gethostname().split(".")[0].lower()
    return re.sub(r"[^a-z0-9-]+", "-", short).strip("-")[:63]


async def checked_own_address(wanted: str) -> str:
    """Return the wanted address if it is this host's, or the only sensible one when none is wanted.

    Raises:
        InvalidError: not an address of this host, or the operator must say which one.
    """
    found = await _own_addresses()
    if wanted:
        address = checked_address(wanted)
        if address not in found:
            raise InvalidError(
                f"{address} is no address of this host: it has {', '.join(found) or 'none yet'}"
            )
        return address
    if len(found) == 1:
        return found[0]
    if not found:
        raise InvalidError(
            "this host has no IPv4 address yet: give it one, or name it with --address"
        )
    preferred = await _source_of_default_route()
    if preferred in found:
        return preferred
    raise InvalidError(
        f"this host has several addresses ({', '.join(found)}): choose one with --address"
    )


async def _own_addresses() -> list[str]:
    result = await run(["ip", "-j", "-4", "address", "show", "up"], timeout_s=TIMEOUT_S)
    links = msgspec.json.decode(result.stdout, type=tuple[_Link, ...])
    return [
        address.local
        for link in links
        for address in link.addr_info
        if address.scope == "global" and not link.ifname.startswith(NOT_FOR_HOSTS)
    ]


class _Route(msgspec.Struct):
    dev: str = ""
    prefsrc: str = ""


async def _source_of_default_route() -> str:
    result = await run(["ip", "-j", "-4", "route", "show", "default"], timeout_s=TIMEOUT_S)
    routes = msgspec.json.decode(result.stdout, type=tuple[_Route, ...])
    if not routes:
        return ""
    if routes[0].prefsrc:
        return routes[0].prefsrc
    shown = await run(
        ["ip", "-j", "-4", "address", "show", "dev", routes[0].dev], timeout_s=TIMEOUT_S
    )
    links = msgspec.json.decode(shown.stdout, type=tuple[_Link, ...])
    return next((a.local for link in links for a in link.addr_info if a.scope == "global"), "")
