"""What storages said of a host proves that a VM can't write: all of its storages, of this lease, while the host is being fenced; and when they are asked."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from core.model import VM, Host, HostState, Lease
from ha.fencing import to_fence
from ha.profile import PROFILES
from ha.proofs import is_refused_by

LEASE = Lease(id="h1", name="h1", boot_id="boot-1", seq=1, watchdog_armed=True, revision=7)
HOST = Host(
    id="h1",
    name="h1",
    cluster_id="c",
    address="h1",
    state=HostState.FENCING,
    fenced_storage_ids=("s", "t"),
    storage_lease_revision=7,
    refusing_storage_ids=("s", "t"),
    fenced_boot_id="boot-1",
)


@pytest.mark.parametrize("storages", [{"s"}, {"t"}, {"s", "t"}])
@pytest.mark.parametrize("state", [HostState.FENCING, HostState.FENCED])
def test_a_vm_can_not_write_when_all_its_storages_refuse_its_host(storages, state):
    assert is_refused_by(replace(HOST, state=state), LEASE, storages)


@pytest.mark.parametrize(
    ("host", "lease", "storages"),
    [
        (HOST, LEASE, {"s", "other"}),
        (HOST, LEASE, {"other"}),
        (HOST, LEASE, set()),
        (None, LEASE, {"s"}),
        (replace(HOST, state=HostState.MEMBER), LEASE, {"s"}),
        (HOST, replace(LEASE, revision=8), {"s"}),
        (replace(HOST, storage_lease_revision=6), LEASE, {"s"}),
        (replace(HOST, storage_lease_revision=0), replace(LEASE, revision=0), {"s"}),
        (HOST, replace(LEASE, boot_id="boot-2"), {"s"}),
        (replace(HOST, fenced_storage_ids=()), LEASE, {"s"}),
    ],
    ids=[
        "one disk elsewhere",
        "no disk there",
        "no disk",
        "no host",
        "a member",
        "the lease went on",
        "said of an earlier lease",
        "nothing was said",
        "another boot",
        "only asked",
    ],
)
def test_anything_less_proves_nothing(host, lease, storages):
    assert not is_refused_by(host, lease, storages)


@pytest.mark.parametrize(("disarmed", "by"), [(False, [("s",)]), (True, [])])
def test_storages_are_not_asked_where_nothing_would_end_the_guests(disarmed, by):
    hosts = {
        name: replace(HOST, id=name, name=name, state=HostState.MEMBER)
        for name in ("h1", "h2", "h3")
    }
    vm = VM(id="v", name="v", cluster_id="c", host_id="h1", cpus=1, memory_mib=1)
    found = to_fence(
        profile=PROFILES["default"],
        hosts=hosts,
        leases={name: replace(LEASE, id=name, disarmed=disarmed) for name in hosts},
        bmcs={},
        movable=[vm],
        ages_s={"h1": 5.0, "h2": 0.0, "h3": 0.0},
        suspected=frozenset({"h1"}),
        voters=frozenset(hosts),
        up=frozenset({"h2", "h3"}),
        by_storage={"h1": frozenset({"s"})},
    )
    assert [fence.storage_ids for fence in found] == by
