"""What a rule of `ha.health` gives: findings, each with how bad it is, where, what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum

import msgspec

from ha.health_facts import ClusterFacts
from ha.health_votes import Votes


class Level(StrEnum):
    """How bad a finding is. `NOTICE`: good to know, nothing is wrong. `DEGRADED`: it works, but a failure may not be
    taken, or something was lost already. `FAILING`: changes, or VMs, don't go on."""

    NOTICE = "notice"
    DEGRADED = "degraded"
    FAILING = "failing"


class Verdict(StrEnum):
    """The worst that was found; notices don't count."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILING = "failing"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, or good to know. `host_name` is empty when it is about the cluster. `code` stays."""

    severity: Level
    code: str
    what: str
    advice: str
    host_name: str = ""


Rule = Callable[[ClusterFacts, Votes], Iterable[Finding]]


def plural(count: int, word: str) -> str:
    """Return `1 VM` or `2 VMs`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def listed(names: Iterable[str]) -> str:
    """Return names in order, with commas between."""
    return ", ".join(sorted(names))
