"""What operators ask of hosts' management boards: say where one is, take it away, ask it, switch a host on or off.

A board is asked before it is recorded, so that a typing error is met by whoever makes it and not by a failover.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from msgspec.structs import replace

from core.errors import ConflictError, NotFoundError
from core.identity.sealing import Keys, seal
from core.model import Bmc, BmcProtocol, BmcState, Host, Lease, Mesh
from ha.profile import profile_in
from nodeagent.identity.opening import Opener
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.power.driver import Board, PowerDriver
from nodeagent.services.lease_relay import LeaseRelay
from nodeagent.services.sealing_guard import sealing_guards


class Bmcs:
    """The boards of all hosts, as this agent reaches them."""

    def __init__(
        self,
        node: Node,
        leases: LeaseRelay,
        driver: PowerDriver,
        secrets_key: Callable[[], Keys],
    ) -> None:
        self._node, self._store = node, node.store
        self._leases = leases
        self.driver = driver
        self._secrets_key = secrets_key
        self._opener = Opener(node.store, secrets_key)

    def board(self, bmc: Bmc) -> Board:
        """Return how a board is reached, with its password.

        Raises:
            UnavailableError: this host can't open the password now.
        """
        password = self._opener.open(
            Bmc.SEALED["sealed_password"].format(id=bmc.id), bmc.sealed_password
        )
        return Board(
            bmc.address,
            bmc.port,
            bmc.user,
            password.decode(),
            bmc.cipher_suite,
            protocol=bmc.protocol,
            fingerprint=bmc.fingerprint,
            system=bmc.system,
        )

    def of(self, host: Host) -> Bmc:
        """Return a host's board.

        Raises:
            NotFoundError: none is known.
        """
        bmc = self._store.get(Bmc, host.id)
        if bmc is None:
            raise NotFoundError(
                f"host {host.name} has no BMC: name one with 'kvorum bmc set {host.name}'"
            )
        return bmc

    async def put(self, host: Host, board: Board) -> Bmc:
        """Record a host's board, in place of one before, once it said what is true of the host.

        A certificate that is known of this board goes on being demanded, unless another one is named in `board`.

        Raises:
            UnavailableError: it can't be reached from this agent or refuses the log-in; or no quorum.
            ConflictError: it says that the host is off, which is not true, or it is another host's already.
        """
        before = self._store.get(Bmc, host.id)
        board = await self.driver.recognized(_as_known(board, before))
        self._refuse_another_hosts(host, board)
        state = await self._judged(host, board)
        guards = sealing_guards(self._store)
        name = Bmc.SEALED["sealed_password"].format(id=host.id)
        bmc = Bmc(
            id=host.id,
            name=host.name,
            revision=before.revision if before is not None else 0,
            created_ms=before.created_ms if before is not None else self._node.clock.wall_ms(),
            tags=before.tags if before is not None else (),
            host_id=host.id,
            address=board.address,
            port=board.port,
            user=board.user,
            cipher_suite=board.cipher_suite,
            sealed_password=seal(self._secrets_key(), name, board.password.encode()),
            state=state,
            protocol=board.protocol,
            fingerprint=board.fingerprint,
            system=board.system,
        )
        await self._store.apply(puts=(bmc,), guards=(host, *guards))
        return self._store.need(Bmc, host.id)

    async def remove(self, host: Host) -> None:
        """Forget a host's board.

        Raises:
            NotFoundError: none is known.
        """
        await self._store.apply(deletes=(self.of(host),))

    async def power(self, host: Host) -> tuple[Bmc, bool]:
        """Ask a board whether its host is on, and record what that says of the board.

        Raises:
            NotFoundError, UnavailableError: no board; it doesn't answer.
        """
        bmc = self.of(host)
        on = await self.driver.is_on(self.board(bmc))
        if on and self.is_certainly_on(host) and bmc.state is not BmcState.OK:
            await self._store.apply(puts=(replace(bmc, state=BmcState.OK, why=""),))
        return self._store.need(Bmc, host.id), on

    async def switch_on(self, host: Host) -> None:
        """Give a host power."""
        await self.driver.turn_on(self.board(self.of(host)))

    async def switch_off(self, host: Host) -> None:
        """Take the power from a host, whatever runs on it. Nothing is recorded: its lease will end.

        Raises:
            ConflictError: this agent runs on it.
        """
        bmc = self.of(host)
        if host.id == self._node.host_id:
            raise ConflictError("this agent runs on that host: ask another host's agent")
        await self.driver.turn_off(self.board(bmc))

    def is_certainly_on(self, host: Host) -> bool:
        """Tell whether a host renewed its lease a moment ago."""
        profile = profile_in(self._store.get(Mesh, MESH_ID)).of(self._store.get(Lease, host.id))
        return self._leases.age_s(host.id) < profile.suspect_s

    def _refuse_another_hosts(self, host: Host, board: Board) -> None:
        """Both hosts on, it would say "on" of either: only the claim tells that one of them is meant wrongly."""
        for bmc in self._store.all(Bmc):
            if bmc.host_id != host.id and _are_one(bmc, board):
                other = self._store.need(Host, bmc.host_id)
                raise ConflictError(
                    f"the BMC at {board.address} port {board.port} is that of host {other.name}: "
                    f"no two hosts have one; if it moved, run 'kvorum bmc remove {other.name}' first"
                )

    async def _judged(self, host: Host, board: Board) -> BmcState:
        before = self.is_certainly_on(host)
        if await self.driver.is_on(board):
            return BmcState.OK if before and self.is_certainly_on(host) else BmcState.UNCHECKED
        if before:
            raise ConflictError(
                f"the BMC at {board.address} says that its machine is off, but host {host.name} is on: "
                "it belongs to another machine"
            )
        return BmcState.UNCHECKED


def _is_at(bmc: Bmc, board: Board) -> bool:
    return (bmc.address.lower(), bmc.port, bmc.protocol) == (
        board.address.lower(),
        board.port,
        board.protocol,
    )


def _are_one(bmc: Bmc, board: Board) -> bool:
    """Tell whether what is recorded is this board; one address that speaks two protocols is one board."""
    if bmc.protocol is not board.protocol:
        return bmc.address.lower() == board.address.lower()
    return _is_at(bmc, board) and bmc.system == board.system


def _as_known(board: Board, before: Bmc | None) -> Board:
    """Return a board that is named again with the certificate that is known of it: who stands between must not get the
    log-in because a password was changed."""
    redfish = board.protocol is BmcProtocol.REDFISH
    if not redfish or board.fingerprint or before is None or not _is_at(before, board):
        return board
    return dataclasses.replace(board, fingerprint=before.fingerprint)
