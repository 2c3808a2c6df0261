"""What a deletion means, on made-up types: it never leaves an id that points to nothing, nor takes more than it must."""

from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from core.model import (
    LINKS,
    VM,
    Disk,
    Host,
    Image,
    Nic,
    OnDelete,
    Relation,
    Resource,
    Rule,
    SecurityGroup,
    key_of,
    kind_of,
    links_of,
    plan_delete,
)
from core.model.cascade import ids_in


class Thing(Resource, tag="thing.v1", frozen=True, kw_only=True):
    """A type of a plug-in, that nothing in the planner knows."""

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation("needs_id", target="thing", name="needs", reverse="needed_by"),
        Relation("part_of_id", "thing", "part_of", "parts", on_delete=OnDelete.ALONG),
        Relation("seen_ids", "thing", "seen", "seen_by", many=True, on_delete=OnDelete.DETACH),
        Relation("made_by_id", "thing", "made_by", "made", on_delete=OnDelete.KEEP),
    )
    needs_id: str = ""
    part_of_id: str = ""
    seen_ids: tuple[str, ...] = ()
    made_by_id: str = ""


THING_LINKS = links_of((Thing,))
IDS = [f"t{number}" for number in range(7)]
ONE = st.sampled_from(["", *IDS])
THINGS = st.tuples(
    *(
        st.builds(
            Thing,
            id=st.just(id_),
            name=st.just(id_),
            needs_id=ONE,
            part_of_id=ONE,
            seen_ids=st.lists(st.sampled_from(IDS), max_size=3).map(tuple),
            made_by_id=ONE,
        )
        for id_ in IDS
    )
)


@given(things=THINGS, target=st.sampled_from(range(len(IDS))))
def test_after_a_deletion_that_is_allowed_no_id_points_to_what_is_gone(things, target):
    plan = plan_delete(things[target], lambda kind: things, THING_LINKS)
    gone = {thing.id for thing in plan.gone}
    assert len(gone) == len(plan.gone)
    after = {t.id: t for t in things if t.id not in gone} | {t.id: t for t in plan.changed}
    assert not gone & after.keys()
    for thing in after.values():
        assert thing.part_of_id not in gone
        assert not gone & set(thing.seen_ids)
        if not plan.refused:
            assert thing.needs_id not in gone
    unchanged = {t.id for t in things} - gone - {t.id for t in plan.changed}
    assert all(after[id_] == t for id_ in unchanged for t in things if t.id == id_)


@given(things=THINGS, target=st.sampled_from(range(len(IDS))))
def test_only_parts_go_along_and_each_refusal_is_true(things, target):
    plan = plan_delete(things[target], lambda kind: things, THING_LINKS)
    gone = {thing.id for thing in plan.gone}
    for touched in plan.along:
        assert touched.resource.part_of_id in gone
    needed = {t.id for t in things if t.needs_id in gone and t.id not in gone}
    assert {touched.resource.id for touched in plan.refused} == needed


def vm_and_parts() -> dict[str, list[Resource]]:
    vm = VM(id="v", name="web1", cluster_id="c", host_id="h", cpus=1, memory_mib=64)
    disk = Disk(id="d", name="web1.0", vm_id="v", data_storage_id="s", size_bytes=1, image_id="i")
    nic = Nic(
        id="n",
        name="web1.0",
        vm_id="v",
        port_group_id="p",
        mac="m",
        ip="1",
        security_group_ids=("g",),
    )
    image = Image(id="i", name="debian", image_storage_id="x", host_ids=("h", "h2"))
    host = Host(id="h", name="h1", cluster_id="c", address="a")
    rule = Rule(id="r", direction="ingress", remote_group_id="g")
    group = SecurityGroup(id="g", name="web", data_center_id="dc", rules=(rule,))
    other = replace(group, id="g2", name="db")
    return {
        "vm": [vm],
        "disk": [disk],
        "nic": [nic],
        "image": [image],
        "host": [host],
        "security-group": [group, other],
    }


def keys(touched) -> list[str]:
    return [key_of(one.resource) for one in touched]


def plan_in(world: dict[str, list[Resource]], target: Resource):
    return plan_delete(target, lambda kind: world.get(kind, []), LINKS)


def test_a_vm_takes_its_disks_and_nics_along():
    world = vm_and_parts()
    plan = plan_in(world, world["vm"][0])
    assert sorted(keys(plan.along)) == ["disk/d", "nic/n"]
    assert plan.refused == plan.detached == ()


def test_an_image_is_kept_by_the_disks_made_of_it():
    world = vm_and_parts()
    plan = plan_in(world, world["image"][0])
    assert keys(plan.refused) == ["disk/d"]
    assert plan.along == ()


def test_a_host_is_kept_by_its_vms_and_leaves_images_their_other_copies():
    world = vm_and_parts()
    plan = plan_in(world, world["host"][0])
    assert keys(plan.refused) == ["vm/v"]
    assert [image.host_ids for image in plan.changed] == [("h2",)]


def test_a_group_is_kept_by_nics_and_by_rules_of_others_but_not_by_its_own():
    world = vm_and_parts()
    plan = plan_in(world, world["security-group"][0])
    assert sorted(keys(plan.refused)) == ["nic/n", "security-group/g2"]


def test_every_relation_names_a_field_that_can_be_read():
    for kind, resources in vm_and_parts().items():
        for resource in resources:
            assert kind_of(resource) == kind
            for relation in resource.RELATIONS:
                assert isinstance(ids_in(resource, relation.field), tuple)
