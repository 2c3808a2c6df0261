"""The timing of failover: how long a lease lasts, and when a silent host can no longer write.

Chosen per mesh (`Mesh.ha_profile`); used by the guard's settings (lease, watchdog), the lease judge and the HA manager.
The rule that makes failover safe is L + W < T_safe, which every profile keeps by its margin.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import InvalidError

PLACE_AND_START_S = 2.0


@dataclass(frozen=True, slots=True)
class Profile:
    """Times in seconds: `renew_s` h, `lease_s` L, `watchdog_s` W, `margin_s` m."""

    name: str
    renew_s: float
    lease_s: float
    watchdog_s: float
    margin_s: float

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
