"""How a host leaves its cluster: asking another member to remove it, or by force when there is nobody to ask.

Used by `nodeagent.lifecycle`, which stops the member and wipes its files afterwards. Nothing here changes this host.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from core.errors import ConflictError, InvalidError, PlatformError, UnavailableError
from core.member_file import MemberRecord
from core.mesh.client import Nothing
from core.model import Host
from ha.serf.rpc import SerfRpc
from nodeagent.node import Node
from nodeagent.services.exclusion import Exclusion, Verdict
from nodeagent.services.host_service import refuse_if_used

log = logging.getLogger(__name__)

ASK_TIMEOUT_S = 40.0
HYPERVISOR_TIMEOUT_S = 5.0
ASKED_MAX = 5


class LeaveWish(msgspec.Struct, frozen=True, kw_only=True):
    """A host asks to be removed. `audit_id` is the record of that, which it can't end itself; empty without one."""

    audit_id: str = ""


async def ask_out(node: Node, exclusion: Exclusion, *, audit_id: str = "") -> None:
    """Have another member remove this host: its vote goes to another, its record is deleted.

    Raises:
        ConflictError: VMs or local disks are on it, it is the last host, or the cluster removed it before.
        UnavailableError: no other member answers, or there is no quorum.
    """
    if exclusion.verdict is Verdict.REMOVED:
        raise ConflictError(
            "the cluster has removed this host already: 'kvorum leave --force' wipes what is left here"
        )
    refuse_if_used(node, node.host())
    voters = {peer.id for peer in node.engine.voters()}
    linked = node.engine.connected()
    others = [h for h in node.store.all(Host) if h.id != node.host_id]
    if not others:
        raise ConflictError(
            "this is the cluster's last host, and leaving would end the cluster: "
            "'kvorum leave --force' does that"
        )
    others.sort(key=lambda h: (h.id not in linked, h.id not in voters))
    error: PlatformError = UnavailableError("no other member answers")
    for host in others[:ASKED_MAX]:
        try:
            wish = LeaveWish(audit_id=audit_id)
            await node.mesh.call(host, "/mesh/leave", wish, Nothing, timeout_s=ASK_TIMEOUT_S)
        except UnavailableError as failure:
            if await exclusion.look() is Verdict.REMOVED:
                return  # done, and only the answer was lost
            error = failure
        else:
            return
    raise error


async def check_forced(
    record: MemberRecord, node: Node | None, exclusion: Exclusion | None, confirm: str
) -> None:
    """Let a host be wiped that the cluster doesn't count on any more; the person confirms by its name.

    Raises:
        InvalidError: not confirmed.
        ConflictError: a member still counts this host as one, or guests run here.
    """
    if confirm != record.host_name:
        raise InvalidError(f"confirm must be this host's name, {record.host_name!r}")
    if node is None or exclusion is None:
        return  # its joining was never finished
    alone = not any(host.id != node.host_id for host in node.store.all(Host))
    if not alone and await exclusion.look() is Verdict.MEMBER:
        raise ConflictError(
            "the cluster counts this host as a member: 'kvorum leave' without --force leaves it in order"
        )
    guests = await _guests(node)
    if guests:
        raise ConflictError(
            f"{guests} {'guest runs' if guests == 1 else 'guests run'} on this host: "
            "stop them first ('virsh list', 'virsh shutdown NAME')"
        )


async def end_gossip(serf_secret: str) -> None:
    """Have serf leave and end; it starts again when its configuration is back. Without serf, nothing."""
    try:
        await SerfRpc(auth_key=serf_secret).leave()
    except PlatformError as error:
        log.info("serf did not leave", extra={"error": error.message})


async def _guests(node: Node) -> int:
    """Return how many of our guests run here, as far as the hypervisor answers."""
    try:
        async with asyncio.timeout(HYPERVISOR_TIMEOUT_S):
            return len(await node.hypervisor.list_domains())
    except (PlatformError, TimeoutError):
        return 0
