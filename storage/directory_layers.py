"""Layers in a directory: qcow2 files that name the one below as their backing file.

The part of `storage.directory_driver` that snapshots need; see `storage.layers`. A frozen file is never changed in place: what a
merge makes is a whole new file that is renamed over it, so that a reader sees the one or the other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from core.errors import ConflictError, NotFoundError, PermanentError
from storage import qemu_img
from storage.driver import DISKS, DiskFacts
from storage.image_qcow2 import linked_base
from storage.layers import Sure
from storage.whole_files import (
    PRIVATE_MODE,
    discard,
    publish,
    publish_new,
    unfinished_name,
    unfinished_of,
)

SUFFIX = ".qcow2"

T = TypeVar("T")


class Directory(Protocol):
    """What the layers need of the driver of their directory."""

    @property
    def path(self) -> Path: ...

    @property
    def host_id(self) -> str: ...

    def disk_path(self, disk_id: str) -> Path: ...

    async def disk_exists(self, disk_id: str) -> bool: ...

    async def disk_facts(self, disk_id: str) -> DiskFacts: ...

    async def delete_disk(self, disk_id: str) -> None: ...

    async def at(self, what: str, work: Callable[[], T]) -> T: ...

    async def clean_up(self, what: str, work: Callable[[], object]) -> None: ...


class DirectoryLayers:
    """The methods of `LayeredStorage` for one directory."""

    def __init__(self, directory: Directory) -> None:
        self._in = directory

    async def add_layer(self, layer_id: str, below_id: str) -> None:
        final, below = self._in.disk_path(layer_id), await self._facts(below_id)
        if await self._in.disk_exists(layer_id):
            return await self._accept_existing(layer_id, below)
        await qemu_img.require_unused(below.path)
        unfinished = final.parent / unfinished_name(self._in.host_id)
        try:
            await qemu_img.create(unfinished, below.virtual_size_bytes, below.path)
            await self._in.at("add a layer", lambda: publish_new(unfinished, final, PRIVATE_MODE))
        except PermanentError as error:
            if not isinstance(error.__cause__, FileExistsError):
                raise
            await self._accept_existing(layer_id, below)
        finally:
            await self._in.clean_up("remove an unfinished layer", lambda: discard(unfinished))

    async def merge_layer(self, layer_id: str, below_id: str, *, into_id: str, sure: Sure) -> None:
        final, replaces = self._in.disk_path(into_id), into_id == layer_id
        purpose = f"merge-{into_id}"
        # Whoever was at this before and isn't gone yet can give nothing a name any more after this.
        await self._in.at("merge layers", lambda: self._discard_all(final.parent, purpose))
        if not replaces and await self._in.disk_exists(into_id):
            return
        upper, below = await self._facts(layer_id), await self._facts(below_id)
        if replaces and upper.base_path == below.base_path:
            return
        if upper.base_path != below.path:
            raise ConflictError(f"layer {layer_id} lies on {upper.base_path}, not on {below_id}")
        await qemu_img.require_unused(upper.path)
        unfinished = final.parent / unfinished_name(self._in.host_id, purpose)
        give_name = publish if replaces else publish_new
        try:
            await qemu_img.copy(upper.path, unfinished)
            await qemu_img.rebase(unfinished, below.base_path)
            await sure()
            await self._in.at("merge layers", lambda: give_name(unfinished, final, PRIVATE_MODE))
        finally:
            await self._in.clean_up("remove an unfinished merge", lambda: discard(unfinished))

    async def drop_layer(self, layer_id: str) -> None:
        if not await self._in.disk_exists(layer_id):
            return
        if above := await self.layers_on(layer_id):
            raise ConflictError(
                f"layer {layer_id} is needed by {above[0]}, which lies on it: it stays"
            )
        layer = self._in.disk_path(layer_id)
        # What is being made on it, by whoever stood still since, would be of no use.
        await self._in.at("drop a layer", lambda: self._discard_on(layer))
        await self._in.delete_disk(layer_id)

    async def layers_on(self, layer_id: str) -> tuple[str, ...]:
        below = self._in.disk_path(layer_id)

        def look() -> tuple[str, ...]:
            files = (self._in.path / DISKS).glob(f"*{SUFFIX}")
            return tuple(sorted(file.stem for file in files if base_of(file) == below))

        return await self._in.at("look for layers", look)

    async def _facts(self, layer_id: str) -> DiskFacts:
        if not await self._in.disk_exists(layer_id):
            raise NotFoundError(
                f"layer {layer_id} does not exist on the data storage at {self._in.path}"
            )
        return await self._in.disk_facts(layer_id)

    async def _accept_existing(self, layer_id: str, below: DiskFacts) -> None:
        found = await self._in.disk_facts(layer_id)
        if found.base_path != below.path:
            raise ConflictError(
                f"layer {layer_id} exists on {found.base_path or 'nothing'}: use another id"
            )

    @staticmethod
    def _discard_all(directory: Path, purpose: str) -> None:
        for path in unfinished_of(directory, purpose):
            discard(path)

    @staticmethod
    def _discard_on(layer: Path) -> None:
        for path in unfinished_of(layer.parent):
            if path.is_file() and base_of(path) == layer:
                discard(path)


def base_of(disk: Path) -> Path | None:
    """Return the file that a disk's file lies on, None if there is none or the disk is gone meanwhile. Blocks."""
    try:
        with disk.open("rb") as file:
            base = linked_base(file)
    except FileNotFoundError:
        return None
    return Path(base) if base else None
