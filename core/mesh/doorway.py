"""Takes connections on a TCP port, and lets only so many strangers shake hands at a time, in all and from one address.

Part of the mesh server. Until a TLS handshake is over nobody knows who is calling, and each costs a buffer of 256 KiB
and some arithmetic. Whoever is one too many is hung up on at once; hosts of the cluster call again in a moment.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable

log = logging.getLogger(__name__)

HANDSHAKES_MAX = 256
HANDSHAKES_PER_ADDRESS_MAX = 32
BACKLOG = 128
NO_ROOM_PAUSE_S = 0.1
_IP_FREEBIND = 15  # linux/in.h; the socket module has no name for it before Python 3.13


class Doorway:
    """`context` is asked before each handshake, None: without TLS; `make` returns the protocol of a connection that has made it.

    `has_room` may turn an address away before anything is done for it.
    """

    def __init__(
        self,
        address: str,
        port: int,
        context: Callable[[], ssl.SSLContext | None],
        make: Callable[[], asyncio.BaseProtocol],
        *,
        handshake_timeout_s: float,
        shutdown_timeout_s: float,
        has_room: Callable[[str], bool] = lambda address: True,
        moving: bool = False,
    ) -> None:
        """Listen. `moving`: also while this host doesn't have the address. Raises OSError if the port can't be had."""
        self._socket = _listen(address, port, moving=moving)
        self._socket.setblocking(False)
        self._context, self._make, self._has_room = context, make, has_room
        self._handshake_timeout_s = handshake_timeout_s
        self._shutdown_timeout_s = shutdown_timeout_s
        self._shaking: Counter[str] = Counter()
        self.port: int = self._socket.getsockname()[1]

    async def run(self) -> None:
        """Take connections until cancelled; then the port is free again."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    try:
                        connection, remote = await loop.sock_accept(self._socket)
                    except OSError as error:  # no more file descriptors, most likely
                        log.warning("can't take a connection", extra={"error": repr(error)})
                        await asyncio.sleep(NO_ROOM_PAUSE_S)
                        continue
                    address = str(remote[0])
                    if self._is_full(address):
                        connection.close()
                        continue
                    self._shaking[address] += 1
                    group.create_task(
                        self._shake_hands(connection, address), name=f"handshake-{address}"
                    )
        finally:
            self._socket.close()

    def _is_full(self, address: str) -> bool:
        crowded = self._shaking[address] >= HANDSHAKES_PER_ADDRESS_MAX
        full = crowded or self._shaking.total() >= HANDSHAKES_MAX
        return full or not self._has_room(address)

    async def _shake_hands(self, connection: socket.socket, address: str) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            context = self._context()
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make,
                connection,
                ssl=context,
                ssl_handshake_timeout=self._handshake_timeout_s if context else None,
                ssl_shutdown_timeout=self._shutdown_timeout_s if context else None,
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            log.debug("no handshake", extra={"from": address, "error": repr(error)})
        finally:
            self._shaking[address] -= 1
            if not self._shaking[address]:
                del self._shaking[address]


def _listen(address: str, port: int, *, moving: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if not moving:
        return socket.create_server((address, port), family=family, backlog=BACKLOG)
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        listening.bind((address, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
