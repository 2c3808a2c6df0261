"""Which host reaches which: every direction of every link by itself."""

from __future__ import annotations

from collections import Counter

from tests.sim_ha.faults import Fault, Kind

LINK_FAULTS = (Kind.CUT, Kind.CUT_IN, Kind.CUT_OUT, Kind.MESH, Kind.SPLIT)


class Links:
    """All links are open but those that faults have closed; a link closed twice must be opened twice."""

    def __init__(self, hosts: tuple[str, ...]) -> None:
        self._hosts = hosts
        self._closed: Counter[tuple[str, str]] = Counter()

    def close(self, fault: Fault) -> None:
        self._closed.update(self._directions(fault))

    def open(self, fault: Fault) -> None:
        self._closed.subtract(self._directions(fault))

    def one_way(self, source: str, target: str) -> bool:
        """Tell whether what is sent arrives."""
        return source == target or self._closed[source, target] <= 0

    def both_ways(self, one: str, other: str) -> bool:
        return self.one_way(one, other) and self.one_way(other, one)

    def _directions(self, fault: Fault) -> list[tuple[str, str]]:
        hosts = set(fault.hosts)
        if fault.kind is Kind.MESH:
            one, other = fault.hosts
            return [(one, other), (other, one)]
        outside = [host for host in self._hosts if host not in hosts]
        out = [(inner, outer) for inner in fault.hosts for outer in outside]
        back = [(outer, inner) for inner, outer in out]
        match fault.kind:
            case Kind.CUT_IN:
                return back
            case Kind.CUT_OUT:
                return out
            case _:
                return out + back
