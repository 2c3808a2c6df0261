"""Storage drivers of plug-ins, by the names that data storages say in `driver`.

Used by `nodeagent.services.storages`. Whether a storage is each host's own or one for all (which decides whether its VMs can
be started elsewhere) is said by its `kind`, whoever drives it. What a driver raises that is no error of ours is made one.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from importlib.metadata import EntryPoint
from typing import Any, cast

from core.errors import FatalError, InvalidError, PermanentError, PlatformError
from core.model import DataStorage
from nodeagent.plugins.contained import contained, failure_of
from nodeagent.plugins.loading import Group
from storage.driver import DataStorageDriver

log = logging.getLogger(__name__)

STORAGE_DRIVERS_GROUP = "kvorum.storage_drivers"

MakeDriver = Callable[..., DataStorageDriver]
"""Called as `make(storage_id, path, host_id=...)`."""

METHODS = tuple(
    name
    for name, member in vars(DataStorageDriver).items()
    if not name.startswith("_") and not isinstance(member, property)
)


class StorageDrivers:
    """The drivers that were loaded."""

    def __init__(self) -> None:
        self._make: dict[str, MakeDriver] = {}

    def group(self) -> Group:
        """Return how plug-ins add to them. The names of the product's kinds would only confuse."""
        return Group(
            STORAGE_DRIVERS_GROUP, "storage driver", _load, self._accept, ("local", "shared")
        )

    def make(self, storage: DataStorage, host_id: str) -> DataStorageDriver:
        """Return the driver of a data storage.

        Raises:
            InvalidError: none of that name is installed here.
            PermanentError: it can't be made; the message says why.
        """
        make = self._make.get(storage.driver)
        if make is None:
            raise InvalidError(
                f"data storage {storage.name!r} needs the storage driver {storage.driver[:60]!r}, which this host lacks: "
                "install its plug-in and start the agent again ('kvorum plugin list')"
            )
        what = f"storage driver {storage.driver}"
        driver = contained(what, make, storage.id, storage.path, host_id=host_id)
        missing = [name for name in METHODS if not callable(getattr(driver, name, None))]
        if missing:
            raise PermanentError(f"{what} is none: it has no method {missing[0]!r}")
        return cast(DataStorageDriver, _Contained(driver, what))

    def _accept(self, name: str, loaded: object) -> None:
        self._make[name] = cast(MakeDriver, loaded)


def _load(plugin: EntryPoint) -> object:
    make = plugin.load()
    if not callable(make):
        raise FatalError(f"{plugin.value} can't be called: it makes no storage driver")
    return make


class _Contained:
    """A driver whose unexpected errors are turned into ours, which callers know how to take."""

    def __init__(self, driver: DataStorageDriver, what: str) -> None:
        self._driver = driver
        self._what = what

    def __getattr__(self, name: str) -> Any:  # as the driver has it
        found = getattr(self._driver, name)
        if not callable(found):
            return found

        def call(*args: object, **kwargs: object) -> object:
            result = contained(self._what, found, *args, **kwargs)
            return self._awaited(result) if inspect.isawaitable(result) else result

        return call

    async def _awaited(self, result: Awaitable[object]) -> object:
        try:
            return await result
        except FatalError as error:
            raise failure_of(self._what, error) from error
        except PlatformError:
            raise
        except (Exception, SystemExit) as error:
            log.exception("a plug-in failed", extra={"plugin": self._what})
            raise failure_of(self._what, error) from error
