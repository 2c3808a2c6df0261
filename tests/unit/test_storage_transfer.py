"""Uploads, verified copies and the cache: what arrives is what was meant, or nothing is left."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import ConflictError, InvalidError, NotFoundError, PlatformError, TemporaryError
from storage.errors import NoSpaceError
from storage.file_thread import FileThread
from storage.image_cache import ImageCache
from storage.image_store import ImageStore
from storage.memory_driver import MemoryDriver
from storage.upload import SpoolWriter
from storage.verified_copy import marker_path
from storage.whole_files import unfinished_name

HOST = "11111111-2222-4333-8444-555555555555"
OTHER = "99999999-2222-4333-8444-555555555555"
STORAGE = "22222222-2222-4333-8444-555555555555"
IMAGE = b"".join(hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(1 << 13)) * 20
SHA256 = hashlib.sha256(IMAGE).hexdigest()


async def pieces(content: bytes, size: int = 300_001) -> AsyncIterator[bytes]:
    for at in range(0, len(content), size):
        await asyncio.sleep(0)
        yield content[at : at + size]


class Peer:
    """Another host that serves `content` whatever is asked for, and counts."""

    def __init__(self, content: bytes = IMAGE) -> None:
        self.content = content
        self.asked = 0

    async def fetch(self, sha256: str) -> AsyncIterator[bytes]:
        self.asked += 1
        async for chunk in pieces(self.content):
            yield chunk


@pytest.fixture
def files() -> FileThread:
    return FileThread("test")


def cache_in(
    directory: Path, peer: Peer | None, host_id: str = HOST, local: ImageStore | None = None
) -> ImageCache:
    (directory / "images").mkdir(exist_ok=True)
    driver = MemoryDriver(STORAGE, directory)
    return ImageCache(
        driver,
        host_id=host_id,
        local=local,
        fetch=peer.fetch if peer else None,
        stall_timeout_s=0.3,
    )


async def begin(
    directory: Path, files: FileThread, size: int = len(IMAGE), sha256: str = ""
) -> SpoolWriter:
    return await SpoolWriter.begin(
        directory, size, sha256, host_id=HOST, files=files, limit_bytes=1 << 40
    )


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# ------------------------------------------------------------------ uploads


async def test_an_upload_arrives_byte_for_byte(tmp_path: Path, files: FileThread) -> None:
    async with await begin(tmp_path / "spool", files, sha256=SHA256) as writer:
        async for chunk in pieces(IMAGE):
            await writer.write(chunk)
        spooled = await writer.finish()
    assert (spooled.size_bytes, spooled.sha256) == (len(IMAGE), SHA256)
    assert spooled.path.read_bytes() == IMAGE
    assert spooled.path.stat().st_mode & 0o777 == 0o600
    assert spooled.path.parent.stat().st_mode & 0o777 == 0o700
    await writer.abort()
    assert spooled.path.exists(), "an abort after the end changes nothing"


async def test_more_than_declared_is_refused_and_removed(tmp_path: Path, files: FileThread) -> None:
    writer = await begin(tmp_path, files, size=10)
    await writer.write(b"12345")
    with pytest.raises(InvalidError, match="longer than the 10 bytes"):
        await writer.write(b"678901")
    assert names(tmp_path) == []
    with pytest.raises(ConflictError):
        await writer.write(b"x")


async def test_less_than_declared_is_refused_and_removed(tmp_path: Path, files: FileThread) -> None:
    writer = await begin(tmp_path, files, size=10)
    await writer.write(b"12345")
    with pytest.raises(InvalidError, match="broke off after 5 of 10"):
        await writer.finish()
    assert names(tmp_path) == []


async def test_another_content_than_declared_is_refused_and_removed(
    tmp_path: Path, files: FileThread
) -> None:
    writer = await begin(tmp_path, files, size=5, sha256=SHA256)
    await writer.write(b"12345")
    with pytest.raises(InvalidError, match="damaged"):
        await writer.finish()
    assert names(tmp_path) == []


@pytest.mark.parametrize(("size", "sha256"), [(0, ""), (-1, ""), ((1 << 40) + 1, ""), (5, "abc")])
async def test_an_impossible_declaration_is_refused_at_once(
    tmp_path: Path, files: FileThread, size: int, sha256: str
) -> None:
    with pytest.raises(InvalidError):
        await begin(tmp_path, files, size=size, sha256=sha256)
    assert names(tmp_path) == []


async def test_an_upload_that_cannot_fit_is_refused_at_once(
    tmp_path: Path, files: FileThread
) -> None:
    with pytest.raises(NoSpaceError):
        await begin(tmp_path, files, size=1 << 40)
    assert names(tmp_path) == []


async def test_an_upload_whose_client_leaves_is_removed(tmp_path: Path, files: FileThread) -> None:
    started = asyncio.Event()

    async def upload() -> None:
        async with await begin(tmp_path, files) as writer:
            await writer.write(IMAGE[:100])
            started.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(upload(), name="upload")
        await started.wait()
        assert len(names(tmp_path)) == 1
        task.cancel()
    assert names(tmp_path) == []


# ------------------------------------------------------------------ the file thread


async def test_a_storage_that_does_not_answer_holds_up_nobody(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    stuck = FileThread("stuck", timeout_s=0.1)
    with pytest.raises(TemporaryError, match="has not answered"):
        await stuck.call("read it", pipe.read_bytes)
    with pytest.raises(TemporaryError):
        await stuck.call("read it again", pipe.read_bytes)
    assert await FileThread("other").call("do it", lambda: 7) == 7
    pipe.write_bytes(b"")  # lets the thread end
    stuck.close()


# ------------------------------------------------------------------ the cache


async def test_an_image_is_copied_once_and_then_only_looked_at(tmp_path: Path) -> None:
    peer = Peer()
    cache = cache_in(tmp_path, peer)
    path = await cache.ensure(SHA256, len(IMAGE))
    assert path == tmp_path / "images" / f"{SHA256}.qcow2"
    assert path.read_bytes() == IMAGE
    assert path.stat().st_mode & 0o777 == 0o444
    assert await cache.ensure(SHA256, len(IMAGE)) == path
    assert await cache_in(tmp_path, None, OTHER).ensure(SHA256, len(IMAGE)) == path
    assert peer.asked == 1
    assert names(path.parent) == [f"{SHA256}.qcow2", f"{SHA256}.verified"]


async def test_two_calls_at_once_copy_once(tmp_path: Path) -> None:
    peer = Peer()
    cache = cache_in(tmp_path, peer)
    paths = await asyncio.gather(*(cache.ensure(SHA256, len(IMAGE)) for _ in range(5)))
    assert len(set(paths)) == 1
    assert peer.asked == 1


async def test_two_hosts_at_once_on_a_shared_directory_both_succeed(tmp_path: Path) -> None:
    caches = [cache_in(tmp_path, Peer(), host) for host in (HOST, OTHER)]
    await asyncio.gather(*(cache.ensure(SHA256, len(IMAGE)) for cache in caches))
    directory = tmp_path / "images"
    assert names(directory) == [f"{SHA256}.qcow2", f"{SHA256}.verified"]
    assert (directory / f"{SHA256}.qcow2").read_bytes() == IMAGE
    assert await cache_in(tmp_path, None).ensure(SHA256, len(IMAGE))


@pytest.mark.parametrize(
    "content",
    [b"", IMAGE[:-1], IMAGE + b"x", b"\0" + IMAGE[1:], IMAGE[:-1] + b"\0"],
    ids=["nothing", "short", "long", "first byte", "last byte"],
)
async def test_a_wrong_copy_from_another_host_is_refused_and_removed(
    tmp_path: Path, content: bytes
) -> None:
    with pytest.raises(TemporaryError):
        await cache_in(tmp_path, Peer(content)).ensure(SHA256, len(IMAGE))
    assert names(tmp_path / "images") == []


async def test_a_host_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    async def silent(sha256: str) -> AsyncIterator[bytes]:
        yield IMAGE[:1000]
        await asyncio.Event().wait()

    peer = Peer()
    peer.fetch = silent  # type: ignore[method-assign]
    with pytest.raises(TemporaryError, match="nothing for"):
        await cache_in(tmp_path, peer).ensure(SHA256, len(IMAGE))
    assert names(tmp_path / "images") == []


async def test_an_image_that_nobody_has_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no host"):
        await cache_in(tmp_path, None).ensure(SHA256, len(IMAGE))


async def test_a_cancelled_copy_leaves_nothing_and_the_next_one_succeeds(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def slow(sha256: str) -> AsyncIterator[bytes]:
        yield IMAGE[: 5 << 20]
        begun.set()
        await asyncio.Event().wait()

    peer = Peer()
    good, peer.fetch = peer.fetch, slow  # type: ignore[method-assign]
    cache = cache_in(tmp_path, peer)
    cache._stall_timeout_s = 20
    async with asyncio.TaskGroup() as group:
        task = group.create_task(cache.ensure(SHA256, len(IMAGE)), name="first")
        await begun.wait()
        second = group.create_task(cache.ensure(SHA256, len(IMAGE)), name="second")
        cache._fetch = good
        task.cancel()
    assert (await second).read_bytes() == IMAGE
    assert len(names(tmp_path / "images")) == 2


async def test_a_file_that_someone_put_there_is_believed_only_after_reading_it(
    tmp_path: Path,
) -> None:
    peer = Peer()
    cache = cache_in(tmp_path, peer)
    path = tmp_path / "images" / f"{SHA256}.qcow2"
    path.write_bytes(IMAGE)
    await cache.ensure(SHA256, len(IMAGE))
    assert peer.asked == 0
    assert marker_path(path).exists()
    path.chmod(0o644)
    path.write_bytes(IMAGE[:-1] + b"\0")
    await cache.ensure(SHA256, len(IMAGE))
    assert peer.asked == 1
    assert path.read_bytes() == IMAGE


async def test_a_change_that_hides_its_time_is_found_by_a_full_check(tmp_path: Path) -> None:
    peer = Peer()
    cache = cache_in(tmp_path, peer)
    path = await cache.ensure(SHA256, len(IMAGE))
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(IMAGE[:-1] + b"\0")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    await cache.ensure(SHA256, len(IMAGE), fully=True)
    assert peer.asked == 2
    assert path.read_bytes() == IMAGE


@pytest.mark.parametrize("marker", [b"", b"{", b"[]", b'{"sha256": 1}'])
async def test_a_damaged_marker_counts_as_none(tmp_path: Path, marker: bytes) -> None:
    cache = cache_in(tmp_path, Peer())
    path = await cache.ensure(SHA256, len(IMAGE))
    marker_path(path).chmod(0o644)
    marker_path(path).write_bytes(marker)
    assert await cache.ensure(SHA256, len(IMAGE)) == path
    assert SHA256.encode() in marker_path(path).read_bytes()


async def test_the_hosts_own_copy_is_preferred_and_a_rotten_one_passed_over(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store", host_id=HOST)
    await store.receive(SHA256, len(IMAGE), pieces(IMAGE))
    assert await store.has(SHA256, len(IMAGE))
    assert b"".join([chunk async for chunk in store.read(SHA256)]) == IMAGE
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    peer = Peer()
    await cache_in(tmp_path / "a", peer, local=store).ensure(SHA256, len(IMAGE))
    assert peer.asked == 0
    store.image_path(SHA256).chmod(0o644)
    store.image_path(SHA256).write_bytes(b"\0" + IMAGE[1:])
    await cache_in(tmp_path / "b", peer, local=store).ensure(SHA256, len(IMAGE))
    assert peer.asked == 1
    assert not await store.has(SHA256, len(IMAGE))


async def test_the_store_forgets_what_is_deleted_and_sweeps_what_was_cut_off(
    tmp_path: Path,
) -> None:
    store = ImageStore(tmp_path, host_id=HOST)
    await store.receive(SHA256, len(IMAGE), pieces(IMAGE))
    assert await store.list_images() == (SHA256,)
    (tmp_path / unfinished_name(HOST)).write_bytes(b"x")
    (tmp_path / "spool" / unfinished_name(HOST)).write_bytes(b"x")
    (tmp_path / unfinished_name(OTHER)).write_bytes(b"x")
    assert await store.sweep() == 2
    await store.delete(SHA256)
    await store.delete(SHA256)
    assert await store.list_images() == ()
    with pytest.raises(NotFoundError):
        await anext(store.read(SHA256))
    assert [name for name in names(tmp_path) if not name.startswith(".unfinished")] == ["spool"]


async def test_no_name_of_an_image_leaves_the_directory(tmp_path: Path) -> None:
    for bad in ("../" + "a" * 61, "", SHA256 + "/x"):
        with pytest.raises(PlatformError):
            await cache_in(tmp_path, Peer()).ensure(bad, 5)
