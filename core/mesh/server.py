"""The listening side of the mesh: one TLS port, each connection handed to the handler of its channel.

Run as a service by the agent once the host has an identity. Byte-stream channels get a reader and a writer;
`http/1.1` goes to an aiohttp `web.Server`, which never learns that it doesn't own the port.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, cast

from core.errors import UnavailableError
from core.mesh.doorway import Doorway
from core.mesh.tls import HTTP, TlsFiles, channel_of, cut, peer_id_of, server_context

log = logging.getLogger(__name__)

ChannelHandler = Callable[[str, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class HttpServer(Protocol):
    """The part of aiohttp's `web.Server` that is used: makes protocols, and knows those that are connected."""

    def __call__(self) -> asyncio.Protocol: ...

    @property
    def connections(self) -> Sequence[HttpConnection]: ...


class HttpConnection(Protocol):
    """A connection of it; without a transport once it is closed."""

    @property
    def transport(self) -> asyncio.Transport | None: ...


HANDSHAKE_TIMEOUT_S = 5.0
SHUTDOWN_TIMEOUT_S = 1.0
FAREWELL_S = 1.0  # a host that asks to leave hears that it has left
READ_LIMIT_BYTES = 256 * 1024


class MeshServer:
    """Listens on `address`:`port` (0: any free one, see `port` after `started`) while `run` runs.

    `admit` may turn away authenticated hosts by id, e.g. those removed from the cluster.
    """

    def __init__(
        self,
        files: TlsFiles,
        address: str,
        port: int,
        *,
        admit: Callable[[str], bool] = lambda peer_id: True,
    ) -> None:
        self.port = port
        self.started = asyncio.Event()
        self._files, self._address, self._admit = files, address, admit
        self._channels: dict[str, ChannelHandler] = {}
        self._http: HttpServer | None = None
        self._group: asyncio.TaskGroup | None = None
        self._tls: ssl.SSLContext
        self._transports: set[asyncio.Transport] = set()

    def add_channel(self, channel: str, handler: ChannelHandler) -> None:
        """Serve `channel` by `handler(peer id, reader, writer)`; its return or error closes the connection.

        Call it before `run`: the names are offered from then on.
        """
        self._channels[channel] = handler

    def add_http(self, server: HttpServer) -> None:
        """Serve `http/1.1` by an aiohttp `web.Server` (or `AppRunner.server`)."""
        self._http = server

    def reload(self) -> None:
        """Use this host's certificate as it is on disk now for new connections; open ones go on."""
        offered = (*self._channels, *((HTTP,) if self._http else ()))
        self._tls = server_context(self._files, offered)

    async def run(self) -> None:
        """Serve until cancelled, then close every connection. Raises UnavailableError if the port can't be had."""
        self.reload()
        try:
            doorway = Doorway(
                self._address,
                self.port,
                lambda: self._tls,
                lambda: _Switch(self._switch),
                handshake_timeout_s=HANDSHAKE_TIMEOUT_S,
                shutdown_timeout_s=SHUTDOWN_TIMEOUT_S,
            )
        except OSError as error:
            raise UnavailableError(
                f"can't listen on mesh port {self._address}:{self.port} ({error.strerror}); is another agent running?"
            ) from error
        self.port = doorway.port
        log.info("mesh port open", extra={"address": self._address, "port": self.port})
        try:
            async with asyncio.TaskGroup() as self._group:
                self.started.set()
                try:
                    await doorway.run()
                finally:
                    self._group = None  # whoever comes now is turned away
                    for transport in list(
                        self._transports
                    ):  # so that no handler lingers in its farewell
                        cut(transport)
        finally:
            for transport in list(self._transports):
                cut(transport)
            await asyncio.sleep(0)  # lets the loop close their sockets

    def cut_strangers(self) -> None:
        """Cut the connections of hosts that aren't admitted any more; an HTTP request under way has a moment to end."""
        for transport in list(self._transports):
            self._cut_stranger(transport)
        loop = asyncio.get_running_loop()
        for connection in self._http.connections if self._http is not None else ():
            if connection.transport is not None:
                loop.call_later(FAREWELL_S, self._cut_stranger, connection.transport)

    def _cut_stranger(self, transport: asyncio.Transport) -> None:
        peer_id = peer_id_of(transport)
        if not transport.is_closing() and (peer_id is None or not self._admit(peer_id)):
            log.warning("mesh connection cut: no member any more", extra={"peer": peer_id})
            cut(transport)

    def _switch(self, transport: asyncio.Transport) -> asyncio.BaseProtocol | None:
        """Return the protocol that takes this connection over; None turns it away."""
        peer_id, channel = peer_id_of(transport), channel_of(transport)
        group = self._group
        if peer_id is None or channel is None or group is None or not self._admit(peer_id):
            log.warning("mesh connection refused", extra={"peer": peer_id, "channel": channel})
            return None
        if channel == HTTP and self._http is not None:
            return self._http()
        self._transports.add(transport)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=READ_LIMIT_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        group.create_task(
            self._serve(channel, peer_id, transport, reader, writer),
            name=f"mesh-{channel}-{peer_id}",
        )
        return protocol

    async def _serve(
        self,
        channel: str,
        peer_id: str,
        transport: asyncio.Transport,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        try:
            await self._channels[channel](peer_id, reader, writer)
        except (OSError, EOFError, TimeoutError, UnavailableError) as error:
            log.info(
                "mesh connection failed",
                extra={"peer": peer_id, "channel": channel, "error": repr(error)},
            )
        except Exception:  # no caller may bring the port of all channels down
            log.exception("mesh handler failed", extra={"peer": peer_id, "channel": channel})
        finally:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(2 * SHUTDOWN_TIMEOUT_S):
                    await writer.wait_closed()
            cut(transport)
            self._transports.discard(transport)


class _Switch(asyncio.Protocol):
    """Waits for the end of the handshake, then puts the channel's own protocol in its place."""

    def __init__(self, switch: Callable[[asyncio.Transport], asyncio.BaseProtocol | None]) -> None:
        self._switch = switch

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        duplex = cast(asyncio.Transport, transport)  # uvloop's is one by shape, not by class
        protocol = self._switch(duplex)
        if protocol is None:
            cut(duplex)
            return
        duplex.set_protocol(protocol)
        protocol.connection_made(transport)
