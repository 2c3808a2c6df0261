"""The OpenAPI 3.1 document: operations, parameters, answers and schemas put together.

`GET /v1/openapi.json` serves it; clients, the manual and the tests are made from it. Pure: the same on every host.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import msgspec

from core.identity.signing import SCHEME, SIGNED_HEADERS, WINDOW_S
from core.model import COLLECTIONS, KINDS, Resource, Tagged
from nodeagent.api.bodies import change_body, create_body, many_body
from nodeagent.api.declared import is_declared
from nodeagent.api.description.names import operation_ids
from nodeagent.api.description.operations import (
    DRY_RUN,
    GONE_OR_PLANNED,
    OPERATIONS,
    OUTCOMES,
    QUERY,
    STRONG,
    TAGS,
    Operation,
    Shape,
    page_of,
    shown,
)
from nodeagent.api.description.schemas import SchemaOf, reference_to, schemas_of
from nodeagent.api.permissions import MANY
from nodeagent.api.problems import KEY_LENGTH_MAX, Problem
from nodeagent.api.requests import CALLBACK_HEADER, CONDITION_LENGTH_MAX
from nodeagent.api.tags import ChangeTags
from nodeagent.services.callback_targets import URL_LENGTH_MAX

OPENAPI = "3.1.0"
# What hosts and their guards ask each other; programs have no use for it.
BETWEEN_HOSTS = ("/v1/join/", "/v1/local/lease")
# How long becoming or ceasing to be a member may take; clients wait for the answer.
MEMBERSHIP_TAKES_S = 120
CHANGES = frozenset({"POST", "PATCH", "DELETE"})
VARIABLE = re.compile(r"\{(\w+)\}")
PROBLEMS: Mapping[int, str] = {
    400: "The request can't succeed as it stands; `detail` says what to change.",
    401: "Credentials are missing or wrong.",
    403: "Known, but not allowed.",
    404: "There is no such thing.",
    409: "The state forbids it now: a name taken, something in use, changed by someone else meanwhile.",
    408: "The body came too slowly.",
    412: "It isn't as `If-Match` expects.",
    413: "The body is too large.",
    415: "The body is packed.",
    429: "Too many: more than one caller's share, wrong log-ins or signatures, or signed requests.",
    500: "A fault of the agent; its log says more, under the request id.",
    503: "No quorum in time, or this host isn't ready: repeat with the same Idempotency-Key.",
}

SECURITY_SCHEMES: Mapping[str, Mapping[str, str]] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "An access token (`kvt_...`), or a session (`kvs_...`) from logging in.",
    },
    "signature": {
        "type": "http",
        "scheme": SCHEME,
        "description": f"`Authorization: {SCHEME} key=kvk_..., time=<Unix seconds>, nonce=<16 to 64 of A-Z a-z 0-9 _ ->, "
        "sha256=<of the body>, signature=<HMAC-SHA256 with the secret of the access key, 64 hex digits>`. The signed text is, "
        f"a line each and without a line feed at its end: `{SCHEME}`, key, time, nonce, method, path with query as sent, "
        f"sha256, and `<name>:<value>` for each of these headers that is sent: {', '.join(SIGNED_HEADERS)}. The time is "
        f"right within {WINDOW_S // 60} minutes; a nonce works once.",
    },
}


def all_operations() -> dict[tuple[str, str], Operation]:
    """Return every operation by method and path, those of collections included."""
    found: dict[tuple[str, str], Operation] = {}
    for plural, type_ in COLLECTIONS.items():
        spoken = plural.replace("-", " ")
        found["GET", f"/v1/{plural}"] = Operation(
            f"List {spoken}.", {200: ("Those that match.", page_of(shown(type_)))}, query=QUERY
        )
        found["GET", f"/v1/{plural}/{{ref}}"] = Operation(
            f"Show one of the {spoken}, by name or id.", {200: ("It.", type_)}, query=(STRONG,)
        )
        if issubclass(type_, Tagged):
            path = f"/v1/{plural}/{{ref}}/tags"
            found["GET", path] = Operation(
                f"Show the tags of one of the {spoken}.", TAGS, query=(STRONG,)
            )
            found["PATCH", path] = Operation(
                f"Add tags to one of the {spoken}, and remove others.", TAGS, body=ChangeTags
            )
        if is_declared(type_):
            found |= _of_declared(type_)
    found |= OPERATIONS
    for many in MANY:
        alone, type_ = OPERATIONS[many.method, many.path], KINDS[many.need.kind]
        spoken = many.plural.replace("-", " ")
        found["POST", f"/v1/{many.plural}/actions/{many.verb}"] = Operation(
            f"For each of up to 200 {spoken}: {alone.summary[0].lower()}{alone.summary[1:]}",
            OUTCOMES,
            body=many_body(type_, many.plural, many.verb, alone.body),
            task=alone.task,
        )
    return found


def _of_declared(type_: type[Resource]) -> dict[tuple[str, str], Operation]:
    """Return what can be done to a type that is served by its declaration alone."""
    plural, one = type_.PLURAL, f"one of the {type_.PLURAL.replace('-', ' ')}"
    return {
        ("POST", f"/v1/{plural}"): Operation(
            f"Make {one}.", {201: ("It.", type_)}, body=create_body(type_)
        ),
        ("PATCH", f"/v1/{plural}/{{ref}}"): Operation(
            f"Change {one}; what is absent stays.",
            {200: ("As it is now.", type_)},
            body=change_body(type_),
        ),
        ("DELETE", f"/v1/{plural}/{{ref}}"): Operation(
            f"Delete {one}, with what goes along.", GONE_OR_PLANNED, query=(DRY_RUN,)
        ),
        ("POST", f"/v1/{plural}/actions/delete"): Operation(
            f"Delete up to 200 {plural.replace('-', ' ')}, each with what goes along.",
            OUTCOMES,
            body=many_body(type_, plural, "delete", None),
        ),
    }


def openapi_bytes(version: str) -> bytes:
    """Return the document as JSON, for this version of the agent."""
    return _encoded(version, tuple(COLLECTIONS.values()))


@cache
def _encoded(version: str, types: tuple[type[Resource], ...]) -> bytes:
    del types  # they are what it is made of
    return msgspec.json.encode(openapi(version))


def openapi(version: str) -> dict[str, Any]:
    """Return the document."""
    operations = all_operations()
    for plural in COLLECTIONS:
        # `/v1/vms/{vm}` is declared by its changes, so `GET` belongs there too.
        same = _same_path(operations, f"/v1/{plural}/{{ref}}")
        listed = operations.pop(("GET", f"/v1/{plural}/{{ref}}"))
        operations.setdefault(("GET", same), listed)
    paths: dict[str, dict[str, Any]] = {}
    ids = operation_ids(operations, _listings(operations))
    for (method, path), operation in sorted(operations.items()):
        described = _operation(method, path, operation)
        described["operationId"] = ids[method, path]
        paths.setdefault(path, {})[method.lower()] = described
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "Kvorum",
            "version": version,
            "description": "Any agent answers any request. Names work wherever ids do.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"signature": []}],
        "paths": paths,
        "components": {
            "securitySchemes": SECURITY_SCHEMES,
            "schemas": schemas_of(_types(operations)),
        },
    }


def _same_path(operations: Mapping[tuple[str, str], Operation], path: str) -> str:
    """Return the path as other operations spell it: they may call the variable otherwise."""
    shape = VARIABLE.sub("{}", path)
    spelt = {p for _, p in operations if p != path and VARIABLE.sub("{}", p) == shape}
    return min(spelt) if spelt else path


def _operation(method: str, path: str, operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "tags": [path.split("/")[2]],
        "parameters": [*_parameters(method, path, operation)],
        "responses": {
            str(status): answer for status, answer in sorted(_answers(method, path, operation))
        },
    }
    if operation.open or operation.only_on_host:
        described["security"] = []
    if f"{path}/".startswith(BETWEEN_HOSTS):
        described["x-internal"] = True
    elif operation.only_on_host and method == "POST":
        described["x-takes-s"] = MEMBERSHIP_TAKES_S
    if operation.only_on_host:
        described["description"] = "Only on the host itself, through its unix socket, by root."
    if operation.file:
        content: SchemaOf = {"application/octet-stream": {}}
        described["requestBody"] = {"required": True, "content": content}
    elif operation.body is not None:
        content = {"application/json": {"schema": reference_to(operation.body)}}
        described["requestBody"] = {"required": _has_required(operation.body), "content": content}
    return described


def _listings(operations: Mapping[tuple[str, str], Operation]) -> frozenset[str]:
    """Return the paths that answer many: those whose answer has `items`."""
    shapes = {p: o.answers[200][1] for (m, p), o in operations.items() if m == "GET"}
    return frozenset(p for p, s in shapes.items() if isinstance(s, Mapping) and _has_items(s))


def _has_items(shape: Mapping[str, object]) -> bool:
    properties = shape.get("properties")
    return isinstance(properties, Mapping) and "items" in properties


def _has_required(type_: type[msgspec.Struct]) -> bool:
    return any(field.required for field in msgspec.structs.fields(type_))


def _parameters(method: str, path: str, operation: Operation) -> Iterator[dict[str, Any]]:
    for name in VARIABLE.findall(path):
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": "Name or id.",
            "schema": {"type": "string", "minLength": 1},
        }
    for parameter in operation.query:
        schema = (
            {"type": "array", "items": parameter.schema} if parameter.many else parameter.schema
        )
        yield {
            "name": parameter.name,
            "in": "query",
            "required": parameter.required,
            "description": parameter.description,
            "schema": schema,
        }
    if method in CHANGES and not operation.open:
        yield _header("Idempotency-Key", "A repetition with the same key gives the first result.")
    if method in CHANGES and VARIABLE.search(path):
        yield _header(
            "If-Match",
            "Do it only to the state with one of these ETags.",
            length_max=CONDITION_LENGTH_MAX,
        )
    if operation.task:
        yield _header(
            "Prefer",
            "`wait=N`: answer when the task ends or changes, N seconds at most.",
            length_max=None,  # what isn't understood is passed over, however long
        )
    if operation.task and method in CHANGES:
        yield _header(
            CALLBACK_HEADER,
            "Post the task here when it has ended, signed.",
            length_max=URL_LENGTH_MAX,
        )


def _header(
    name: str, description: str, *, length_max: int | None = KEY_LENGTH_MAX
) -> dict[str, Any]:
    schema: SchemaOf = {"type": "string"}
    if length_max is not None:
        schema["maxLength"] = length_max
    return {"name": name, "in": "header", "description": description, "schema": schema}


def _answers(method: str, path: str, operation: Operation) -> Iterator[tuple[int, dict[str, Any]]]:
    for status, (description, shape) in operation.answers.items():
        answer: dict[str, Any] = {"description": description}
        if shape is not None:
            answer["content"] = {operation.media: {"schema": _schema(shape)}}
        yield status, answer
    left_out = {412} if not (method in CHANGES and VARIABLE.search(path)) else set()
    for status in PROBLEMS.keys() - left_out:
        content = {"application/problem+json": {"schema": reference_to(Problem)}}
        yield status, {"description": PROBLEMS[status], "content": content}


def _schema(shape: Shape) -> SchemaOf:
    if isinstance(shape, type):
        return reference_to(shape)
    assert shape is not None, "an answer without a body has no schema"
    return dict(shape)


def _types(operations: Mapping[tuple[str, str], Operation]) -> set[type[msgspec.Struct]]:
    """Return every struct that is referred to."""
    found: set[type[msgspec.Struct]] = {Problem, *COLLECTIONS.values()}
    for operation in operations.values():
        if operation.body is not None:
            found.add(operation.body)
        shapes = (shape for _, shape in operation.answers.values())
        found.update(shape for shape in shapes if isinstance(shape, type))
    return found
