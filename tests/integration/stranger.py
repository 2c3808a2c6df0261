"""The API of a lab host without a client in between, and what must be the same after a refusal as before.

Used by tests of bad input, joining and access: they send what no client of ours would send.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.integration.cluster import Cluster, Refused
from tests.integration.conftest import poll
from tools.lab import api
from tools.lab.lab import Lab

# Hosts and leases change by themselves.
COLLECTIONS = (
    "vms",
    "disks",
    "nics",
    "images",
    "port-groups",
    "security-groups",
    "data-storages",
    "tasks",
    "join-tokens",
    "access-tokens",
)
KEPT_DIRECTORIES = ("/var/lib/kvorum/images", "/var/lib/kvorum/local", "/srv/shared")
COMMANDS_AT_ONCE = 3
BACKGROUND_S = 60.0
COPIES = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API said; `body` is decoded JSON, or text."""

    status: int
    content_type: str
    body: Any

    def problem(self) -> str:
        """Return the detail of a problem document, after holding it to its form."""
        assert self.content_type == "application/problem+json", self
        assert self.body["status"] == self.status, self
        assert {"type", "title", "code", "detail", "request_id"} <= self.body.keys(), self
        detail: str = self.body["detail"]
        assert detail.strip(), self
        assert "\n" not in detail, self
        assert "Traceback" not in detail, self
        return detail


async def ask(
    lab: Lab, host: str, method: str, path: str, body: object = None, *, content: bytes = b""
) -> Answer:
    """Send one request to a host's unix socket as root; `body` as JSON, `content` as it is."""
    sent = json.dumps(body).encode() if body is not None else content
    reply = await api.ask(lab, host, method, path, content=sent)
    return Answer(reply.status, reply.content_type, reply.body)


async def items(lab: Lab, host: str, plural: str) -> list[dict[str, Any]]:
    """Return a collection with everything that was acknowledged anywhere."""
    answer = await ask(lab, host, "GET", f"/v1/{plural}?consistency=strong")
    assert answer.status == 200, answer
    found: list[dict[str, Any]] = answer.body["items"]
    return found


async def settled(lab: Lab) -> None:
    """Wait until each image has its copies and no task is open: what goes on by itself has ended."""

    async def quiet() -> bool:
        images = await items(lab, lab.hosts[0], "images")
        tasks = await items(lab, lab.hosts[0], "tasks")
        copies = min(COPIES, len(lab.hosts))
        return all(len(i["host_ids"]) >= copies for i in images) and all(
            t["ended_ms"] for t in tasks
        )

    await poll(quiet, BACKGROUND_S, every_s=0.3)


async def everything(lab: Lab) -> dict[str, Any]:
    """Return all that a refused request must leave as it was: resources with revisions, and files."""
    host = lab.hosts[0]
    found: dict[str, Any] = {plural: await items(lab, host, plural) for plural in COLLECTIONS}
    for name in lab.hosts:
        found[f"files of {name}"] = files(lab, name)
    return found


def files(lab: Lab, host: str) -> list[str]:
    """Return the files of a host's image store, local disks and shared storage."""
    return sorted(
        str(path)
        for directory in KEPT_DIRECTORIES
        for path in lab.inside(host, directory).rglob("*")
    )


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return what is not the same, for a readable failure."""
    return {
        key: {
            "gone": [item for item in before[key] if item not in after[key]],
            "new": [item for item in after[key] if item not in before[key]],
        }
        for key in before
        if before[key] != after[key]
    }


Command = tuple[str, ...]


async def all_refused(cluster: Cluster, wanted: Mapping[Command, str], *, host: str = "") -> None:
    """Type commands that must be refused, change nothing, and say the text that belongs to each."""
    found = await refusals(cluster, wanted, host=host)
    silent = [
        f"{' '.join(words)[:200]!r} said {found[words].line!r}, not {text!r}"
        for words, text in wanted.items()
        if text not in found[words].line
    ]
    assert not silent, "\n".join(silent)


async def refusals(
    cluster: Cluster, commands: Iterable[Command], *, host: str = ""
) -> dict[Command, Refused]:
    """Type commands that must all be refused with code 1 or 2 and change nothing; return how each was."""
    await settled(cluster.lab)
    before = await everything(cluster.lab)
    gate = asyncio.Semaphore(COMMANDS_AT_ONCE)
    found: dict[Command, Refused] = {}

    async def type_it(words: Command) -> None:
        async with gate:
            found[words] = await cluster.refusal(host or cluster.lab.hosts[0], *words)

    async with asyncio.TaskGroup() as group:
        for words in commands:
            group.create_task(type_it(words), name=" ".join(words))
    assert all(refused.code in (1, 2) for refused in found.values()), found
    assert differences(before, await everything(cluster.lab)) == {}
    return found
