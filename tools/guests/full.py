"""The full guest (recipe below)."""

from __future__ import annotations

from pathlib import Path


async def ingredients() -> tuple[str, ...]:
    """Return the packages this image is made from, with versions."""
    raise NotImplementedError


async def build(target: Path, *, scratch: Path) -> None:
    """Write the image to `target`, using the empty directory `scratch`."""
    raise NotImplementedError
