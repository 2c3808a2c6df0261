"""Names of operations, for programs that are made from the description: `vms.create`, `vms.start`, `security-groups.add-rule`.

`document` asks for them all at once, because a name has to be the only one of its kind. Each follows from method and path
alone, so that an operation keeps its name while others are added.
"""

from __future__ import annotations

from collections.abc import Iterable

# What is one thing by itself, and no collection.
ALONE = frozenset({"status", "health", "whoami", "login", "logout", "openapi.json"})
ON_ALL = {
    "GET": "list",
    "POST": "create",
    "PATCH": "update-all",
    "PUT": "replace-all",
    "DELETE": "delete-all",
}
ON_ONE = {"GET": "get", "POST": "post", "PATCH": "update", "PUT": "replace", "DELETE": "delete"}
ON_PART = {"GET": "get", "POST": "", "PATCH": "update", "PUT": "set", "DELETE": "delete"}
ON_PARTS = {**ON_ALL, "POST": "add", "PATCH": "update"}

Place = tuple[str, str]


def operation_ids(operations: Iterable[Place], listings: frozenset[str]) -> dict[Place, str]:
    """Return the name of each operation, by method and path; `listings` are the paths whose `GET` answers many."""
    places = sorted(operations, key=lambda place: ("{" not in place[1], place))
    named = {place: operation_id(*place, lists=place[1] in listings) for place in places}
    taken: dict[str, Place] = {}
    for place in places:
        name = named[place]
        if name in taken:  # e.g. an action on one and the same action on many
            name = f"{name}-many" if "{" not in place[1] else f"{name}-one"
            named[place] = name
        assert name not in taken, f"{place} and {taken[name]} have one name"
        taken[name] = place
    return named


def operation_id(method: str, path: str, *, lists: bool) -> str:
    """Return the name that a method on a path has by itself."""
    group, *rest = path.removeprefix("/v1/").split("/")
    if not rest:
        if group in ALONE:
            return group.partition(".")[0]
        return f"{group}.{'get' if method == 'GET' and not lists else ON_ALL[method]}"
    return f"{group}.{_within(method, rest)}"


def _within(method: str, rest: list[str]) -> str:
    match [part for part in rest if not _is_variable(part)]:
        case []:
            return ON_ONE[method]
        case [*_, "actions", verb]:
            return verb
        case [*parts, last] if _is_variable(rest[-1]):
            return "-".join((ON_ONE[method], *parts, singular(last)))
        case parts if _is_variable(rest[0]):  # what one of them has
            several = parts[-1].endswith("s")
            verb = ON_PARTS[method] if several else ON_PART[method] or "set"
            last = singular(parts[-1]) if several and method == "POST" else parts[-1]
            return "-".join((verb, *parts[:-1], last))
        case parts:
            return "-".join(filter(None, (ON_PART[method], *parts)))


def singular(word: str) -> str:
    """Return the name of one of several, for the regular words that paths are made of."""
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word.removesuffix("s")


def _is_variable(part: str) -> bool:
    return part.startswith("{")
