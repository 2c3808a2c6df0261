"""A cluster of three lab hosts for tests: its operator, its API as seen by a stranger, and what is asked of it often."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from core.command import CommandError
from tools.demo.operator import Operator
from tools.lab.lab import Lab

SHARED = "shared1"
BOOTED_S = 120.0
"""A tiny guest writes within seconds. Beside a lab that works hard, on a busy machine, it once took more than a minute."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A command that was refused: its exit code, and the one line it said."""

    code: int
    line: str


@dataclass(slots=True)
class Cluster:
    """Three hosts, one cluster, a shared data storage and the tiny image."""

    lab: Lab
    operator: Operator

    @classmethod
    async def form(cls, lab: Lab, tiny_image: str) -> Cluster:
        """Do what the guide's first ten minutes say, up to the first VM."""
        operator = Operator(lab)
        first, *others = lab.hosts
        await operator.types(first, "init")
        tokens = (
            await operator.types(first, "token", "create", "--count", str(len(others)))
        ).split()
        for host, token in zip(others, tokens, strict=True):
            await operator.types(host, "join", token)
        await operator.types(
            first, "data-storage", "create", SHARED, "--kind", "shared", "--path", "/srv/shared"
        )
        await operator.types(first, "image", "upload", "tiny", "--file", tiny_image)
        return cls(lab, operator)

    async def every_lease_is_fresh(self) -> bool:
        """Tell whether VMs can be placed on every host: it is a moment after a cluster formed or healed."""
        try:
            members = await self.operator.asks(self.lab.hosts[-1], "member", "list")
        except CommandError:
            return False
        return all(m["lease_age_s"] is not None and m["lease_age_s"] < 4 for m in members)

    async def every_agent_answers(self) -> bool:
        """Tell whether every agent is up: one that was killed takes seconds to start again."""
        try:
            for host in self.lab.hosts:
                await self.operator.asks(host, "member", "list")
        except CommandError:
            return False
        return True

    async def create(self, name: str, *options: str, image: str = "tiny") -> dict[str, Any]:
        """Create a tiny VM on the shared storage and return how it is shown."""
        words = ("--image", image, "--memory", "128MiB", "--data-storage", SHARED)
        await self.operator.types(self.lab.hosts[0], "vm", "create", name, *words, *options)
        return await self.vm(name)

    async def vm(self, name: str, host: str = "") -> dict[str, Any]:
        """Return a VM as a host shows it."""
        shown: dict[str, Any] = await self.operator.asks(
            host or self.lab.hosts[0], "vm", "show", name
        )
        return shown

    async def delete(self, *names: str) -> None:
        """Delete VMs."""
        for name in names:
            await self.operator.types(self.lab.hosts[0], "vm", "delete", name, "--yes")

    async def refusal(self, host: str, *words: str) -> Refused:
        """Type a command that must be refused; return how."""
        try:
            printed = await self.operator.types(host, *words)
        except CommandError as error:
            said, code = error.stderr_tail.strip().splitlines(), error.code_number
        else:
            raise AssertionError(f"kvorum {' '.join(words)} was not refused: {printed!r}")
        lines = [line for line in said if line.startswith("kvorum: ")]
        assert len(lines) == 1, f"one line should say what is wrong: {said!r}"
        return Refused(code, lines[0].removeprefix("kvorum: "))

    async def http(self, host: str, path: str, *options: str) -> tuple[int, Any]:
        """Ask the HTTPS API of a host from the wire, as a stranger; return status and decoded body."""
        url = f"https://{self.lab.address(host)}:7443{path}"
        argv = ["curl", "-sk", "-m", "15", "-w", "\n%{http_code}", *options, url]
        text = await self.lab.text("wire", *argv)
        body, _, status = text.rpartition("\n")
        return int(status), json.loads(body) if body.startswith(("{", "[")) else body

    async def files(self) -> set[str]:
        """Return every file of the shared storage but images."""
        return {
            str(path.relative_to(self.lab.shared))
            for path in self.lab.shared.rglob("*")
            if path.is_file() and path.parent.name != "images"
        }
