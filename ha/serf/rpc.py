"""Serf's RPC (IPC version 1: msgpack over TCP), as much of it as we use.

`SerfRpc` opens one connection a command; `SerfConnection` is for those who listen (`ha.serf.membership`). One request at a
time on a connection, so no task of its own is needed. Facts that bite, found by trying serf 0.8 and 0.9:

* A reply is a header, then for some commands a body. An error reply of those commands has a body too, but the early
  refusals in `_LONE_ERRORS` have none.
* Texts and bytes both come as msgpack raw: decode with surrogateescape, and turn the binary fields back.
* The agent keeps at most 512 events for a slow listener and drops the rest silently: events are hints, `members` is truth.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgpack

from core.errors import PermanentError, TemporaryError

_WITH_BODY = frozenset(
    {"join", "members", "stats", "install-key", "use-key", "remove-key", "list-keys"}
)
_LONE_ERRORS = frozenset(
    {
        "Handshake required",
        "Authentication required",
        "Invalid authentication token",
        "Unsupported command",
        "Unsupported IPC version",
        "Handshake already performed",
    }
)
_BUFFER_BYTES_MAX = 64 << 20
_EVENTS_MAX = 4096


class SerfStatus(StrEnum):
    """A member as the gossip sees it. `FAILED` is a suspicion of all, never a proof."""

    ALIVE = "alive"
    LEAVING = "leaving"
    LEFT = "left"
    FAILED = "failed"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class SerfMember:
    """One line of `serf members`. `name` is the host id, as `ha.serf.config` sets it."""

    name: str
    address: str
    status: SerfStatus
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SerfEvent:
    """What a stream says: `member-join`, `member-failed`, … or `user` with name and payload."""

    kind: str
    name: str
    payload: bytes


class SerfConnection:
    """One authenticated connection. `events` fills while replies are awaited, and by `next_event`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._unpacker = msgpack.Unpacker(
            raw=False,
            unicode_errors="surrogateescape",
            strict_map_key=False,
            max_buffer_size=_BUFFER_BYTES_MAX,
        )
        self._seq = 0
        self._stream_seq = -1
        self._header: Any = None
        self._events: deque[SerfEvent] = deque(maxlen=_EVENTS_MAX)

    async def request(self, command: str, body: Mapping[str, object] | None = None) -> Any:
        """Send a command and return the body of its reply, None where it has none.

        Raises:
            PermanentError: the agent refuses.
            TemporaryError: the connection broke.
        """
        self._seq += 1
        seq = self._seq
        self._send({"Command": command, "Seq": seq}, body)
        while True:
            header = await self._next_header()
            found, error = header.get("Seq"), header.get("Error", "")
            if found == self._stream_seq:
                self._events.append(await self._event_body())
                continue
            self._header = None
            if found != seq:
                raise TemporaryError(f"serf answers request {found}, {seq} was asked")
            reply = (
                await self._next_object()
                if command in _WITH_BODY and error not in _LONE_ERRORS
                else None
            )
            if error:
                raise PermanentError(f"serf refuses {command}: {error}")
            return reply

    async def subscribe(self, kinds: str) -> None:
        """Ask for events, e.g. `member-join,member-failed` or `*`; they come by `next_event`."""
        await self.request("stream", {"Type": kinds})
        self._stream_seq = self._seq

    async def next_event(self) -> SerfEvent:
        """Wait for the next event of the stream."""
        if self._events:
            return self._events.popleft()
        header = await self._next_header()
        if header.get("Seq") != self._stream_seq:
            raise TemporaryError("serf sends what nobody asked for")
        return await self._event_body()

    def drop_events(self) -> None:
        """Forget events that came meanwhile: who asks for `members` now needs none of them."""
        self._events.clear()

    async def members(self) -> tuple[SerfMember, ...]:
        """Return all members the agent knows."""
        reply = await self.request("members")
        return tuple(_member_of(found) for found in reply.get("Members") or ())

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

    def _send(self, header: Mapping[str, object], body: Mapping[str, object] | None) -> None:
        packer = msgpack.Packer(use_bin_type=False)
        data = packer.pack(header) + (packer.pack(body) if body is not None else b"")
        self._writer.write(data)

    async def _next_header(self) -> Any:
        if self._header is None:
            self._header = await self._next_object()
        return self._header

    async def _event_body(self) -> SerfEvent:
        # The header is kept until its body is here: waiting for an event may be given up at any point.
        body = await self._next_object()
        self._header = None
        return _event_of(body)

    async def _next_object(self) -> Any:
        while True:
            try:
                return next(self._unpacker)
            except StopIteration:
                pass
            except (ValueError, msgpack.UnpackException) as error:
                raise TemporaryError(f"serf sends no msgpack: {error}") from None
            try:
                data = await self._reader.read(65536)
            except OSError as error:
                raise TemporaryError(f"the connection to serf broke: {error}") from None
            if not data:
                raise TemporaryError("the serf agent closed the connection")
            self._unpacker.feed(data)


class SerfRpc:
    """Where the local agent listens, and the commands we give it. Every command takes at most `timeout_s` seconds.

    Raises (all commands):
        TemporaryError: no agent, no answer in time, or the connection broke.
        PermanentError: refused, e.g. a wrong `auth_key`.
    """

    def __init__(
        self, *, auth_key: str, host: str = "127.0.0.1", port: int = 7373, timeout_s: float = 5.0
    ) -> None:
        self._auth_key = auth_key
        self._host = host
        self._port = port
        self.timeout_s = timeout_s

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[SerfConnection]:
        """Open a connection, greet and authenticate."""
        try:
            async with asyncio.timeout(self.timeout_s):
                reader, writer = await asyncio.open_connection(self._host, self._port)
        except (OSError, TimeoutError) as error:
            raise TemporaryError(f"the serf agent does not answer: {error or 'timeout'}") from None
        connection = SerfConnection(reader, writer)
        try:
            try:
                async with asyncio.timeout(self.timeout_s):
                    await connection.request("handshake", {"Version": 1})
                    if self._auth_key:
                        await connection.request("auth", {"AuthKey": self._auth_key})
            except TimeoutError:
                raise TemporaryError("the serf agent does not answer: timeout") from None
            yield connection
        finally:
            connection.close()

    async def members(self) -> tuple[SerfMember, ...]:
        """Return all members the agent knows."""
        reply = await self._call("members")
        return tuple(_member_of(found) for found in reply.get("Members") or ())

    async def join(self, addresses: Sequence[str]) -> int:
        """Contact other agents (`address` or `address:port`); returns how many answered."""
        reply = await self._call("join", {"Existing": list(addresses), "Replay": False})
        return int(reply["Num"])

    async def leave(self) -> None:
        """Leave for good; the agent's process ends."""
        await self._call("leave")

    async def force_leave(self, name: str, *, prune: bool = False) -> None:
        """Have a failed member counted as left, or forgotten with `prune`."""
        await self._call("force-leave", {"Node": name, "Prune": prune})

    async def event(self, name: str, payload: bytes = b"", *, coalesce: bool = False) -> None:
        """Send a user event to all; name and payload together stay below 512 bytes."""
        await self._call("event", {"Name": name, "Payload": payload, "Coalesce": coalesce})

    async def set_tags(self, tags: Mapping[str, str], *, delete: Sequence[str] = ()) -> None:
        """Change tags of this member; all together stay below 512 bytes encoded."""
        await self._call("tags", {"Tags": dict(tags), "DeleteTags": list(delete)})

    async def install_key(self, key: str) -> None:
        """Have all members know a gossip key (32 bytes, base64)."""
        await self._call("install-key", {"Key": key})

    async def use_key(self, key: str) -> None:
        """Have all members send with this key."""
        await self._call("use-key", {"Key": key})

    async def remove_key(self, key: str) -> None:
        """Have all members forget a key."""
        await self._call("remove-key", {"Key": key})

    async def _call(self, command: str, body: Mapping[str, object] | None = None) -> Any:
        async with self.connect() as connection:
            try:
                async with asyncio.timeout(self.timeout_s):
                    return await connection.request(command, body)
            except TimeoutError:
                raise TemporaryError(f"the serf agent does not answer {command}: timeout") from None


def _bytes_of(value: str | bytes | None) -> bytes:
    if value is None:
        return b""
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def _address_of(value: str | bytes | None) -> str:
    raw = _bytes_of(value)
    if len(raw) not in (4, 16):
        return ""
    address = ipaddress.ip_address(raw)
    return str(getattr(address, "ipv4_mapped", None) or address)


def _member_of(found: Mapping[str, Any]) -> SerfMember:
    status = str(found["Status"])
    return SerfMember(
        name=str(found["Name"]),
        address=_address_of(found.get("Addr")),
        status=SerfStatus(status) if status in list(SerfStatus) else SerfStatus.NONE,
        tags=dict(found.get("Tags") or {}),
    )


def _event_of(found: Mapping[str, Any]) -> SerfEvent:
    return SerfEvent(
        str(found.get("Event", "")), str(found.get("Name", "")), _bytes_of(found.get("Payload"))
    )
