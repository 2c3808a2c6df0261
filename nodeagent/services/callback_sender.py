"""Sends one callback: looks the receiver's name up, judges the addresses, connects to these, and waits for a 2xx.

Used by `nodeagent.services.callbacks`. Redirects aren't followed and the answer isn't read: nothing that a receiver says
reaches anybody but as a status. What went wrong is told in a few fixed words, so that nobody maps a network with it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from core.errors import ForbiddenError
from nodeagent.services.callback_targets import CallbackTargets, Target, literal

LOOK_UP_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 5.0
TIMEOUT_S = 10.0
ADDRESSES_MAX = 8

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]


async def look_up(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a name. Raises OSError when there are none."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class CallbackSender:
    """Posts bodies."""

    def __init__(self, targets: CallbackTargets, *, look_up: LookUp = look_up) -> None:
        self._targets, self._look_up = targets, look_up

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> str:
        """Return an empty text when the receiver has taken it, else why not."""
        try:
            target = self._targets.checked(url)
            async with asyncio.timeout(LOOK_UP_TIMEOUT_S):
                addresses = await self._addresses(target)
        except ForbiddenError:
            return "its address may not be called"
        except (OSError, UnicodeError, TimeoutError):
            return "its name can't be looked up"
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status = await _post(target, addresses, headers, body)
        except aiohttp.ClientSSLError:
            return "its certificate isn't trusted here"
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return "no answer"
        if 300 <= status < 400:
            return f"it answered {status}: redirects aren't followed"
        return "" if 200 <= status < 300 else f"it answered {status}"

    async def _addresses(self, target: Target) -> list[str]:
        """Return the addresses to connect to; one that may not be called spoils them all."""
        if literal(target.host) is not None:
            return []  # judged already, and connected to as it is
        found = await self._look_up(target.host, target.port)
        addresses = [literal(address) for address in found]
        if not addresses:
            raise OSError("no addresses")
        for address in addresses:
            if address is None:
                raise ForbiddenError("not an address")
            self._targets.check(address)
        return [str(address) for address in addresses][:ADDRESSES_MAX]


class _Fixed(AbstractResolver):
    """Knows the one name, and the addresses that were judged."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        return


async def _post(
    target: Target, addresses: Sequence[str], headers: Mapping[str, str], body: bytes
) -> int:
    connector = aiohttp.TCPConnector(
        resolver=_Fixed(addresses), use_dns_cache=False, force_close=True, limit=1
    )
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
    async with (
        aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        ) as session,
        session.post(
            URL(target.url, encoded=True), data=body, headers=headers, allow_redirects=False
        ) as response,
    ):
        return response.status
