"""Choosing a host: who can take a VM, who is preferred, and what is said when nobody can."""

from __future__ import annotations

import msgspec
import pytest

from core.errors import InvalidError
from core.model import VM, DataStorage, DataStorageKind, Disk, Host, HostState, PowerState, VMPhase
from ha.placement import (
    PlacementError,
    PlacementRequest,
    PlacementView,
    choose_host,
    loads_of,
    pinned_host_id,
)
from ha.profile import PROFILES, profile_of


def host(name: str, memory_mib: int = 4096, **changes: object) -> Host:
    made = Host(id=name, name=name, cluster_id="c", address=name, cpus=2, memory_mib=memory_mib)
    return msgspec.structs.replace(made, **changes)


def vm(name: str, host_id: str, memory_mib: int = 1024, **changes: object) -> VM:
    made = VM(id=name, name=name, cluster_id="c", host_id=host_id, cpus=1, memory_mib=memory_mib)
    return msgspec.structs.replace(made, phase=VMPhase.RUNNING, **changes)


def view(
    *hosts: Host, vms: tuple[VM, ...] = (), ages_s: dict[str, float] | None = None
) -> PlacementView:
    ages = {one.id: 0.5 for one in hosts} if ages_s is None else ages_s
    return PlacementView(hosts=hosts, vms=vms, lease_ages_s=ages, cpu_overcommits={})


SMALL = PlacementRequest(cpus=1, memory_mib=512)


def test_host_with_most_free_memory_is_chosen() -> None:
    vms = (vm("a", "h1"), vm("b", "h1"), vm("c", "h2"))
    found = choose_host(SMALL, view(host("h1"), host("h2"), vms=vms))
    assert found.host_id == "h2"
    assert found.reasons == ("h1: 1408 MiB free", "h2: 2496 MiB free")


def test_a_witness_runs_no_vms() -> None:
    with pytest.raises(PlacementError, match="h1: a witness: it runs no VMs"):
        choose_host(SMALL, view(host("h1", witness=True)))


def test_tie_goes_to_the_first_name() -> None:
    assert choose_host(SMALL, view(host("h2"), host("h1"))).host_id == "h1"


@pytest.mark.parametrize(
    ("unfit", "request_", "why"),
    [
        (host("h1", maintenance=True), SMALL, "in maintenance"),
        (host("h1", state=HostState.FENCED), SMALL, "fenced"),
        (host("h1", memory_mib=1000), SMALL, "488 MiB free, 576 needed"),
        (
            host("h1"),
            PlacementRequest(cpus=17, memory_mib=1),
            "0 of 16 virtual CPUs taken, 17 needed",
        ),
        (
            host("h1"),
            PlacementRequest(cpus=1, memory_mib=1, only_host_id="h9"),
            "does not hold the VM's local disks",
        ),
        (
            host("h1"),
            PlacementRequest(cpus=1, memory_mib=1, cluster_id="other"),
            "in another cluster",
        ),
        (
            host("h1"),
            PlacementRequest(cpus=1, memory_mib=1, except_host_ids=frozenset({"h1"})),
            "not wanted here",
        ),
        (
            host("h1", unreachable_storage_ids=("s1",)),
            PlacementRequest(cpus=1, memory_mib=1, storage_ids=frozenset({"s1", "s2"})),
            "can't reach the VM's data storage",
        ),
        (
            host("h1", refusing_storage_ids=("s1",)),
            PlacementRequest(cpus=1, memory_mib=1, storage_ids=frozenset({"s1", "s2"})),
            "the VM's data storage refuses it since it was fenced, until it has booted",
        ),
    ],
)
def test_refusal_says_why(unfit: Host, request_: PlacementRequest, why: str) -> None:
    with pytest.raises(PlacementError) as caught:
        choose_host(request_, view(unfit))
    assert caught.value.message == f"no host can take the VM: h1: {why}"
    assert caught.value.http_status == 409


def test_silent_host_and_one_that_never_renewed_take_nothing() -> None:
    with pytest.raises(PlacementError, match=r"h1: its lease is too old; h2: never held a lease"):
        choose_host(SMALL, view(host("h1"), host("h2"), ages_s={"h1": 6.0}))


def test_migrating_vm_counts_on_both_hosts_and_a_stopped_one_on_none() -> None:
    moving = vm("a", "h1", migrating_to_host_id="h2")
    stopped = msgspec.structs.replace(
        vm("b", "h1"), power=PowerState.STOPPED, phase=VMPhase.STOPPED
    )
    loads = loads_of((moving, stopped))
    assert {name: load.memory_mib for name, load in loads.items()} == {"h1": 1088, "h2": 1088}


def test_vm_does_not_stand_in_its_own_way() -> None:
    own = vm("a", "h1", memory_mib=3000)
    request = PlacementRequest(cpus=1, memory_mib=3000, vm_id="a")
    assert choose_host(request, view(host("h1"), vms=(own,))).host_id == "h1"


def test_local_disk_pins_its_vm() -> None:
    kinds = {
        kind.value: DataStorage(
            id=kind.value, name=kind.value, data_center_id="d", kind=kind, path="/s"
        )
        for kind in DataStorageKind
    }
    shared = Disk(id="1", name="1", vm_id="v", data_storage_id="shared", size_bytes=1)
    local = Disk(id="2", name="2", vm_id="v", data_storage_id="local", size_bytes=1, host_id="h3")
    assert pinned_host_id((shared,), kinds) == ""
    assert pinned_host_id((shared, local), kinds) == "h3"


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
def test_every_profile_keeps_the_bound_that_makes_failover_safe(profile: object) -> None:
    found = profile_of(getattr(profile, "name", ""))
    assert found.lease_s + found.watchdog_s < found.safe_s
    assert found.suspect_s <= found.lease_s / 2 < found.ended_s < found.safe_s


def test_unknown_profile_is_refused() -> None:
    with pytest.raises(InvalidError, match="wide, default, moonshot"):
        profile_of("reckless")
