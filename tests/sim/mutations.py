"""Known defects, put back on purpose: the simulator must find each, or it proves nothing.

Each mutation undoes one protection of the shell around PySyncObj (`raftstate.consensus.shell` says why it is there),
and names the flavour that leans towards the schedules which need it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import msgspec

from raftstate.consensus import shell
from raftstate.consensus.engine import NodeId
from raftstate.consensus.journal import Journal
from raftstate.consensus.messages import Ack, Append
from raftstate.consensus.normaliser import Plan
from raftstate.consensus.shell import Shell
from tests.sim.flavours import DUEL, POWER, STALE, Flavour
from tests.sim.inside import replaced


@dataclass(frozen=True)
class Mutation:
    """`planted()` is a context in which the defect is there."""

    name: str
    flavour: Flavour
    planted: Callable[[], AbstractContextManager[None]]


def _ack_before_fsync() -> AbstractContextManager[None]:
    """Messages leave before the journal is durable; it is a moment later."""
    real_send = Shell.send

    class Careless:
        """A journal whose `sync` is put off."""

        def __init__(self, journal: Journal) -> None:
            self._journal = journal

        def sync(self) -> None:
            pass

        def __getattr__(self, name: str) -> object:
            return getattr(self._journal, name)

    def send(self: Shell, node: shell.Node, message: shell.PySyncObjMessage) -> bool:
        journal = self._journal
        self._journal = Careless(journal)  # type: ignore[assignment]  # for this call only
        try:
            return real_send(self, node, message)
        finally:
            self._journal = journal

    return replaced([(Shell, "send", send)])


def _normaliser_off() -> AbstractContextManager[None]:
    """AppendEntries reaches PySyncObj as it came, and is acknowledged as far as it goes."""

    def normalise(append: Append, journal: Journal, committed: int) -> Plan:
        del journal, committed
        if append.previous is None:
            return Plan(None, append.entries, append.commit)
        end = append.previous[0] + len(append.entries)
        return Plan(append.previous, append.entries, append.commit, next=end + 1)

    return replaced([(shell, "normalise", normalise)])


def _acks_unstamped() -> AbstractContextManager[None]:
    """An acknowledgement of an earlier term counts in the present one."""
    real_ack = Shell._ack_in

    def ack_in(self: Shell, peer: NodeId, ack: Ack) -> None:
        term = self.raft.raftCurrentTerm
        next_ = min(ack.next, self._journal.last() + 1)
        real_ack(self, peer, msgspec.structs.replace(ack, term=term, next=next_))

    return replaced([(Shell, "_ack_in", ack_in)])


MUTATIONS = (
    Mutation("acknowledged before fsync", POWER, _ack_before_fsync),
    Mutation("normaliser off", DUEL, _normaliser_off),
    Mutation("acknowledgements unstamped", STALE, _acks_unstamped),
)
