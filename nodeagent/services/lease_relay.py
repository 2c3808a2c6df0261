"""The way of a lease renewal from a guard to the log: through any agent, to the leader's batch.

The local guard comes by the unix socket, guards whose own agent is down come over the mesh. Renewals of all hosts
are committed together by the leader, so their number does not grow with the hosts. Nothing here decides anything:
a renewal counts only when it is committed.
"""

from __future__ import annotations

from msgspec.structs import replace

from core.errors import ConflictError, ForbiddenError, UnavailableError
from core.model import Host, HostState, Lease, Severity
from ha.lease import LeaseBatcher, LeaseJudge, Renewal, RenewalAnswer, answer_to, lease_of
from ha.twins import CODES, Twins
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog

FORWARD_TIMEOUT_S = 4.0
TWICE = (
    "host {} exists twice: another machine asks for its lease with a boot of its own, and gets none. Is its disk a copy? "
    "Switch the wrong one off, and have it join under a name of its own"
)
FORWARDED_PATH = "/mesh/lease/forwarded"


class LeaseRelay:
    """Takes renewals and knows how old each host's lease is."""

    def __init__(self, node: Node, judge: LeaseJudge) -> None:
        self._node = node
        self._judge = judge
        self._twins, self._events = Twins(), EventLog(node)
        self._batcher = LeaseBatcher(
            commit=self._commit,
            host_of=lambda host_id: node.store.get(Host, host_id),
            lease_of_host=lambda host_id: node.store.get(Lease, host_id),
            age_s_of=judge.age_s,
        )

    async def run(self) -> None:
        """Commit batches until cancelled."""
        await self._batcher.run()

    def age_s(self, host_id: str) -> float:
        """Return the seconds since a host's last renewal was applied here; infinite when there never was one."""
        age_s = self._judge.age_s(host_id)
        return float("inf") if age_s is None else age_s

    async def renew(self, renewal: Renewal) -> RenewalAnswer:
        """Commit a renewal wherever the leader is; return its log index, and what of it is recorded.

        Raises:
            UnavailableError: no leader, or the outcome is unknown: it does not count.
            ConflictError, NotFoundError: the host may not renew.
        """
        leader_id = self._node.engine.leader()
        if leader_id == self._node.host_id:
            return await self._granted(renewal)
        leader = self._node.store.get(Host, leader_id or "")
        if leader is None:
            raise UnavailableError("there is no leader now: leases can't be renewed")
        return await self._node.mesh.call(
            leader, FORWARDED_PATH, renewal, RenewalAnswer, timeout_s=FORWARD_TIMEOUT_S
        )

    async def renew_from_peer(self, peer_id: str, renewal: Renewal) -> RenewalAnswer:
        """Take a renewal of another host's guard, which speaks with its host's certificate."""
        if renewal.host_id != peer_id:
            raise ForbiddenError("a host renews only its own lease")
        return await self.renew(renewal)

    async def renew_forwarded(self, renewal: Renewal) -> RenewalAnswer:
        """Take a renewal that another agent passed on because this one leads."""
        if not self._node.engine.is_leader():
            raise UnavailableError("this agent does not lead any more")
        return await self._granted(renewal)

    async def _granted(self, renewal: Renewal) -> RenewalAnswer:
        """Commit a renewal here, on the leader; tell when a host seems to exist twice."""
        try:
            return answer_to(renewal, await self._batcher.renew(renewal))
        except ConflictError as error:
            now_s = self._node.clock.monotonic_s()
            twice = error.code in CODES and self._twins.refused(
                renewal.host_id, renewal.boot_id, now_s
            )
            if twice and (host := self._node.store.get(Host, renewal.host_id)) is not None:
                await self._events.record(
                    "host-twice", host, TWICE.format(host.name), severity=Severity.ALARM
                )
            raise

    async def _commit(self, renewals: tuple[Renewal, ...]) -> int:
        puts: list[Lease | Host] = []
        guards: list[Host] = []
        for renewal in renewals:
            host = self._node.store.need(Host, renewal.host_id)
            before = self._node.store.get(Lease, renewal.host_id)
            puts.append(lease_of(renewal, before))
            if host.state is HostState.MEMBER:
                guards.append(host)
            else:
                puts.append(
                    replace(
                        host,
                        state=HostState.MEMBER,
                        off_lease_revision=0,
                        fenced_storage_ids=(),
                        storage_lease_revision=0,
                    )
                )
        return await self._node.store.apply(puts=puts, guards=guards)
