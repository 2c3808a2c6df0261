"""Bring an image onto a data storage, where disks are linked to it.

Called by the VM service of the host that makes a disk. On a shared storage several hosts may do it at once, with
no lock between them: each writes a file of its own and gives it the same name. A file that is there is trusted
only with a marker of an earlier check that still fits it (see `verified_copy`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from core.errors import NotFoundError, PlatformError
from storage.driver import DataStorageDriver
from storage.errors import NoSpaceError
from storage.file_thread import CALL_TIMEOUT_S, FileThread
from storage.ids import check_id
from storage.image_store import ImageStore
from storage.verified_copy import STALL_TIMEOUT_S, copy_verified, is_verified

log = logging.getLogger(__name__)

Fetch = Callable[[str], AsyncIterator[bytes]]


class ImageCache:
    """The images of one data storage.

    `local` is this host's image store, `fetch` streams an image from whichever host has it.
    """

    def __init__(
        self,
        driver: DataStorageDriver,
        *,
        host_id: str,
        local: ImageStore | None = None,
        fetch: Fetch | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
        stall_timeout_s: float = STALL_TIMEOUT_S,
    ) -> None:
        self._driver = driver
        self._host_id = check_id(host_id, "host")
        self._local = local
        self._fetch = fetch
        self._stall_timeout_s = stall_timeout_s
        self._files = FileThread(f"{driver.path} (images)", timeout_s=timeout_s)
        self._under_way: dict[str, asyncio.Event] = {}

    async def ensure(self, sha256: str, size_bytes: int, *, fully: bool = False) -> Path:
        """Return the path of a verified copy of the image on the data storage; make it if needed. Idempotent.

        `size_bytes` is of the stored file. `fully` reads the copy whole even if it looks unchanged. A second
        call for the same image waits for the first.

        Raises:
            NotFoundError: neither this host nor `fetch` has the image.
            TemporaryError: the storage or the source failed, or the source's copy is damaged.
            NoSpaceError: the image does not fit.
        """
        path = self._driver.image_path(sha256)
        while (other := self._under_way.get(sha256)) is not None:
            await other.wait()
        done = self._under_way[sha256] = asyncio.Event()
        try:
            await self._driver.ensure_ready()
            if not await is_verified(
                path, sha256, size_bytes, host_id=self._host_id, files=self._files, fully=fully
            ):
                await self._fill(path, sha256, size_bytes)
        finally:
            del self._under_way[sha256]
            done.set()
        return path

    def close(self) -> None:
        """Give up the file thread."""
        self._files.close()

    async def _fill(self, path: Path, sha256: str, size_bytes: int) -> None:
        last: PlatformError = NotFoundError(
            f"image {sha256} is on no host that can be reached: upload it again, or start a host that has it"
        )
        for name, chunks in self._sources(sha256):
            try:
                await copy_verified(
                    chunks,
                    path,
                    sha256,
                    size_bytes,
                    host_id=self._host_id,
                    files=self._files,
                    stall_timeout_s=self._stall_timeout_s,
                )
            except NotFoundError:
                continue
            except NoSpaceError:
                raise
            except PlatformError as error:
                log.warning(
                    "image not copied",
                    extra={"sha256": sha256, "source": name, "error": str(error)},
                )
                last = error
                continue
            log.info("image cached", extra={"sha256": sha256, "source": name, "path": str(path)})
            return
        raise last

    def _sources(self, sha256: str) -> list[tuple[str, AsyncIterator[bytes]]]:
        sources: list[tuple[str, AsyncIterator[bytes]]] = []
        if self._local is not None:
            sources.append(("this host", self._local.read(sha256)))
        if self._fetch is not None:
            sources.append(("another host", self._fetch(sha256)))
        return sources
