"""What operators change for the whole mesh: the profile, and whether failover acts. Any agent that reaches the leader commits it.

Harsher than the product, which waits with disarming until what is under way has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from core.model import Arming, Lease, Mesh
from ha.profile import Profile, profile_in
from tests.sim_ha.faults import Kind

if TYPE_CHECKING:
    from tests.sim_ha.host import SimHost
    from tests.sim_ha.world import World

Change = Callable[[Mesh], Mesh]
PROFILE_OF = {Kind.TO_WIDE: "wide", Kind.TO_DEFAULT: "default", Kind.TO_MOONSHOT: "moonshot"}


class Blind(Profile):
    """Broken: judges all hosts by the profile of the moment."""

    __slots__ = ()

    def of(self, lease: Lease | None) -> Profile:
        return self


class Hasty(Profile):
    """Broken: does not wait for the watchdog."""

    __slots__ = ()

    def of(self, lease: Lease | None) -> Profile:
        said = Profile.of(self, lease)
        return Profile(said.name, said.renew_s, said.lease_s, 0.0, said.margin_s)


class Wishes:
    """Changes of the mesh's record, tried until one is committed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._latest = 0

    def begin(self, kind: Kind) -> None:
        """An operator wants it."""
        if kind in PROFILE_OF:
            self._try(lambda mesh: _with_profile(mesh, PROFILE_OF[kind]), f"changes to {kind}")
        elif kind is Kind.DISARM:
            self._try(_with(Arming.DISARMED), "disarmed")

    def end(self, kind: Kind) -> None:
        """An operator wants it to be over."""
        if kind is Kind.DISARM:
            self._try(_with(Arming.ARMED), "armed again")

    def arm_for_good(self) -> None:
        """All is well again, also this."""
        self._try(_with(Arming.ARMED), "armed in the end")

    def profile(self, host: SimHost) -> Profile:
        """Return the profile as this host's agent knows it."""
        found, rules = profile_in(host.records.mesh), self._world.rules
        parts = (found.name, found.renew_s, found.lease_s, found.watchdog_s, found.margin_s)
        if not rules.by_what_was_said:
            return Blind(*parts)
        return found if rules.watchdog_counts else Hasty(*parts)

    def follow(self, host: SimHost) -> None:
        """The agent writes its guard's settings."""
        if host.agent_runs:
            mesh = host.records.mesh
            host.configure(profile_in(mesh), disarm=mesh.ha_arming is Arming.DISARMED)

    def _try(self, changed: Change, what: str) -> None:
        world, until_s = self._world, self._world.timeline.now_s + 20.0
        self._latest += 1
        mine = self._latest

        def attempt() -> None:
            if mine != self._latest:
                return  # somebody wants something else by now
            for agent in world.hosts.values():
                if not world.leadership.serves(agent):
                    continue
                world.catch_up(agent)
                if world.commit(agent, changed(agent.records.mesh)) is not None:
                    world.reached[f"mesh {what}"] += 1
                    world.tell(f"mesh {what}")
                    return
            if world.timeline.now_s < until_s:
                world.timeline.after(0.5, attempt)

        attempt()


def _with(arming: Arming) -> Change:
    return lambda mesh: msgspec.structs.replace(mesh, ha_arming=arming)


def _with_profile(mesh: Mesh, name: str) -> Mesh:
    before = tuple(sorted({*mesh.ha_profiles_before, mesh.ha_profile}))
    return msgspec.structs.replace(mesh, ha_profile=name, ha_profiles_before=before)
