"""One contract for every kind of data storage: local and shared directories, and the one that is only remembered."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.errors import ConflictError, InvalidError, NotFoundError, PermanentError, TemporaryError
from storage.directory_driver import MARKER_NAME, LocalDriver, SharedDriver
from storage.driver import DataStorageDriver
from storage.fencing import fencing_of
from storage.memory_driver import MemoryDriver
from storage.whole_files import unfinished_name
from tests.storages import (
    DISK,
    HOST,
    MIB,
    OTHER_DISK,
    OTHER_HOST,
    SHA256,
    STORAGE,
    Subject,
    make_image,
    qemu_img,
)


async def test_a_new_storage_is_empty_and_measured(subject: Subject) -> None:
    driver = subject.driver
    await driver.create_storage()
    await driver.ensure_ready()
    found = await driver.capacity()
    assert 0 < found.free_bytes <= found.total_bytes
    assert await driver.list_disks() == ()
    assert await driver.list_images() == ()
    assert driver.storage_id == STORAGE


async def test_an_empty_disk_has_the_size_asked_for(subject: Subject) -> None:
    path = await subject.driver.create_disk(DISK, 10 * MIB)
    assert path == subject.driver.disk_path(DISK)
    found = await subject.driver.disk_facts(DISK)
    assert (found.path, found.virtual_size_bytes, found.base_path) == (path, 10 * MIB, None)
    assert not found.corrupt
    assert await subject.driver.list_disks() == (DISK,)


async def test_a_linked_disk_names_its_image_on_the_same_storage(subject: Subject) -> None:
    subject.add_image(SHA256, 10 * MIB)
    await subject.driver.create_disk(DISK, 20 * MIB, SHA256)
    found = await subject.driver.disk_facts(DISK)
    assert found.base_path == subject.driver.image_path(SHA256)
    assert found.virtual_size_bytes == 20 * MIB
    assert await subject.driver.list_images() == (SHA256,)


async def test_making_a_disk_again_changes_nothing(subject: Subject) -> None:
    subject.add_image(SHA256, 10 * MIB)
    for disk, base in ((DISK, None), (OTHER_DISK, SHA256)):
        first = await subject.driver.create_disk(disk, 10 * MIB, base)
        assert await subject.driver.create_disk(disk, 10 * MIB, base) == first
    assert await subject.driver.list_disks() == (DISK, OTHER_DISK)


async def test_making_a_different_disk_of_the_same_id_is_refused(subject: Subject) -> None:
    subject.add_image(SHA256, 10 * MIB)
    await subject.driver.create_disk(DISK, 10 * MIB)
    for size, base in ((20 * MIB, None), (10 * MIB, SHA256)):
        with pytest.raises(ConflictError, match="exists"):
            await subject.driver.create_disk(DISK, size, base)
    assert (await subject.driver.disk_facts(DISK)).virtual_size_bytes == 10 * MIB


async def test_two_at_once_make_one_disk(subject: Subject) -> None:
    paths = await asyncio.gather(*(subject.driver.create_disk(DISK, 10 * MIB) for _ in range(3)))
    assert len(set(paths)) == 1
    assert await subject.driver.list_disks() == (DISK,)


async def test_a_disk_needs_its_image_and_room_for_it(subject: Subject) -> None:
    with pytest.raises(NotFoundError, match="copy it there first"):
        await subject.driver.create_disk(DISK, 10 * MIB, SHA256)
    subject.add_image(SHA256, 10 * MIB)
    with pytest.raises(InvalidError, match="too small"):
        await subject.driver.create_disk(DISK, 9 * MIB, SHA256)
    assert not await subject.driver.disk_exists(DISK)


@pytest.mark.parametrize("size", [0, -512, 1000, (64 << 40) + 512])
async def test_a_size_that_no_disk_has_is_refused(subject: Subject, size: int) -> None:
    with pytest.raises(InvalidError, match="multiple of 512"):
        await subject.driver.create_disk(DISK, size)


async def test_deleting_is_done_once_and_may_be_repeated(subject: Subject) -> None:
    await subject.driver.create_disk(DISK, 10 * MIB)
    assert await subject.driver.disk_exists(DISK)
    for _ in range(2):
        await subject.driver.delete_disk(DISK)
        assert not await subject.driver.disk_exists(DISK)
    assert await subject.driver.list_disks() == ()


async def test_a_disk_grows_and_never_shrinks(subject: Subject) -> None:
    await subject.driver.create_disk(DISK, 10 * MIB)
    for size in (20 * MIB, 20 * MIB):
        await subject.driver.resize_disk(DISK, size)
        assert (await subject.driver.disk_facts(DISK)).virtual_size_bytes == size
    for size in (10 * MIB, 0, -1):
        with pytest.raises(InvalidError, match="cannot shrink"):
            await subject.driver.resize_disk(DISK, size)
    for size in (20 * MIB + 1, (64 << 40) + 512):
        with pytest.raises(InvalidError, match="multiple of 512"):
            await subject.driver.resize_disk(DISK, size)


async def test_a_disk_that_is_not_there_is_not_found(subject: Subject) -> None:
    with pytest.raises(NotFoundError):
        await subject.driver.disk_facts(DISK)
    with pytest.raises(NotFoundError):
        await subject.driver.resize_disk(DISK, 10 * MIB)


async def test_a_cached_image_stays_while_a_disk_is_linked_to_it(subject: Subject) -> None:
    subject.add_image(SHA256, 10 * MIB)
    await subject.driver.create_disk(DISK, 10 * MIB, SHA256)
    await subject.driver.create_disk(OTHER_DISK, 10 * MIB)
    with pytest.raises(ConflictError, match="used by"):
        await subject.driver.delete_image(SHA256)
    assert await subject.driver.list_images() == (SHA256,)
    await subject.driver.delete_disk(DISK)
    for _ in range(2):
        await subject.driver.delete_image(SHA256)
        assert await subject.driver.list_images() == ()


@pytest.mark.parametrize(
    "bad", ["", "..", "../../etc/passwd", DISK + "/x", DISK.upper(), DISK + "\n", "a,b"]
)
async def test_no_id_leads_out_of_the_storage(subject: Subject, bad: str) -> None:
    driver = subject.driver
    for step in (
        lambda: driver.create_disk(bad, MIB),
        lambda: driver.delete_disk(bad),
        lambda: driver.disk_exists(bad),
    ):
        with pytest.raises(InvalidError):
            await step()
    for path in (driver.disk_path, driver.image_path, driver.seed_path):
        with pytest.raises(InvalidError):
            path(bad)


async def test_a_storage_that_is_not_mounted_is_never_mistaken_for_an_empty_one(
    subject: Subject,
) -> None:
    if subject.unmount is None:
        pytest.skip("a local storage is never unmounted")
    await subject.driver.create_disk(DISK, 10 * MIB)
    subject.unmount()
    driver = subject.driver
    for step in (
        driver.ensure_ready,
        driver.capacity,
        driver.list_disks,
        driver.list_images,
        driver.sweep,
        lambda: driver.disk_exists(DISK),
        lambda: driver.disk_facts(DISK),
        lambda: driver.delete_image(SHA256),
        lambda: driver.create_disk(OTHER_DISK, MIB),
        lambda: driver.delete_disk(DISK),
        lambda: driver.resize_disk(DISK, 20 * MIB),
    ):
        with pytest.raises(TemporaryError, match="not mounted"):
            await step()


# ------------------------------------------------------------------ what only files have


@pytest.fixture
async def shared(tmp_path: Path) -> SharedDriver:
    (tmp_path / "mnt").mkdir()
    driver = SharedDriver(STORAGE, tmp_path / "mnt", host_id=HOST)
    await driver.create_storage()
    return driver


async def test_a_shared_storage_is_made_only_in_a_directory_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="mount the shared storage there first"):
        await SharedDriver(STORAGE, tmp_path / "missing", host_id=HOST).create_storage()
    assert not (tmp_path / "missing").exists()


async def test_a_directory_belongs_to_one_storage(shared: SharedDriver) -> None:
    other = SharedDriver(OTHER_DISK, shared.path, host_id=OTHER_HOST)
    with pytest.raises(ConflictError, match="already belongs"):
        await other.create_storage()
    with pytest.raises(PermanentError, match="instead of"):
        await other.ensure_ready()
    await SharedDriver(STORAGE, shared.path, host_id=OTHER_HOST).ensure_ready()


async def test_a_damaged_marker_is_not_taken_for_a_missing_one(shared: SharedDriver) -> None:
    (shared.path / MARKER_NAME).chmod(0o644)
    (shared.path / MARKER_NAME).write_text("{")
    with pytest.raises(PermanentError, match="damaged"):
        await shared.ensure_ready()


async def test_qemu_may_pass_through_and_nobody_else_may_look(shared: SharedDriver) -> None:
    path = await shared.create_disk(DISK, 10 * MIB)
    assert path.stat().st_mode & 0o777 == 0o600
    for directory in ("disks", "images", "seeds"):
        assert (shared.path / directory).stat().st_mode & 0o777 == 0o711


async def test_nothing_is_left_beside_the_disks(shared: SharedDriver) -> None:
    await shared.create_disk(DISK, 10 * MIB)
    with pytest.raises(ConflictError):
        await shared.create_disk(DISK, 20 * MIB)
    assert [path.name for path in (shared.path / "disks").iterdir()] == [f"{DISK}.qcow2"]


async def test_a_sweep_takes_only_what_one_host_left(shared: SharedDriver) -> None:
    mine, other = (shared.path / "disks" / unfinished_name(host) for host in (HOST, OTHER_HOST))
    for path in (mine, other):
        path.write_bytes(b"x")
    (shared.path / "disks" / "notes.txt").write_text("of the administrator")
    assert await shared.list_disks() == ()
    assert await shared.sweep() == 1
    assert not mine.exists()
    assert await shared.sweep(OTHER_HOST) == 1
    assert (shared.path / "disks" / "notes.txt").exists()


async def test_the_backing_format_is_written_down(shared: SharedDriver) -> None:
    make_image(shared)(SHA256, 10 * MIB)
    path = await shared.create_disk(DISK, 10 * MIB, SHA256)
    told = qemu_img("info", path)
    assert "backing file format: qcow2" in told


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="a QEMU holds the disk")
async def test_a_disk_in_use_is_neither_deleted_nor_resized(
    shared: SharedDriver, hold: Callable[[Path], None]
) -> None:
    path = await shared.create_disk(DISK, 10 * MIB)
    hold(path)
    with pytest.raises(ConflictError, match="in use"):
        await shared.delete_disk(DISK)
    with pytest.raises(ConflictError, match="in use"):
        await shared.resize_disk(DISK, 20 * MIB)
    assert (await shared.disk_facts(DISK)).virtual_size_bytes == 10 * MIB


async def test_a_damaged_disk_can_be_deleted(shared: SharedDriver) -> None:
    path = await shared.create_disk(DISK, 10 * MIB)
    path.write_bytes(b"not a disk any more")
    with pytest.raises(PermanentError, match="qemu-img info failed"):
        await shared.disk_facts(DISK)
    await shared.delete_disk(DISK)
    assert await shared.list_disks() == ()


@dataclass(frozen=True, slots=True)
class FencingSubject:
    """A driver that fences, and whether its storage takes what a boot of a host writes."""

    driver: DataStorageDriver
    may_write: Callable[[str, str], bool]
    unmount: Callable[[], None]


@pytest.fixture(params=["memory"])
async def fencing(request: pytest.FixtureRequest) -> FencingSubject:
    """A kind that fences adds itself here."""
    memory = MemoryDriver(STORAGE)
    await memory.create_storage()
    return FencingSubject(memory, memory.may_write, lambda: setattr(memory, "mounted", False))


def test_directories_do_not_claim_to_fence(tmp_path: Path) -> None:
    for kind in (LocalDriver, SharedDriver):
        driver = kind(STORAGE, tmp_path, host_id=HOST)
        assert fencing_of(driver) is None
        driver.close()


async def test_a_fenced_boot_writes_no_more_and_all_others_do(fencing: FencingSubject) -> None:
    driver = fencing_of(fencing.driver)
    assert driver is not None
    assert fencing.may_write(HOST, "boot-1")
    for _ in range(2):
        await driver.fence(HOST, "boot-1")
        assert not fencing.may_write(HOST, "boot-1")
    assert fencing.may_write(OTHER_HOST, "boot-1")


async def test_a_new_boot_is_readmitted_and_the_fenced_one_never(fencing: FencingSubject) -> None:
    driver = fencing_of(fencing.driver)
    assert driver is not None
    await driver.fence(HOST, "boot-1")
    for _ in range(2):
        await driver.readmit(HOST, "boot-2")
        assert fencing.may_write(HOST, "boot-2")
        assert not fencing.may_write(HOST, "boot-1")
    with pytest.raises(ConflictError):
        await driver.readmit(HOST, "boot-1")
    assert not fencing.may_write(HOST, "boot-1")


async def test_what_comes_late_changes_nothing(fencing: FencingSubject) -> None:
    driver = fencing_of(fencing.driver)
    assert driver is not None
    await driver.fence(HOST, "boot-1")
    await driver.readmit(HOST, "boot-2")
    await driver.fence(HOST, "boot-1")
    assert fencing.may_write(HOST, "boot-2"), "a late fence of the boot before"
    await driver.fence(HOST, "boot-2")
    with pytest.raises(ConflictError):
        await driver.readmit(HOST, "boot-2")
    assert not fencing.may_write(HOST, "boot-2"), "a late readmission of a boot fenced since"


async def test_a_storage_that_does_not_answer_has_fenced_nothing(fencing: FencingSubject) -> None:
    driver = fencing_of(fencing.driver)
    assert driver is not None
    fencing.unmount()
    with pytest.raises(TemporaryError):
        await driver.fence(HOST, "boot-1")
    with pytest.raises(TemporaryError):
        await driver.readmit(HOST, "boot-2")
