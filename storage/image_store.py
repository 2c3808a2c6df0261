"""A host's own directory of images.

Made by `nodeagent` for the image storage: uploads arrive here, other hosts read from here, and the image caches
of the data storages copy from here. Layout: `<sha256>.qcow2`, its `.verified` marker, and `spool/`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from core.errors import NotFoundError
from storage.file_thread import CALL_TIMEOUT_S, FileThread
from storage.ids import check_id, check_sha256, check_storage_path, is_sha256
from storage.image_check import VIRTUAL_SIZE_LIMIT_BYTES, ImageFormat
from storage.image_import import CONVERT_TIMEOUT_S, ImageImporter, ImportedImage
from storage.sizes import Capacity, capacity_of
from storage.upload import UPLOAD_LIMIT_BYTES, SpooledFile, SpoolWriter
from storage.verified_copy import copy_verified, is_verified, marker_path, read_chunks
from storage.whole_files import DIRECTORY_MODE, sweep_unfinished, sync_path

SPOOL = "spool"


class ImageStore:
    """Images of one image storage on this host, by SHA-256."""

    def __init__(
        self,
        path: str | Path,
        *,
        host_id: str,
        timeout_s: float = CALL_TIMEOUT_S,
        convert_timeout_s: float = CONVERT_TIMEOUT_S,
        upload_limit_bytes: int = UPLOAD_LIMIT_BYTES,
        virtual_size_limit_bytes: int = VIRTUAL_SIZE_LIMIT_BYTES,
    ) -> None:
        self._path = check_storage_path(str(path))
        self._host_id = check_id(host_id, "host")
        self._upload_limit_bytes = upload_limit_bytes
        self._files = FileThread(str(path), timeout_s=timeout_s)
        self._importer = ImageImporter(
            self._path,
            host_id=host_id,
            files=self._files,
            timeout_s=convert_timeout_s,
            virtual_size_limit_bytes=virtual_size_limit_bytes,
        )

    @property
    def path(self) -> Path:
        """The directory."""
        return self._path

    def image_path(self, sha256: str) -> Path:
        """Return where an image is or would be."""
        return self._path / f"{check_sha256(sha256)}.qcow2"

    async def ensure_ready(self) -> None:
        """Make the directory."""

        def make() -> None:
            self._path.mkdir(parents=True, exist_ok=True, mode=DIRECTORY_MODE)
            (self._path / SPOOL).mkdir(exist_ok=True, mode=0o700)

        await self._files.call("use the image storage", make)

    async def sweep(self) -> int:
        """Remove what uploads, imports and copies left when the agent died; only before new ones begin."""
        return await sweep_spool(
            self._path, self._path / SPOOL, host_id=self._host_id, files=self._files
        )

    async def capacity(self) -> Capacity:
        """Measure the file system."""
        await self.ensure_ready()
        return await self._files.call("measure the image storage", capacity_of, self._path)

    async def begin_upload(self, declared_size: int, expected_sha256: str = "") -> SpoolWriter:
        """Start to receive a file; see `SpoolWriter.begin`."""
        await self.ensure_ready()
        return await SpoolWriter.begin(
            self._path / SPOOL,
            declared_size,
            expected_sha256,
            host_id=self._host_id,
            files=self._files,
            limit_bytes=self._upload_limit_bytes,
        )

    async def import_upload(
        self, spooled: SpooledFile, *, expected: ImageFormat | None = None
    ) -> ImportedImage:
        """Make an image of a finished upload; see `ImageImporter.import_file`."""
        image = await self._importer.import_file(spooled.path, expected=expected)
        await self.has(image.sha256, image.size_bytes)
        return image

    async def has(self, sha256: str, size_bytes: int, *, fully: bool = False) -> bool:
        """Tell whether a verified copy is here; `fully` reads it whole again."""
        return await is_verified(
            self.image_path(sha256),
            sha256,
            size_bytes,
            host_id=self._host_id,
            files=self._files,
            fully=fully,
        )

    async def read(self, sha256: str) -> AsyncIterator[bytes]:
        """Yield an image's stored bytes, e.g. for another host (which checks the hash).

        Raises:
            NotFoundError: no such image here.
        """
        path = self.image_path(sha256)
        if not await self._files.call("read the image", path.exists):
            raise NotFoundError(f"image {sha256} is not on this host: ask a host that has it")
        async for chunk in read_chunks(path, files=self._files):
            yield chunk

    async def receive(self, sha256: str, size_bytes: int, chunks: AsyncIterator[bytes]) -> Path:
        """Store another host's copy, unless it is here already; see `copy_verified`."""
        await self.ensure_ready()
        path = self.image_path(sha256)
        if not await self.has(sha256, size_bytes):
            await copy_verified(
                chunks, path, sha256, size_bytes, host_id=self._host_id, files=self._files
            )
        return path

    async def delete(self, sha256: str) -> None:
        """Remove an image; none is fine. Caches keep their copies."""
        path = self.image_path(sha256)

        def remove() -> None:
            marker_path(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            sync_path(path.parent)

        await self.ensure_ready()
        await self._files.call("delete the image", remove)

    async def list_images(self) -> tuple[str, ...]:
        """Return the hashes of all images here, sorted."""
        await self.ensure_ready()

        def stems() -> tuple[str, ...]:
            found = (path.stem for path in self._path.iterdir() if path.suffix == ".qcow2")
            return tuple(sorted(stem for stem in found if is_sha256(stem)))

        return await self._files.call("list the images", stems)

    def close(self) -> None:
        """Give up the file thread."""
        self._files.close()


async def sweep_spool(*directories: Path, host_id: str, files: FileThread) -> int:
    """Remove a host's unfinished uploads, imports and copies in these directories; return how many. At start only."""

    def sweep() -> int:
        return sum(sweep_unfinished(directory, host_id) for directory in directories)

    return await files.call("clean the image storage", sweep)
