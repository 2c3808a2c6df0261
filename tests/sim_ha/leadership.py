"""Who leads, and who only thinks so.

One host at most has a majority behind it and can commit. One that was deposed goes on believing for a while, as a node
of the product may: whatever depends on that belief is broken.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

from tests.sim_ha.host import SimHost
from tests.sim_ha.links import Links
from tests.sim_ha.timeline import Timeline


class Leadership:
    """`leader` is the host that can commit now, None while there is no majority or no election is over yet."""

    def __init__(
        self,
        hosts: Mapping[str, SimHost],
        links: Links,
        timeline: Timeline,
        rng: random.Random,
        reached: Counter[str],
    ) -> None:
        self.leader: str | None = None
        self._hosts, self._links, self._timeline = hosts, links, timeline
        self._rng, self._reached = rng, reached
        self._voting = False

    def review(self) -> None:
        """Look whether the leader still can lead; to be called whenever something changed, and now and then."""
        if self.leader is not None and not self._can_lead(self._hosts[self.leader]):
            self.depose()
        if self.leader is None and not self._voting:
            self._voting = True
            self._timeline.after(self._rng.choice([0.5, 1.5, 3.0, 5.0]), self._elect)

    def depose(self) -> None:
        """The leader is none any more, but does not know yet."""
        if self.leader is None:
            return
        host, self.leader = self._hosts[self.leader], None
        boots = host.starts

        def learn() -> None:
            if self.leader != host.name and host.starts == boots:
                host.leads_since_s = None

        self._timeline.after(self._rng.choice([0.5, 2.0, 30.0]), learn)

    def serves(self, host: SimHost) -> bool:
        """Tell whether the host's agent reaches the leader and is reached by it: then it can commit."""
        return (
            host.agent_runs
            and self.leader is not None
            and self._links.both_ways(host.name, self.leader)
        )

    def hears(self, host: SimHost) -> bool:
        """Tell whether new entries of the log come to this host."""
        return (
            host.agent_runs
            and self.leader is not None
            and self._links.one_way(self.leader, host.name)
        )

    def up_for(self, host: SimHost) -> frozenset[str]:
        """Return the hosts that this one's log reaches, and itself."""
        return frozenset(
            other.name
            for other in self._hosts.values()
            if other is host or (other.agent_runs and self._links.both_ways(host.name, other.name))
        )

    def _can_lead(self, host: SimHost) -> bool:
        if not host.agent_runs or host.lags:
            return False
        behind = sum(
            other.agent_runs and self._links.both_ways(host.name, other.name)
            for other in self._hosts.values()
        )
        return behind > len(self._hosts) // 2

    def _elect(self) -> None:
        self._voting = False
        able = [host for host in self._hosts.values() if self._can_lead(host)]
        if not able:
            return  # asked again at the next review
        chosen = self._rng.choice(able)
        self.leader = chosen.name
        self._reached["leaders elected"] += 1
        if chosen.leads_since_s is None:
            chosen.leads_since_s = chosen.clock.monotonic_s()
