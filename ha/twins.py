"""Notices a host that exists twice, as when its disk was copied: two boots of it want its lease side by side.

A host that rebooted is refused for a few seconds at most (`ha.lease.BOOT_CHANGE_S`), a copy again and again. Used by the
leader's `nodeagent.services.lease_relay`; the copy gets no lease in any case.
"""

from __future__ import annotations

from dataclasses import dataclass

REFUSED_S_MIN = 10.0
GAP_S_MAX = 10.0
TELL_AGAIN_S = 600.0
CODES = frozenset({"two-boots", "former-boot"})


@dataclass(slots=True)
class _Refused:
    first_s: float
    last_s: float


class Twins:
    """Times are monotonic seconds. What it knows of a boot that no longer asks is forgotten."""

    def __init__(self) -> None:
        self._refused: dict[tuple[str, str], _Refused] = {}
        self._told_s: dict[str, float] = {}

    def refused(self, host_id: str, boot_id: str, now_s: float) -> bool:
        """Note that a boot of a host was refused beside another; True when that is to be told now."""
        self._refused = {
            key: found for key, found in self._refused.items() if now_s - found.last_s < GAP_S_MAX
        }
        found = self._refused.setdefault((host_id, boot_id), _Refused(now_s, now_s))
        found.last_s = now_s
        if now_s - found.first_s < REFUSED_S_MIN:
            return False
        if now_s - self._told_s.get(host_id, -TELL_AGAIN_S) < TELL_AGAIN_S:
            return False
        self._told_s[host_id] = now_s
        return True
