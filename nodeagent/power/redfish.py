"""Management boards by Redfish (DMTF DSP0266; `ComputerSystem` as in DSP2046)."""

from __future__ import annotations

import re
from dataclasses import replace

import msgspec

from nodeagent.power.driver import Board
from nodeagent.power.redfish_service import RedfishService, bounded, shown_fingerprint

SYSTEMS = "/redfish/v1/Systems"
# A machine has power in all states but one: also while it is being switched on or off.
HAS_POWER = frozenset({"On", "PoweringOn", "PoweringOff", "Paused"})
NO_POWER = "Off"
TO_TURN_OFF, TO_TURN_ON = ("ForceOff",), ("On", "ForceOn")
NAMED_MAX = 16
_MEMBER = re.compile(rf"{SYSTEMS}/([A-Za-z0-9._~:@%-]{{1,128}})/?")


class _Link(msgspec.Struct):
    path: str = msgspec.field(name="@odata.id")


class _Systems(msgspec.Struct):
    members: list[_Link] = msgspec.field(name="Members")
    more: str | None = msgspec.field(name="Members@odata.nextLink", default=None)


class _Reset(msgspec.Struct):
    target: str
    allowed: list[str] | None = msgspec.field(
        name="ResetType@Redfish.AllowableValues", default=None
    )


class _Actions(msgspec.Struct):
    reset: _Reset | None = msgspec.field(name="#ComputerSystem.Reset", default=None)


class _System(msgspec.Struct):
    power: str | None = msgspec.field(name="PowerState", default=None)
    actions: _Actions = msgspec.field(name="Actions", default_factory=_Actions)


class Redfish:
    """A `PowerDriver`."""

    async def recognized(self, board: Board) -> Board:
        async with bounded(board):
            shown = board.fingerprint or await shown_fingerprint(board)
            known = replace(board, fingerprint=shown)
            async with RedfishService(known) as service:
                return replace(known, system=_id_of(await _find(service, board.system)))

    async def is_on(self, board: Board) -> bool:
        async with bounded(board), RedfishService(board) as service:
            path = await _find(service, board.system)
            return _has_power(service, await service.get(path, _System))

    async def turn_off(self, board: Board) -> None:
        await self._switch(board, to_on=False)

    async def turn_on(self, board: Board) -> None:
        await self._switch(board, to_on=True)

    async def _switch(self, board: Board, *, to_on: bool) -> None:
        async with bounded(board), RedfishService(board) as service:
            path = await _find(service, board.system)
            system = await service.get(path, _System)
            if system.power == ("On" if to_on else NO_POWER):
                return
            reset = system.actions.reset
            if reset is None:
                raise service.fault("it offers no way to switch its machine")
            wanted = TO_TURN_ON if to_on else TO_TURN_OFF
            allowed = wanted if reset.allowed is None else reset.allowed
            kind = next((one for one in wanted if one in allowed), None)
            if kind is None:
                raise service.fault(f"it doesn't allow a reset of the kind {wanted[0]}")
            if not reset.target.startswith(f"{path.rstrip('/')}/"):
                raise service.fault("it names another place than its machine to switch it")
            await service.post(reset.target, {"ResetType": kind})


async def _find(service: RedfishService, system: str) -> str:
    """Return the path of the machine with an id, or of the only one.

    Raises:
        UnavailableError: there is none, or which one is meant isn't known.
    """
    found = await service.get(SYSTEMS, _Systems)
    paths = [link.path for link in found.members if _id_of(link.path)]
    meant = [path for path in paths if not system or _id_of(path) == system]
    if len(meant) == 1 and (system or (len(found.members) == 1 and found.more is None)):
        return meant[0]
    named = ", ".join(map(_id_of, paths[:NAMED_MAX])) or "none"
    missing = f"no machine {system!r}, or several" if system else "not exactly one machine"
    raise service.fault(f"it speaks for {missing}; name one with --system. It has: {named}")


def _id_of(path: str) -> str:
    """Return a machine's id, the last part of its path; empty if that is no machine's path."""
    found = _MEMBER.fullmatch(path)
    return found.group(1) if found else ""


def _has_power(service: RedfishService, system: _System) -> bool:
    if system.power == NO_POWER:
        return False
    if system.power in HAS_POWER:
        return True
    raise service.fault("it said neither on nor off")
