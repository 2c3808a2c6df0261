"""Data storages that are directories: a host's own (local) and one mounted on all hosts (shared).

Made by `nodeagent` for each DataStorage it can see. Layout: `disks/<disk id>.qcow2`, `images/<sha256>.qcow2`
(read-only bases of the disks), `seeds/<vm id>.iso`. An unmounted shared storage looks like an empty directory,
so a marker with the storage's id is written into it once, and every operation asks for the marker first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from core.errors import ConflictError, InvalidError, NotFoundError, PermanentError, TemporaryError
from storage import qemu_img
from storage.directory_layers import SUFFIX, DirectoryLayers, base_of
from storage.driver import DISKS, IMAGES, SEEDS, DiskFacts
from storage.file_thread import CALL_TIMEOUT_S, FileThread
from storage.ids import check_id, check_sha256, check_storage_path, is_id, is_sha256
from storage.image_bytes import SECTOR_BYTES
from storage.image_check import ImageFormat, check_image
from storage.sizes import Capacity, capacity_of, format_size
from storage.verified_copy import marker_path
from storage.whole_files import (
    DIRECTORY_MODE,
    IMAGE_MODE,
    PRIVATE_MODE,
    create_file,
    discard,
    publish_new,
    sweep_unfinished,
    sync_path,
    unfinished_name,
    write_whole,
)

MARKER_NAME = "kvorum-storage.json"
DISK_MAX_BYTES = 64 << 40
CHECKED = b"kvorum"

T = TypeVar("T")


class StorageMarker(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the marker file."""

    storage_id: str
    layout: int = 1


class _DirectoryDriver:
    """What local and shared directories have in common; see `DataStorageDriver`. They keep `layers`."""

    def __init__(
        self, storage_id: str, path: str | Path, *, host_id: str, timeout_s: float = CALL_TIMEOUT_S
    ) -> None:
        self._storage_id = check_id(storage_id, "data storage")
        self._path = check_storage_path(str(path))
        self._host_id = check_id(host_id, "host")
        self._files = FileThread(str(path), timeout_s=timeout_s)
        self.layers = DirectoryLayers(self)

    @property
    def storage_id(self) -> str:
        return self._storage_id

    @property
    def path(self) -> Path:
        return self._path

    @property
    def host_id(self) -> str:
        """The host whose view of the directory this is."""
        return self._host_id

    def disk_path(self, disk_id: str) -> Path:
        return self._path / DISKS / f"{check_id(disk_id, 'disk')}{SUFFIX}"

    def image_path(self, sha256: str) -> Path:
        return self._path / IMAGES / f"{check_sha256(sha256)}{SUFFIX}"

    def seed_path(self, vm_id: str) -> Path:
        return self._path / SEEDS / f"{check_id(vm_id, 'vm')}.iso"

    def _require_present(self) -> None:
        """Raise unless the directory is the storage. Blocks; called on the file thread before any other work."""
        raise NotImplementedError

    async def ensure_ready(self) -> None:
        await self.at("use the data storage", self._probe)

    def check(self) -> None:
        """Write a few bytes, read them back and remove them. Blocks, perhaps for ever: for a thread of the caller's.

        Apart from the driver's own thread, so that it neither waits for long copies nor holds them up.

        Raises:
            OSError: the file system refuses, or gives something else back.
            TemporaryError, PermanentError: it is not mounted, or another storage is.
        """
        self._require_present()
        probe = self._path / unfinished_name(self._host_id)
        try:
            with open(create_file(probe), "w+b") as file:
                file.write(CHECKED)
                file.flush()
                file.seek(0)
                found = file.read()
        finally:
            discard(probe)
        if found != CHECKED:
            raise OSError("what was written did not come back")

    async def capacity(self) -> Capacity:
        return await self.at("measure the data storage", lambda: capacity_of(self._path))

    async def create_disk(
        self, disk_id: str, size_bytes: int, base_sha256: str | None = None
    ) -> Path:
        final = self.disk_path(disk_id)
        base = self.image_path(base_sha256) if base_sha256 is not None else None
        if not 0 < size_bytes <= DISK_MAX_BYTES or size_bytes % SECTOR_BYTES:
            raise InvalidError(
                "a disk has a multiple of 512 bytes, at most 64 TiB: choose another size"
            )
        await self.at("create the disk", lambda: self._check_base(base, size_bytes))
        if await self.disk_exists(disk_id):
            return await self._accept_existing(disk_id, size_bytes, base)
        unfinished = final.parent / unfinished_name(self._host_id)
        try:
            await qemu_img.create(unfinished, size_bytes, base)
            await self.at("create the disk", lambda: publish_new(unfinished, final, PRIVATE_MODE))
        except PermanentError as error:
            if not isinstance(error.__cause__, FileExistsError):
                raise
            return await self._accept_existing(disk_id, size_bytes, base)
        finally:
            await self.clean_up("remove an unfinished disk", lambda: discard(unfinished))
        return final

    async def delete_disk(self, disk_id: str) -> None:
        path = self.disk_path(disk_id)
        if not await self.disk_exists(disk_id):
            return
        await qemu_img.require_unused(path)

        def remove() -> None:
            path.unlink(missing_ok=True)
            sync_path(path.parent)

        await self.at("delete the disk", remove)

    async def disk_exists(self, disk_id: str) -> bool:
        path = self.disk_path(disk_id)
        return await self.at("look for the disk", path.exists)

    async def resize_disk(self, disk_id: str, size_bytes: int) -> None:
        found = await self.disk_facts(disk_id)
        if size_bytes == found.virtual_size_bytes:
            return
        if size_bytes < found.virtual_size_bytes:
            raise InvalidError(
                f"a disk cannot shrink from {format_size(found.virtual_size_bytes)} to "
                f"{format_size(size_bytes)}: its last part would be lost; choose a larger size"
            )
        if size_bytes > DISK_MAX_BYTES or size_bytes % SECTOR_BYTES:
            raise InvalidError(
                "a disk has a multiple of 512 bytes, at most 64 TiB: choose another size"
            )
        await qemu_img.resize(found.path, size_bytes)
        await self.at("resize the disk", lambda: sync_path(found.path))

    async def list_disks(self) -> tuple[str, ...]:
        return await self.at("list the disks", lambda: self._stems(DISKS, is_id))

    async def list_images(self) -> tuple[str, ...]:
        return await self.at("list the images", lambda: self._stems(IMAGES, is_sha256))

    async def delete_image(self, sha256: str) -> None:
        path = self.image_path(sha256)

        def remove() -> None:
            for disk in (self._path / DISKS).glob(f"*{SUFFIX}"):
                if base_of(disk) == path:
                    raise ConflictError(
                        f"image {sha256} is used by disk {disk.stem}: delete the disk first"
                    )
            marker_path(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            sync_path(path.parent)

        await self.at("delete the cached image", remove)

    async def disk_facts(self, disk_id: str) -> DiskFacts:
        if not await self.disk_exists(disk_id):
            raise NotFoundError(
                f"disk {disk_id} does not exist on the data storage at {self._path}"
            )
        return await qemu_img.facts(self.disk_path(disk_id))

    async def sweep(self, host_id: str = "") -> int:
        gone = host_id or self._host_id
        return await self.at(
            "clean the data storage",
            lambda: sum(
                sweep_unfinished(self._path / name, gone) for name in ("", IMAGES, DISKS, SEEDS)
            ),
        )

    def close(self) -> None:
        self._files.close()

    async def at(self, what: str, work: Callable[[], T]) -> T:
        """Run blocking work, after making sure in the same breath that it will happen on the storage."""

        def checked() -> T:
            self._require_present()
            return work()

        return await self._files.call(what, checked)

    async def clean_up(self, what: str, work: Callable[[], object]) -> None:
        """Have something left over removed, behind all that was called so far; see `FileThread.clean_up`."""
        await self._files.clean_up(what, work)

    def _make_directories(self) -> None:
        for name in (IMAGES, DISKS, SEEDS):
            directory = self._path / name
            if not directory.is_dir():
                directory.mkdir(exist_ok=True)
                directory.chmod(DIRECTORY_MODE)
                sync_path(self._path)

    def _probe(self) -> None:
        self._make_directories()
        probe = self._path / unfinished_name(self._host_id)
        with open(create_file(probe), "wb"):
            discard(probe)

    def _check_base(self, base: Path | None, size_bytes: int) -> None:
        if base is None:
            return
        try:
            image = check_image(base, expected=ImageFormat.QCOW2)
        except FileNotFoundError:
            raise NotFoundError(
                f"image {base.stem} is not on the data storage at {self._path}: copy it there first"
            ) from None
        if size_bytes < image.virtual_size_bytes:
            raise InvalidError(
                f"a disk of {format_size(size_bytes)} is too small for its image, "
                f"which needs {format_size(image.virtual_size_bytes)}: choose a larger disk"
            )

    async def _accept_existing(self, disk_id: str, size_bytes: int, base: Path | None) -> Path:
        found = await self.disk_facts(disk_id)
        if found.virtual_size_bytes != size_bytes or found.base_path != base:
            raise ConflictError(
                f"disk {disk_id} exists with {format_size(found.virtual_size_bytes)} and "
                f"{found.base_path or 'no image'}: delete it first, or use another id"
            )
        return found.path

    def _stems(self, name: str, wanted: Callable[[str], bool]) -> tuple[str, ...]:
        return tuple(
            sorted(
                path.stem
                for path in (self._path / name).iterdir()
                if path.suffix == SUFFIX and wanted(path.stem)
            )
        )


class LocalDriver(_DirectoryDriver):
    """A directory of this host's own; it is made when missing."""

    async def create_storage(self) -> None:
        await self.ensure_ready()

    def _require_present(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True, mode=DIRECTORY_MODE)
        self._make_directories()


class SharedDriver(_DirectoryDriver):
    """A directory mounted at the same path on all hosts (NFS and the like); it is never made by us."""

    async def create_storage(self) -> None:
        def mark() -> None:
            if not self._path.is_dir():
                raise InvalidError(
                    f"{self._path} is not a directory on this host: mount the shared storage there first"
                )
            found = self._read_marker()
            if found is not None and found.storage_id != self._storage_id:
                raise ConflictError(
                    f"{self._path} already belongs to data storage {found.storage_id}: use another directory"
                )
            if found is None:
                content = msgspec.json.encode(StorageMarker(storage_id=self._storage_id))
                write_whole(
                    self._path / MARKER_NAME, content, host_id=self._host_id, mode=IMAGE_MODE
                )
            self._make_directories()

        await self._files.call("create the data storage", mark)

    def _require_present(self) -> None:
        found = self._read_marker()
        if found is None:
            raise TemporaryError(
                f"the shared data storage is not mounted at {self._path} (no {MARKER_NAME} there): "
                "mount it on this host",
                retry_after_s=5.0,
            )
        if found.storage_id != self._storage_id:
            raise PermanentError(
                f"{self._path} holds data storage {found.storage_id} instead of {self._storage_id}: "
                "mount the right one on this host"
            )

    def _read_marker(self) -> StorageMarker | None:
        try:
            content = (self._path / MARKER_NAME).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return msgspec.json.decode(content, type=StorageMarker)
        except msgspec.MsgspecError:
            raise PermanentError(
                f'{self._path / MARKER_NAME} is damaged: it should be {{"storage_id": "{self._storage_id}"}}'
            ) from None
