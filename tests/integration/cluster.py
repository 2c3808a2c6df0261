"""A cluster of three lab hosts for tests: its operator, its API as seen by a stranger, and what is asked of it often."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import aiohttp

from core.command import CommandError
from core.errors import ConflictError
from tools.demo.operator import Operator
from tools.lab.api import ask
from tools.lab.lab import Lab

SHARED = "shared1"
ANSWER_S = 10.0
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
        members = await self._members(self.lab.hosts[-1]) or [{"lease_age_s": None}]
        return all(m["lease_age_s"] is not None and m["lease_age_s"] < 4 for m in members)

    async def every_agent_answers(self) -> bool:
        """Tell whether every agent is up: one that was killed takes seconds to start again."""
        return all([await self._members(host) is not None for host in self.lab.hosts])

    async def _members(self, host: str) -> list[dict[str, Any]] | None:
        """Return the members as a host shows them; None when it doesn't.

        No command is typed: who waits asks often, and a command costs as much as the work that is waited for.
        """
        try:
            reply = await ask(self.lab, host, "GET", "/v1/members", timeout_s=ANSWER_S)
        except (aiohttp.ClientError, OSError, ConflictError):
            return None
        return reply.body["items"] if reply.status == 200 else None

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
