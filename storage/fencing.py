"""What a data storage may be able to do besides: refuse the writes of one boot of one host.

A proof that a host can no longer write rests on it (docs/ha.md), so a driver that says yes and isn't right loses data. The
directories can't do it: whoever has them mounted writes. Kinds that can: those whose server, or whose disks, know who writes
(an export that is revoked, a client that is blocked, a registration that is pre-empted).
"""

from __future__ import annotations

from typing import Protocol, cast

from storage.driver import DataStorageDriver

METHODS = ("fence", "readmit")


class FencingStorage(Protocol):
    """Besides `DataStorageDriver`: called by the agent that leads, on any host, never on the one that is meant.

    Both are idempotent, and may come late or at the same time from an agent that no longer leads. So a boot that was fenced
    stays fenced for good, whatever comes after; and a boot is not touched by the fence of another.
    """

    @property
    def fences(self) -> bool:
        """True: this storage can do it, as it is set up. Said outright, so that nobody is taken for it who merely answers to every name."""
        ...

    async def fence(self, host_id: str, boot_id: str) -> None:
        """Keep a boot of a host from writing to this storage, whatever it has open already, be it in the middle of a write.

        On return no write of it happens any more, those on their way included, until the host has booted again; that holds
        without anybody's help, however long, and when the storage itself starts anew. Reads may go on.

        Raises:
            TemporaryError, PermanentError: that isn't certain; perhaps it writes, perhaps not.
        """
        ...

    async def readmit(self, host_id: str, boot_id: str) -> None:
        """Let a boot of a host write, and later ones, after earlier ones were fenced. These stay fenced.

        Called when the host has shown that it runs in another boot than the fenced one.

        Raises:
            ConflictError: this very boot was fenced; it stays so.
            TemporaryError, PermanentError: it may be refused still.
        """
        ...


def fencing_of(driver: DataStorageDriver) -> FencingStorage | None:
    """Return the driver as one that fences, if it says so and has all that takes; None: it can't fence."""
    says_so = getattr(driver, "fences", False) is True
    if says_so and all(callable(getattr(driver, name, None)) for name in METHODS):
        return cast(FencingStorage, driver)
    return None
