"""The firewall of the example: it only remembers what it should let through."""

from __future__ import annotations

from pathlib import Path

from netfabric.plan import NetworkPlan


class Remembered:
    """Keeps what a plan says of who may talk to whom."""

    def __init__(self) -> None:
        self.loaded: object = None

    async def apply(self, plan: NetworkPlan) -> int:
        """Take a plan over; 0 when nothing of it is new."""
        wanted = (plan.groups, plan.members, tuple(group.ports for group in plan.port_groups))
        changed = wanted != self.loaded
        self.loaded = wanted
        return int(changed)

    async def remove(self) -> int:
        """Forget it."""
        had, self.loaded = self.loaded is not None, None
        return int(had)


def remembered(*, host_id: str, run_dir: Path) -> Remembered:
    """Return the firewall of a host; `run_dir` is kept until the host boots."""
    del host_id, run_dir
    return Remembered()
