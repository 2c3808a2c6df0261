"""What operators ask of hosts: remove one, confirm that one is off, say where it stands, pin its vote.

Called by the API, and by the mesh for a host that leaves. Confirming is the last resort where no watchdog or power
controller can prove it (docs/ha.md).
"""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from core.errors import ConflictError, InvalidError
from core.model import (
    VM,
    Host,
    HostRoom,
    HostState,
    Lease,
    Mesh,
    Severity,
    ShutdownPolicy,
    Vote,
    check_name,
    kind_of,
)
from ha.profile import profile_in
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.cascade import fenced, plan_of, word
from nodeagent.services.event_log import EventLog
from raftstate.consensus.engine import NodeId
from raftstate.voters import VOTERS_MAX_CHOICES, may_vote, voters_for

CHANGE_VOTERS_TIMEOUT_S = 15.0
HAND_ON_TIMEOUT_S = 10.0
POLL_S = 0.1
REMOVE_TRIES = 8
REPLACE_AFTER_S_MIN, REPLACE_AFTER_S_MAX = 10, 7 * 86_400


async def remove_host(node: Node, host: Host, *, exactly: bool = False) -> None:
    """Take a host out of the cluster. Its vote ends first, its record and with it its right to connect last.

    Its vote is pinned to never, which makes the leader find a successor before the vote is given up, and keeps it from
    giving the vote back meanwhile. Repeatable. A host's agent changes its record, too: that is no reason to refuse, unless the
    host shall go `exactly` as it was read.

    Raises:
        ConflictError: VMs or local disks are on it, or it is this very host, or it was changed.
        UnavailableError: no quorum.
    """
    if host.id == node.host_id:
        raise ConflictError(
            f"this agent runs on {host.name}: run 'kvorum leave' there, or remove it through another member"
        )
    for tries_left in reversed(range(REMOVE_TRIES)):
        try:
            await _remove(node, host)
        except ConflictError as error:
            if exactly or error.code != "conflict-guard" or not tries_left:
                raise
        else:
            return
        host = node.store.need(Host, host.id)


async def _remove(node: Node, host: Host) -> None:
    refuse_if_used(node, host)
    if host.vote is not Vote.NEVER:
        await node.store.apply(puts=(replace(host, vote=Vote.NEVER),))
    await _give_vote_up(node, NodeId(host.id))
    events = EventLog(node)
    event = events.make("host-removed", host, f"host {host.name} was removed from the cluster")
    host = node.store.need(Host, host.id)
    async with fenced(node, plan_of(node.store, host).gone) as fences:
        refuse_if_used(node, host)  # once more: from here on no VM can come to it
        lease, plan = node.store.get(Lease, host.id), plan_of(node.store, host)
        room = node.store.get(HostRoom, host.id)
        await node.store.apply(
            puts=(event, *plan.changed),
            deletes=[r for r in (*plan.gone, lease, room, *fences) if r],
        )


def refuse_if_used(node: Node, host: Host) -> None:
    """Let a host go only when nothing of users is on it.

    Raises:
        ConflictError: VMs or local disks are on it.
    """
    for touched in plan_of(node.store, host).refused:
        used = touched.resource
        advice = "move or delete it" if isinstance(used, VM) else "delete its VM"
        raise ConflictError(
            f"{word(kind_of(used))} {used.name!r} is on host {host.name}: {advice} first"
        )


async def _give_vote_up(node: Node, host_id: NodeId) -> None:
    """Wait for the leader to hand the vote on; if it can't in time, end the vote all the same."""
    try:
        async with asyncio.timeout(HAND_ON_TIMEOUT_S):
            while host_id in {peer.id for peer in node.engine.voters()}:
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        await node.engine.remove_voter(host_id, timeout_s=CHANGE_VOTERS_TIMEOUT_S)


async def confirm_off(node: Node, host: Host, lease_age_s: float) -> int:
    """Fence a host on the operator's word; return how many VMs are freed by it.

    Raises:
        ConflictError: the host renewed its lease a moment ago, so it is on.
    """
    lease = node.store.get(Lease, host.id)
    profile = profile_in(node.store.need(Mesh, MESH_ID)).of(lease)
    if lease_age_s < profile.ended_s:
        raise ConflictError(
            f"host {host.name} renewed its lease {lease_age_s:.0f} s ago, so it is on: "
            "switch it off, wait, and confirm again"
        )
    message = f"an operator confirmed that host {host.name} is off"
    event = EventLog(node).make("host-confirmed-off", host, message, severity=Severity.WARNING)
    await node.store.apply(
        puts=(replace(host, state=HostState.FENCED, off_lease_revision=0), event),
        guards=[lease] if lease is not None else [],
    )
    return sum(1 for vm in node.store.all(VM) if vm.host_id == host.id)


async def set_failure_domain(node: Node, host: Host, domain: str) -> None:
    """Say with which hosts a host fails together; empty: with none.

    Raises:
        InvalidError: not a name.
    """
    if domain:
        check_name(domain, "failure domain")
    if domain != host.failure_domain:
        await node.store.apply(puts=(replace(host, failure_domain=domain),))


async def set_shutdown_policy(node: Node, host: Host, policy: ShutdownPolicy) -> None:
    """Say what becomes of a host's VMs when it is shut down in order."""
    if policy is not host.shutdown_policy:
        await node.store.apply(puts=(replace(host, shutdown_policy=policy),))


async def set_vote(node: Node, host: Host, vote: Vote) -> None:
    """Pin a host's vote, or let the cluster choose again. The leader acts on it within seconds.

    Raises:
        ConflictError: more hosts would be pinned than there are votes, or none could vote any more.
    """
    hosts = [h if h.id != host.id else replace(h, vote=vote) for h in node.store.all(Host)]
    free = sum(map(may_vote, hosts))
    if not free:
        raise ConflictError(
            f"host {host.name} is the last that may vote: let another vote first, "
            "with 'kvorum member promote NAME' or 'kvorum member demote NAME --auto'"
        )
    most = voters_for(free, node.store.need(Mesh, MESH_ID).voters_max)
    pinned = [h.name for h in hosts if h.vote is Vote.ALWAYS]
    if vote is Vote.ALWAYS and len(pinned) > most:
        others = ", ".join(sorted(set(pinned) - {host.name}))
        raise ConflictError(
            f"{free} hosts that may vote have {most} {'vote' if most == 1 else 'votes'}, and {others} "
            f"{'is' if len(pinned) == 2 else 'are'} pinned already: set one free with "
            "'kvorum member promote NAME --auto', or raise 'kvorum member policy --voters'"
        )
    if vote is not host.vote:
        await node.store.apply(puts=(replace(host, vote=vote),))


async def set_policy(node: Node, *, voters_max: int | None, replace_after_s: int | None) -> Mesh:
    """Change how many hosts vote at most, and after what silence a voter is replaced.

    Raises:
        InvalidError: not 1, 3, 5 or 7; or a time out of bounds.
    """
    mesh = node.store.need(Mesh, MESH_ID)
    if voters_max is not None and voters_max not in VOTERS_MAX_CHOICES:
        raise InvalidError(
            f"{voters_max} voters can't be: 1, 3, 5 or 7; an even number survives no more losses than one less"
        )
    if replace_after_s is not None and not (
        REPLACE_AFTER_S_MIN <= replace_after_s <= REPLACE_AFTER_S_MAX
    ):
        raise InvalidError(
            f"a silent voter can be replaced after {REPLACE_AFTER_S_MIN} s to "
            f"{REPLACE_AFTER_S_MAX // 86_400} days, not {replace_after_s} s"
        )
    changed = replace(
        mesh,
        voters_max=mesh.voters_max if voters_max is None else voters_max,
        voter_replace_after_s=(
            mesh.voter_replace_after_s if replace_after_s is None else replace_after_s
        ),
    )
    if changed != mesh:
        await node.store.apply(puts=(changed,))
    return node.store.need(Mesh, MESH_ID)
