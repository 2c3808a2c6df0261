"""One contract for every kind of data storage that keeps its disks in layers: what lies on what, and what it shows."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from core.errors import ConflictError, NotFoundError, PermanentError
from storage import qemu_img
from storage.directory_driver import LocalDriver, SharedDriver
from storage.errors import NoSpaceError
from storage.layers import LayeredStorage, layered
from tests.storages import (
    DISK,
    HOST,
    MIB,
    OTHER_HOST,
    SHA256,
    STORAGE,
    Subject,
    make_image,
)

LAYERS = tuple(f"{digit * 8}-2222-4333-8444-555555555555" for digit in "cdef")


async def surely() -> None:
    """Whoever asks is still the one to do it."""


async def no_longer() -> None:
    raise ConflictError("it is another's now")


def layers(subject: Subject) -> LayeredStorage:
    found = layered(subject.driver)
    assert found is not None
    return found


async def base_of(subject: Subject, layer: str) -> Path | None:
    return (await subject.driver.disk_facts(layer)).base_path


async def chain_of(subject: Subject, *ids: str) -> None:
    """Make a disk of these layers, the lowest first, on an image."""
    subject.add_image(SHA256, 10 * MIB)
    await subject.driver.create_disk(ids[0], 10 * MIB, SHA256)
    for below, layer in itertools.pairwise(ids):
        await layers(subject).add_layer(layer, below)


async def test_a_layer_lies_on_the_one_below_and_is_as_large(subject: Subject) -> None:
    await chain_of(subject, DISK, LAYERS[0])
    await layers(subject).add_layer(LAYERS[0], DISK)
    found = await subject.driver.disk_facts(LAYERS[0])
    assert (found.base_path, found.virtual_size_bytes) == (subject.driver.disk_path(DISK), 10 * MIB)
    assert await layers(subject).layers_on(DISK) == (LAYERS[0],)
    assert await layers(subject).layers_on(LAYERS[0]) == ()


async def test_a_layer_on_nothing_or_of_a_taken_id_is_refused(subject: Subject) -> None:
    with pytest.raises(NotFoundError):
        await layers(subject).add_layer(LAYERS[0], DISK)
    await chain_of(subject, DISK, LAYERS[0], LAYERS[1])
    with pytest.raises(ConflictError, match="exists"):
        await layers(subject).add_layer(LAYERS[1], DISK)
    assert await base_of(subject, LAYERS[1]) == subject.driver.disk_path(LAYERS[0])


async def test_a_layer_that_others_lie_on_is_not_dropped(subject: Subject) -> None:
    await chain_of(subject, DISK, LAYERS[0])
    with pytest.raises(ConflictError, match="needed"):
        await layers(subject).drop_layer(DISK)
    assert await subject.driver.list_disks() == (DISK, LAYERS[0])
    for layer in (LAYERS[0], LAYERS[0], DISK):
        await layers(subject).drop_layer(layer)
    assert await subject.driver.list_disks() == ()


async def test_the_top_merged_into_a_new_layer_leaves_the_old_ones(subject: Subject) -> None:
    await chain_of(subject, DISK, LAYERS[0], LAYERS[1])
    for _ in range(2):
        await layers(subject).merge_layer(LAYERS[1], LAYERS[0], into_id=LAYERS[2], sure=surely)
    assert await base_of(subject, LAYERS[2]) == subject.driver.disk_path(DISK)
    assert await base_of(subject, LAYERS[1]) == subject.driver.disk_path(LAYERS[0])
    await layers(subject).drop_layer(LAYERS[1])
    await layers(subject).drop_layer(LAYERS[0])
    assert await subject.driver.list_disks() == (DISK, LAYERS[2])


async def test_a_frozen_layer_is_merged_in_its_place_under_those_on_it(subject: Subject) -> None:
    await chain_of(subject, DISK, LAYERS[0], LAYERS[1])
    for _ in range(2):
        await layers(subject).merge_layer(LAYERS[0], DISK, into_id=LAYERS[0], sure=surely)
    assert await base_of(subject, LAYERS[0]) == subject.driver.image_path(SHA256)
    assert await layers(subject).layers_on(LAYERS[0]) == (LAYERS[1],)
    await layers(subject).drop_layer(DISK)
    assert await subject.driver.list_disks() == (LAYERS[0], LAYERS[1])


async def test_a_layer_is_not_merged_with_one_that_it_does_not_lie_on(subject: Subject) -> None:
    await chain_of(subject, DISK, LAYERS[0], LAYERS[1])
    for into in (LAYERS[1], LAYERS[2]):
        with pytest.raises(ConflictError, match="lies on"):
            await layers(subject).merge_layer(LAYERS[1], DISK, into_id=into, sure=surely)
    assert await subject.driver.list_disks() == (DISK, LAYERS[0], LAYERS[1])


@pytest.mark.parametrize("into", [LAYERS[0], LAYERS[1]])
async def test_a_merge_that_is_no_longer_ones_own_changes_nothing(
    subject: Subject, into: str
) -> None:
    await chain_of(subject, DISK, LAYERS[0])
    with pytest.raises(ConflictError, match="another's"):
        await layers(subject).merge_layer(LAYERS[0], DISK, into_id=into, sure=no_longer)
    assert await base_of(subject, LAYERS[0]) == subject.driver.disk_path(DISK)
    assert await subject.driver.list_disks() == (DISK, LAYERS[0])
    assert await subject.driver.sweep() == 0


def write(path: Path, pattern: int, start: int) -> None:
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", f"write -P {pattern} {start} 64k", str(path)],
        check=True,
        capture_output=True,
    )


def reads(path: Path, pattern: int, start: int) -> bool:
    command = f"read -P {pattern} {start} 64k"
    said = subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", command, str(path)],
        capture_output=True,
        check=False,
        text=True,
    )
    return said.returncode == 0 and "verification failed" not in said.stdout


@pytest.mark.parametrize("kind", [LocalDriver, SharedDriver])
@pytest.mark.parametrize("with_image", [True, False])
async def test_what_a_disk_shows_stays_the_same_through_all_merges(
    tmp_path: Path, kind: type[LocalDriver | SharedDriver], with_image: bool
) -> None:
    driver = kind(STORAGE, tmp_path, host_id=HOST)
    await driver.create_storage()
    if with_image:
        make_image(driver)(SHA256, MIB)
        write(driver.image_path(SHA256), 1, 0)
    await driver.create_disk(DISK, MIB, SHA256 if with_image else None)
    write(driver.disk_path(DISK), 2, 65536)
    write(driver.disk_path(DISK), 3, 131072)
    await driver.layers.add_layer(LAYERS[0], DISK)
    write(driver.disk_path(LAYERS[0]), 4, 131072)
    await driver.layers.add_layer(LAYERS[1], LAYERS[0])
    write(driver.disk_path(LAYERS[1]), 5, 196608)
    shown = {0: 1 if with_image else 0, 65536: 2, 131072: 4, 196608: 5, 262144: 0}

    def shows(layer: str) -> bool:
        return all(reads(driver.disk_path(layer), pattern, at) for at, pattern in shown.items())

    assert shows(LAYERS[1])
    await driver.layers.merge_layer(LAYERS[0], DISK, into_id=LAYERS[0], sure=surely)
    await driver.layers.drop_layer(DISK)
    assert shows(LAYERS[1])
    await driver.layers.merge_layer(LAYERS[1], LAYERS[0], into_id=LAYERS[2], sure=surely)
    await driver.layers.drop_layer(LAYERS[1])
    await driver.layers.drop_layer(LAYERS[0])
    assert shows(LAYERS[2])
    assert await driver.list_disks() == (LAYERS[2],)


@asynccontextmanager
async def standing_still(place: Path) -> AsyncIterator[SharedDriver]:
    """Let a host stand still right before its merge takes effect; give another one, after whose work it goes on in vain."""
    slow, heir = (SharedDriver(STORAGE, place, host_id=id_) for id_ in (HOST, OTHER_HOST))
    await slow.create_storage()
    await slow.create_disk(DISK, MIB)
    await slow.layers.add_layer(LAYERS[0], DISK)
    await slow.layers.add_layer(LAYERS[1], LAYERS[0])
    at_the_end, go_on = asyncio.Event(), asyncio.Event()

    async def stands_still() -> None:
        at_the_end.set()
        await go_on.wait()

    async def is_late() -> None:
        with pytest.raises(PermanentError):
            await slow.layers.merge_layer(
                LAYERS[1], LAYERS[0], into_id=LAYERS[1], sure=stands_still
            )

    async with asyncio.TaskGroup() as group:
        group.create_task(is_late(), name="stands-still")
        await at_the_end.wait()
        yield heir
        go_on.set()


async def test_a_merge_of_a_host_that_stood_still_comes_to_nothing_once_another_goes_on(
    tmp_path: Path,
) -> None:
    async with standing_still(tmp_path) as heir:
        await heir.layers.merge_layer(LAYERS[1], LAYERS[0], into_id=LAYERS[1], sure=surely)
        await heir.layers.merge_layer(LAYERS[1], DISK, into_id=LAYERS[1], sure=surely)
    assert (await heir.disk_facts(LAYERS[1])).base_path is None


async def test_what_a_host_that_stood_still_made_on_a_dropped_layer_comes_to_nothing(
    tmp_path: Path,
) -> None:
    async with standing_still(tmp_path) as heir:
        # The heir undoes the merge instead, and later the lowest layer goes.
        await heir.layers.merge_layer(LAYERS[0], DISK, into_id=LAYERS[0], sure=surely)
        await heir.layers.drop_layer(DISK)
    assert (await heir.disk_facts(LAYERS[1])).base_path == heir.disk_path(LAYERS[0])


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="a QEMU holds the disk")
async def test_a_running_vms_disk_gets_no_layer_and_is_neither_merged_nor_dropped(
    tmp_path: Path, hold: Callable[[Path], None]
) -> None:
    driver = LocalDriver(STORAGE, tmp_path, host_id=HOST)
    await driver.create_storage()
    await driver.create_disk(DISK, MIB)
    await driver.layers.add_layer(LAYERS[0], DISK)
    hold(driver.disk_path(LAYERS[0]))
    with pytest.raises(ConflictError, match="in use"):
        await driver.layers.add_layer(LAYERS[1], LAYERS[0])
    with pytest.raises(ConflictError, match="in use"):
        await driver.layers.merge_layer(LAYERS[0], DISK, into_id=LAYERS[1], sure=surely)
    with pytest.raises(ConflictError, match="in use"):
        await driver.layers.drop_layer(LAYERS[0])
    assert await driver.list_disks() == (DISK, LAYERS[0])


async def test_a_merge_for_which_there_is_no_room_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = LocalDriver(STORAGE, tmp_path, host_id=HOST)
    await driver.create_storage()
    await driver.create_disk(DISK, MIB)
    await driver.layers.add_layer(LAYERS[0], DISK)
    full = tmp_path / "cp"
    full.write_text("#!/bin/sh\necho x > $4\necho 'cp: No space left on device' >&2\nexit 1\n")
    full.chmod(0o755)
    monkeypatch.setattr(qemu_img, "CP", str(full))
    for into in (LAYERS[0], LAYERS[1]):
        with pytest.raises(NoSpaceError):
            await driver.layers.merge_layer(LAYERS[0], DISK, into_id=into, sure=surely)
    assert sorted(path.name for path in (tmp_path / "disks").iterdir()) == [
        f"{DISK}.qcow2",
        f"{LAYERS[0]}.qcow2",
    ]
