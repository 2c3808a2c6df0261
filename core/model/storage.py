"""Data storages, image storages, images and disks.

Written by the storage services of `nodeagent`; `storage` turns them into files.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from core.model.resource import OnDelete, Relation, Tagged


class DataStorageKind(StrEnum):
    """`LOCAL`: a directory of each host's own. `SHARED`: one directory mounted at the same path on all hosts."""

    LOCAL = "local"
    SHARED = "shared"


class DataStorage(Tagged, tag="data-storage.v1", frozen=True, kw_only=True):
    """Where disks live. `path` is absolute and the same on every host; `driver` is a plug-in's, empty: the product's."""

    PLURAL: ClassVar[str] = "data-storages"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "data_center_id", target="data-center", name="data_center", reverse="data_storages"
        ),
    )

    data_center_id: str
    kind: DataStorageKind
    path: str
    driver: str = ""


class ImageStorage(Tagged, tag="image-storage.v1", frozen=True, kw_only=True):
    """Where images live: a directory of the same path on every host; images are copied between hosts by hash."""

    PLURAL: ClassVar[str] = "image-storages"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "data_center_id", target="data-center", name="data_center", reverse="image_storages"
        ),
    )

    data_center_id: str
    path: str


class ImageState(StrEnum):
    """An image is usable only when ready."""

    UPLOADING = "uploading"
    READY = "ready"


class Image(Tagged, tag="image.v1", frozen=True, kw_only=True):
    """A disk template. Always stored as a standalone qcow2 file named by its SHA-256.

    `sha256` and `size_bytes` are of that stored file; `virtual_size_bytes` is what a guest sees.
    `host_ids` are hosts that hold a verified copy. `source_*` describe the file as it was uploaded.
    """

    PLURAL: ClassVar[str] = "images"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "image_storage_id", target="image-storage", name="image_storage", reverse="images"
        ),
        Relation(
            "host_ids",
            target="host",
            name="hosts",
            reverse="images",
            many=True,
            on_delete=OnDelete.DETACH,
        ),
    )

    image_storage_id: str
    state: ImageState = ImageState.UPLOADING
    sha256: str = ""
    size_bytes: int = 0
    virtual_size_bytes: int = 0
    source_format: str = ""
    source_sha256: str = ""
    host_ids: tuple[str, ...] = ()


class Disk(Tagged, tag="disk.v1", frozen=True, kw_only=True):
    """A virtual disk: qcow2, linked to its image's cached copy on the same data storage (or empty: no image).

    `index` orders the disks of a VM, 0 is the one it boots from. `host_id` is set for local storage only.
    """

    PLURAL: ClassVar[str] = "disks"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation("vm_id", target="vm", name="vm", reverse="disks", on_delete=OnDelete.ALONG),
        Relation("data_storage_id", target="data-storage", name="data_storage", reverse="disks"),
        Relation("image_id", target="image", name="image", reverse="disks"),
        Relation("host_id", target="host", name="host", reverse="disks"),
    )

    vm_id: str
    data_storage_id: str
    size_bytes: int
    image_id: str = ""
    image_sha256: str = ""
    host_id: str = ""
    index: int = 0
