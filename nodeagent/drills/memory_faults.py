"""Faults in memory, for tests: they only note what was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from core.errors import ConflictError


@dataclass
class MemoryFaults:
    """`cut_from` are the addresses that are cut off now. `servers` are mounts by path."""

    done: list[str] = field(default_factory=list)
    cut_from: tuple[str, ...] = ()
    servers: dict[str, str] = field(default_factory=dict)
    refuses: str = ""

    def kill_agent(self) -> None:
        self.done.append("kill-agent")

    def guard_pid(self) -> int:
        if self.refuses:
            raise ConflictError(self.refuses)
        return 4711

    def kill_guard(self) -> None:
        self.guard_pid()
        self.done.append("kill-guard")

    async def cut(self, addresses: Sequence[str], duration_s: int) -> None:
        self.done.append(f"cut {duration_s}")
        self.cut_from = tuple(addresses)

    async def heal(self) -> None:
        self.cut_from = ()

    def storage_server(self, path: str) -> str:
        if path not in self.servers:
            raise ConflictError(f"{path} is not mounted by NFS")
        return self.servers[path]
