"""Quantities as people say them: 64 TiB, 7 days. Used where a bound in bytes or seconds would tell nobody anything."""

from typing import Final

_BINARY: Final = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_TIMES: Final = (("days", 86_400), ("hours", 3600), ("minutes", 60))

_LARGER_UNITS: Final = {
    "bytes": _BINARY,
    "MiB": (("TiB", 2**20), ("GiB", 2**10)),
    "seconds": _TIMES,
}


def in_larger_unit(amount: int, unit: str) -> str:
    """Return an amount in the largest unit that it is a whole number of; empty when `unit` is the one."""
    for name, size in _LARGER_UNITS.get(unit, ()):
        if amount >= size and amount % size == 0:
            count = amount // size
            return f"{count} {name.removesuffix('s') if count == 1 else name}"
    return ""
