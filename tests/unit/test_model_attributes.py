"""What is declared of attributes: nothing is left unexplained, bounds hold where users write and never where stored state is read."""

from typing import Annotated, get_args, get_origin

import msgspec
import pytest
from msgspec.structs import replace

from core.attributes import CLUSTER, OWNER, USER, attribute, attributes_of, check_bounds
from core.errors import InvalidError
from core.model import RESOURCE_TYPES, VM, Rule, kind_of
from nodeagent.api.description.document import all_operations, openapi
from nodeagent.api.description.schemas import structs_of
from nodeagent.api.joining import MakeJoinTokens
from nodeagent.services.vm_requests import ChangeVM, CreateVM
from tests.one_member import founded
from tools.resource_document import DOCUMENT, document

BODIES = {o.body for o in all_operations().values() if o.body is not None}
DECLARED = sorted(structs_of([*RESOURCE_TYPES, *BODIES]), key=lambda type_: type_.__name__)


@pytest.mark.parametrize("type_", DECLARED, ids=lambda type_: type_.__name__)
def test_every_attribute_says_what_it_is(type_):
    for name, one in attributes_of(type_).items():
        assert one.description.endswith("."), f"{type_.__name__}.{name}: say what it is"


@pytest.mark.parametrize("type_", structs_of(RESOURCE_TYPES), ids=lambda type_: type_.__name__)
def test_no_bound_can_make_a_stored_resource_undecodable(type_):
    constraints = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length")
    for field in msgspec.structs.fields(type_):
        said = get_args(field.type)[1:] if get_origin(field.type) is Annotated else ()
        for meta in said:
            enforced = [c for c in constraints if getattr(meta, c) is not None]
            assert not enforced, f"{type_.__name__}.{field.name}: use attribute() instead"


async def test_a_resource_beyond_its_bounds_is_stored_and_read_like_any_other():
    """As one is that a former version accepted, when this version allows less."""
    member = await founded()
    vm = await member.add_vm()
    strange = replace(vm, cpus=100_000, memory_mib=-1, description="x" * 5000)
    await member.store.apply(puts=(strange,))
    read = member.vm(vm.id)
    assert (read.cpus, read.memory_mib, len(read.description)) == (100_000, -1, 5000)
    (found,) = await member.store.select(VM)
    assert found == read


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (CreateVM(name="a", image="i", cpus=0), "cpus must be 1 to 255"),
        (CreateVM(name="a", image="i", cpus=256), "cpus must be 1 to 255"),
        (
            CreateVM(name="a", image="i", memory_mib=63),
            r"memory_mib must be 64 to 16777216 MiB \(16 TiB\)$",
        ),
        (MakeJoinTokens(ttl_s=10**6), r"ttl_s must be 1 to 604800 seconds \(7 days\)$"),
        (CreateVM(name="a", image="i", security_groups=("g",) * 17), "16 items at most"),
        (ChangeVM(description="x" * 1001), "description may have 1000 characters at most"),
    ],
    ids=str,
)
def test_what_a_user_writes_is_held_to_the_bounds(body, said):
    with pytest.raises(InvalidError, match=said):
        check_bounds(body)


async def test_the_api_refuses_what_is_out_of_bounds_before_anything_else(api):
    body = {"name": "web1", "image": "debian", "cpus": 256}
    answer = await api.post("/v1/vms", json=body)
    assert answer.status == 400
    assert (await answer.json())["detail"] == "cpus must be 1 to 255"
    answer = await api.post("/v1/join-tokens", json={"count": 101})
    assert (answer.status, (await answer.json())["detail"]) == (400, "count must be 1 to 100")


def test_bounds_hold_inside_of_lists_and_for_patterns_too():
    class Inner(msgspec.Struct, frozen=True):
        size: Annotated[int, attribute("Its size.", least=0)] = 0

    class Outer(msgspec.Struct, frozen=True):
        parts: tuple[Inner, ...] = ()
        code: Annotated[str, attribute("A code.", pattern="^[a-z]+$")] = "a"
        most: Annotated[int, attribute("At most ten.", most=10)] = 0

    check_bounds(Outer(parts=(Inner(),)))
    for wrong, said in (
        (Outer(parts=(Inner(), Inner(size=-1))), r"parts\.size must be at least 0"),
        (Outer(code="A"), "code doesn't have the form"),
        (Outer(most=11), "most must be at most 10"),
    ):
        with pytest.raises(InvalidError, match=said):
            check_bounds(wrong)


def test_a_body_takes_what_its_resource_says_where_it_says_nothing_itself():
    said = attributes_of(CreateVM)
    assert said["cpus"].bounds == attributes_of(VM)["cpus"].bounds == {"minimum": 1, "maximum": 255}
    assert said["cpus"].default == 1
    assert said["host"].description.startswith("Name or id of the host")


def test_units_follow_from_names():
    said = attributes_of(VM)
    assert (said["memory_mib"].unit, said["cpus"].unit) == ("MiB", "")
    assert said["created_ms"].unit == "milliseconds since 1970"


def test_the_description_tells_bounds_units_defaults_and_who_writes():
    schemas = openapi("1")["components"]["schemas"]
    vm = schemas["VM"]["properties"]
    assert vm["memory_mib"]["description"] == "Memory that the guest sees."
    assert vm["memory_mib"]["x-kvorum-unit"] == "MiB"
    assert (vm["cpus"]["minimum"], vm["cpus"]["maximum"]) == (1, 255)
    assert vm["phase"]["readOnly"] and vm["phase"]["x-kvorum-written-by"] == OWNER
    assert vm["host_id"]["readOnly"] and vm["host_id"]["x-kvorum-written-by"] == CLUSTER
    assert "readOnly" not in vm["description"]
    assert vm["description"]["x-kvorum-written-by"] == USER
    assert schemas["CreateVM"]["properties"]["memory_mib"]["default"] == 1024
    relations = schemas["VM"]["x-kvorum-relations"]
    assert relations["host"]["to"] == "hosts"
    assert (relations["host"]["cardinality"], relations["nics"]["cardinality"]) == ("n:1", "1:n")


def test_descriptions_of_types_have_no_indentation():
    for name, schema in openapi("1")["components"]["schemas"].items():
        assert "\n    " not in schema.get("description", ""), name


def test_the_page_of_all_resources_is_that_of_the_model():
    assert DOCUMENT.read_text() == document(), "run: python -m tools.resource_document"
    assert all(f"## {type_.PLURAL}\n" in document() for type_ in RESOURCE_TYPES if type_.PLURAL)


def test_nothing_secret_is_on_the_page():
    for type_ in RESOURCE_TYPES:
        assert not any(f"| `{secret}` |" in document() for secret in type_.SECRET), kind_of(type_)


def test_structs_within_resources_are_explained_too():
    assert Rule in structs_of(RESOURCE_TYPES)
    assert "`Rule`: One rule of a security group" in document()
