"""The tunnel of a migration carries bytes both ways, ends each direction by itself, and lets nobody else in."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from core.errors import InvalidError, UnavailableError
from nodeagent.compute.pipe import FRAME_BYTES_MAX, PipeError, Stream, pipe
from nodeagent.compute.tunnel import (
    MigrationTunnel,
    Opening,
    TunnelKind,
    prepare_target,
    remove_leftovers,
    remove_vm_directory,
    serve_tunnel,
    socket_path,
)

VM = "6f9d2f5e-1111-4222-8333-444455556666"
OTHER_VM = "0b2e8c1a-1111-4222-8333-444455556666"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def base() -> Iterator[Path]:
    """A short directory: a unix socket's path has 107 characters at most."""
    path = Path(tempfile.mkdtemp(prefix="kvt-cmp-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer only after the other side has ended: works with half-closed connections alone."""
    everything = await reader.read()
    writer.write(everything[::-1])
    writer.close()


@asynccontextmanager
async def two_hosts(
    base: Path, *, libvirtd: Handler = echo, qemu: Handler = echo, allowed: bool = True
) -> AsyncIterator[MigrationTunnel]:
    """A tunnel whose other end is a target with a libvirtd and a QEMU; TCP stands for the mesh."""
    target = base / "target"
    prepare_target(VM, directory=target)
    busy: set[object] = set()

    def counted(handler: Handler) -> Handler:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            busy.add(writer)
            try:
                await handler(reader, writer)
            finally:
                busy.remove(writer)

        return handle

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_tunnel(
            "host-a",
            reader,
            writer,
            allowed=lambda peer_id, vm_id: allowed and (peer_id, vm_id) == ("host-a", VM),
            directory=target,
            libvirt_socket=base / "libvirt-sock",
        )

    async with (
        await asyncio.start_unix_server(counted(libvirtd), base / "libvirt-sock"),
        await asyncio.start_unix_server(counted(qemu), socket_path(target, TunnelKind.QEMU, VM)),
        await asyncio.start_server(counted(serve), "127.0.0.1", 0, limit=1 << 20) as mesh,
    ):
        port = mesh.sockets[0].getsockname()[1]

        async def open_stream(
            kind: TunnelKind, vm_id: str
        ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)

        try:
            async with MigrationTunnel(VM, open_stream, directory=base / "source") as tunnel:
                yield tunnel
        finally:
            async with asyncio.timeout(5):
                while busy:
                    await asyncio.sleep(0.01)


async def is_cut(base: Path, kind: TunnelKind) -> bool:
    """Tell whether a stream ends without an answer."""
    try:
        return await call(base, kind, b"x") == b""
    except OSError:
        return True


async def call(base: Path, kind: TunnelKind, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(socket_path(base / "source", kind, VM))
    writer.write(sent)
    writer.write_eof()
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("kind", [TunnelKind.LIBVIRT, TunnelKind.QEMU])
async def test_bytes_go_there_and_back_after_one_direction_has_ended(
    base: Path, kind: TunnelKind
) -> None:
    sent = bytes(range(256)) * 8192
    async with two_hosts(base):
        assert await call(base, kind, sent) == sent[::-1]
        assert await call(base, kind, b"") == b""


async def test_each_kind_of_stream_reaches_its_own_socket(base: Path) -> None:
    async def name_qemu(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"qemu")
        writer.close()

    async with two_hosts(base, qemu=name_qemu):
        assert await call(base, TunnelKind.QEMU, b"") == b"qemu"
        assert await call(base, TunnelKind.LIBVIRT, b"x") == b"x"


async def test_a_host_that_moves_nothing_here_is_refused(base: Path) -> None:
    async with two_hosts(base, allowed=False):
        assert await is_cut(base, TunnelKind.LIBVIRT)


async def test_a_target_that_cannot_be_reached_looks_like_a_broken_connection(base: Path) -> None:
    async def nobody(
        kind: TunnelKind, vm_id: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        raise UnavailableError("no way to the host")

    async with MigrationTunnel(VM, nobody, directory=base / "source"):
        assert await is_cut(base, TunnelKind.QEMU)


async def test_an_error_inside_comes_out_as_it_is_and_nothing_is_left(base: Path) -> None:
    streams = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await reader.read()
        writer.close()

    async def fail_inside() -> None:
        async with two_hosts(base, qemu=greet):
            path = socket_path(base / "source", TunnelKind.QEMU, VM)
            streams.append(await asyncio.open_unix_connection(path))
            assert await streams[0][0].readexactly(5) == b"hello"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_inside()
    ((reader, writer),) = streams
    assert await reader.read() == b""
    writer.close()
    assert list((base / "source").iterdir()) == []


async def test_what_the_target_does_not_take_is_not_read_from_the_source(base: Path) -> None:
    taken = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await taken.wait()
        writer.write(str(len(await reader.read())).encode())
        writer.close()

    async with two_hosts(base, qemu=slow):
        reader, writer = await asyncio.open_unix_connection(
            socket_path(base / "source", TunnelKind.QEMU, VM)
        )
        written = 0
        stuck = False
        while not stuck and written < 64 << 20:
            writer.write(bytes(1 << 20))
            written += 1 << 20
            try:
                async with asyncio.timeout(1.0):
                    await writer.drain()
            except TimeoutError:
                stuck = True
        assert stuck
        taken.set()
        writer.write_eof()
        async with asyncio.timeout(10):
            assert int(await reader.read()) == written
        writer.close()


async def test_qemus_directory_is_closed_to_others(base: Path) -> None:
    prepare_target(VM, directory=base / "migrate", qemu_group="nobody-has-this-group")
    mode = stat.S_IMODE(os.stat(base / "migrate" / VM).st_mode)
    assert mode == 0o700
    remove_vm_directory(VM, directory=base / "migrate")
    remove_vm_directory(VM, directory=base / "migrate")
    remove_leftovers(directory=base / "migrate")
    assert not (base / "migrate").exists()


@pytest.mark.parametrize("vm_id", ["", "..", "../" + VM, VM + "/..", VM.upper()])
def test_only_a_uuid_becomes_a_path(vm_id: str, base: Path) -> None:
    for use in (prepare_target, remove_vm_directory):
        with pytest.raises(InvalidError):
            use(vm_id, directory=base)


async def test_a_symbolic_link_in_qemus_directory_is_not_followed(base: Path) -> None:
    async with two_hosts(base):
        path = socket_path(base / "target", TunnelKind.QEMU, VM)
        path.unlink()
        path.symlink_to(base / "libvirt-sock")
        assert await is_cut(base, TunnelKind.QEMU)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"KVT1",
        b"KVT2" + bytes(20),
        b"KVT1\x09" + bytes(19),
        b"GET / HTTP/1.1\r\nHost: x\r\n"[:24],
    ],
)
def test_a_stream_that_is_no_tunnel_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidError):
        Opening.decode(raw)


@pytest.mark.parametrize("kind", list(TunnelKind))
def test_an_opening_can_be_read_back(kind: TunnelKind) -> None:
    opening = Opening(kind=kind, vm_id=OTHER_VM)
    assert Opening.decode(opening.encode()) == opening


@pytest.mark.parametrize(
    "damage", [b"", b"\0\0", b"\0\0\0\x05abc", (FRAME_BYTES_MAX + 1).to_bytes(4, "big")]
)
async def test_a_stream_that_breaks_off_is_not_taken_for_its_end(base: Path, damage: bytes) -> None:
    ended = asyncio.Event()

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(damage)
        writer.close()

    async def local_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()
        writer.close()

    async with (
        await asyncio.start_unix_server(break_off, base / "remote"),
        await asyncio.start_unix_server(local_end, base / "local"),
    ):
        remote = Stream(*await asyncio.open_unix_connection(base / "remote"))
        local = Stream(*await asyncio.open_unix_connection(base / "local"))
        with pytest.raises((PipeError, OSError)):
            await pipe(local, remote)
        async with asyncio.timeout(5):
            await ended.wait()


async def test_a_silent_pipe_is_given_up(base: Path) -> None:
    ended = asyncio.Semaphore(0)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        ended.release()

    async with await asyncio.start_unix_server(silent, base / "s"):
        one = Stream(*await asyncio.open_unix_connection(base / "s"))
        two = Stream(*await asyncio.open_unix_connection(base / "s"))
        with pytest.raises(TimeoutError):
            await pipe(one, two, idle_s_max=0.1)
        async with asyncio.timeout(5):
            for _ in range(2):
                await ended.acquire()
