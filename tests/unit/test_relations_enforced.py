"""Relations are as declared in whatever is committed, however creates, changes and deletions come between one another."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from itertools import permutations

import pytest
from msgspec.structs import replace

from core.errors import ConflictError, InvalidError
from core.model import (
    KINDS,
    LINKS,
    VM,
    Cluster,
    DataCenter,
    DataStorage,
    DeletePlan,
    Deletion,
    Disk,
    Host,
    Image,
    Nic,
    OnDelete,
    PortGroup,
    Relation,
    Resource,
    SecurityGroup,
    Task,
    ids_in,
    key_of,
    kind_of,
    plan_delete,
)
from raftstate.relation_guards import relation_guards, unique_claims
from raftstate.store import Store
from raftstate.txn import Applied, Txn, decode_outcome, encode_txn
from tests.loose_store import LooseStore
from tests.one_member import HOST_ID, OTHER_ID, founded

FAR_ID = "99999999-9999-4999-8999-999999999999"


def dangling(store: Store) -> list[str]:
    """Return every id that leads nowhere, but for memories."""
    return [
        f"{key_of(resource)}.{relation.field}"
        for type_ in KINDS.values()
        for resource in store.all(type_)
        for relation in type_.RELATIONS
        if relation.on_delete is not OnDelete.KEEP
        for id_ in ids_in(resource, relation.field)
        if store.get(KINDS[relation.target], id_) is None
    ]


async def refusal(store: Store, *puts: Resource, error=ConflictError, deletes=()) -> str:
    before = store.index
    with pytest.raises(error) as caught:
        await store.apply(puts=puts, deletes=deletes)
    assert store.index == before, "nothing is even proposed"
    if error is ConflictError:
        assert caught.value.code == "conflict-relation"
    return caught.value.message


async def test_an_id_that_leads_nowhere_is_refused_and_said():
    member = await founded()
    vm = await member.add_vm()
    said = await refusal(member.store, replace(vm, host_id=FAR_ID))
    assert said == (
        f"VM 'web1' can't have host '{FAR_ID}': there is no such host, it is gone or never was"
    )


async def test_an_id_of_another_kind_is_refused_and_the_kind_is_said():
    member = await founded()
    vm = await member.add_vm()
    image = await member.add_image()
    said = await refusal(member.store, replace(vm, host_id=image.id))
    assert said.endswith("there is no such host, that is a image")


async def test_ids_in_lists_and_in_structs_within_lists_are_held_to_it_too():
    member = await founded()
    (nic,) = [n for n in [await member.add_vm()] for n in member.store.all(Nic)]
    await refusal(member.store, replace(nic, security_group_ids=(FAR_ID,)))
    group = member.store.all(SecurityGroup)[0]
    rule_ = replace(group.rules[0], id="r9", remote_group_id=FAR_ID)
    said = await refusal(member.store, replace(group, rules=(*group.rules, rule_)))
    assert "remote_groups" in said


async def test_what_goes_in_the_same_transaction_is_no_target():
    member = await founded()
    host = await member.add_host(OTHER_ID, "h2", "192.0.2.2")
    vm = await member.add_vm()
    await refusal(member.store, replace(vm, host_id=OTHER_ID), deletes=(host,))


async def test_what_is_made_in_the_same_transaction_is_a_target():
    member = await founded()
    center = DataCenter(id="dc2", name="dc2")
    cluster = Cluster(id="c2", name="c2", data_center_id="dc2")
    await member.store.apply(puts=(cluster, center))
    assert member.store.need(Cluster, "c2").data_center_id == "dc2"


async def test_a_relation_that_must_be_there_is_demanded():
    member = await founded()
    cluster = member.store.all(Cluster)[0]
    said = await refusal(member.store, replace(cluster, data_center_id=""), error=InvalidError)
    assert said == "cluster 'test' needs a data center: say which (data_center)"


async def test_no_more_targets_than_the_declared_maximum():
    member = await founded()
    await member.add_vm()
    nic = member.store.all(Nic)[0]
    groups = nic.security_group_ids * 17
    said = await refusal(member.store, replace(nic, security_group_ids=groups), error=InvalidError)
    assert said == "nic 'web1.0' may have 16 security_groups at most, not 17"


async def test_a_memory_may_name_what_is_gone():
    member = await founded()
    task = Task(id="t", name="t", workflow="w", subject="vm/x", runner_host_id=FAR_ID)
    await member.store.apply(puts=(task,))
    assert member.store.need(Task, "t").runner_host_id == FAR_ID


async def test_what_leads_nowhere_since_a_former_version_can_still_change():
    member = await founded()
    vm = await member.add_vm()
    loose = LooseStore(member.machine, member.engine, clock=member.clock, rng=member.rng)
    await loose.apply(puts=(replace(vm, host_id=FAR_ID),))
    assert dangling(member.store)
    changed = await member.change_vm(vm.id, description="still here")
    assert (changed.description, changed.host_id) == ("still here", FAR_ID)
    await member.change_vm(vm.id, host_id=HOST_ID)
    assert dangling(member.store) == []


async def test_moving_an_id_from_one_relation_to_another_is_no_new_relation():
    """A migration's hand-over must not fail because the target host's record was just written."""
    member = await founded()
    await member.add_host(OTHER_ID, "h2", "192.0.2.2")
    vm = await member.add_vm()
    vm = await member.change_vm(vm.id, migrating_to_host_id=OTHER_ID)
    txn = member.store.change(puts=(replace(vm, host_id=OTHER_ID, migrating_to_host_id=""),))
    assert set(txn.guards) == {key_of(vm)}


async def test_a_target_changed_or_fenced_meanwhile_voids_what_relied_on_it():
    member = await founded()
    host = await member.add_host(OTHER_ID, "h2", "192.0.2.2")
    vm = await member.add_vm()
    txn = member.store.change(puts=(replace(vm, host_id=OTHER_ID),))
    fence = Deletion(id=Deletion.id_of(key_of(host)), name="x", target=key_of(host))
    await member.store.apply(puts=(fence,))
    outcome = await member.store.commit(txn)
    assert (outcome.reason, outcome.subject) == ("guard", f"deletion/host.{OTHER_ID}")


async def test_failover_never_chooses_a_host_that_is_being_removed_at_that_moment():
    """What `ha_controller` commits guards the fence without asking for it."""
    member = await founded()
    host = await member.add_host(OTHER_ID, "h2", "192.0.2.2")
    vm = await member.add_vm()
    fence = Deletion(id=Deletion.id_of(key_of(host)), name="x", target=key_of(host))
    await member.store.apply(puts=(fence,))
    with pytest.raises(ConflictError, match="is being deleted"):
        await member.store.apply(puts=(replace(vm, host_id=OTHER_ID, generation=2),))


class Plate(Resource, tag="plate.v1", frozen=True, kw_only=True):
    RELATIONS = (
        Relation("vm_id", target="vm", name="vm", reverse="plates", unique=True),
        Relation("host_ids", target="host", name="hosts", reverse="plates", many=True, unique=True),
    )
    vm_id: str = ""
    host_ids: tuple[str, ...] = ()


def test_a_target_of_a_one_to_one_relation_is_claimed():
    plate = Plate(id="p", name="p", vm_id="v1", host_ids=("h1", "h2", "h1"))
    assert unique_claims(plate) == ("plate.vm/v1", "plate.hosts/h1", "plate.hosts/h2")
    assert [r.cardinality for r in Plate.RELATIONS] == ["1:1", "1:n"]
    assert unique_claims(Plate(id="p", name="p")) == ()


def test_guards_name_the_target_and_its_fence_and_nothing_else():
    plate = Plate(id="p", name="p", vm_id="v1")
    found = relation_guards(
        (plate,), (), stored=lambda _: None, revision_of=lambda kind, id_: 7 * (id_ == "v1")
    )
    assert found == {"vm/v1": 7, "deletion/vm.v1": 0}


# -- a create or a move, and a deletion, with their steps in every order


class World:
    """A founded cluster with one thing of each kind that a VM needs, and two hosts."""

    def __init__(self) -> None:
        self.member = asyncio.run(founded())
        self.store = self.member.store
        asyncio.run(self.member.add_host(OTHER_ID, "h2", "192.0.2.2"))
        asyncio.run(self.member.add_image())
        self.vm = asyncio.run(self.member.add_vm("old", host_id=HOST_ID))
        self.done: list[str] = []

    def commit(self, txn: Txn) -> bool:
        machine = self.member.machine
        (outcome,) = machine.apply(machine.applied() + 1, [encode_txn(txn)])
        return isinstance(decode_outcome(outcome), Applied)

    def create(self) -> Iterator[None]:
        """Prepare a VM that uses everything; then commit it."""
        store = self.store
        host, image = store.get(Host, OTHER_ID), next(iter(store.all(Image)), None)
        groups, storages = store.all(PortGroup), store.all(DataStorage)
        extra = next((g for g in store.all(SecurityGroup) if g.name == "extra"), None)
        storage = next((s for s in storages if s.name == "local"), None)
        group = next((g for g in groups if g.name == "extra"), None)
        if not (host and image and group and extra and storage):
            return
        vm = VM(
            id="v", name="v", cluster_id=host.cluster_id, host_id=OTHER_ID, cpus=1, memory_mib=64
        )
        disk = Disk(
            id="d",
            name="d",
            vm_id="v",
            data_storage_id=storage.id,
            size_bytes=512,
            image_id=image.id,
        )
        nic = Nic(
            id="n", name="n", vm_id="v", port_group_id=group.id, mac="m", ip="i",
            security_group_ids=(extra.id,),
        )  # fmt: skip
        txn = store.change(puts=(vm, disk, nic))
        yield
        if self.commit(txn):
            self.done.append("made")

    def move(self) -> Iterator[None]:
        """Prepare that a VM belongs to the other host, as failover does; then commit it."""
        if self.store.get(Host, OTHER_ID) is None:
            return
        txn = self.store.change(puts=(replace(self.vm, host_id=OTHER_ID),))
        yield
        if self.commit(txn):
            self.done.append("made")

    def delete(self, target: Resource) -> Iterator[None]:
        """Do as `delete_cascading` does, a step at a time."""
        store = self.store
        plan = self.plan(target)
        if plan.refused:
            return
        yield
        ids = [Deletion.id_of(key_of(gone)) for gone in plan.gone]
        fences = tuple(
            Deletion(id=id_, name=id_, target=key_of(gone))
            for id_, gone in zip(ids, plan.gone, strict=True)
        )
        if not self.commit(store.change(puts=fences, guards=plan.gone)):
            return
        yield
        fences = tuple(store.need(Deletion, id_) for id_ in ids)
        plan = self.plan(target)
        if plan.refused or {key_of(g) for g in plan.gone} != {f.target for f in fences}:
            self.commit(store.change(deletes=fences))
            return
        txn = store.change(puts=plan.changed, deletes=(*plan.gone, *fences))
        yield
        if self.commit(txn):
            self.done.append("deleted")

    def plan(self, target: Resource) -> DeletePlan:
        return plan_delete(target, lambda kind: self.store.all(KINDS[kind]), LINKS)

    def extras(self) -> None:
        """Make a port group and a security group that nothing uses yet."""
        group, firewall = self.store.all(PortGroup)[0], self.store.all(SecurityGroup)[0]
        asyncio.run(
            self.store.apply(
                puts=(
                    replace(group, id="pg", name="extra", vni=7, revision=0),
                    replace(firewall, id="sg", name="extra", rules=(), revision=0),
                )
            )
        )


TARGETS = {
    "image": lambda world: world.store.all(Image)[0],
    "port group": lambda world: world.store.need(PortGroup, "pg"),
    "security group": lambda world: world.store.need(SecurityGroup, "sg"),
    "host": lambda world: world.store.need(Host, OTHER_ID),
}
ORDERS = sorted(set(permutations("mmdddd")))  # the maker's two steps and the deletion's four


@pytest.mark.parametrize(
    ("maker", "target"), [*(("create", target) for target in TARGETS), ("move", "host")]
)
def test_no_relation_dangles_in_whatever_order_the_steps_come(maker, target):
    came = Counter()
    for order in ORDERS:
        world = World()
        world.extras()
        steps = {
            "m": world.create() if maker == "create" else world.move(),
            "d": world.delete(TARGETS[target](world)),
        }
        for who in order:
            next(steps[who], None)
        assert dangling(world.store) == [], order
        came[tuple(world.done)] += 1
    assert came["made",] and came["deleted",], "either can be the first"
    assert not came["made", "deleted"] and not came["deleted", "made"], "but never both"


def test_all_kinds_that_have_relations_are_looked_at():
    related = {kind for kind, type_ in KINDS.items() if type_.RELATIONS}
    assert {kind_of(VM), kind_of(Nic), kind_of(Disk)} <= related
