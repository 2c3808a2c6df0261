"""The storage driver of the example: the product's local directory, in a directory of its own below the path."""

from __future__ import annotations

from storage.directory_driver import LocalDriver


def below(storage_id: str, path: str, *, host_id: str) -> LocalDriver:
    """Return the driver of a data storage at `path`."""
    return LocalDriver(storage_id, f"{path}/example", host_id=host_id)
