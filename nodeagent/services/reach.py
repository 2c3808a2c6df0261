"""What the VMs of a cluster can use: switches attached to it, and storages and images of its data center.

Asked when a VM is made, and before an attachment is taken away. A VM that is made at that very moment may keep what it was
made with; it works as before, as hosts follow its NICs and disks (`netfabric.plan`, `storage`).
"""

from __future__ import annotations

from msgspec.structs import replace

from core.errors import ConflictError
from core.model import (
    VM,
    Cluster,
    DataCenter,
    DataStorage,
    Disk,
    DistributedSwitch,
    Image,
    ImageStorage,
    Nic,
    PortGroup,
    Resource,
)
from raftstate.store import Store


def needed_for(
    store: Store, cluster_id: str, image: Image, storage: DataStorage, port_group: PortGroup
) -> tuple[Resource, ...]:
    """Return what must stay as it is for a new VM of that cluster to use these three.

    Raises:
        ConflictError: one of them doesn't reach the cluster; the message says what to do.
    """
    cluster = store.need(Cluster, cluster_id)
    switch = store.need(DistributedSwitch, port_group.switch_id)
    images = store.need(ImageStorage, image.image_storage_id)
    if cluster.id not in switch.cluster_ids:
        raise ConflictError(
            f"port group {port_group.name!r} doesn't reach the VM's cluster: attach its switch there"
            " (kvorum switch attach), or choose another port group",
            code="conflict-relation",
        )
    if storage.data_center_id != cluster.data_center_id:
        raise ConflictError(
            f"data storage {storage.name!r} is in another data center than the VM's cluster:"
            " choose another, or make one there (kvorum data-storage create)",
            code="conflict-relation",
        )
    if cluster.data_center_id not in images.data_center_ids:
        raise ConflictError(
            f"image {image.name!r} isn't to be had in the data center of the VM's cluster: attach its"
            " storage there (kvorum image-storage attach), or choose another image",
            code="conflict-relation",
        )
    return cluster, switch, images


def refuse_if_needed(store: Store, before: Resource, after: Resource) -> None:
    """See that a change takes nothing away that VMs use.

    Raises:
        ConflictError: VMs use it; the message says how many.
    """
    if isinstance(before, DistributedSwitch) and isinstance(after, DistributedSwitch):
        lost = set(before.cluster_ids) - set(after.cluster_ids)
        _refuse(_vms_on(store, before, lost), "with NICs on it, in the clusters to be detached")
    elif isinstance(before, ImageStorage) and isinstance(after, ImageStorage):
        lost = set(before.data_center_ids) - set(after.data_center_ids)
        _refuse(
            _vms_of_images(store, before, lost),
            "made of its images, in the data centers to be detached",
        )
    elif isinstance(before, Cluster) and isinstance(after, Cluster):
        moves = before.data_center_id != after.data_center_id
        vms = {vm.id for vm in store.all(VM) if moves and vm.cluster_id == before.id}
        _refuse(vms, "in it, with disks in its data center")


def _vms_on(store: Store, switch: DistributedSwitch, clusters: set[str]) -> set[str]:
    if not clusters:
        return set()
    groups = {group.id for group in store.all(PortGroup) if group.switch_id == switch.id}
    on_it = {nic.vm_id for id_ in groups for nic in store.with_value(Nic, "port_group_id", id_)}
    return {id_ for id_ in on_it if (vm := store.get(VM, id_)) and vm.cluster_id in clusters}


def _vms_of_images(store: Store, storage: ImageStorage, centers: set[str]) -> set[str]:
    if not centers:
        return set()
    images = {image.id for image in store.all(Image) if image.image_storage_id == storage.id}
    made = {disk.vm_id for id_ in images for disk in store.with_value(Disk, "image_id", id_)}
    lie = {cluster.id for cluster in store.all(Cluster) if cluster.data_center_id in centers}
    return {id_ for id_ in made if (vm := store.get(VM, id_)) and vm.cluster_id in lie}


def _refuse(vms: set[str], why: str) -> None:
    if vms:
        number = "there is 1 VM" if len(vms) == 1 else f"there are {len(vms)} VMs"
        raise ConflictError(
            f"{number} {why}: move or delete {'it' if len(vms) == 1 else 'them'} first",
            code="conflict-relation",
        )


def attached(resource: Resource, target: Resource, *, here: bool) -> Resource:
    """Return a switch or an image storage as it is with a cluster or a data center attached, or not."""
    match resource, target:
        case DistributedSwitch(), Cluster():
            return replace(resource, cluster_ids=_with(resource.cluster_ids, target.id, here=here))
        case ImageStorage(), DataCenter():
            ids = _with(resource.data_center_ids, target.id, here=here)
            return replace(resource, data_center_ids=ids)
    raise AssertionError(f"{resource!r} isn't attached to {target!r}")


def _with(ids: tuple[str, ...], id_: str, *, here: bool) -> tuple[str, ...]:
    others = tuple(one for one in ids if one != id_)
    if id_ in ids and here:
        return ids
    return (*others, id_) if here else others
