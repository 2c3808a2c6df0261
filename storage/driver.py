"""What every kind of data storage can do.

Controllers of `nodeagent` work with this; the kinds are `directory_driver` (local, shared) and `memory_driver`
(tests). All operations are idempotent, so that a controller that died in the middle just does them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from storage.sizes import Capacity

IMAGES, DISKS, SEEDS = "images", "disks", "seeds"


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """A disk as its file says it. `allocated_bytes` is what it occupies; `base_path` is its image, if linked."""

    path: Path
    virtual_size_bytes: int
    allocated_bytes: int
    base_path: Path | None
    corrupt: bool


class DataStorageDriver(Protocol):
    """One data storage as seen from this host.

    All methods raise TemporaryError when the storage does not answer or is not mounted, and PermanentError when
    it is misconfigured. Sizes are bytes. Disk ids are UUIDs, images are named by SHA-256 (InvalidError otherwise).
    """

    @property
    def storage_id(self) -> str:
        """The id of the DataStorage."""
        ...

    @property
    def path(self) -> Path:
        """The directory."""
        ...

    async def create_storage(self) -> None:
        """Make the directory a storage of this id. ConflictError: it belongs to another storage."""
        ...

    async def ensure_ready(self) -> None:
        """Check that the storage is there and can be written."""
        ...

    async def capacity(self) -> Capacity:
        """Measure the whole file system."""
        ...

    async def create_disk(
        self, disk_id: str, size_bytes: int, base_sha256: str | None = None
    ) -> Path:
        """Make an empty disk, or one that is linked to a cached image; an equal disk is left as it is.

        NotFoundError: the image is not cached here. InvalidError: smaller than the image, or not in sectors.
        ConflictError: a disk of this id exists with another size or image.
        """
        ...

    async def delete_disk(self, disk_id: str) -> None:
        """Remove a disk; none is fine. ConflictError: a running VM has it open."""
        ...

    def disk_path(self, disk_id: str) -> Path:
        """Return where a disk is or would be."""
        ...

    def image_path(self, sha256: str) -> Path:
        """Return where a cached image is or would be."""
        ...

    def seed_path(self, vm_id: str) -> Path:
        """Return where a VM's cloud-init seed is or would be."""
        ...

    async def disk_exists(self, disk_id: str) -> bool:
        """Tell whether there is a disk."""
        ...

    async def resize_disk(self, disk_id: str, size_bytes: int) -> None:
        """Grow a disk of a stopped VM.

        NotFoundError: no such disk. InvalidError: it would shrink. ConflictError: a running VM has it open.
        """
        ...

    async def list_disks(self) -> tuple[str, ...]:
        """Return the ids of all disks, sorted."""
        ...

    async def list_images(self) -> tuple[str, ...]:
        """Return the hashes of all cached images, sorted."""
        ...

    async def delete_image(self, sha256: str) -> None:
        """Remove a cached image; none is fine. ConflictError: a disk on this storage is linked to it."""
        ...

    async def disk_facts(self, disk_id: str) -> DiskFacts:
        """Read a disk's header, also while a VM runs from it. NotFoundError: no such disk."""
        ...

    async def sweep(self, host_id: str = "") -> int:
        """Remove what this host (or another, that is gone for good) left unfinished; return how many files."""
        ...

    def close(self) -> None:
        """Give up this host's view of the storage."""
        ...
