"""From names of the API to names of Python, and from its sentences to docstrings."""

from __future__ import annotations

import inspect
import keyword
import re

INITIALISMS = frozenset({"vm", "api", "id"})


def attribute(name: str) -> str:
    """Return the Python name of an attribute, a parameter or a method: `data-storages` is `data_storages`."""
    found = re.sub(r"[^0-9a-zA-Z]+", "_", name).strip("_").lower() or "_"
    if found[0].isdigit():
        found = f"_{found}"
    return f"{found}_" if keyword.iskeyword(found) or found == "self" else found


def class_name(*names: str) -> str:
    """Return the name of a class made of words: `data-storages` is `DataStorages`; one that is a class name stays."""
    words = [word for name in names for word in re.split(r"[^0-9a-zA-Z]+", name) if word]
    return "".join(_capital(word) for word in words)


def _capital(word: str) -> str:
    return word.upper() if word in INITIALISMS else word[:1].upper() + word[1:]


def constant(value: str) -> str:
    """Return the name of a member of an enumeration."""
    found = attribute(value).rstrip("_").upper() or "EMPTY"
    return found if found.isidentifier() else f"_{found}"


def sentence(text: str) -> str:
    """Return a text on one line, safe inside a docstring."""
    return _safe(" ".join(text.split()))


def paragraphs(text: str) -> str:
    """Return a text without its indentation, safe inside a docstring."""
    return _safe("\n".join(line.rstrip() for line in inspect.cleandoc(text).splitlines()))


def _safe(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"""', "'''")
    return f"{text} " if text.endswith('"') else text


def docstring(text: str, indent: str) -> list[str]:
    """Return the lines of a docstring."""
    lines = text.splitlines() or [""]
    if len(lines) == 1:
        return [f'{indent}"""{lines[0]}"""']
    rest = [f"{indent}{line}" if line else "" for line in lines[1:]]
    return [f'{indent}"""{lines[0]}', *rest, f'{indent}"""']
