"""The generated part of the SDK: it is what the description says, copes with what it doesn't know, and decodes the future."""

import inspect
import types

import msgspec
import pytest

from nodeagent.api.description.document import openapi
from nodeagent.api.description.names import operation_ids
from tools.sdk import generated
from tools.sdk.calls import decoded
from tools.sdk.collection import Collection
from tools.sdk.generate.modules import TARGET, modules_of, raw_modules_of
from tools.sdk.generate.words import attribute
from tools.sdk.generated import blocking, models, operations
from tools.sdk.problems import ServerError

DOCUMENT = openapi("")


async def test_what_is_committed_is_what_the_description_says():
    for name, text in (await modules_of(msgspec.json.encode(DOCUMENT))).items():
        assert (TARGET / name).read_text() == text, f"{name} is out of date: make sdk"


def methods_of(module):
    """Return (group, method) of everything that a client of a module offers."""
    found = {}
    for class_ in vars(module).values():
        if inspect.isclass(class_) and class_.__module__ == module.__name__:
            for name, method in inspect.getmembers(class_, inspect.isfunction):
                if not name.startswith("_"):
                    found[class_.__name__, name] = method
    return found


def test_every_operation_for_programs_is_a_method_of_both_clients():
    awaited, blocked = methods_of(operations), methods_of(blocking)
    assert awaited.keys() == blocked.keys()
    names = {(class_.lower(), name) for class_, name in awaited}
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            group, _, name = operation["operationId"].rpartition(".")
            place = (group.replace("-", "") or "operations", attribute(name))
            assert (place in names) is not operation.get("x-internal", False), place


def test_both_clients_take_and_return_the_same():
    awaited, blocked = methods_of(operations), methods_of(blocking)
    for place, method in awaited.items():
        one, other = inspect.signature(method), inspect.signature(blocked[place])
        assert one.parameters == other.parameters, place
        assert method.__doc__ == blocked[place].__doc__, place
        if place[1] not in vars(Collection) and "ContextManager" not in one.return_annotation:
            assert one.return_annotation == other.return_annotation, place


def test_names_follow_from_the_path_and_are_the_only_ones():
    wanted = {
        ("GET", "/v1/vms"): "vms.list",
        ("POST", "/v1/vms"): "vms.create",
        ("GET", "/v1/vms/{vm}"): "vms.get",
        ("POST", "/v1/vms/{vm}/actions/start"): "vms.start",
        ("POST", "/v1/vms/actions/start"): "vms.start-many",
        ("PUT", "/v1/vms/{vm}/tags"): "vms.replace-all-tags",
        ("GET", "/v1/vms/{vm}/snapshots"): "vms.list-snapshots",
        ("POST", "/v1/groups/{group}/rules"): "groups.add-rule",
        ("DELETE", "/v1/groups/{group}/rules/{rule}"): "groups.delete-rule",
        ("GET", "/v1/members/policy"): "members.get-policy",
        ("PATCH", "/v1/members/policy"): "members.update-policy",
        ("POST", "/v1/bulk"): "bulk.create",
        ("GET", "/v1/status"): "status",
    }
    assert operation_ids(wanted, frozenset({"/v1/vms"})) == wanted


# -- what isn't known yet


def an_answer(schema, status="200", media="application/json"):
    return {status: {"description": "x", "content": {media: {"schema": schema}}}}


def an_operation(id_, responses, *, body=None, parameters=()):
    made = {"operationId": id_, "summary": 'It "does" \\ it."', "responses": responses}
    made["parameters"] = list(parameters)
    if body is not None:
        made["requestBody"] = {"content": {"application/json": {"schema": body}}}
    return made


FUTURE = {
    "paths": {
        "/v1/bulk": {
            "post": an_operation(
                "bulk.create",
                an_answer(
                    {
                        "type": "object",
                        "properties": {
                            "results": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "properties": {
                                        "status": {"type": "integer"},
                                        "task": {"$ref": "#/components/schemas/Task"},
                                    },
                                },
                            }
                        },
                    },
                    "207",
                ),
                body={
                    "type": "object",
                    "properties": {
                        "from": {"type": "string"},
                        "class": {"enum": ["a", "b"]},
                        "self": {"type": ["integer", "null"]},
                        "mixed": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                        "strange": {"prefixItems": [{}], "x-whatever": 1},
                    },
                    "required": ["from"],
                },
                parameters=[
                    {"name": "Callback-URL", "in": "header", "schema": {"type": "string"}},
                    {"name": "from", "in": "query", "schema": {"enum": [1, 2]}},
                    {"name": "all", "in": "query", "schema": {"type": "boolean"}},
                ],
            )
        },
        "/v1/tasks": {
            "get": an_operation(
                "tasks.list",
                an_answer(
                    {
                        "type": "object",
                        "properties": {
                            "items": {
                                "type": "array",
                                "items": {"$ref": "#/components/schemas/Task"},
                            },
                            "index": {"type": "integer"},
                        },
                    }
                ),
                parameters=[
                    {"name": n, "in": "query", "schema": {}} for n in ("cursor", "fields", "new")
                ],
            )
        },
        "/v1/things/{thing}/export": {
            "put": an_operation(
                "things.set-export",
                an_answer({"type": "string"}, "200", "text/csv"),
                parameters=[{"name": "thing", "in": "path", "schema": {"type": "string"}}],
            ),
            "get": an_operation(
                "things.get-export",
                an_answer({"$ref": "#/components/schemas/Task"})
                | an_answer({"type": "object"}, "203")
                | {"204": {"description": "none"}},
                parameters=[{"name": "thing", "in": "path", "schema": {"type": "string"}}],
            ),
        },
    },
    "components": {
        "schemas": {
            "Task": {
                "type": "object",
                "description": 'A "task" with \\ and """quotes"""',
                "properties": {
                    "id": {"type": "string"},
                    "default": {"type": "boolean", "default": True},
                    "in": {"$ref": "#/components/schemas/Place", "default": "here"},
                    "inside": {"oneOf": [{"$ref": "#/components/schemas/Task"}, {"type": "null"}]},
                    "number": {"type": "number", "minimum": 0, "maximum": 1.5},
                    "texts": {"type": "object", "additionalProperties": {"type": "string"}},
                },
                "required": ["id"],
            },
            "Place": {"enum": ["here", "over-there", "9 lives"]},
        }
    },
}


def built(document):
    """Return the modules of a document, made into modules that import each other."""
    made = {}
    for name, text in raw_modules_of(msgspec.json.encode(document)).items():
        module = types.ModuleType(f"future_{name.removesuffix('.py')}")
        imported = {"models": made.get("models"), "operations": made.get("operations")}
        source = text.replace("from tools.sdk.generated import models, operations\n", "")
        source = source.replace("from tools.sdk.generated import models\n", "")
        vars(module).update({k: v for k, v in imported.items() if v is not None})
        exec(compile(source, name, "exec"), vars(module))  # noqa: S102 - it is what we have just written
        made[name.removesuffix(".py")] = module
    return types.SimpleNamespace(**made)


def test_operations_and_schemas_that_nobody_has_thought_of_become_methods_and_models():
    future = built(FUTURE)
    create = inspect.signature(future.operations.Bulk.create).parameters
    assert {"from_", "class_", "self_", "mixed", "callback_url", "all"} <= create.keys()
    assert create["from_"].default is inspect.Parameter.empty
    assert issubclass(future.operations.Tasks, Collection)
    body = future.models.BulkCreateBody(from_="x", self_=None, class_="a")
    assert msgspec.json.decode(msgspec.json.encode(body)) == {
        "from": "x",
        "self": None,
        "class": "a",
    }
    task = future.models.Task(id="1")
    assert (task.default, task.in_, task.inside) == (True, "here", None)
    assert set(future.models.Place) == {"here", "over-there", "9 lives"}
    assert msgspec.json.encode(future.models.Task(id="1", default=False))
    assert inspect.signature(future.operations.Things.get_export).return_annotation == (
        "models.Task | dict[str, Any] | None"
    )
    assert methods_of(future.operations).keys() == methods_of(future.blocking).keys()


def test_what_is_left_out_of_a_body_is_not_sent():
    body = models.CreateVM(name="web1", image="debian", ha=False)
    assert msgspec.json.decode(msgspec.json.encode(body)) == {
        "name": "web1",
        "image": "debian",
        "ha": False,
    }


def test_an_answer_of_a_newer_agent_is_read_by_what_is_known_of_it():
    raw = {"id": "1", "name": "web1", "phase": "hibernating", "gpu": {"model": "x"}}
    vm = decoded(msgspec.json.encode(raw), models.VM)
    assert (vm.name, vm.phase, vm.phase.known) == ("web1", "hibernating", False)
    assert vm.phase != models.VMPhase.RUNNING
    assert models.VMPhase.RUNNING.known
    assert msgspec.json.decode(msgspec.json.encode(vm))["phase"] == "hibernating"


def test_what_an_older_agent_leaves_out_has_the_default_of_the_description():
    vm = decoded(b'{"id": "1"}', models.VM)
    assert (vm.phase, vm.ha, vm.cloud_init.ssh_keys) == (models.VMPhase.CREATING, True, ())


@pytest.mark.parametrize("body", [b'{"id": 7}', b'{"id": "1", "cpus": "many"}', b"[]"])
def test_an_answer_of_another_shape_is_an_error_and_no_wrong_value(body):
    with pytest.raises(ServerError, match="expects") as caught:
        decoded(body, models.VM)
    assert caught.value.code == "unexpected-answer"


def test_the_generated_package_says_that_it_is():
    assert "make sdk" in generated.__doc__
