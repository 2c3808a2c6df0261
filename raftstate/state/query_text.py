"""The text of one condition, `attribute operator value`, and what it asks. Pure.

Used by the API's lists. Values go on as values to be bound, never as SQL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.errors import InvalidError
from raftstate.state.query import PATTERN_MAX, VALUES_MAX, Op
from raftstate.state.query_paths import Path, Tables, resolve
from raftstate.state.query_values import value_of
from raftstate.state.schema import Scalar

# Those that begin with another one's signs come first.
OPERATORS: tuple[tuple[str, Op], ...] = (
    ("!is:null", Op.NOT_NULL),
    ("is:null", Op.IS_NULL),
    ("!?=", Op.NOT_IN),
    ("?=", Op.IN),
    ("~=", Op.MATCH),
    ("!=", Op.NE),
    (">=", Op.GE),
    ("<=", Op.LE),
    ("=", Op.EQ),
    (">", Op.GT),
    ("<", Op.LT),
)
_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_NULLS = (Op.IS_NULL, Op.NOT_NULL)


@dataclass(frozen=True, slots=True)
class Where:
    """A condition on what is at the end of a path; through several resources it asks whether some of them meet it."""

    path: Path
    op: Op
    value: Scalar | tuple[Scalar, ...] = None


def parse_where(tables: Tables, kind: str, text: str) -> Where:
    """Return the condition that a text means for resources of a kind. Spaces around the operator don't count.

    Raises:
        InvalidError: no operator, an unknown attribute, or a value that doesn't fit it.
    """
    name, op, value = split(text)
    path = resolve(tables, kind, name)
    if op in _NULLS:
        return Where(path, op)
    if path.leaf.whole:
        raise InvalidError(
            f"{name} consists of several attributes: compare one of them, as in {name}.attribute, or ask '{name} is:null'"
        )
    attribute = path.leaf.inner or path.leaf.column
    if op is Op.MATCH:
        if path.leaf.type is not str or len(value) > PATTERN_MAX or "\0" in value:
            raise InvalidError(
                f"{name}: '~=' compares a text with a pattern of up to {PATTERN_MAX} characters, * and ? standing for any"
            )
        return Where(path, op, value)
    if op in (Op.IN, Op.NOT_IN):
        texts = split_list(value)
        if len(texts) > VALUES_MAX:
            raise InvalidError(f"{name}: a list has at most {VALUES_MAX} values")
        return Where(path, op, tuple(value_of(attribute, path.leaf.type, one) for one in texts))
    return Where(path, op, value_of(attribute, path.leaf.type, value))


def split(text: str) -> tuple[str, Op, str]:
    """Return the attribute, operator and value of a condition.

    Raises:
        InvalidError: it has no attribute, no operator, or something behind `is:null`.
    """
    found = _PATH.match(text)
    rest = text[found.end() :] if found else text
    spaced = rest.lstrip(" ")
    for sign, op in OPERATORS if found else ():
        if not spaced.startswith(sign) or (sign == "is:null" and rest == spaced):
            continue
        value = spaced[len(sign) :]
        if op in _NULLS and value.strip():
            raise InvalidError(f"filter {text[:60]!r}: nothing may follow {sign!r}")
        return found[0], op, value.lstrip(" ") if rest != spaced else value  # type: ignore[index]  # no loop without it
    signs = " ".join(sign for sign, _ in reversed(OPERATORS))
    raise InvalidError(
        f"filter {text[:60]!r} is not attribute, operator, value: operators are {signs}"
    )


def split_list(text: str) -> list[str]:
    r"""Return the values between commas; `\,` is a comma within a value and `\\` a backslash."""
    values, current, escaped = [], "", False
    for sign in text:
        if escaped or sign not in ",\\":
            current += sign
            escaped = False
        elif sign == "\\":
            escaped = True
        else:
            values.append(current)
            current = ""
    return [*values, current + ("\\" if escaped else "")]
