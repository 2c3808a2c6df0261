"""Tags: what may be one, and what becomes of a resource's tags when some are added and removed. Pure.

Used by the API, by roles that are limited to tags, and by whoever acts on system tags. A tag is part of the resource that
carries it, so it is gone with it and changes in the same transaction as everything else of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from core.errors import InvalidError

TAGS_MAX = 50
TAG_LENGTH_MAX = 200
SYSTEM = "::"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}", re.ASCII)
_VALUE = re.compile(r"[!-+\--~]{1,128}", re.ASCII)  # visible ASCII without the comma
_SYSTEM_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}", re.ASCII)
_SYSTEM_VALUE = re.compile(r"[ -+\--~]{1,128}", re.ASCII)


def check_tag(tag: str) -> str:
    """Return the tag, or say why it can't be one. Whether a system tag's pattern is known is not looked at here.

    Raises:
        InvalidError: neither a name, nor `key=value`, nor `namespace::name::value`.
    """
    if SYSTEM in tag:
        namespace, name, value = system_parts(tag)
        if not (_SYSTEM_NAME.fullmatch(namespace) and _SYSTEM_NAME.fullmatch(name)):
            raise InvalidError(
                f"system tag {tag[:60]!r}: namespace and name have 1 to 31 of a-z, 0-9 and '-', beginning with a letter"
            )
        if not _SYSTEM_VALUE.fullmatch(value) or value != value.strip():
            raise InvalidError(
                f"system tag {tag[:60]!r}: the value has 1 to 128 printable ASCII characters, no commas, "
                "no spaces at its ends"
            )
        return tag
    name, equals, value = tag.partition("=")
    if not _NAME.fullmatch(name):
        raise InvalidError(
            f"tag {tag[:60]!r} is not allowed: use a name or key=value, the name with 1 to 63 of A-Z, a-z, 0-9 "
            "and . _ / -, beginning with a letter or digit"
        )
    if equals and not _VALUE.fullmatch(value):
        raise InvalidError(
            f"tag {tag[:60]!r}: the value has 1 to 128 visible ASCII characters, no commas"
        )
    return tag


def system_parts(tag: str) -> tuple[str, str, str]:
    """Return namespace, name and value of a system tag; the value may hold `::` itself.

    Raises:
        InvalidError: it hasn't all three.
    """
    parts = tag.split(SYSTEM, 2)
    if len(parts) < 3:
        raise InvalidError(
            f"tag {tag[:60]!r} has '::' and so is a system tag: write namespace::name::value"
        )
    return parts[0], parts[1], parts[2]


def is_system(tag: str) -> bool:
    """Tell whether a tag is a system tag."""
    return SYSTEM in tag


def slot_of(tag: str, *, many: bool = False) -> str:
    """Return what a resource has one tag of at most: a key has one value, a system tag too unless it may have `many`."""
    if is_system(tag):
        return tag if many else SYSTEM.join(system_parts(tag)[:2]) + SYSTEM
    key, equals, _ = tag.partition("=")
    return key + equals


def changed_tags(
    tags: Iterable[str],
    *,
    add: Iterable[str],
    remove: Iterable[str],
    many: frozenset[str] = frozenset(),
) -> tuple[str, ...]:
    """Return the tags after a change, sorted. A new value of a key takes the place of the old one.

    `many` are the system tags (`namespace::name`) of which a resource may have several.

    Raises:
        InvalidError: a tag is added and removed at once, twice with different values, or there would be too many.
    """
    add, remove = tuple(dict.fromkeys(add)), frozenset(remove)
    if both := remove.intersection(add):
        raise InvalidError(f"tag {min(both)[:60]!r} can't be added and removed at once")
    slots: dict[str, str] = {}
    for tag in add:
        slot = _slot(tag, many)
        if slot in slots:
            raise InvalidError(f"{slots[slot][:60]!r} and {tag[:60]!r}: choose one of them")
        slots[slot] = tag
    kept = [tag for tag in tags if tag not in remove and _slot(tag, many) not in slots]
    after = tuple(sorted({*kept, *add}))
    if len(after) > TAGS_MAX:
        raise InvalidError(f"a resource has {TAGS_MAX} tags at most: remove some first")
    return after


def _slot(tag: str, many: frozenset[str]) -> str:
    several = is_system(tag) and SYSTEM.join(system_parts(tag)[:2]) in many
    return slot_of(tag, many=several)
