"""Writes `operations.py`, whose methods are awaited, and `blocking.py`, whose methods are the same and block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tools.sdk.generate.calls import Argument, Group, Method
from tools.sdk.generate.words import docstring

ASYNC_HEAD = '''\
"""The operations of the API as methods to await. Made by `make sdk` from the description of the API: don't edit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from tools.sdk.calls import Api, condition, listed, many, one, request, uploading, word
from tools.sdk.client import path_of
from tools.sdk.collection import Collection
from tools.sdk.files import OnBytes, silent
from tools.sdk.generated import models
from tools.sdk.items import Page
from tools.sdk.started import Started
'''
BLOCKING_HEAD = '''\
"""The operations of the API as methods that block. Made by `make sdk` from the description of the API: don't edit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from tools.sdk.blocking import BlockingCollection, Runner
from tools.sdk.files import OnBytes, silent
from tools.sdk.generated import models, operations
from tools.sdk.items import Page
from tools.sdk.started import Started
'''


def async_text(groups: tuple[Group, ...]) -> str:
    """Return the module of the client that is awaited."""
    lines = [ASYNC_HEAD]
    lines.append(f"\nPREVIEWED = frozenset({{{', '.join(map(repr, _previewed(groups)))}}})")
    lines.append('"""The collections whose deletions can be previewed."""')
    for group in _named(groups):
        lines += _async_group(group)
    lines += _async_root(groups)
    return "\n".join(lines) + "\n"


def blocking_text(groups: tuple[Group, ...]) -> str:
    """Return the module of the client that blocks."""
    lines = [BLOCKING_HEAD]
    for group in _named(groups):
        lines += _blocking_group(group)
    lines += _blocking_root(groups)
    return "\n".join(lines) + "\n"


def _previewed(groups: tuple[Group, ...]) -> list[str]:
    return [g.plural for g in groups if any(m.name == "plan_delete" for m in g.methods)]


def _named(groups: Iterable[Group]) -> list[Group]:
    return [group for group in groups if group.plural]


def _alone(groups: Iterable[Group]) -> tuple[Method, ...]:
    return tuple(method for group in groups if not group.plural for method in group.methods)


def _about(group: Group) -> str:
    return f"`/v1/{group.plural}`"


def _async_group(group: Group) -> Iterator[str]:
    base = f"(Collection[{group.item}])" if group.item else ""
    yield f"\n\nclass {group.class_name}{base}:"
    yield from docstring(f"{_about(group)}.", "    ")
    if not group.item:
        yield "\n    def __init__(self, api: Api) -> None:"
        yield "        self._api = api"
    for method in group.methods:
        yield from _async_method(method)


def _async_method(method: Method) -> Iterator[str]:
    answer = method.answer
    type_ = f"AbstractAsyncContextManager[{answer.type}]" if answer.stream else answer.type
    yield f"\n    {'' if answer.stream else 'async '}def {method.name}({_signature(method)}) -> {type_}:"
    yield from docstring(method.doc, "        ")
    told = f", {answer.told}" if answer.told else ""
    gives = "" if answer.type == "None" else "return "
    if any(a.name == "on_bytes" for a in method.named):
        sha256 = "sha256" if any(a.name == "sha256" for a in method.named) else "None"
        yield f"        asked = {method.request}"
        yield f"        async with uploading(asked, file, {sha256}, on_bytes) as ready:"
        yield f"            {gives}await self._api.{answer.verb}(ready{told})"
        return
    waits = "" if answer.stream else "await "
    yield f"        {gives}{waits}self._api.{answer.verb}({method.request}{told})"


def _signature(method: Method) -> str:
    parts = ["self", *(f"{a.name}: {a.type}" for a in method.positional)]
    parts += ["/"] if method.positional else []
    if method.named:
        parts += ["*", *map(_argument, method.named)]
    return ", ".join(parts)


def _argument(argument: Argument) -> str:
    return f"{argument.name}: {argument.type}{f' = {argument.default}' if argument.default else ''}"


def _async_root(groups: tuple[Group, ...]) -> Iterator[str]:
    yield "\n\nclass Operations:"
    yield from docstring("Everything that the API offers, by what it is about.", "    ")
    yield "\n    def __init__(self, api: Api) -> None:"
    yield "        self._api = api"
    for group in _named(groups):
        told = f", {group.plural!r}, {group.item}" if group.item else ""
        yield f"        self.{group.attribute} = {group.class_name}(api{told})"
    for method in _alone(groups):
        yield from _async_method(method)


def _blocking_group(group: Group) -> Iterator[str]:
    base = f"(BlockingCollection[{group.item}])" if group.item else ""
    yield f"\n\nclass {group.class_name}{base}:"
    yield from docstring(f"{_about(group)}.", "    ")
    yield f"\n    def __init__(self, calls: operations.{group.class_name}, runner: Runner) -> None:"
    if group.item:
        yield "        super().__init__(calls, runner)"
    yield "        self._calls = calls"
    yield "        self._runner = runner"
    for method in group.methods:
        yield from _blocking_method(method)


def _blocking_method(method: Method) -> Iterator[str]:
    answer = method.answer
    stream = "AbstractContextManager[Iterator[bytes]]"
    yield f"\n    def {method.name}({_signature(method)}) -> {stream if answer.stream else answer.type}:"
    yield from docstring(method.doc, "        ")
    given = ", ".join(
        [*(a.name for a in method.positional), *(f"{a.name}={a.name}" for a in method.named)]
    )
    verb = "stream" if answer.stream else "run"
    gives = "" if answer.type == "None" else "return "
    yield f"        {gives}self._runner.{verb}(self._calls.{method.name}({given}))"


def _blocking_root(groups: tuple[Group, ...]) -> Iterator[str]:
    yield "\n\nclass Operations:"
    yield from docstring("Everything that the API offers, by what it is about.", "    ")
    yield "\n    def __init__(self, calls: operations.Operations, runner: Runner) -> None:"
    yield "        self._calls = calls"
    yield "        self._runner = runner"
    for group in _named(groups):
        name = group.attribute
        yield f"        self.{name} = {group.class_name}(calls.{name}, runner)"
    for method in _alone(groups):
        yield from _blocking_method(method)
