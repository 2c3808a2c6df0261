"""Random clusters and random queries: what SQL finds is what a few lines of Python find, page by page, in order."""

import asyncio
import random
import re
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.model import (
    KINDS,
    LINKS,
    VM,
    CloudInit,
    Cluster,
    Direction,
    Disk,
    Host,
    Image,
    Nic,
    PowerState,
    Resource,
    Rule,
    SecurityGroup,
    Task,
    kind_of,
)
from raftstate.consensus.single import SingleNodeEngine
from raftstate.searching import count_matches, search
from raftstate.state.machine import Machine
from raftstate.state.query import Op
from raftstate.state.query_paths import Path, resolve
from raftstate.state.query_picks import PickPath, read_pick
from raftstate.state.query_sql import Order, Search
from raftstate.state.query_text import parse_where
from raftstate.store import Store
from tests.loose_store import LooseStore

# Everything that could mean something to SQL, to patterns, or to the query's own text.
ODD = "ab'\"%_*?[]^-\\,;()=<>! üß😀\u2028"
TEXTS = st.text(ODD, max_size=4)
NUMBERS = st.integers(-3, 3)
LARGE = st.sampled_from([0, 1, 8 << 30, (1 << 63) - 1])


class Still:
    def monotonic_s(self) -> float:
        return 0.0

    def boottime_s(self) -> float:
        return 0.0

    def wall_ms(self) -> int:
        return 1_700_000_000_000


def ids(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


@st.composite
def clusters(draw) -> list[Resource]:
    """Draw a few resources of several kinds; some ids point to nothing or to what doesn't exist."""
    some = {prefix: draw(st.integers(0, 4)) for prefix in "chvdngi"}

    def ref(prefix: str) -> str:
        return draw(st.sampled_from(["", f"{prefix}9", *ids(prefix, some[prefix])]))

    def refs(prefix: str) -> tuple[str, ...]:
        there = st.sampled_from([f"{prefix}9", *ids(prefix, some[prefix])])
        return tuple(draw(st.lists(there, max_size=3)))

    def host(id_: str) -> Host:
        return Host(
            id=id_,
            name=f"{draw(TEXTS)}{id_}",
            address=id_,
            cluster_id=ref("c"),
            cpus=draw(NUMBERS),
            maintenance=draw(st.booleans()),
            failure_domain=draw(TEXTS),
        )

    def vm(id_: str) -> VM:
        keys = tuple(draw(st.lists(TEXTS, max_size=2)))
        return VM(
            id=id_,
            name=f"{draw(TEXTS)}{id_}",
            cluster_id=ref("c"),
            host_id=ref("h"),
            migrating_to_host_id=ref("h"),
            cpus=draw(NUMBERS),
            memory_mib=draw(LARGE),
            ha=draw(st.booleans()),
            power=draw(st.sampled_from(PowerState)),
            description=draw(TEXTS),
            cloud_init=CloudInit(hostname=draw(TEXTS), ssh_keys=keys),
        )

    def disk(id_: str) -> Disk:
        return Disk(
            id=id_,
            name=id_,
            vm_id=ref("v"),
            host_id=ref("h"),
            data_storage_id="",
            size_bytes=draw(LARGE),
        )

    def nic(id_: str) -> Nic:
        groups = refs("g")
        return Nic(
            id=id_,
            name=id_,
            vm_id=ref("v"),
            port_group_id="",
            mac=id_,
            ip=id_,
            security_group_ids=groups,
        )

    def rule() -> Rule:
        return Rule(
            id="r",
            direction=draw(st.sampled_from(Direction)),
            port_first=draw(NUMBERS),
            remote_group_id=ref("g"),
            enabled=draw(st.booleans()),
        )

    def group(id_: str) -> SecurityGroup:
        rules = tuple(rule() for _ in range(draw(st.integers(0, 2))))
        return SecurityGroup(id=id_, name=id_, data_center_id="", rules=rules)

    def image(id_: str) -> Image:
        name = f"{draw(TEXTS)}{id_}"
        return Image(id=id_, name=name, image_storage_id="", host_ids=refs("h"))

    def cluster(id_: str) -> Cluster:
        return Cluster(id=id_, name=f"{draw(TEXTS)}{id_}", data_center_id="")

    makers = {"c": cluster, "h": host, "v": vm, "d": disk, "n": nic, "g": group, "i": image}
    made = [make(id_) for prefix, make in makers.items() for id_ in ids(prefix, some[prefix])]
    arguments = draw(st.dictionaries(st.sampled_from(["size", "name"]), TEXTS))
    return [*made, Task(id="t0", name="t0", workflow="w", subject="s", arguments=arguments)]


PATHS: dict[str, tuple[str, ...]] = {
    "vm": (
        "name", "id", "cpus", "memory_mib", "ha", "power", "description", "host", "host_id", "host_name",
        "host.cluster.name", "host.maintenance", "migrating_to_host", "migrating_to_host.cpus",
        "cluster.hosts.cpus", "disks", "disks.size_bytes", "disks.host.name", "nics.security_groups.name",
        "nics.security_groups.rules.port_first", "nics.security_group_ids", "cloud_init.hostname",
        "cloud_init.ssh_keys", "host.images.name", "host.vms.ha",
    ),
    "host": (
        "name", "cpus", "maintenance", "failure_domain", "cluster", "vms", "vms.disks.size_bytes",
        "incoming_vms.name", "images", "images.name", "images.hosts.cpus", "disks.vm.host.name",
    ),
    "security-group": (
        "rules.port_first", "rules.enabled", "rules.direction", "rules.remote_group_id", "remote_groups",
        "remote_groups.name", "allowed_by_groups", "allowed_by_groups.name", "nics.vm.name", "nics", "rules",
    ),
    "image": ("host_ids", "hosts", "hosts.name", "hosts.cluster.name", "hosts.maintenance", "host_names", "name"),
    "nic": ("security_group_ids", "security_groups", "security_group_names", "vm.host.cpus"),
    "task": ("arguments.size", "arguments.name", "arguments"),
}  # fmt: skip
SORTS = {
    "vm": ("name", "id", "cpus", "ha", "host", "host.cluster.name", "migrating_to_host.cpus", "revision",
           "cloud_init.hostname", "host.maintenance"),
    "host": ("name", "cpus", "cluster.name", "maintenance"),
    "security-group": ("name",),
    "image": ("name", "revision"),
    "nic": ("vm.host.cpus", "name", "vm"),
    "task": ("name",),
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """The same resources in plain Python."""

    resources: list[Resource]

    def of(self, kind: str) -> list[Resource]:
        return [one for one in self.resources if kind_of(one) == kind]

    def values(self, resource: Resource, path: str) -> list[object]:
        """Return everything at the end of a path; None for a number or text that isn't there."""
        name, _, rest = path.partition(".")
        links = LINKS[kind_of(resource)]
        for link in links.values():
            shown_as = re.sub("_id(s?)$", r"_name\1", link.relation.field)
            if name == link.name or (name == shown_as and not rest and not link.reverse):
                there = self.related(resource, link)
                return [value for one in there for value in self.values(one, rest or "name")]
        return inside(getattr(resource, name), rest)

    def related(self, resource: Resource, link) -> list[Resource]:
        field, _, rest = link.relation.field.partition(".")

        def holds(one: Resource) -> list[object]:
            return inside(getattr(one, field), rest)

        others = self.of(link.target)
        if link.reverse:
            return [one for one in others if resource.id in holds(one)]
        return [one for one in others if one.id in holds(resource)]

    def meets(self, resource: Resource, path: str, op: Op, value) -> bool:
        found = [one for one in self.values(resource, path) if one is not None]
        if op in (Op.IS_NULL, Op.NOT_NULL):
            return any(one not in ("", (), {}) for one in found) == (op is Op.NOT_NULL)
        return any(compare(one, op, value) for one in found)


def inside(value: object, rest: str) -> list[object]:
    if isinstance(value, tuple):
        return [found for one in value for found in inside(one, rest)]
    if isinstance(value, dict) and rest:
        return [value[rest]] if rest in value else []
    return inside(getattr(value, rest), "") if rest else [value]


def compare(one, op: Op, value) -> bool:
    match op:
        case Op.EQ:
            return one == value
        case Op.NE:
            return one != value
        case Op.GT:
            return one > value
        case Op.GE:
            return one >= value
        case Op.LT:
            return one < value
        case Op.LE:
            return one <= value
        case Op.IN:
            return one in value
        case Op.NOT_IN:
            return one not in value
        case _:
            pattern = "".join({"*": ".*", "?": "."}.get(sign, re.escape(sign)) for sign in value)
            return re.fullmatch(pattern, str(one), re.DOTALL) is not None


SIGNS = {Op.IN: "?=", Op.NOT_IN: "!?=", Op.IS_NULL: " is:null", Op.NOT_NULL: "!is:null"}


@st.composite
def conditions(draw, world: World, kind: str) -> tuple[str, str, Op, object]:
    """Draw a condition: its text, and what it means."""
    path = draw(st.sampled_from(PATHS[kind]))
    machine_free = resolve(TABLES.table, kind, path)
    type_ = machine_free.leaf.type
    ops = [Op.IS_NULL, Op.NOT_NULL]
    if not machine_free.leaf.whole:
        ops += [Op.EQ, Op.NE, Op.GT, Op.GE, Op.LT, Op.LE, Op.IN, Op.NOT_IN]
        ops += [Op.MATCH] if type_ is str else []
    op = draw(st.sampled_from(ops))
    if op in (Op.IS_NULL, Op.NOT_NULL):
        return path + SIGNS[op], path, op, None
    there = {v for one in world.of(kind) for v in world.values(one, path) if isinstance(v, type_)}
    kept = st.sampled_from(sorted(there)) if there else st.nothing()
    fresh = {str: TEXTS | st.text(max_size=3), int: NUMBERS, bool: st.booleans()}[type_]
    values = kept | fresh if op is not Op.MATCH else st.text(ODD, max_size=3)
    if op in (Op.IN, Op.NOT_IN):
        several = tuple(draw(st.lists(values, min_size=1, max_size=3)))
        texts = [re.sub(r"([\\,])", r"\\\1", written(value)) for value in several]
        return f"{path}{SIGNS[op]}{','.join(texts)}", path, op, several
    value = draw(values)
    if isinstance(value, str):
        value = str(value)
    return f"{path}{op.value}{written(value)}", path, op, value


def written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


TABLES = Machine(":memory:")


async def stored(resources: list[Resource]) -> Store:
    machine = Machine(":memory:")
    store = LooseStore(machine, SingleNodeEngine(machine), clock=Still(), rng=random.Random(1))
    for number in range(0, len(resources), 3):  # so that some share a revision
        await store.apply(puts=resources[number : number + 3])
    return store


def place(world: World, sort: str):
    def key(one: Resource):
        (value,) = world.values(one, sort) or [None]
        return (value is not None, value if value is not None else 0, one.id)

    return key


@pytest.mark.timeout(120)  # a hundred clusters, on a busy machine
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_query_finds_what_looking_at_everything_finds_each_once_and_in_order(data):
    resources = data.draw(clusters())
    kind = data.draw(st.sampled_from(sorted(PATHS)))
    asyncio.run(check(data, resources, kind))


async def check(data, resources: list[Resource], kind: str) -> None:
    store = await stored(resources)
    world = World([store.need(type(one), one.id) for one in resources])
    asked = data.draw(st.lists(conditions(world, kind), max_size=3))
    sort, down = data.draw(st.sampled_from(SORTS[kind])), data.draw(st.booleans())
    limit, field = data.draw(st.integers(1, 4)), data.draw(st.sampled_from(PATHS[kind]))
    expected = [
        one for one in world.of(kind) if all(world.meets(one, *meaning) for _, *meaning in asked)
    ]
    expected.sort(key=place(world, sort), reverse=down)

    tables = store.machine.table
    where = tuple(parse_where(tables, kind, text) for text, *_ in asked)
    pick = PickPath(resolve(tables, kind, field))
    got, after = [], None
    while True:
        found = await search(
            store,
            Search(
                kind=kind,
                where=where,
                order=Order(resolve(tables, kind, sort), down),
                limit=limit,
                after=after,
                picks=(PickPath(resolve(tables, kind, "id")), pick),
            ),
            lambda matches, _: [[m.picks[0], read_pick(pick, m.picks[1])] for m in matches],
        )
        assert len(found.items) <= limit
        got += found.items
        if found.next is None:
            break
        after = found.next
    assert [id_ for id_, _ in got] == [one.id for one in expected]
    for (_, shown), one in zip(got, expected, strict=True):
        assert_shown(shown, world.values(one, field), pick.path)
    assert (await count_matches(store, kind, where))[0] == len(expected)
    store.machine.close()


def assert_shown(shown, values: list[object], path: Path) -> None:
    """A single value, or all of them; an id that a list holds twice is followed twice."""
    if path.leaf.whole:
        return
    if path.single:
        assert shown == (values[0] if values else None)
    elif any(link.relation.many for link in path.links):
        assert set(shown) == set(values)
    else:
        assert sorted(shown) == sorted(values)


def test_all_kinds_of_the_trial_are_kinds_of_the_model():
    assert PATHS.keys() == SORTS.keys() <= KINDS.keys()
