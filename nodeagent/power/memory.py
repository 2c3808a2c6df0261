"""Management boards in memory, for tests: held to the same contract as real ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from core.errors import UnavailableError
from core.model import BmcProtocol
from nodeagent.power.driver import Board

CERTIFICATE = "c0" * 32
SYSTEM = "1"


@dataclass
class MemoryPower:
    """`on` has the boards that exist, by address. A lying one says "off" and switches nothing; a dead one is silent.

    `certificates` has the fingerprints of those that speak Redfish and don't show the usual one, by address.
    """

    on: dict[str, bool] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    lying: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    certificates: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def recognized(self, board: Board) -> Board:
        if board.protocol is BmcProtocol.IPMI:
            return board
        shown = self.certificates.get(board.address, CERTIFICATE)
        known = replace(
            board, fingerprint=board.fingerprint or shown, system=board.system or SYSTEM
        )
        self._reach(known, "system")
        return known

    async def is_on(self, board: Board) -> bool:
        self._reach(board, "status")
        return self.on[board.address] and board.address not in self.lying

    async def turn_off(self, board: Board) -> None:
        self._reach(board, "off")
        if board.address not in self.lying:
            self.on[board.address] = False

    async def turn_on(self, board: Board) -> None:
        self._reach(board, "on")
        if board.address not in self.lying:
            self.on[board.address] = True

    def _reach(self, board: Board, verb: str) -> None:
        self.asked.append(f"{verb} {board.address}")
        if board.address in self.dead or board.address not in self.on:
            raise UnavailableError(f"the BMC at {board.address} did not answer")
        shown = self.certificates.get(board.address, CERTIFICATE)
        if board.protocol is BmcProtocol.REDFISH and board.fingerprint != shown:
            raise UnavailableError(f"the BMC at {board.address} shows another certificate: {shown}")
        if self.passwords.get(board.address, board.password) != board.password:
            raise UnavailableError(f"the BMC at {board.address}: wrong user or password")
