"""The calling side of the mesh: opens a channel to a host whose id is known beforehand.

Used by the raft links, the migration tunnels and (through `ssl_context`) the agents' HTTP client.
"""

from __future__ import annotations

import asyncio
import ssl
import weakref
from collections.abc import Callable

from core.errors import UnavailableError
from core.mesh.tls import TlsFiles, channel_of, client_context, cut, peer_id_of

CONNECT_TIMEOUT_S = 5.0
READ_LIMIT_BYTES = 256 * 1024


class MeshDialer:
    """Opens mesh connections with this host's certificate."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._open: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()
        self._contexts: dict[tuple[str, str], ssl.SSLContext] = {}

    def ssl_context(self, peer_id: str, channel: str) -> ssl.SSLContext:
        """Return the (cached) context that accepts only `peer_id`, for clients such as aiohttp's."""
        key = (peer_id, channel)
        if key not in self._contexts:
            self._contexts[key] = client_context(self._files, peer_id=peer_id, channel=channel)
        return self._contexts[key]

    def reload(self) -> None:
        """Use this host's certificate as it is on disk now for new connections; open ones go on."""
        self._contexts.clear()

    def cut_strangers(self, admits: Callable[[str], bool]) -> None:
        """Cut the open channels to hosts that aren't admitted any more."""
        for writer in list(self._open):
            peer_id = peer_id_of(writer.transport)
            if peer_id is None or not admits(peer_id):
                cut(writer.transport)

    async def open(
        self, host_address: str, peer_id: str, channel: str, *, timeout_s: float = CONNECT_TIMEOUT_S
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to `host_address` (`10.77.0.1:7444`, `[fd00::1]:7444`) and agree on `channel`.

        The caller closes the writer. In TLS 1.3 the server judges our certificate after this returns:
        a refusal shows as a closed connection on the first read.

        Raises:
            UnavailableError: no answer in time, not that host, or it doesn't serve the channel.
        """
        address, _, port = host_address.rpartition(":")
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(
                    address.strip("[]"),
                    int(port),
                    ssl=self.ssl_context(peer_id, channel),
                    server_hostname=peer_id,
                    limit=READ_LIMIT_BYTES,
                )
        except TimeoutError as error:
            raise UnavailableError(
                f"host {peer_id} at {host_address} didn't answer within {timeout_s:g} s; is its agent running?"
            ) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "verify_message", "") or str(error)
            raise UnavailableError(
                f"can't reach host {peer_id} at {host_address}: {reason}"
            ) from error
        if channel_of(writer.transport) != channel:
            cut(writer.transport)
            raise UnavailableError(f"host {peer_id} doesn't serve {channel} now; try again later")
        self._open.add(writer)
        return reader, writer
