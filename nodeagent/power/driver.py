"""What is asked of a management board, whatever it speaks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from core.model import BmcProtocol


@dataclass(frozen=True, slots=True)
class Board:
    """Where a management board is and how to log in. `port` is UDP with IPMI, TCP with Redfish; the password is in no
    text that this makes. `fingerprint` (64 hexadecimal digits) and `system` are as in `core.model.Bmc`; empty with IPMI.
    """

    address: str
    port: int
    user: str
    password: str = field(repr=False)
    cipher_suite: int
    protocol: BmcProtocol = BmcProtocol.IPMI
    fingerprint: str = ""
    system: str = ""


class PowerDriver(Protocol):
    """Every call takes a bounded time.

    Raises (all calls):
        UnavailableError: the board doesn't answer, refuses the log-in, or failed; the message says which, without
            the password. The outcome of a change is then unknown.
    """

    async def recognized(self, board: Board) -> Board:
        """Return a board with all that it is to be known by from now on: what is empty, but needed, is taken from what it
        shows. Ask this only when a person names it; all other calls need a board that is known.
        """
        ...

    async def is_on(self, board: Board) -> bool:
        """Tell whether the host has power, as its board says."""
        ...

    async def turn_off(self, board: Board) -> None:
        """Take the power away at once, without asking the host; nothing happens when it is off. Read `is_on` afterwards."""
        ...

    async def turn_on(self, board: Board) -> None:
        """Switch the host on; nothing happens when it is on."""
        ...
