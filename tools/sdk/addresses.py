"""Which agents may be asked: those that were named, those that the cluster told of, and whose turn it is.

The transport asks the present one and moves on when it fails. What was learned of a cluster is kept in a file, so that a
program that was told one address still finds the cluster when that host is gone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from core.clock import Clock
from core.errors import InvalidError
from tools.sdk.endpoints import Endpoint, parse_endpoints

LEARNED_MAX = 64
FILE_BYTES_MAX = 64 * 1024
OTHERS_MAY_WRITE = 0o022


class Addresses:
    """The agents' addresses. Those that were named come first and are never dropped: they may be names or a moving address."""

    def __init__(self, named: Sequence[Endpoint], learned: Iterable[Endpoint] = ()) -> None:
        self._named = tuple(named)
        self._all = self._named
        self._at = 0
        self.learn(learned)

    @property
    def all(self) -> tuple[Endpoint, ...]:
        """Every agent that may be asked."""
        return self._all

    @property
    def current(self) -> Endpoint:
        """The agent that is asked next."""
        return self._all[self._at]

    def leave(self, failed: Endpoint) -> None:
        """Go on to the next, unless another request has done so already."""
        if self.current == failed:
            self._at = (self._at + 1) % len(self._all)

    def learn(self, found: Iterable[Endpoint]) -> bool:
        """Replace what was learned before; the present agent stays the present one. Tell whether anything is new."""
        current, before = self.current, self._all
        known = dict.fromkeys((*self._named, *found))
        self._all = tuple(known)[: len(self._named) + LEARNED_MAX]
        if current not in self._all:
            self._all = (*self._all, current)
        self._at = self._all.index(current)
        return self._all != before


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of addresses holds."""

    agents: tuple[str, ...]
    at_ms: int


@dataclass(frozen=True, slots=True)
class AddressFile:
    """What was learned of one cluster, in a file of the user. It holds no secret; who reads it wrong is refused by TLS."""

    path: Path
    clock: Clock

    def load(self) -> tuple[tuple[Endpoint, ...], float]:
        """Return the addresses and their age in seconds; none, infinitely old, when there is no usable file."""
        nothing: tuple[tuple[Endpoint, ...], float] = ((), float("inf"))
        try:
            found = self.path.stat()
            if found.st_uid != os.geteuid() or found.st_mode & OTHERS_MAY_WRITE:
                return nothing
            with self.path.open("rb") as opened:
                kept = msgspec.json.decode(opened.read(FILE_BYTES_MAX), type=Remembered)
            agents = parse_endpoints(",".join(kept.agents)) if kept.agents else ()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, InvalidError):
            return nothing
        age_s = (self.clock.wall_ms() - kept.at_ms) / 1000
        remote = tuple(agent for agent in agents if not agent.local)
        return remote, age_s if age_s >= 0 else float("inf")

    def save(self, agents: Iterable[Endpoint]) -> None:
        """Keep the addresses; where nothing can be written, nothing is kept."""
        names = tuple(f"{agent}" for agent in agents if not agent.local)
        content = msgspec.json.encode(Remembered(agents=names, at_ms=self.clock.wall_ms()))
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(content)
            fresh.replace(self.path)
        except OSError:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)


def address_file(
    directory: Path, named: Sequence[Endpoint], ca_file: str, clock: Clock
) -> AddressFile:
    """Return the file of the cluster that these addresses and this authority mean."""
    about = "\n".join((ca_file, *(str(endpoint) for endpoint in named)))
    name = hashlib.sha256(about.encode()).hexdigest()[:24]
    return AddressFile(directory / f"agents-{name}.json", clock)
