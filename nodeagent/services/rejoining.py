"""Lets a host that has lost or wants to drop its copy of the state come back as a replica: `kvorum recover rejoin` on it.

Called over the mesh by that host while its agent is stopped. If it votes, its vote ends first, agreed by a quorum of
the others: a voter that forgets what it has acknowledged and whom it voted for could let a log win that lacks
acknowledged entries. Only then may it forget.
"""

from __future__ import annotations

from core.errors import ConflictError
from core.member_file import MemberAddress
from core.model import Host, Severity
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog
from raftstate.consensus.engine import NodeId
from raftstate.consensus.generation import shown
from raftstate.rescue.rejoin import MayRejoin, WantsToRejoin

BARRIER_TIMEOUT_S = 5.0
CHANGE_TIMEOUT_S = 15.0


async def let_rejoin(node: Node, host_id: str, wish: WantsToRejoin) -> MayRejoin:
    """End the vote of a host, if it has one, and tell it whom to follow. Repeatable.

    Raises:
        ConflictError: it is of a newer generation than this host.
        UnavailableError: there is no quorum without it.
    """
    engine, store = node.engine, node.store
    if wish.generation > engine.generation():
        raise ConflictError(
            f"host {node.host_name} is of generation {shown(engine.generation())}, older than the "
            f"{shown(wish.generation)} of the host that asks: it is {node.host_name} which has to rejoin"
        )
    await engine.read_barrier(timeout_s=BARRIER_TIMEOUT_S)
    had_vote = host_id in {peer.id for peer in engine.voters()}
    if had_vote:
        await engine.remove_voter(NodeId(host_id), timeout_s=CHANGE_TIMEOUT_S)
    host = store.need(Host, host_id)
    message = f"host {host.name} drops its copy of the state and follows anew"
    event = EventLog(node).make("host-rejoins", host, message, severity=Severity.WARNING)
    await store.apply(puts=(event,))
    voters = {peer.id for peer in engine.voters()}
    hosts = sorted(store.all(Host), key=lambda h: (h.id not in voters, h.name))
    return MayRejoin(
        generation=engine.generation(),
        had_vote=had_vote,
        members=tuple(
            MemberAddress(id=h.id, name=h.name, address=h.address, mesh_port=h.mesh_port)
            for h in hosts
            if h.id != host_id
        ),
    )
