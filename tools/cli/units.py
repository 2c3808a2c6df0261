"""Sizes, durations, ports and times as people write and read them.

The parse functions are argparse types: they say in one line what is wrong with a text.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from datetime import UTC, datetime

_SIZE = re.compile(r"(\d{1,12})(?:\.(\d{1,6}))?([a-zA-Z]*)", re.ASCII)
_BINARY: dict[str, int] = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SHORT = {"K": "KiB", "M": "MiB", "G": "GiB", "T": "TiB"}
_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?", re.ASCII)
_DURATION_UNITS_S = (86400, 3600, 60, 1)
PORT_MAX = 65535


def size_bytes(text: str) -> int:
    """Return the bytes of `512MiB`, `1.5GiB`, `20G` (binary units; G means GiB)."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ArgumentTypeError(f"{text!r} is not a size: write e.g. 512MiB or 20GiB")
    whole, fraction, unit = match.groups()
    if not unit:
        raise ArgumentTypeError(f"{text!r} has no unit: write {whole}GiB or {whole}MiB")
    unit = _SHORT.get(unit.upper(), unit)
    by_fold = {name.lower(): factor for name, factor in _BINARY.items()}
    factor = by_fold.get(unit.lower())
    if factor is None:
        meant = {"kb": "KiB", "mb": "MiB", "gb": "GiB", "tb": "TiB"}.get(unit.lower(), "GiB")
        number = f"{whole}.{fraction}" if fraction else whole
        raise ArgumentTypeError(f"{text!r}: unknown unit {unit!r}: write {number}{meant}")
    scaled = int(whole + (fraction or "")) * factor
    parts: int = 10 ** len(fraction or "")
    result, remainder = divmod(scaled, parts)
    if remainder:
        raise ArgumentTypeError(f"{text!r} is not a whole number of bytes")
    if result == 0:
        raise ArgumentTypeError(f"{text!r} is nothing: it must be more than 0")
    return result


def memory_mib(text: str) -> int:
    """Return the mebibytes of a size; it must be a whole number of them."""
    result, remainder = divmod(size_bytes(text), 2**20)
    if remainder:
        raise ArgumentTypeError(f"{text!r} is not a whole number of MiB")
    return result


def duration_s(text: str) -> int:
    """Return the seconds of `90s`, `30m`, `3h`, `1d`, `1h30m`."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        if text.strip().isdecimal():
            raise ArgumentTypeError(f"{text!r} has no unit: write {text.strip()}s, m, h or d")
        raise ArgumentTypeError(f"{text!r} is not a duration: write e.g. 90s, 30m, 3h or 1d12h")
    total_s = sum(
        int(group or 0) * unit_s
        for group, unit_s in zip(match.groups(), _DURATION_UNITS_S, strict=True)
    )
    if total_s == 0:
        raise ArgumentTypeError(f"{text!r} is nothing: it must be more than 0")
    return total_s


def positive(text: str) -> int:
    """Return a whole number of 1 or more."""
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) == 0:
        raise ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def ports(text: str) -> tuple[int, int]:
    """Return first and last port of `22` or `8000-8010`."""
    first_text, dash, last_text = text.partition("-")
    if not dash:
        last_text = first_text
    for part in (first_text, last_text):
        if not (part.isascii() and part.isdigit()) or not 1 <= int(part[:6]) <= PORT_MAX:
            raise ArgumentTypeError(f"{text!r} is not a port or a range: write 22 or 8000-8010")
    first, last = int(first_text), int(last_text)
    if first > last:
        raise ArgumentTypeError(f"{text!r} runs backwards: write {last}-{first}")
    return first, last


def shown_size(count_bytes: int) -> str:
    """Return a size for people, e.g. `2 GiB`, `1.5 GiB`, `700 B`."""
    for unit, factor in reversed(_BINARY.items()):
        if count_bytes >= factor:
            return f"{count_bytes / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{count_bytes} B"


def shown_duration(seconds: float) -> str:
    """Return the two largest parts of a duration, e.g. `2h59m`, `45s`."""
    rest_s = max(0, int(seconds))
    parts: list[tuple[int, str]] = []
    for name, unit_s in zip("dhms", _DURATION_UNITS_S, strict=True):
        count, rest_s = divmod(rest_s, unit_s)
        if count or parts:
            parts.append((count, name))
    return "".join(f"{count}{name}" for count, name in parts[:2] if count) or "0s"


def shown_time(unix_ms: int) -> str:
    """Return a moment in UTC, e.g. `2026-11-23 16:00:05Z`; `-` for 0."""
    if unix_ms <= 0:
        return "-"
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
