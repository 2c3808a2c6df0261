"""After all power was lost and is back: for a minute, hosts that are not back yet are waited for (docs/ha.md).

Machines don't come up at the same moment, and a VM starts best where it was, with its caches and its share of the load.
Pure; what it is asked with are the boots that this node's `LeaseJudge` has seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from core.model import Host, Lease
from ha.profile import Profile

SETTLE_S = 60.0


def waited_for(
    hosts: Iterable[Host], booted_s: Mapping[str, float], now_s: float
) -> frozenset[str]:
    """Return the hosts that are not back from the present cold start and still get their time; empty when there is none.

    A cold start is when at least half of the hosts that run VMs come with a new boot within a minute. It ends a minute
    after the first of them, however many follow. `booted_s` are monotonic seconds of this node's clock by host id.
    """
    able = frozenset(host.id for host in hosts if not host.witness and not host.joining)
    boots = sorted((booted_s[id_], id_) for id_ in able & booted_s.keys())
    while boots:
        first_s = boots[0][0]
        back = [id_ for boot_s, id_ in boots if boot_s < first_s + SETTLE_S]
        if now_s < first_s + SETTLE_S and 2 * len(back) >= len(able):
            return able.difference(back)
        boots = boots[len(back) :]
    return frozenset()


def many_are_lost(
    hosts: Mapping[str, Host],
    ages_s: Mapping[str, float],
    profile: Profile,
    leases: Mapping[str, Lease],
) -> bool:
    """Tell whether more than a third of the hosts, and two at least, are lost since a minute or less.

    So many rarely die by themselves: it may be the network, or the power of a whole room. `ages_s` are those of leases.
    """
    lost = 0
    for id_ in hosts:
        ended_s = profile.of(leases.get(id_)).ended_s
        lost += ended_s <= ages_s.get(id_, 0.0) < ended_s + SETTLE_S
    return lost >= 2 and 3 * lost > len(hosts)
