"""Operations as methods: what they are called, what they take, how the request is made and what it answers.

Both kinds of clients are written from these: one waits by `await`, the other blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tools.sdk.generate.document import JSON, PREVIEW, Operation, Parameter, Schema, name_of
from tools.sdk.generate.shapes import Shapes, described
from tools.sdk.generate.words import attribute, class_name, sentence

# Given to every list by `tools.sdk.collection`, which also fetches pages.
LIST_PARAMETERS = frozenset(
    {"q", "sort", "limit", "consistency", "cursor", "fields", "count", "explain"}
)
GET_PARAMETERS = frozenset({"consistency"})
# `wait` and `follow` of the client do what these are for.
LEFT_OUT_HEADERS = frozenset({"prefer"})
FILE_ARGUMENT = "file"


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a method. `value` is how the request gets it; an empty `default` means that it has to be given."""

    name: str
    type: str
    default: str
    doc: str
    value: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a method returns: its type, and the call of `Api` that gets it, with what that is told."""

    type: str
    verb: str
    told: str = ""
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Method:
    """A method. `request` is how its request is written."""

    name: str
    doc: str
    positional: tuple[Argument, ...]
    named: tuple[Argument, ...]
    request: str
    answer: Answer

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """Every argument."""
        return (*self.positional, *self.named)


@dataclass(frozen=True, slots=True)
class Group:
    """The operations on one kind of thing; `item` is the model of its list when it is a whole collection."""

    plural: str
    item: str
    methods: tuple[Method, ...]

    @property
    def attribute(self) -> str:
        """What the client calls it."""
        return attribute(self.plural)

    @property
    def class_name(self) -> str:
        """The name of its class."""
        return class_name(self.plural)


def groups_of(shapes: Shapes) -> tuple[Group, ...]:
    """Return all groups by name; the one without a name has what stands alone."""
    names = sorted({operation.group for operation in shapes.document.operations})
    return tuple(_group(name, shapes) for name in names)


def _group(name: str, shapes: Shapes) -> Group:
    operations = [o for o in shapes.document.operations if o.group == name]
    lists = next((o for o in operations if o.name == "list" and _pages(o)), None)
    item = _listed(shapes, lists) if lists is not None else ""
    methods: list[Method] = []
    for operation in operations:
        if item and (operation is lists or _is_plain_get(operation)):
            continue
        methods += _methods(operation, shapes)
    return Group(name, item, tuple(methods))


def _pages(operation: Operation) -> bool:
    """Tell whether a list has everything that collections have, and nothing that they don't know."""
    return {"cursor", "fields"} <= {p.name for p in operation.parameters_in("query")}


def _is_plain_get(operation: Operation) -> bool:
    query = {p.name for p in operation.parameters_in("query")}
    return operation.name == "get" and query <= GET_PARAMETERS


def _methods(operation: Operation, shapes: Shapes) -> Iterator[Method]:
    """Yield the method of an operation, and one that only says what it would do."""
    if not operation.previewed:
        yield _method(operation, shapes)
        return
    rest = tuple(p for p in operation.parameters if p.name != "dry_run")
    answers = dict(_without_plans(operation.answers))
    yield _method(replace(operation, parameters=rest, answers=answers), shapes)
    plan = _plan_of(operation.answers)
    if plan is not None:
        paths = tuple(p for p in operation.parameters if p.place == "path")
        summary = "Say what would go along and what stands in the way, and change nothing."
        asked = replace(
            operation,
            name=f"plan-{operation.name}",
            summary=summary,
            parameters=paths,
            answers={200: (JSON, plan)},
            body=None,
        )
        made = _method(asked, shapes)
        yield replace(made, request=f'{made.request[:-1]}, query=(("dry_run", "1"),))')


def _without_plans(
    answers: Mapping[int, tuple[str, Schema] | None],
) -> Iterator[tuple[int, tuple[str, Schema] | None]]:
    for status, answer in answers.items():
        if answer is None:
            yield status, None
            continue
        media, schema = answer
        parts = [one for one in schema.get("anyOf", [schema]) if one.get("title") != PREVIEW]
        if parts:
            yield status, (media, parts[0] if len(parts) == 1 else {"anyOf": parts})


def _plan_of(answers: Mapping[int, tuple[str, Schema] | None]) -> Schema | None:
    for answer in answers.values():
        for one in answer[1].get("anyOf", [answer[1]]) if answer else ():
            if one.get("title") == PREVIEW:
                found: Schema = one
                return found
    return None


def _method(operation: Operation, shapes: Shapes) -> Method:
    owner = class_name(operation.group, operation.name)
    body = tuple(_body_arguments(operation, shapes))
    taken = {argument.name for argument in body}
    places = tuple(_place(p, taken) for p in operation.parameters_in("path"))
    taken |= {argument.name for argument in places}
    query = tuple(_query_argument(p, shapes, taken) for p in operation.parameters_in("query"))
    headers = tuple(
        _header_argument(p, taken)
        for p in operation.parameters_in("header")
        if p.name.lower() not in LEFT_OUT_HEADERS
    )
    files = _file_arguments() if operation.file else ()
    # Python wants nothing of named arguments' order; readers want first what has to be given.
    named = sorted((*body, *files, *query, *headers), key=lambda a: a.default != "")
    return Method(
        name=attribute(operation.name),
        doc=_doc(operation, (*places, *named)),
        positional=places,
        named=tuple(named),
        request=_request(operation, shapes, places, body, query, headers),
        answer=_answer(operation, shapes, owner),
    )


def _body_arguments(operation: Operation, shapes: Shapes) -> Iterator[Argument]:
    if operation.body is None:
        return
    schema = shapes.document.resolve(operation.body)
    if schema.get("type") != "object" or "properties" not in schema:
        yield Argument("body", "Any", "", "The body, as JSON.", "body")
        return
    for one in shapes.struct_of(
        _body_class(operation, shapes), schema, body=True, shared=False
    ).attributes:
        many = one.type.startswith("tuple[")
        type_ = one.type.replace("tuple[", "Sequence[").replace(", ...]", "]") if many else one.type
        value = f"listed({one.name})" if many else one.name
        type_ = _of_models(type_, shapes)
        if shapes.is_words(schema["properties"][one.wire]):
            value = f"word({type_.removesuffix(' | UnsetType')}, {one.name})"
            type_ = f"{type_} | str"
        yield Argument(one.name, type_, one.default, one.doc, value)


def _place(parameter: Parameter, taken: set[str]) -> Argument:
    name = attribute(parameter.name)
    name = f"{name}_ref" if name in taken else name
    return Argument(name, "str", "", sentence(parameter.description), name)


def _query_argument(parameter: Parameter, shapes: Shapes, taken: set[str]) -> Argument:
    name = attribute(parameter.name)
    name = f"{name}_" if name in taken else name
    doc = " ".join(filter(None, (sentence(parameter.description), _bounds(parameter.schema))))
    type_ = shapes.type_of(parameter.schema, "", body=True)
    if type_.startswith("tuple["):
        return Argument(name, "Sequence[str]", "()", doc, f"*many({parameter.name!r}, {name})")
    default = "" if parameter.required else "UNSET"
    type_ = type_ if parameter.required else f"{type_} | UnsetType"
    return Argument(name, type_, default, doc, f"*one({parameter.name!r}, {name})")


def _bounds(schema: Schema) -> str:
    return described({k: v for k, v in schema.items() if k != "description"}, with_default=True)


def _header_argument(parameter: Parameter, taken: set[str]) -> Argument:
    name = attribute(parameter.name)
    name = f"{name}_" if name in taken else name
    doc = sentence(parameter.description)
    if parameter.name == "If-Match":
        doc = "Do it only if the thing still has this revision."
        return Argument(name, "int | str", '""', doc, f'"If-Match": condition({name})')
    return Argument(name, "str", '""', doc, f"{parameter.name!r}: {name}")


def _file_arguments() -> tuple[Argument, ...]:
    return (
        Argument(FILE_ARGUMENT, "Path", "", "The file to send.", FILE_ARGUMENT),
        Argument(
            "on_bytes", "OnBytes", "silent", "Hears of the bytes sent so far, and of all.", ""
        ),
    )


def _request(
    operation: Operation,
    shapes: Shapes,
    places: tuple[Argument, ...],
    body: tuple[Argument, ...],
    query: tuple[Argument, ...],
    headers: tuple[Argument, ...],
) -> str:
    variables = iter(places)
    parts = [
        next(variables).value if part.startswith("{") else repr(part)
        for part in operation.path.removeprefix("/v1/").split("/")
    ]
    written = [repr(operation.method.upper()), f"path_of({', '.join(parts)})"]
    if operation.body is not None:
        written.append(f"body={_body(operation, shapes, body)}")
    if query:
        written.append(f"query=({', '.join(q.value for q in query)},)")
    if headers:
        written.append(f"headers={{{', '.join(h.value for h in headers)}}}")
    if operation.takes_s:
        written.append(f"timeout_s={operation.takes_s}")
    return f"request({', '.join(written)})"


def _body(operation: Operation, shapes: Shapes, arguments: tuple[Argument, ...]) -> str:
    assert operation.body is not None, "asked only of operations with a body"
    if [argument.name for argument in arguments] == ["body"]:
        return "body"
    given = ", ".join(f"{argument.name}={argument.value}" for argument in arguments)
    return f"models.{_body_class(operation, shapes)}({given})"


def _body_class(operation: Operation, shapes: Shapes) -> str:
    assert operation.body is not None, "asked only of operations with a body"
    owner = class_name(operation.group, operation.name, "body")
    return shapes.type_of(operation.body, owner, body=True)


def _doc(operation: Operation, arguments: tuple[Argument, ...]) -> str:
    summary = sentence(operation.summary)
    more = [sentence(operation.description)] if operation.description else []
    documented = [f"    {a.name}: {a.doc}" for a in arguments if a.doc]
    parts = [summary, *more]
    if documented:
        parts.append("\n".join(["Args:", *documented]))
    return "\n\n".join(parts)


def _answer(operation: Operation, shapes: Shapes, owner: str) -> Answer:
    found = {
        status: _one_answer(answer, shapes, owner) for status, answer in operation.answers.items()
    }
    kinds = tuple(dict.fromkeys(found.values()))
    if len(kinds) == 1:
        return kinds[0]
    nothing = Answer("None", "nothing")
    some = [kind for kind in kinds if kind != nothing]
    if not some:
        return nothing
    if all(kind.verb == "answer" for kind in some):
        types = dict.fromkeys(kind.type for kind in some)
        types |= {"None": None} if nothing in kinds else {}
        by_status = ", ".join(
            f"{status}: {kind.told or 'None'}" for status, kind in sorted(found.items())
        )
        type_ = " | ".join(types) if "Any" not in types else "Any"
        return Answer(type_, "either", f"{{{by_status}}}")
    return Answer("Any", "anything")


def _one_answer(answer: tuple[str, Schema] | None, shapes: Shapes, owner: str) -> Answer:
    if answer is None:
        return Answer("None", "nothing")
    media, schema = answer
    if media != JSON:
        return Answer("AsyncIterator[bytes]", "stream", stream=True)
    schema = shapes.document.resolve(schema) if name_of(schema) is None else schema
    properties = schema.get("properties", {})
    if "items" in properties and "index" in properties:
        item = _item_type(properties["items"].get("items", {}), shapes, owner)
        return Answer(f"Page[{item}]", "page", item)
    key = _started_key(properties)
    if key:
        item = _of_models(shapes.type_of(properties[key], owner, body=False), shapes)
        return Answer(f"Started[{item}]", "started", f"{item}, {key!r}")
    type_ = _of_models(shapes.type_of(schema, owner, body=False), shapes)
    if " | " in type_:
        return Answer("Any", "anything")
    return Answer(type_, "answer", type_) if type_ != "Any" else Answer("Any", "anything")


def _started_key(properties: Mapping[str, Schema]) -> str:
    """Return which attribute the started work is about, when the answer is a thing and its task."""
    if "task" not in properties or len(properties) != 2:
        return ""
    parts = properties["task"].get("anyOf", [properties["task"]])
    if "Task" not in {name_of(part) for part in parts}:
        return ""
    (key,) = (name for name in properties if name != "task")
    return key if name_of(properties[key]) is not None else ""


def _listed(shapes: Shapes, operation: Operation) -> str:
    answer = operation.answers[200]
    assert answer is not None, "a list answers something"
    items = shapes.document.resolve(answer[1])["properties"]["items"]
    return _item_type(items.get("items", {}), shapes, class_name(operation.group))


def _item_type(schema: Schema, shapes: Shapes, owner: str) -> str:
    """Return the model of what is listed; beside it, the description has what `fields` makes of it."""
    parts = schema.get("anyOf", [schema])
    named = [part for part in parts if name_of(part) is not None]
    type_ = shapes.type_of(named[0] if named else schema, f"{owner}Item", body=False)
    return _of_models(type_, shapes)


def _of_models(type_: str, shapes: Shapes) -> str:
    """Return a type as it is written outside of the module of models."""
    known = {class_name(name) for name in shapes.bodies | shapes.answers} | shapes.inline.keys()
    return re.sub(r"\b[A-Z]\w*\b", lambda m: f"models.{m[0]}" if m[0] in known else m[0], type_)
