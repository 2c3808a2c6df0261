"""Migrate through the mesh: unix sockets on both hosts, mutual TLS in between, no port of libvirt's or QEMU's.

The source's VM controller opens a `MigrationTunnel` around `Hypervisor.migrate`; the target's mesh server hands
streams of the tunnel channel to `serve_tunnel`, after the target was told by `prepare_target`. libvirtd on the
source believes that it talks to the target's libvirtd, and QEMU to the other QEMU, each by a socket in
`<directory>/<VM id>/`. QEMU on the target creates its socket itself, so its group may write there.
"""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import shutil
import stat
import struct
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from core.errors import InvalidError, PlatformError
from nodeagent.compute.domain_spec import check_vm_id
from nodeagent.compute.pipe import BUFFER_BYTES, PipeError, Stream, pipe

log = logging.getLogger(__name__)

MIGRATE_DIR = Path("/run/kvorum/migrate")
LIBVIRT_SOCKET = Path("/run/libvirt/libvirt-sock")
QEMU_GROUP = "libvirt-qemu"
OPEN_TIMEOUT_S = 10.0
CONNECTIONS_MAX = 16

_OPENING = struct.Struct("!4sB3x16s")
_MAGIC = b"KVT1"


class TunnelKind(StrEnum):
    """Which socket of the target a stream leads to."""

    LIBVIRT = "libvirt"
    QEMU = "qemu"
    DISKS = "disks"


_KINDS = (TunnelKind.LIBVIRT, TunnelKind.QEMU, TunnelKind.DISKS)

OpenStream = Callable[
    [TunnelKind, str], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The first bytes of a stream: what it is for."""

    kind: TunnelKind
    vm_id: str

    def encode(self) -> bytes:
        return _OPENING.pack(_MAGIC, _KINDS.index(self.kind), uuid.UUID(self.vm_id).bytes)

    @staticmethod
    def decode(raw: bytes) -> Opening:
        """Raises InvalidError."""
        if len(raw) != _OPENING.size:
            raise InvalidError("a tunnel's opening is cut short")
        magic, kind, vm_id = _OPENING.unpack(raw)
        if magic != _MAGIC or kind >= len(_KINDS):
            raise InvalidError("the stream is no migration tunnel, or of a version unknown here")
        return Opening(kind=_KINDS[kind], vm_id=str(uuid.UUID(bytes=vm_id)))


def socket_path(directory: Path, kind: TunnelKind, vm_id: str) -> Path:
    """Return where a kind of stream of a VM has its socket. Raises InvalidError for an id that is no UUID."""
    return directory / check_vm_id(vm_id) / f"{kind}.sock"


class MigrationTunnel:
    """The source's end: an async context manager around one migration.

    `open_stream` gives a fresh byte stream to the target's `serve_tunnel`; this class writes the opening.
    `directory_seen` is the directory as libvirtd sees it, if that differs (only in tests).
    """

    def __init__(
        self,
        vm_id: str,
        open_stream: OpenStream,
        *,
        directory: Path = MIGRATE_DIR,
        directory_seen: Path = MIGRATE_DIR,
        qemu_group: str = QEMU_GROUP,
    ) -> None:
        self._vm_id = check_vm_id(vm_id)
        self._open_stream = open_stream
        self._directory = directory
        self._directory_seen = directory_seen
        self._qemu_group = qemu_group
        self._group = asyncio.TaskGroup()
        self._servers: list[asyncio.Server] = []
        self._pipes: set[asyncio.Task[None]] = set()
        self._closed = False
        self.bytes_carried = 0

    @property
    def target_uri(self) -> str:
        """Where the source's libvirtd finds the target's."""
        return f"qemu+unix:///system?socket={self._seen(TunnelKind.LIBVIRT)}"

    @property
    def migrate_uri(self) -> str:
        """Where the source's QEMU finds the target's; the target's QEMU listens at the same path."""
        return f"unix:{self._seen(TunnelKind.QEMU)}"

    @property
    def disks_uri(self) -> str:
        """Where disks are copied to, when they are."""
        return f"unix://{self._seen(TunnelKind.DISKS)}"

    async def __aenter__(self) -> Self:
        _make_vm_directory(self._directory, self._vm_id, self._qemu_group)
        await self._group.__aenter__()
        try:
            for kind in _KINDS:
                await self._listen(kind)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed = True
        for server in self._servers:
            server.close()
        for task in self._pipes:
            task.cancel()
        try:
            # The pipes' group never hears of the body's error, which would come out wrapped into a group.
            await self._group.__aexit__(None, None, None)
        finally:
            remove_vm_directory(self._vm_id, directory=self._directory)

    async def _listen(self, kind: TunnelKind) -> None:
        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            local = Stream(reader, writer)
            if self._closed:
                local.abort()
                return
            if len(self._pipes) >= CONNECTIONS_MAX:
                log.warning(
                    "too many connections into a migration tunnel", extra={"vm": self._vm_id}
                )
                local.abort()
                return
            task = self._group.create_task(
                self._carry(kind, local), name=f"tunnel-{kind}-{self._vm_id}"
            )
            self._pipes.add(task)
            task.add_done_callback(self._pipes.discard)
            # Not in the task's own code: a task cancelled before its first step never runs any of it.
            task.add_done_callback(lambda _: local.abort())

        path = socket_path(self._directory, kind, self._vm_id)
        self._servers.append(await asyncio.start_unix_server(accepted, path, limit=BUFFER_BYTES))
        _give_to_group(path, self._qemu_group, mode=0o660)

    async def _carry(self, kind: TunnelKind, local: Stream) -> None:
        """Carry one connection. Never raises: its failure is libvirt's to report, as a broken connection."""
        extra = {"vm": self._vm_id, "kind": str(kind)}
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                remote = Stream(*await self._open_stream(kind, self._vm_id))
            remote.writer.write(Opening(kind=kind, vm_id=self._vm_id).encode())
            carried = await pipe(local, remote)
            self.bytes_carried += carried
            log.info("migration stream ended", extra={**extra, "bytes": carried})
        except (OSError, PipeError, PlatformError, TimeoutError) as error:
            log.warning("migration stream broke", extra={**extra, "error": str(error)})

    def _seen(self, kind: TunnelKind) -> Path:
        return socket_path(self._directory_seen, kind, self._vm_id)


async def serve_tunnel(
    peer_id: str,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    allowed: Callable[[str, str], bool],
    directory: Path = MIGRATE_DIR,
    libvirt_socket: Path = LIBVIRT_SOCKET,
) -> None:
    """Serve one stream on the target until it ends; the mesh server's handler of the tunnel channel.

    `peer_id` comes from the peer's certificate. `allowed(peer_id, vm_id)` tells whether that host is moving that
    VM here now. Never raises but when cancelled; the stream is closed in every case.
    """
    remote = Stream(reader, writer)
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            opening = Opening.decode(await reader.readexactly(_OPENING.size))
            if not allowed(peer_id, opening.vm_id):
                log.warning(
                    "migration stream refused", extra={"host": peer_id, "vm": opening.vm_id}
                )
                return
            local = await _connect(opening, directory, libvirt_socket)
        await pipe(local, remote)
    except asyncio.IncompleteReadError:
        log.warning("migration stream ended before it was opened", extra={"host": peer_id})
    except (OSError, PipeError, PlatformError, TimeoutError) as error:
        log.warning("migration stream broke", extra={"host": peer_id, "error": str(error)})
    finally:
        remote.abort()


def prepare_target(
    vm_id: str, *, directory: Path = MIGRATE_DIR, qemu_group: str = QEMU_GROUP
) -> None:
    """Make the directory in which this host's QEMU will listen, empty; call before the migration begins.

    Raises:
        InvalidError: the id is not a UUID.
    """
    _make_vm_directory(directory, vm_id, qemu_group)


def remove_vm_directory(vm_id: str, *, directory: Path = MIGRATE_DIR) -> None:
    """Remove what `prepare_target` or a tunnel made; nothing happens when it is not there."""
    shutil.rmtree(directory / check_vm_id(vm_id), ignore_errors=True)


def directories_of_moves(*, directory: Path = MIGRATE_DIR) -> tuple[str, ...]:
    """Return the ids of VMs that have a directory of a move, going on or over."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return ()
    return tuple(name for name in names if _is_vm_id(name))


def remove_leftovers(*, directory: Path = MIGRATE_DIR) -> None:
    """Remove what an agent that died left behind; call once at start, when no migration can be under way."""
    shutil.rmtree(directory, ignore_errors=True)


def _is_vm_id(name: str) -> bool:
    try:
        check_vm_id(name)
    except InvalidError:
        return False
    return True


async def _connect(opening: Opening, directory: Path, libvirt_socket: Path) -> Stream:
    """Connect to the socket a stream is for, following no symbolic link: QEMU's user may write in the directory."""
    path = libvirt_socket
    if opening.kind is not TunnelKind.LIBVIRT:
        path = socket_path(directory, opening.kind, opening.vm_id)
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(handle).st_mode):
            raise InvalidError(f"{path} is not a socket")
        opened = await asyncio.open_unix_connection(f"/proc/self/fd/{handle}", limit=BUFFER_BYTES)
    finally:
        os.close(handle)
    return Stream(*opened)


def _make_vm_directory(directory: Path, vm_id: str, qemu_group: str) -> None:
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    remove_vm_directory(vm_id, directory=directory)
    path = directory / check_vm_id(vm_id)
    path.mkdir(mode=0o700)
    _give_to_group(path, qemu_group, mode=0o770)


def _give_to_group(path: Path, group: str, *, mode: int) -> None:
    """Let a group use a path; where the group does not exist QEMU runs as root and needs no right."""
    try:
        group_id = grp.getgrnam(group).gr_gid
    except KeyError:
        return
    os.chown(path, -1, group_id)
    path.chmod(mode)
