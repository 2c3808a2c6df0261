"""The timing of failover: how long a lease lasts, and when a silent host can no longer write.

Chosen per mesh (`Mesh.ha_profile`); used by the guard's settings (lease, watchdog), the lease judge and the HA manager.
The rule that makes failover safe is L + W < T_safe, which every profile keeps by its margin.

What a host is judged by is what its guard said in its last committed renewal (`Profile.of`), not the profile of the
moment: a guard may keep to the times of before for a while, or for as long as it is away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.errors import InvalidError
from core.model import Lease, Mesh

PLACE_AND_START_S = 2.0


@dataclass(frozen=True, slots=True)
class Profile:
    """Times in seconds: `renew_s` h, `lease_s` L, `watchdog_s` W, `margin_s` m.

    `unsaid` is what a guard is believed to keep to that doesn't say; None: this very profile.
    """

    name: str
    renew_s: float
    lease_s: float
    watchdog_s: float
    margin_s: float
    unsaid: Profile | None = None

    def of(self, lease: Lease | None) -> Profile:
        """Return the times that hold for one host, by its last committed renewal. The margin is never below what a lease of that length needs."""
        if lease is None:
            return self
        if not lease.lease_s:
            return self.unsaid or self
        lease_s, watchdog_s = lease.lease_s, lease.watchdog_s or self.watchdog_s
        if (lease_s, watchdog_s) == (self.lease_s, self.watchdog_s):
            return self
        shorter = [it.margin_s for it in PROFILES.values() if it.lease_s <= lease_s]
        margin_s = max(self.margin_s, *shorter) if shorter else self.margin_s
        return replace(self, lease_s=lease_s, watchdog_s=watchdog_s, margin_s=margin_s)

    @property
    def safe_s(self) -> float:
        """Return T_safe: a host whose last renewal was applied this long ago, and whose watchdog was armed, is silent."""
        return self.lease_s + self.watchdog_s + self.margin_s

    @property
    def suspect_s(self) -> float:
        """Return the age of a lease from which on the host is suspected: four renewals missed, never above L/2."""
        return min(4.5 * self.renew_s, self.lease_s / 2)

    @property
    def ended_s(self) -> float:
        """Return the age of a lease at which a working guard has certainly killed its guests."""
        return self.lease_s + self.margin_s

    @property
    def again_s(self) -> float:
        """Return within which time a lost host's VM runs elsewhere: T_safe, and two seconds to place and start it."""
        return self.safe_s + PLACE_AND_START_S


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("wide", renew_s=1.0, lease_s=30.0, watchdog_s=10.0, margin_s=2.0),
        Profile("default", renew_s=1.0, lease_s=12.0, watchdog_s=6.0, margin_s=1.0),
        Profile("moonshot", renew_s=1.0, lease_s=7.0, watchdog_s=5.0, margin_s=0.5),
    )
}


def profile_of(name: str) -> Profile:
    """Return the profile of this name.

    Raises:
        InvalidError: there is none.
    """
    try:
        return PROFILES[name]
    except KeyError:
        raise InvalidError(
            f"HA profile {name[:40]!r} is unknown: use one of {', '.join(PROFILES)}"
        ) from None


def profile_in(mesh: Mesh | None) -> Profile:
    """Return the profile of a mesh. A guard that doesn't say what it keeps to may keep to any that was in use before."""
    if mesh is None:
        return PROFILES["default"]
    profile = profile_of(mesh.ha_profile)
    known = [profile, *(profile_of(name) for name in mesh.ha_profiles_before)]
    longest = Profile(
        name=profile.name,
        renew_s=profile.renew_s,
        lease_s=max(it.lease_s for it in known),
        watchdog_s=max(it.watchdog_s for it in known),
        margin_s=max(it.margin_s for it in known),
    )
    return replace(profile, unsaid=longest) if longest != profile else profile
