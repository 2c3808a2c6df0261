"""Data storages, image storages, images, disks and their snapshots.

Written by the storage services of `nodeagent`; `storage` turns them into files.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from core.attributes import CLUSTER, OWNER, attribute
from core.model.resource import DESCRIPTION_LENGTH_MAX, OnDelete, Relation, Tagged

ATTACHED_MAX = 1000
DISK_BYTES_MAX = 64 << 40


class DataStorageKind(StrEnum):
    """`LOCAL`: a directory of each host's own. `SHARED`: one directory mounted at the same path on all hosts."""

    LOCAL = "local"
    SHARED = "shared"


class DataStorage(Tagged, tag="data-storage.v1", frozen=True, kw_only=True):
    """Where disks live. `path` is absolute and the same on every host."""

    PLURAL: ClassVar[str] = "data-storages"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "data_center_id",
            target="data-center",
            name="data_center",
            reverse="data_storages",
            required=True,
        ),
    )

    data_center_id: Annotated[str, attribute("The data center that it belongs to.")]
    kind: Annotated[
        DataStorageKind,
        attribute("Whether each host has a directory of its own, or all mount the same."),
    ]
    path: Annotated[str, attribute("Absolute path, the same on every host.")]
    driver: Annotated[
        str, attribute("The plug-in's driver that it is used by; empty: the product's own.")
    ] = ""


class ImageStorage(Tagged, tag="image-storage.v1", frozen=True, kw_only=True):
    """Where images live: a directory of the same path on every host; images are copied between hosts by hash.

    VMs of the data centers that it is attached to are made of its images, on data storages of theirs.
    """

    PLURAL: ClassVar[str] = "image-storages"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "data_center_ids",
            target="data-center",
            name="data_centers",
            reverse="image_storages",
            many=True,
            on_delete=OnDelete.DETACH,
            maximum=ATTACHED_MAX,
        ),
    )

    data_center_ids: Annotated[
        tuple[str, ...],
        attribute("The data centers whose VMs are made of its images.", count_max=ATTACHED_MAX),
    ] = ()
    path: Annotated[str, attribute("Absolute path, the same on every host.", by=CLUSTER)]


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
            "image_storage_id",
            target="image-storage",
            name="image_storage",
            reverse="images",
            required=True,
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

    image_storage_id: Annotated[str, attribute("Where its file is kept.", by=CLUSTER)]
    state: Annotated[ImageState, attribute("Whether it can be used yet.", by=CLUSTER)] = (
        ImageState.UPLOADING
    )
    sha256: Annotated[str, attribute("SHA-256 of the file as it is kept.", by=CLUSTER)] = ""
    size_bytes: Annotated[
        int, attribute("Size of the file as it is kept.", by=CLUSTER, least=0)
    ] = 0
    virtual_size_bytes: Annotated[
        int, attribute("Size of the disk that a guest sees.", by=CLUSTER, least=0)
    ] = 0
    source_format: Annotated[str, attribute("Format that it was uploaded in.", by=CLUSTER)] = ""
    source_sha256: Annotated[
        str, attribute("SHA-256 of the file as it was uploaded.", by=CLUSTER)
    ] = ""
    host_ids: Annotated[
        tuple[str, ...], attribute("Hosts that hold a verified copy.", by=OWNER)
    ] = ()


class Disk(Tagged, tag="disk.v1", frozen=True, kw_only=True):
    """A virtual disk: qcow2, linked to its image's cached copy on the same data storage (or empty: no image).

    `index` orders the disks of a VM, 0 is the one it boots from. `host_id` is set for local storage only.
    With snapshots it consists of several files, its layers (`storage.layers`), of which `top_layer_id` is written.
    """

    PLURAL: ClassVar[str] = "disks"
    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset({"layer_id"})
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "vm_id",
            target="vm",
            name="vm",
            reverse="disks",
            on_delete=OnDelete.ALONG,
            required=True,
        ),
        Relation(
            "data_storage_id",
            target="data-storage",
            name="data_storage",
            reverse="disks",
            required=True,
        ),
        Relation("image_id", target="image", name="image", reverse="disks"),
        Relation("host_id", target="host", name="host", reverse="disks"),
        Relation(
            "current_snapshot_id",
            target="snapshot",
            name="current_snapshot",
            reverse="current_disks",
            on_delete=OnDelete.DETACH,
        ),
    )

    vm_id: Annotated[str, attribute("The VM that it belongs to.")]
    data_storage_id: Annotated[str, attribute("Where its file lies.")]
    size_bytes: Annotated[
        int, attribute("Size that the guest sees.", least=512, most=DISK_BYTES_MAX)
    ]
    image_id: Annotated[str, attribute("The image that it was made of; empty: none.")] = ""
    image_sha256: Annotated[str, attribute("SHA-256 of that image's file.", by=CLUSTER)] = ""
    host_id: Annotated[
        str, attribute("The host that has it, if its storage is local; else empty.", by=CLUSTER)
    ] = ""
    index: Annotated[
        int,
        attribute(
            "Its place among the VM's disks; 0 is the one that it boots from.", by=CLUSTER, least=0
        ),
    ] = 0
    layer_id: Annotated[
        str,
        attribute(
            "The layer that it is written to; empty: the first, which has the disk's id.",
            by=CLUSTER,
        ),
    ] = ""
    current_snapshot_id: Annotated[
        str,
        attribute("The snapshot that it goes on from; empty: none.", by=CLUSTER),
    ] = ""

    @property
    def top_layer_id(self) -> str:
        """The id of the file that is written, and that the VM starts from."""
        return self.layer_id or self.id


class SnapshotState(StrEnum):
    """A snapshot can be gone back to only when ready."""

    TAKING = "taking"
    READY = "ready"
    DELETING = "deleting"


class Snapshot(Tagged, tag="snapshot.v1", frozen=True, kw_only=True):
    """What a disk held at a moment. The snapshots of a disk are a tree: each goes on from its parent.

    `layer_id` is the frozen layer that holds what was written between the parent and this one.
    """

    PLURAL: ClassVar[str] = "snapshots"
    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset({"layer_id"})
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "disk_id",
            target="disk",
            name="disk",
            reverse="snapshots",
            on_delete=OnDelete.ALONG,
            required=True,
        ),
        Relation(
            "parent_id",
            target="snapshot",
            name="parent",
            reverse="children",
            on_delete=OnDelete.DETACH,
        ),
    )

    disk_id: Annotated[str, attribute("The disk that it is of.", by=CLUSTER)]
    parent_id: Annotated[
        str, attribute("The snapshot that the disk went on from then; empty: none.", by=CLUSTER)
    ] = ""
    state: Annotated[SnapshotState, attribute("Whether it can be used.", by=CLUSTER)] = (
        SnapshotState.TAKING
    )
    layer_id: Annotated[str, attribute("The layer that holds it.", by=CLUSTER)]
    size_bytes: Annotated[
        int, attribute("Size of the disk that a guest sees.", by=CLUSTER, least=0)
    ]
    stored_bytes: Annotated[
        int,
        attribute(
            "What its layer takes on the data storage: the changes since its parent.",
            by=CLUSTER,
            least=0,
        ),
    ] = 0
    description: Annotated[
        str, attribute("A note for people.", length_max=DESCRIPTION_LENGTH_MAX)
    ] = ""
