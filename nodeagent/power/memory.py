"""Management boards in memory, for tests: held to the same contract as real ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.errors import UnavailableError
from nodeagent.power.driver import Board


@dataclass
class MemoryPower:
    """`on` has the boards that exist, by address. A lying one says "off" and switches nothing; a dead one is silent."""

    on: dict[str, bool] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    lying: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

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
        if self.passwords.get(board.address, board.password) != board.password:
            raise UnavailableError(f"the BMC at {board.address}: wrong user or password")
