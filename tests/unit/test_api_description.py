"""The OpenAPI description: complete, valid, without secrets, and true of what the API answers."""

from aiohttp.test_utils import TestClient, TestServer

from core.model import COLLECTIONS, Tagged
from nodeagent.api.declared import is_declared
from nodeagent.api.description.document import all_operations, openapi
from tests.api import app_of

GENERIC = {
    "/v1/{plural}",
    "/v1/{plural}/{ref}",
    "/v1/{plural}/{ref}/tags",
    "/v1/{plural}/actions/delete",
}


async def test_it_has_every_route_and_no_other(member):
    routes = {
        (route.method, route.resource.canonical)
        for route in app_of(member).router.routes()
        if route.method != "HEAD" and route.resource.canonical not in GENERIC
    }
    of_collections = {
        ("GET", path)
        for plural in COLLECTIONS
        for path in (f"/v1/{plural}", f"/v1/{plural}/{{ref}}")
    } | {
        (method, f"/v1/{plural}/{{ref}}/tags")
        for plural, type_ in COLLECTIONS.items()
        for method in ("GET", "PATCH")
        if issubclass(type_, Tagged)
    }
    of_collections |= {
        (method, path)
        for plural, type_ in COLLECTIONS.items()
        if is_declared(type_)
        for method, path in (
            ("POST", f"/v1/{plural}"),
            ("PATCH", f"/v1/{plural}/{{ref}}"),
            ("DELETE", f"/v1/{plural}/{{ref}}"),
            ("POST", f"/v1/{plural}/actions/delete"),
        )
    }
    described = set(all_operations())
    assert routes - described == set()
    assert described - routes == of_collections - routes


def test_each_operation_has_an_id_of_its_own():
    ids = [
        operation["operationId"]
        for methods in openapi("1")["paths"].values()
        for operation in methods.values()
    ]
    assert len(ids) == len(set(ids)) > 60


def test_two_paths_never_mean_the_same():
    """`/v1/vms/{vm}` and `/v1/vms/{ref}` would be one path to the router and two to a reader."""
    shapes = [
        "/".join("{}" if part.startswith("{") else part for part in path.split("/"))
        for path in openapi("1")["paths"]
    ]
    assert len(shapes) == len(set(shapes))


def test_every_reference_leads_somewhere():
    document = openapi("1")
    found = set(_references(document))
    assert found
    assert found <= {f"#/components/schemas/{n}" for n in document["components"]["schemas"]}


def test_no_schema_offers_a_secret():
    schemas = openapi("1")["components"]["schemas"]
    for type_ in COLLECTIONS.values():
        assert not type_.SECRET & schemas[type_.__name__]["properties"].keys()


async def test_what_is_shown_has_exactly_the_attributes_described(api):
    await api.post("/v1/vms", json={"name": "web1", "image": "debian"})
    document = await (await api.get("/v1/openapi.json")).json()
    seen = set()
    for plural, type_ in COLLECTIONS.items():
        described = document["components"]["schemas"][type_.__name__]
        for item in (await (await api.get(f"/v1/{plural}")).json())["items"]:
            assert item.keys() == described["properties"].keys(), plural
            seen.add(plural)
    assert seen >= {"vms", "hosts", "nics", "disks", "images", "tasks", "access-tokens"}


async def test_it_is_shown_to_nobody_without_credentials(member):
    async with TestClient(TestServer(app_of(member))) as stranger:
        assert (await stranger.get("/v1/openapi.json")).status == 401


def _references(value: object) -> list[str]:
    match value:
        case {"$ref": str(reference)}:
            return [reference]
        case dict():
            return [found for inner in value.values() for found in _references(inner)]
        case list():
            return [found for inner in value for found in _references(inner)]
    return []
