"""Connections between voters: at most one for each pair of hosts, FIFO, whole messages, lost all at once.

The engine sees `Links`; `MeshLinks` makes them over the mesh channel `kvorum-raft/1`, tests over memory. Hosts that
know of each other both call; of two connections the one dialled by the smaller id stays.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from typing import Protocol

from core.errors import InvalidError, UnavailableError
from core.mesh.dialer import MeshDialer
from core.mesh.tls import cut
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.frames import FrameReader, FrameWriter
from raftstate.consensus.messages import MAX_FRAME_BYTES, Hello, Message, Ping, decode, encode

log = logging.getLogger(__name__)

RAFT_CHANNEL = "kvorum-raft/1"
DIAL_TIMEOUT_S = 3.0
HELLO_TIMEOUT_S = 3.0
MAX_HELLO_BYTES = 64 << 10
PING_S = 1.0
SILENT_PINGS = 4  # counted in turns of our own loop, so that a pause of this process cuts no link
DIAL_PAUSE_S = (0.2, 0.6)
LOOK_S = 0.1
PATIENCE_S = 1.0  # how long the larger id waits to be called
MAX_UNSENT_BYTES = 64 << 20  # who doesn't read at all is cut by the pings
UNDER_WAY = float("inf")


class LinkUser(Protocol):
    """What happens on links; implemented by the engine."""

    def linked(self, peer: NodeId) -> None:
        """A link is up."""

    def unlinked(self, peer: NodeId) -> None:
        """A link is down, with everything on it."""

    def received(self, peer: NodeId, message: Message) -> None:
        """A message arrived. Raises InvalidError to have the link closed."""

    def hello(self) -> Hello:
        """Return what to introduce this host with."""

    def met(self, peer: NodeId, hello: Hello) -> None:
        """A host introduced itself."""

    def ping(self) -> Ping:
        """Return what to show that this host is alive."""

    def pinged(self, peer: NodeId, ping: Ping) -> None:
        """A host showed that it is alive."""

    def peers_to_call(self) -> tuple[Peer, ...]:
        """Return whom to have links with."""


class Links(Protocol):
    """What the engine needs of its connections."""

    def attach(self, user: LinkUser) -> None:
        """Learn whom to tell."""

    async def run(self) -> None:
        """Keep links up until cancelled."""

    def send(self, peer: NodeId, message: Message) -> bool:
        """Send if there is a link; True doesn't mean that it arrives."""

    def send_frame(self, peer: NodeId, frame: bytes) -> bool:
        """Send a message that is encoded already."""

    def hang_up(self) -> None:
        """End all links, and have none from now on."""

    def live(self) -> frozenset[NodeId]:
        """Return the hosts with a link."""

    def generation(self, peer: NodeId) -> int:
        """Return a number that differs for each link there ever was with `peer`."""


@dataclass(slots=True)
class _Link:
    peer: NodeId
    transport: asyncio.WriteTransport
    frames: FrameWriter
    dialled: bool
    boot: bytes
    generation: int
    quiet: int = 0


class MeshLinks:
    """Links over the mesh. `serve` is the handler of `RAFT_CHANNEL` at the mesh server."""

    def __init__(self, me: Peer, dialer: MeshDialer, *, rng: random.Random) -> None:
        self._me, self._dialer, self._rng = me, dialer, rng
        self._user: LinkUser | None = None
        self._links: dict[NodeId, _Link] = {}
        self._dialling: dict[NodeId, float] = {}  # when to call, or UNDER_WAY
        self._generation = 0
        self._hung_up = False

    def attach(self, user: LinkUser) -> None:
        """Learn whom to tell."""
        self._user = user

    def send(self, peer: NodeId, message: Message) -> bool:
        """Send if there is a link; one whose other end doesn't read is cut."""
        return peer in self._links and self.send_frame(peer, encode(message))

    def send_frame(self, peer: NodeId, frame: bytes) -> bool:
        """Send an encoded message."""
        link = self._links.get(peer)
        if link is None:
            return False
        body = frame
        if len(body) > MAX_FRAME_BYTES:
            log.error("message too big", extra={"peer": peer, "bytes": len(body)})
            return False
        if link.frames.unsent_bytes > MAX_UNSENT_BYTES:
            log.warning("link too slow, cut", extra={"peer": peer})
            cut(link.transport)
            return False
        link.frames.write(body)
        return True

    def hang_up(self) -> None:
        """End all links, and have none from now on."""
        self._hung_up = True
        for link in list(self._links.values()):
            cut(link.transport)

    def live(self) -> frozenset[NodeId]:
        """Return the hosts with a link."""
        return frozenset(self._links)

    def generation(self, peer: NodeId) -> int:
        """Return the number of the present link, 0 without one."""
        link = self._links.get(peer)
        return 0 if link is None else link.generation

    async def run(self) -> None:
        """Call the peers that have no link, and ping those that have."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                next_ping_s = loop.time()
                while True:
                    self._call_peers(group, loop.time())
                    if loop.time() >= next_ping_s:
                        next_ping_s = loop.time() + PING_S
                        self._ping()
                    await asyncio.sleep(LOOK_S)
        finally:
            for link in self._links.values():
                cut(link.transport)

    async def serve(
        self, peer_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve a connection that another host has opened, until it ends."""
        if self._user is None:
            raise UnavailableError("consensus isn't up yet")
        if self._hung_up:
            raise UnavailableError("this host takes no part in consensus")
        await self._serve(NodeId(peer_id), reader, writer, dialled=False)

    def _call_peers(self, group: asyncio.TaskGroup, now_s: float) -> None:
        assert self._user is not None, "attach first"
        wanted = {peer.id: peer for peer in self._user.peers_to_call()}
        they_know_us = wanted.pop(self._me.id, None) is not None
        for peer_id in list(self._dialling):
            over = peer_id not in wanted or peer_id in self._links
            if over and self._dialling[peer_id] != UNDER_WAY:
                del self._dialling[peer_id]
        for peer in wanted.values():
            if peer.id in self._links:
                continue
            patience_s = PATIENCE_S if they_know_us and self._me.id > peer.id else 0.0
            if now_s >= self._dialling.setdefault(peer.id, now_s + patience_s):
                self._dialling[peer.id] = UNDER_WAY
                group.create_task(self._dial(peer), name=f"raft-dial-{peer.id}")

    async def _dial(self, peer: Peer) -> None:
        try:
            reader, writer = await self._dialer.open(
                peer.address, peer.id, RAFT_CHANNEL, timeout_s=DIAL_TIMEOUT_S
            )
            try:
                await self._serve(peer.id, reader, writer, dialled=True)
            finally:
                cut(writer.transport)
        except (UnavailableError, OSError, EOFError, TimeoutError) as error:
            log.debug("raft call failed", extra={"peer": peer.id, "error": repr(error)})
        finally:
            now_s = asyncio.get_running_loop().time()
            self._dialling[peer.id] = now_s + self._rng.uniform(*DIAL_PAUSE_S)

    async def _serve(
        self,
        peer: NodeId,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        dialled: bool,
    ) -> None:
        assert self._user is not None, "attach first"
        arriving, leaving = FrameReader(reader), FrameWriter(writer)
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                leaving.write(encode(self._user.hello()))
                hello = decode(await arriving.next(MAX_HELLO_BYTES))
            if not isinstance(hello, Hello):
                raise InvalidError("the first message is no greeting")
            self._user.met(peer, hello)
            link = self._register(peer, writer, leaving, hello.boot, dialled=dialled)
            if link is None:
                return
            try:
                while True:
                    message = decode(await arriving.next(MAX_FRAME_BYTES))
                    link.quiet = 0
                    if self._links.get(peer) is not link:
                        return
                    if isinstance(message, Ping):
                        self._user.pinged(peer, message)
                    else:
                        self._user.received(peer, message)
            finally:
                self._unregister(link)
        except InvalidError as error:
            log.warning("raft link cut", extra={"peer": peer, "error": error.message})
        except (OSError, EOFError, TimeoutError) as error:
            log.debug("raft link ended", extra={"peer": peer, "error": repr(error)})

    def _register(
        self,
        peer: NodeId,
        writer: asyncio.StreamWriter,
        frames: FrameWriter,
        boot: bytes,
        *,
        dialled: bool,
    ) -> _Link | None:
        assert self._user is not None
        if self._hung_up:
            return None
        old = self._links.get(peer)
        by_smaller_id = dialled == (self._me.id < peer)
        if old is not None:
            if old.boot == boot and old.dialled != dialled and not by_smaller_id:
                return None  # the old link is the one that both ends keep
            self._unregister(old)
            cut(old.transport)
        self._generation += 1
        link = self._links[peer] = _Link(
            peer, writer.transport, frames, dialled, boot, self._generation
        )
        log.info("raft link up", extra={"peer": peer, "dialled": dialled})
        self._user.linked(peer)
        return link

    def _unregister(self, link: _Link) -> None:
        assert self._user is not None
        if self._links.get(link.peer) is link:
            del self._links[link.peer]
            log.info("raft link down", extra={"peer": link.peer})
            self._user.unlinked(link.peer)

    def _ping(self) -> None:
        assert self._user is not None, "attach first"
        for link in list(self._links.values()):
            link.quiet += 1
            if link.quiet > SILENT_PINGS:
                cut(link.transport)
            else:
                self.send(link.peer, self._user.ping())
