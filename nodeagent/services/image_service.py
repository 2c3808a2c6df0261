"""Images: take an upload, keep it by its hash, let other hosts fetch it, and hold a second copy of each.

The upload is spooled, checked and converted before any record of it exists, so an upload that breaks off leaves
nothing, and no two uploads can claim one name. A copy on a second host is made in the background.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from msgspec.structs import replace

from core.errors import ConflictError, InvalidError, NotFoundError, PlatformError
from core.model import Host, Image, ImageState, ImageStorage, check_name, key_of
from nodeagent.node import Node
from nodeagent.services.vm_tasks import IdSource
from nodeagent.services.whereabouts import LeaseAges, Whereabouts
from nodeagent.services.work_kinds import WorkKind
from storage.image_check import ImageFormat
from storage.image_store import ImageStore

log = logging.getLogger(__name__)

COPIES = 2
ROUND_S = 30.0


class ImageService:
    """The images of this host, and the way to those of others."""

    def __init__(
        self, node: Node, kept: ImageStore, ages: LeaseAges, whereabouts: Whereabouts
    ) -> None:
        self._node = node
        self.kept = kept
        self._ages = ages
        self._whereabouts = whereabouts
        self._known: set[str] = set()

    async def upload(
        self,
        *,
        name: str,
        expected_format: str,
        sha256: str,
        size_bytes: int,
        chunks: AsyncIterator[bytes],
        ids: IdSource,
    ) -> Image:
        """Store an uploaded image on this host and record it.

        Raises:
            InvalidError: not an image that stands alone, a wrong hash, or less than was declared.
            ConflictError: the name is taken.
            NoSpaceError: it does not fit.
            QueueFullError: too many uploads wait for their check.
        """
        if (before := self._node.store.get(Image, ids.id_for("image"))) is not None:
            return before
        check_name(name, "image")
        self._refuse_taken(name)
        expected = _format_of(expected_format)
        storage = self._node.store.all(ImageStorage)[0]
        async with await self.kept.begin_upload(size_bytes, sha256) as writer:
            async for chunk in chunks:
                await writer.write(chunk)
            # Inside, so that an upload whose turn never comes is removed.
            async with self._node.queues.turn(
                WorkKind.IMAGE_IMPORTS, f"image/{ids.id_for('image')}"
            ):
                spooled = await writer.finish()
                stored = await self.kept.import_upload(spooled, expected=expected)
        image = Image(
            id=ids.id_for("image"),
            name=name,
            image_storage_id=storage.id,
            state=ImageState.READY,
            sha256=stored.sha256,
            size_bytes=stored.size_bytes,
            virtual_size_bytes=stored.virtual_size_bytes,
            source_format=str(stored.source_format),
            source_sha256=spooled.sha256,
            host_ids=(self._node.host_id,),
            created_ms=self._node.clock.wall_ms(),
        )
        try:
            await self._node.store.apply(puts=(image,), request_id=ids.request_id)
        except ConflictError:
            await self._drop_unless_used(stored.sha256)
            self._refuse_taken(name)
            raise
        return self._node.store.need(Image, image.id)

    def local_path(self, sha256: str) -> Path | None:
        """Return this host's copy of an image, None when it has none."""
        path = self.kept.image_path(sha256)
        return path if path.is_file() else None

    def size_bytes(self, sha256: str) -> int:
        """Return the size of an image's stored file.

        Raises:
            NotFoundError: no image has this hash.
        """
        for image in self._node.store.all(Image):
            if image.sha256 == sha256:
                return image.size_bytes
        raise NotFoundError("the image of this disk was deleted: upload it again")

    async def fetch(self, sha256: str) -> AsyncIterator[bytes]:
        """Yield an image's bytes from the first host that has it; the caller verifies the hash.

        Raises:
            NotFoundError: no host that answers has it.
            UnavailableError: the transfer broke off.
        """
        holders = {h for i in self._node.store.all(Image) if i.sha256 == sha256 for h in i.host_ids}
        hosts = [h for h in self._node.store.all(Host) if h.id != self._node.host_id]
        hosts.sort(key=lambda h: (h.id not in holders, self._ages.age_s(h.id)))
        for host in hosts:
            sent = False
            try:
                async for chunk in self._node.mesh.download(host, f"/mesh/images/{sha256}"):
                    sent = True
                    yield chunk
            except PlatformError as error:
                if sent:
                    raise
                log.info(
                    "an image could not be fetched", extra={"host": host.id, "error": error.message}
                )
            else:
                return
        raise NotFoundError(
            "no host that can be reached has a copy of the image: "
            "bring a host of 'kvorum image show' back, or upload it again"
        )

    async def run(self) -> None:
        """Hold a second copy of each image, and remove copies of deleted ones, until cancelled."""
        watch = self._node.store.watch(Image)
        try:
            while True:
                try:
                    await self._tidy()
                    async with asyncio.timeout(ROUND_S):
                        await watch.next()
                except TimeoutError:
                    continue
                except PlatformError as error:
                    log.info("images wait", extra={"error": error.message})
                    await asyncio.sleep(ROUND_S)
        finally:
            self._node.store.unwatch(watch)

    async def _tidy(self) -> None:
        images = self._node.store.all(Image)
        for image in images:
            if self._is_next_holder(image):
                await self._copy_here(image)
        await self._sweep({image.sha256 for image in images})

    def _is_next_holder(self, image: Image) -> bool:
        """Tell whether this host is the one that should make the missing copy: the ring decides, the same way everywhere.

        Only hosts that can work count as choices: a witness, say, keeps no images.
        """
        alive = [h.id for h in self._node.store.all(Host) if self._ages.age_s(h.id) < 10]
        holding = [host_id for host_id in image.host_ids if host_id in alive]
        if image.state is not ImageState.READY or not holding or len(holding) >= COPIES:
            return False
        order = self._whereabouts.ring().in_order(key_of(image))
        others = [host_id for host_id in order if host_id not in holding]
        return self._node.host_id in others[: COPIES - len(holding)]

    async def _copy_here(self, image: Image) -> None:
        async with self._node.queues.turn(WorkKind.IMAGE_COPIES, key_of(image)):
            await self.kept.receive(image.sha256, image.size_bytes, self.fetch(image.sha256))
        fresh = self._node.store.get(Image, image.id)
        if fresh is not None and self._node.host_id not in fresh.host_ids:
            await self._node.store.apply(
                puts=(replace(fresh, host_ids=(*fresh.host_ids, self._node.host_id)),)
            )

    async def _sweep(self, present: set[str]) -> None:
        """Remove copies of images that this agent saw exist and then go.

        Files it never knew are left alone: their record may be on its way, or this agent's state is young.
        """
        for sha256 in self._known - present:
            await self._drop_unless_used(sha256)
        self._known = present

    async def _drop_unless_used(self, sha256: str) -> None:
        if not any(image.sha256 == sha256 for image in self._node.store.all(Image)):
            await self.kept.delete(sha256)

    def _refuse_taken(self, name: str) -> None:
        if self._node.store.claim_holder(f"image.name/{name}"):
            raise ConflictError(
                f"image name {name!r} is already taken: choose another or delete that image"
            )


def _format_of(text: str) -> ImageFormat | None:
    if not text:
        return None
    try:
        return ImageFormat(text)
    except ValueError:
        known = ", ".join(str(format_) for format_ in ImageFormat)
        raise InvalidError(f"image format {text[:40]!r} is unknown: there are {known}") from None
