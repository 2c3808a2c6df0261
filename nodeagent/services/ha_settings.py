"""What operators change of failover while it runs: the profile, and whether it acts at all (docs/ha.md).

Guards learn it from `nodeagent.services.files_for_others` and change by themselves, each as soon as the cluster counts
with it (`ha.guard.terms`); here it is only decided what is wished, and shown how far it has come.
"""

from __future__ import annotations

import asyncio
import logging

from msgspec.structs import replace

from core.errors import ConflictError, InvalidError, PlatformError
from core.model import VM, Arming, Drill, DrillState, Host, Lease, Mesh, Severity
from ha.arming import GAPS, holds, is_certainly_over, old_guards, under_way
from ha.profile import PROFILES, Profile, profile_in, profile_of
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog
from nodeagent.services.health import ClusterHealth, LeaseAges

log = logging.getLogger(__name__)

ROUND_S = 1.0
REASON_LENGTH_MAX = 200
REARM_S_MIN, REARM_S_MAX = 60, 7 * 86_400


class HaSettings:
    """Changes the mesh's record; on the leader it also ends waiting and arms again in time."""

    def __init__(self, node: Node, ages: LeaseAges, health: ClusterHealth) -> None:
        self._node, self._store = node, node.store
        self._ages, self._health = ages, health
        self._events = EventLog(node)

    # ---- what is known

    def mesh(self) -> Mesh:
        """Return the mesh's record."""
        return self._store.need(Mesh, MESH_ID)

    def waits_for(self) -> list[str]:
        """Return what disarming waits for; empty unless it waits."""
        if self.mesh().ha_arming is not Arming.DISARMING:
            return []
        drills = [d.name for d in self._store.all(Drill) if d.state is not DrillState.ENDED]
        vms = self._store.all(VM)
        return [f"drill {name}" for name in drills] + under_way(
            self._profile(), self._store.all(Host), vms, self._leases(), self._ages_s()
        )

    def behind(self) -> list[str]:
        """Return the names of hosts whose guards don't do yet what is wished, those that are away included."""
        mesh, leases = self.mesh(), self._leases()
        wished, disarmed = profile_of(mesh.ha_profile), mesh.ha_arming is Arming.DISARMED
        return sorted(
            host.name
            for host in self._store.all(Host)
            if (lease := leases.get(host.id)) is not None
            and (lease.disarmed != disarmed or lease.lease_s != wished.lease_s)
        )

    # ---- what is changed

    async def set_profile(self, name: str, *, force: bool) -> Mesh:
        """Go by another profile. `force`: also where the network was seen not to hold it.

        Raises:
            InvalidError: there is none of this name.
            ConflictError: a guard doesn't say what it keeps to, or the network wouldn't hold it.
        """
        profile, mesh = profile_of(name), self.mesh()
        if name == mesh.ha_profile:
            return mesh
        if not force:
            await self._refuse_what_does_not_hold(profile)
        guards = self._refuse_old_guards()
        before = tuple(sorted({*mesh.ha_profiles_before, mesh.ha_profile}))
        message = f"failover goes by the profile {name} instead of {mesh.ha_profile}"
        event = self._events.make("ha-profile-changed", mesh, message)
        changed = replace(mesh, ha_profile=name, ha_profiles_before=before)
        await self._store.apply(puts=(changed, event), guards=guards)
        return self.mesh()

    async def disarm(self, *, by: str, reason: str, rearm_after_s: int) -> Mesh:
        """Have failover act no more, as soon as nothing is under way. 0: until someone arms it again.

        Raises:
            InvalidError: no reason, one that is too long, or a time out of bounds.
            ConflictError: it is disarmed already, or a guard is too old.
        """
        if not 0 < len(reason) <= REASON_LENGTH_MAX:
            raise InvalidError(f"say why, in {REASON_LENGTH_MAX} characters at most")
        if rearm_after_s and not REARM_S_MIN <= rearm_after_s <= REARM_S_MAX:
            raise InvalidError("it is armed again after 1 minute to 7 days, or not by itself (0)")
        mesh = self.mesh()
        if mesh.ha_arming is not Arming.ARMED:
            raise ConflictError(
                f"{mesh.ha_disarmed_by} disarmed it already ({mesh.ha_disarm_reason}): "
                "arm it first to give another reason or time"
            )
        guards = self._refuse_old_guards()
        now_ms = self._node.clock.wall_ms()
        changed = replace(
            mesh,
            ha_arming=Arming.DISARMING,
            ha_disarmed_by=by,
            ha_disarmed_ms=now_ms,
            ha_disarm_reason=reason,
            ha_rearm_ms=now_ms + 1000 * rearm_after_s if rearm_after_s else 0,
        )
        message = f"{by} disarms failover: {reason}"
        event = self._events.make("ha-disarming", mesh, message, severity=Severity.WARNING)
        await self._store.apply(puts=(changed, event), guards=guards)
        return self.mesh()

    async def arm(self, *, by: str) -> Mesh:
        """Have failover act again. Harmless when it does."""
        mesh = self.mesh()
        if mesh.ha_arming is Arming.ARMED:
            return mesh
        armed = replace(
            mesh,
            ha_arming=Arming.ARMED,
            ha_disarmed_by="",
            ha_disarmed_ms=0,
            ha_disarm_reason="",
            ha_rearm_ms=0,
        )
        event = self._events.make("ha-armed", mesh, f"{by} arms failover again")
        await self._store.apply(puts=(armed, event))
        return self.mesh()

    async def run(self) -> None:
        """On the leader, take the steps that are due, until cancelled."""
        while True:
            await asyncio.sleep(ROUND_S)
            if not self._node.engine.is_leader():
                continue
            try:
                await self._step()
            except PlatformError as error:
                log.info("failover's settings wait", extra={"error": error.message})

    async def _step(self) -> None:
        mesh = self._store.get(Mesh, MESH_ID)
        if mesh is None or mesh.ha_arming is Arming.ARMED:
            return
        if 0 < mesh.ha_rearm_ms <= self._node.clock.wall_ms():
            await self.arm(by="the time that was given")
        elif mesh.ha_arming is Arming.DISARMING and not self.waits_for():
            message = f"failover is disarmed by {mesh.ha_disarmed_by}: {mesh.ha_disarm_reason}"
            event = self._events.make("ha-disarmed", mesh, message, severity=Severity.ALARM)
            await self._store.apply(puts=(replace(mesh, ha_arming=Arming.DISARMED), event))

    # ---- why not

    def _profile(self) -> Profile:
        return profile_in(self.mesh())

    def _leases(self) -> dict[str, Lease]:
        return {lease.id: lease for lease in self._store.all(Lease)}

    def _ages_s(self) -> dict[str, float]:
        return {host.id: self._ages.age_s(host.id) for host in self._store.all(Host)}

    def _refuse_old_guards(self) -> list[Lease]:
        """Return the leases of silent hosts that must still be silent when the change is committed."""
        profile, leases, ages_s = self._profile(), self._leases(), self._ages_s()
        voters = {str(peer.id) for peer in self._node.engine.voters()}
        old = old_guards(profile, self._store.all(Host), leases, ages_s, voters)
        if old:
            raise ConflictError(
                f"the guards of {', '.join(old)} don't say what they keep to: upgrade and reboot these hosts first, "
                "or take the vote from those that are off (kvorum members demote)"
            )
        return [
            lease
            for lease in leases.values()
            if not lease.lease_s and is_certainly_over(profile, lease, ages_s.get(lease.id, 0.0))
        ]

    async def _refuse_what_does_not_hold(self, profile: Profile) -> None:
        for host in (await self._health.facts()).hosts:
            gap_s = host.report.renewal_gap_s if host.report is not None else None
            if gap_s is not None and not holds(profile.lease_s, gap_s):
                fits = [it.name for it in PROFILES.values() if holds(it.lease_s, gap_s)]
                raise ConflictError(
                    f"host {host.name} was without a renewal of its lease for {gap_s:.1f} s within the last ten minutes, "
                    f"and {profile.name} (L = {profile.lease_s:g} s) holds less than {profile.lease_s / GAPS:g} s: "
                    f"look at the network and the disks of the voters, or use {' or '.join(fits) or 'none yet'}",
                    code="network-too-slow",
                )
