"""The two small files of the guard: what the agent tells it, and what it remembers within one boot.

`guard.json` is written by the agent (atomically, by rename) and reread when it changes. `guard-state.json` lives on a
file system that a reboot empties; it also names the boot, so that a leftover of another boot is not believed.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ha.guard.lease_clock import Grant, LeaseClock, Phase

log = logging.getLogger(__name__)

LEASE_S_MIN, LEASE_S_MAX = 1.0, 600.0
MESH_PORT = 7444


@dataclass(frozen=True, slots=True)
class Peer:
    """An agent of another host that can pass a renewal on."""

    id: str
    address: str
    port: int = MESH_PORT


@dataclass(frozen=True, slots=True)
class Settings:
    """What the agent wants of the guard. `watchdog_s` 0 means: arm none. `disarm`: the end of the lease shall kill nothing."""

    host_id: str
    lease_s: float
    watchdog_s: float
    peers: tuple[Peer, ...]
    disarm: bool = False

    @property
    def renew_s(self) -> float:
        """Return how often to renew, in seconds: once a second, faster only for leases shorter than 6 s."""
        return min(1.0, self.lease_s / 6)

    @property
    def attempt_s(self) -> float:
        """Return how long one attempt may take, in seconds."""
        return min(2.0, self.lease_s / 5)


def parse_settings(text: str) -> Settings:
    """Read the content of guard.json.

    Raises:
        ValueError: not JSON, a field is missing, or a number is out of bounds.
    """
    found = json.loads(text)
    try:
        settings = Settings(
            host_id=str(found["host_id"]),
            lease_s=float(found["lease_s"]),
            watchdog_s=float(found.get("watchdog_s", 0)),
            peers=tuple(
                Peer(str(peer["id"]), str(peer["address"]), int(peer.get("port", MESH_PORT)))
                for peer in found.get("peers", ())
            ),
            disarm=found.get("disarm", False) is True,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"field missing or of a wrong type: {error}") from None
    if not settings.host_id or not LEASE_S_MIN <= settings.lease_s <= LEASE_S_MAX:
        raise ValueError(
            f"host_id is empty, or lease_s is not within {LEASE_S_MIN:g}..{LEASE_S_MAX:g}"
        )
    if not 0 <= settings.watchdog_s <= LEASE_S_MAX:
        raise ValueError(f"watchdog_s is not within 0..{LEASE_S_MAX:g}")
    return settings


class SettingsFile:
    """guard.json, reread when it changes. A broken file keeps the settings that were; an absent one means none."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self.settings: Settings | None = None

    def reload(self) -> bool:
        """Look at the file; True when the settings changed."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            changed = self.settings is not None
            self.settings, self._seen = None, None
            return changed
        except OSError as error:
            log.error("%s cannot be read: %s", self._path, error)
            return False
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            with open(self._path, encoding="utf-8") as file:
                settings = parse_settings(file.read())
        except (OSError, ValueError) as error:
            log.error("%s is not usable, keeping the former settings: %s", self._path, error)
            return False
        changed = settings != self.settings
        self.settings = settings
        return changed


def write_state(path: str, boot_id: str, clock: LeaseClock) -> None:
    """Save the lease, so that a guard that has to start again in this boot goes on where the former one ended."""
    text = json.dumps(
        {
            "boot_id": boot_id,
            "epoch_s": clock.epoch_s,
            "phase": clock.phase,
            "deadline_s": clock.deadline_s,
            "lease_s": clock.lease_s,
            "first_index": clock.first_index,
            "renewed_index": clock.renewed_index,
            "kept_s": clock.kept_s,
            "watchdog_s": clock.watchdog_s,
            "enforced": clock.enforced,
            "grants": {
                vm: [grant.generation, grant.lease_bound] for vm, grant in clock.grants.items()
            },
            "highest": clock.highest,
        }
    )
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".new", path)


def read_state(path: str, boot_id: str, now_s: float) -> LeaseClock:
    """Return the lease of this boot as last saved, or a new one that holds nothing."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        if found["boot_id"] == boot_id:
            return _lease_of(found)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.error("%s is not usable, beginning without a lease: %s", path, error)
    return LeaseClock(epoch_s=now_s)


def _lease_of(state: Mapping[str, Any]) -> LeaseClock:
    return LeaseClock(
        epoch_s=float(state["epoch_s"]),
        phase=Phase(state["phase"]),
        deadline_s=float(state["deadline_s"]),
        lease_s=float(state["lease_s"]),
        first_index=int(state["first_index"]),
        renewed_index=int(state["renewed_index"]),
        grants={vm: Grant(int(grant[0]), bool(grant[1])) for vm, grant in state["grants"].items()},
        highest={vm: int(generation) for vm, generation in state["highest"].items()},
        kept_s=float(state.get("kept_s", state["lease_s"])),
        watchdog_s=float(state.get("watchdog_s", 0)),
        enforced=state.get("enforced", True) is not False,
    )
