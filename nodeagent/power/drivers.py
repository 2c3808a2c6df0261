"""The driver of all boards: each is spoken to in its own protocol."""

from __future__ import annotations

from core.model import BmcProtocol
from nodeagent.power.driver import Board, PowerDriver
from nodeagent.power.ipmi import Ipmi
from nodeagent.power.redfish import Redfish


class PowerDrivers:
    """A `PowerDriver` that leaves a board to the one that speaks its protocol."""

    def __init__(self, ipmi: PowerDriver | None = None, redfish: PowerDriver | None = None) -> None:
        self._of = {
            BmcProtocol.IPMI: ipmi or Ipmi(),
            BmcProtocol.REDFISH: redfish or Redfish(),
        }

    async def recognized(self, board: Board) -> Board:
        return await self._of[board.protocol].recognized(board)

    async def is_on(self, board: Board) -> bool:
        return await self._of[board.protocol].is_on(board)

    async def turn_off(self, board: Board) -> None:
        await self._of[board.protocol].turn_off(board)

    async def turn_on(self, board: Board) -> None:
        await self._of[board.protocol].turn_on(board)
