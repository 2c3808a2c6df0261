"""What a data storage may be able to do besides: keep a disk in layers, so that what it was at a moment can be gone back to.

A layer is a file of its own id that holds what was written since the one below it was frozen; the lowest lies on the disk's
image, or on nothing. Only the layer that is on top of all others of its branch is ever written, by the one VM that has the
disk. Snapshots are made of it (`nodeagent.services.snapshots`, docs/decisions/0033-snapshots-are-layers.md).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, cast

from storage.driver import DataStorageDriver

METHODS = ("add_layer", "merge_layer", "drop_layer", "layers_on")

Sure = Callable[[], Awaitable[None]]
"""Raises unless the caller is still the one to do it. Asked right before something takes effect that others may rely on."""


class LayeredStorage(Protocol):
    """What a driver has as `layers`. Its disk ids may be those of layers: a disk without snapshots is one layer of its id.

    All methods are idempotent, for VMs that don't run, and raise what `DataStorageDriver` says. What one caller left
    unfinished is no danger to the next: it takes effect whole, after `sure`, or never once the next one has begun.
    """

    async def add_layer(self, layer_id: str, below_id: str) -> None:
        """Make an empty layer on another one, which is not written any more from now on.

        NotFoundError: the one below isn't there. ConflictError: a running VM has that open, or the layer exists on another.
        """
        ...

    async def merge_layer(self, layer_id: str, below_id: str, *, into_id: str, sure: Sure) -> None:
        """Have a layer hold what the one below it holds too, so that it needs only what lies below both.

        The result is a new layer, `into_id`, and the old one stays as it is; or, when `into_id` is the layer itself, takes
        its place: for frozen ones only, on which others may lie. It needs room for both while it is made.

        NotFoundError: one isn't there. ConflictError: the layer lies on another one.
        """
        ...

    async def drop_layer(self, layer_id: str) -> None:
        """Remove a layer; none is fine. ConflictError: another one lies on it, or a running VM has it open."""
        ...

    async def layers_on(self, layer_id: str) -> tuple[str, ...]:
        """Return the ids of the layers that lie right on this one, sorted."""
        ...


def layered(driver: DataStorageDriver) -> LayeredStorage | None:
    """Return what keeps the layers of a driver's disks; None: it can't keep any."""
    found = getattr(driver, "layers", None)
    if all(callable(getattr(found, name, None)) for name in METHODS):
        return cast(LayeredStorage, found)
    return None
