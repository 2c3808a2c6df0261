"""A data storage that is only remembered.

Used by tests of controllers and by simulations; it keeps the same contract tests as the directories.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from core.errors import ConflictError, InvalidError, NotFoundError, TemporaryError
from storage.directory_driver import DISK_MAX_BYTES
from storage.directory_layers import SUFFIX
from storage.driver import DISKS, IMAGES, SEEDS, DiskFacts
from storage.errors import NoSpaceError
from storage.ids import check_id, check_sha256
from storage.image_bytes import SECTOR_BYTES
from storage.layers import Sure
from storage.sizes import Capacity


class MemoryDriver:
    """See `DataStorageDriver`. Tests set `mounted`, `in_use` and `free_bytes` to make it fail."""

    def __init__(self, storage_id: str, path: str | Path = "/memory/storage") -> None:
        self._storage_id = check_id(storage_id, "data storage")
        self._path = Path(path)
        self._disks: dict[str, DiskFacts] = {}
        self._images: dict[str, int] = {}
        self.mounted = True
        self.in_use: set[str] = set()
        self.free_bytes = 1 << 40
        self._fenced: set[tuple[str, str]] = set()
        self.layers = MemoryLayers(self, self._disks)

    @property
    def storage_id(self) -> str:
        return self._storage_id

    @property
    def path(self) -> Path:
        return self._path

    def add_image(self, sha256: str, virtual_size_bytes: int) -> None:
        """Pretend that an image is cached."""
        self._images[check_sha256(sha256)] = virtual_size_bytes

    async def create_storage(self) -> None:
        self.require_present()

    async def ensure_ready(self) -> None:
        self.require_present()

    async def capacity(self) -> Capacity:
        self.require_present()
        return Capacity(total_bytes=1 << 40, free_bytes=self.free_bytes)

    async def create_disk(
        self, disk_id: str, size_bytes: int, base_sha256: str | None = None
    ) -> Path:
        path = self.disk_path(disk_id)
        base = self.image_path(base_sha256) if base_sha256 is not None else None
        if not 0 < size_bytes <= DISK_MAX_BYTES or size_bytes % SECTOR_BYTES:
            raise InvalidError(
                "a disk has a multiple of 512 bytes, at most 64 TiB: choose another size"
            )
        self.require_present()
        if base_sha256 is not None:
            if base_sha256 not in self._images:
                raise NotFoundError(
                    f"image {base_sha256} is not on this data storage: copy it there first"
                )
            if size_bytes < self._images[base_sha256]:
                raise InvalidError("the disk is too small for its image: choose a larger disk")
        if self.free_bytes <= 0:
            raise NoSpaceError("cannot create the disk: no space left")
        wanted = DiskFacts(path, size_bytes, 0, base, corrupt=False)
        if self._disks.setdefault(disk_id, wanted) != wanted:
            raise ConflictError(
                f"disk {disk_id} exists with another size or image: delete it first"
            )
        return path

    async def delete_disk(self, disk_id: str) -> None:
        self.disk_path(disk_id)
        self.require_present()
        self.require_unused(disk_id)
        self._disks.pop(disk_id, None)

    def disk_path(self, disk_id: str) -> Path:
        return self._path / DISKS / f"{check_id(disk_id, 'disk')}{SUFFIX}"

    def image_path(self, sha256: str) -> Path:
        return self._path / IMAGES / f"{check_sha256(sha256)}{SUFFIX}"

    def seed_path(self, vm_id: str) -> Path:
        return self._path / SEEDS / f"{check_id(vm_id, 'vm')}.iso"

    async def disk_exists(self, disk_id: str) -> bool:
        self.disk_path(disk_id)
        self.require_present()
        return disk_id in self._disks

    async def resize_disk(self, disk_id: str, size_bytes: int) -> None:
        found = await self.disk_facts(disk_id)
        if size_bytes < found.virtual_size_bytes:
            raise InvalidError("a disk cannot shrink: choose a larger size")
        if size_bytes > DISK_MAX_BYTES or size_bytes % SECTOR_BYTES:
            raise InvalidError(
                "a disk has a multiple of 512 bytes, at most 64 TiB: choose another size"
            )
        if size_bytes != found.virtual_size_bytes:
            self.require_unused(disk_id)
            self._disks[disk_id] = replace(found, virtual_size_bytes=size_bytes)

    async def list_disks(self) -> tuple[str, ...]:
        self.require_present()
        return tuple(sorted(self._disks))

    async def list_images(self) -> tuple[str, ...]:
        self.require_present()
        return tuple(sorted(self._images))

    async def delete_image(self, sha256: str) -> None:
        path = self.image_path(sha256)
        self.require_present()
        if any(disk.base_path == path for disk in self._disks.values()):
            raise ConflictError(f"image {sha256} is used by a disk: delete the disk first")
        self._images.pop(sha256, None)

    async def disk_facts(self, disk_id: str) -> DiskFacts:
        if not await self.disk_exists(disk_id):
            raise NotFoundError(f"disk {disk_id} does not exist on this data storage")
        return self._disks[disk_id]

    async def sweep(self, host_id: str = "") -> int:
        self.require_present()
        return 0

    def close(self) -> None:
        self._disks.clear()

    @property
    def fences(self) -> bool:
        """See `FencingStorage`."""
        return True

    async def fence(self, host_id: str, boot_id: str) -> None:
        """See `FencingStorage`."""
        self.require_present()
        self._fenced.add((host_id, boot_id))

    async def readmit(self, host_id: str, boot_id: str) -> None:
        """See `FencingStorage`."""
        self.require_present()
        if not self.may_write(host_id, boot_id):
            raise ConflictError("this boot of the host was fenced: boot the host again")

    def may_write(self, host_id: str, boot_id: str) -> bool:
        """Tell whether the storage takes what a boot of a host writes."""
        return (host_id, boot_id) not in self._fenced

    def require_present(self) -> None:
        """Raise TemporaryError unless it is mounted."""
        if not self.mounted:
            raise TemporaryError("the data storage is not mounted on this host: mount it")

    def require_unused(self, disk_id: str) -> None:
        """Raise ConflictError if a VM has the disk open."""
        if disk_id in self.in_use:
            raise ConflictError("the disk is in use by a running VM: stop the VM first")


class MemoryLayers:
    """See `LayeredStorage`. `written` is what was written into each layer, in words of the tests; `shown` what it shows."""

    def __init__(self, driver: MemoryDriver, disks: dict[str, DiskFacts]) -> None:
        self._driver = driver
        self._disks = disks
        self.written: dict[str, frozenset[str]] = {}

    def write(self, layer_id: str, word: str) -> None:
        """Write a word, as a running VM does."""
        self.written[layer_id] = self.written.get(layer_id, frozenset()) | {word}

    def shown(self, layer_id: str) -> frozenset[str]:
        """Return all words of a layer and of those below it."""
        words: frozenset[str] = frozenset()
        ids = {disk.path: id_ for id_, disk in self._disks.items()}
        at: str | None = layer_id
        while at is not None and (disk := self._disks.get(at)) is not None:
            words |= self.written.get(at, frozenset())
            at = ids.get(disk.base_path) if disk.base_path is not None else None
        return words

    async def add_layer(self, layer_id: str, below_id: str) -> None:
        below = await self._driver.disk_facts(below_id)
        path = self._driver.disk_path(layer_id)
        if (found := self._disks.get(layer_id)) is not None:
            if found.base_path != below.path:
                raise ConflictError(f"layer {layer_id} exists on another one: use another id")
            return
        self._driver.require_unused(below_id)
        if self._driver.free_bytes <= 0:
            raise NoSpaceError("cannot add a layer: no space left")
        self._disks[layer_id] = replace(below, path=path, base_path=below.path)

    async def merge_layer(self, layer_id: str, below_id: str, *, into_id: str, sure: Sure) -> None:
        into = self._driver.disk_path(into_id)
        self._driver.require_present()
        if into_id != layer_id and into_id in self._disks:
            return
        upper = await self._driver.disk_facts(layer_id)
        below = await self._driver.disk_facts(below_id)
        if into_id == layer_id and upper.base_path == below.base_path:
            return
        if upper.base_path != below.path:
            raise ConflictError(f"layer {layer_id} lies on {upper.base_path}, not on {below_id}")
        self._driver.require_unused(layer_id)
        if self._driver.free_bytes <= 0:
            raise NoSpaceError("cannot merge layers: no space left")
        await sure()
        words = (self.written.get(id_, frozenset()) for id_ in (layer_id, below_id))
        self.written[into_id] = frozenset().union(*words)
        self._disks[into_id] = replace(upper, path=into, base_path=below.base_path)

    async def drop_layer(self, layer_id: str) -> None:
        if above := await self.layers_on(layer_id):
            raise ConflictError(
                f"layer {layer_id} is needed by {above[0]}, which lies on it: it stays"
            )
        await self._driver.delete_disk(layer_id)
        self.written.pop(layer_id, None)

    async def layers_on(self, layer_id: str) -> tuple[str, ...]:
        below = self._driver.disk_path(layer_id)
        self._driver.require_present()
        return tuple(sorted(id_ for id_, disk in self._disks.items() if disk.base_path == below))
