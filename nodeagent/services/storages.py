"""The data storages as this host sees them: one driver each, and what VMs need done on them.

Used by workflow steps and the VM controller. A storage that does not answer has a thread of its own, so it holds up
only what needs it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConflictError, NotFoundError, PlatformError
from core.model import VM, DataStorage, DataStorageKind, Disk
from nodeagent.node import Node
from nodeagent.plugins.storage_drivers import StorageDrivers
from nodeagent.services.image_service import ImageService
from storage.directory_driver import LocalDriver, SharedDriver
from storage.driver import DataStorageDriver
from storage.fencing import FencingStorage, fencing_of
from storage.image_cache import ImageCache
from storage.layers import LayeredStorage, layered
from storage.seed_store import SeedStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Mounted:
    """One data storage, ready for use."""

    driver: DataStorageDriver
    cache: ImageCache
    seeds: SeedStore


class Storages:
    """Drivers by data storage, made when first needed."""

    def __init__(
        self, node: Node, images: ImageService, drivers: StorageDrivers | None = None
    ) -> None:
        self._node = node
        self._drivers = drivers or StorageDrivers()
        self._images = images
        self._mounted: dict[str, _Mounted] = {}

    async def prepare_new(self, storage: DataStorage) -> None:
        """Make the directory a data storage, before its record exists.

        Raises:
            InvalidError, ConflictError, TemporaryError: the path can't serve; the message says why.
        """
        driver = self._driver(storage)
        try:
            await driver.create_storage()
            await driver.ensure_ready()
        finally:
            driver.close()

    def driver_of(self, storage: DataStorage) -> DataStorageDriver:
        """Return the driver of a data storage.

        Raises:
            PlatformError: there is none here, or the path can't serve; the message says why.
        """
        return self._mount(storage).driver

    def fencing(self, storage: DataStorage) -> FencingStorage | None:
        """Return what has a data storage refuse a host; None: it can't, or no other host could use it anyway.

        Raises:
            PlatformError: see `driver_of`.
        """
        if storage.kind is not DataStorageKind.SHARED:
            return None
        return fencing_of(self.driver_of(storage))

    def fencing_ids(self) -> frozenset[str]:
        """Return the ids of the data storages that this agent can have refuse a host."""
        found = set()
        for storage in self._node.store.all(DataStorage):
            try:
                if self.fencing(storage) is not None:
                    found.add(storage.id)
            except PlatformError:
                continue
        return frozenset(found)

    async def sweep(self) -> None:
        """Remove what this host left unfinished when its agent died. Before new work begins, once after a start."""
        for storage in self._node.store.all(DataStorage):
            try:
                removed = await self._mount(storage).driver.sweep()
            except PlatformError as error:
                log.info(
                    "a data storage was not swept",
                    extra={"storage": storage.name, "error": error.message},
                )
            else:
                if removed:
                    log.info(
                        "unfinished files were removed",
                        extra={"storage": storage.name, "files": removed},
                    )

    async def ensure_image(self, disk: Disk) -> None:
        """Have a verified copy of the disk's image on its data storage."""
        size_bytes = self._images.size_bytes(disk.image_sha256)
        await self._of(disk).cache.ensure(disk.image_sha256, size_bytes)

    async def create_disk(self, disk: Disk) -> None:
        """Make the disk's file, linked to its image if it has one. Idempotent."""
        mounted = self._of(disk)
        await mounted.driver.ensure_ready()
        await mounted.driver.create_disk(disk.id, disk.size_bytes, disk.image_sha256 or None)

    async def delete_disk(self, disk: Disk, layers: Iterable[str]) -> None:
        """Remove all files of the disk. Idempotent."""
        for layer_id in layers:
            await self._of(disk).driver.delete_disk(layer_id)

    def layers(self, disk: Disk) -> LayeredStorage:
        """Return what keeps the layers of the disk.

        Raises:
            ConflictError: its storage can't keep any.
        """
        found = layered(self._of(disk).driver)
        if found is None:
            storage = self._node.store.need(DataStorage, disk.data_storage_id)
            raise ConflictError(
                f"data storage {storage.name!r} is driven by {storage.driver!r}, which can't make snapshots"
            )
        return found

    async def stored_bytes(self, disk: Disk, layer_id: str) -> int:
        """Return what a layer of the disk takes on its storage."""
        return (await self._of(disk).driver.disk_facts(layer_id)).allocated_bytes

    async def check_disk(self, disk: Disk) -> None:
        """Make sure that this host can use the disk.

        Raises:
            TemporaryError, NotFoundError: the storage or the file is not here.
        """
        driver = self._of(disk).driver
        await driver.ensure_ready()
        if not await driver.disk_exists(disk.top_layer_id):
            raise NotFoundError(
                f"disk {disk.name!r} is not at {driver.disk_path(disk.top_layer_id)} on host "
                f"{self._node.host_name}: is the shared storage mounted there?"
            )

    def disk_path(self, disk: Disk) -> Path:
        """Return the path of the file that the disk is written to, the same on every host that has the storage."""
        return self._of(disk).driver.disk_path(disk.top_layer_id)

    def seed_path(self, disk: Disk) -> Path:
        """Return where the VM's cloud-init seed lies, beside its first disk."""
        return self._of(disk).driver.seed_path(disk.vm_id)

    async def write_seed(self, disk: Disk, vm: VM) -> None:
        """Write the VM's cloud-init seed beside its first disk. Idempotent."""
        await self._of(disk).seeds.ensure(vm.id, vm.name, vm.cloud_init)

    async def delete_seed(self, disk: Disk) -> None:
        """Remove the seed. Idempotent."""
        await self._of(disk).seeds.delete(disk.vm_id)

    def _of(self, disk: Disk) -> _Mounted:
        return self._mount(self._node.store.need(DataStorage, disk.data_storage_id))

    def _mount(self, storage: DataStorage) -> _Mounted:
        mounted = self._mounted.get(storage.id)
        if mounted is None:
            driver = self._driver(storage)
            mounted = self._mounted[storage.id] = _Mounted(
                driver,
                ImageCache(
                    driver,
                    host_id=self._node.host_id,
                    local=self._images.kept,
                    fetch=self._images.fetch,
                ),
                SeedStore(driver, host_id=self._node.host_id),
            )
        return mounted

    def _driver(self, storage: DataStorage) -> DataStorageDriver:
        if storage.driver:
            return self._drivers.make(storage, self._node.host_id)
        match storage.kind:
            case DataStorageKind.LOCAL:
                return LocalDriver(storage.id, storage.path, host_id=self._node.host_id)
            case DataStorageKind.SHARED:
                return SharedDriver(storage.id, storage.path, host_id=self._node.host_id)
