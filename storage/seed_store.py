"""The cloud-init seeds on a data storage, one small image a VM.

Made by `nodeagent` beside each storage's driver. A seed lies on the VM's own storage, so that the target of a
migration finds it where the source had it.
"""

from __future__ import annotations

from pathlib import Path

from core.model import CloudInit
from storage.driver import DataStorageDriver
from storage.file_thread import FileThread
from storage.ids import check_id
from storage.seed import seed_image
from storage.whole_files import PRIVATE_MODE, sync_path, write_whole


class SeedStore:
    """The seeds on one data storage."""

    def __init__(self, driver: DataStorageDriver, *, host_id: str) -> None:
        self._driver = driver
        self._host_id = check_id(host_id, "host")
        self._files = FileThread(f"{driver.path} (seeds)")

    async def ensure(self, vm_id: str, hostname: str, cloud_init: CloudInit) -> Path:
        """Write a VM's seed unless the same is there; return its path. Idempotent.

        `hostname` is used when cloud-init names none. Mode 0600: user-data may hold passwords.

        Raises:
            InvalidError: see `check_cloud_init`.
            TemporaryError: the storage is full, not mounted or does not answer.
        """
        path, image = self._driver.seed_path(vm_id), seed_image(vm_id, hostname, cloud_init)

        def write() -> None:
            if not path.is_file() or path.read_bytes() != image:
                write_whole(path, image, host_id=self._host_id, mode=PRIVATE_MODE)

        await self._driver.ensure_ready()
        await self._files.call("write the cloud-init seed", write)
        return path

    async def delete(self, vm_id: str) -> None:
        """Remove a VM's seed; none is fine."""
        path = self._driver.seed_path(vm_id)

        def remove() -> None:
            path.unlink(missing_ok=True)
            sync_path(path.parent)

        await self._driver.ensure_ready()
        await self._files.call("delete the cloud-init seed", remove)

    def close(self) -> None:
        """Give up the file thread."""
        self._files.close()
