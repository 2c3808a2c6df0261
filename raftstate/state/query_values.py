"""Values in a query's text: numbers, sizes with units, durations, moments, yes and no.

Used by `raftstate.state.query_text`. What unit an attribute counts in is told by the end of its name, as everywhere:
`size_bytes`, `memory_mib`, `timeout_s`, `created_ms` (Unix time).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from core.errors import InvalidError
from raftstate.state.nested import PlainType
from raftstate.state.schema import Scalar

VALUE_MAX = 4096
INT_DIGITS_MAX = 19
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{1,18})?", re.ASCII)
_SIZE = re.compile(r"(\d{1,15})(?:\.(\d{1,6}))?\s?([kmgtp])(?:i?b)?", re.ASCII | re.IGNORECASE)
_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d([T ].{1,40})?", re.ASCII)
_WORDS = {"true": True, "yes": True, "false": False, "no": False}
_MIB = 2**20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def value_of(name: str, type_: PlainType, text: str) -> Scalar:
    """Return what a text means for an attribute of that name and type.

    Raises:
        InvalidError: it can't be compared with the attribute; the message says how to write it.
    """
    if len(text) > VALUE_MAX:
        raise InvalidError(f"{name}: a value has at most {VALUE_MAX} characters")
    if type_ is str:
        return text
    text = text.strip()
    if type_ is bool:
        if text.lower() not in _WORDS:
            raise InvalidError(f"{name} is true or false, not {text[:60]!r}")
        return _WORDS[text.lower()]
    if type_ is float:
        if not _NUMBER.fullmatch(text):
            raise InvalidError(f"{name} is compared with a number, not {text[:60]!r}")
        return float(text)
    return _in_range(name, _whole(name, text))


def _whole(name: str, text: str) -> int:
    if _WHOLE.fullmatch(text):
        if len(text.lstrip("+-").lstrip("0")) > INT_DIGITS_MAX:
            raise InvalidError(f"{name}: {text[:60]} is out of range")
        return int(text)
    if name.endswith(("_bytes", "_mib")) and (size := _SIZE.fullmatch(text)):
        return _size(name, size)
    if name.endswith("_s") and text and (duration := _DURATION.fullmatch(text)):
        counts = (int(count or 0) for count in duration.groups())
        return sum(
            count * unit_s for count, unit_s in zip(counts, (86400, 3600, 60, 1), strict=True)
        )
    if name.endswith("_ms") and _MOMENT.fullmatch(text):
        return _moment_ms(name, text)
    raise InvalidError(f"{name} is compared with a {_spoken(name)}, not {text[:60]!r}")


def _size(name: str, size: re.Match[str]) -> int:
    whole, fraction, unit = size[1], size[2] or "", size[3]
    scaled: int = int(whole + fraction) << 10 * ("kmgtp".index(unit.lower()) + 1)
    divisor: int = 10 ** len(fraction) * (_MIB if name.endswith("_mib") else 1)
    result, remainder = divmod(scaled, divisor)
    if remainder:
        unit_name = "MiB" if name.endswith("_mib") else "bytes"
        raise InvalidError(f"{name}: {size[0]} is not a whole number of {unit_name}")
    return result


def _moment_ms(name: str, text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (moment - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        raise InvalidError(f"{name}: {text[:60]!r} is no moment: {_spoken(name)}") from None


def _in_range(name: str, number: int) -> int:
    if not -(1 << 63) <= number < 1 << 63:
        raise InvalidError(f"{name}: {number} is out of range")
    return number


def _spoken(name: str) -> str:
    if name.endswith(("_bytes", "_mib")):
        return "size such as 512MiB or 8GiB"
    if name.endswith("_s"):
        return "number of seconds or a duration such as 10m or 1h30m"
    if name.endswith("_ms"):
        return "moment such as 2026-11-24 or 2026-11-24T16:00:00Z (UTC)"
    return "whole number"
