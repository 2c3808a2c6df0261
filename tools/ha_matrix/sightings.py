"""Questions to what the observer saw: when did a disk get, and lose, its writer? Pure.

Times are seconds of the monotonic clock. A sighting is up to one look of the observer (0.1 s) late.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tools.lab.observer import Sighting


def of_disk(sightings: Iterable[Sighting], disk: str, after_s: float = 0.0) -> list[Sighting]:
    """Return the changes of one disk (the end of its path) after a moment, oldest first."""
    return [seen for seen in sightings if seen.path.endswith(disk) and seen.at_s >= after_s]


def ran_at_s(
    sightings: Iterable[Sighting], disk: str, after_s: float, *, hosts: Collection[str]
) -> float | None:
    """Return when, after a moment, the disk was first open for writing on one of these hosts."""
    for seen in of_disk(sightings, disk, after_s):
        if any(holder.host in hosts for holder in seen.holders):
            return seen.at_s
    return None


def gone_at_s(
    sightings: Iterable[Sighting], disk: str, after_s: float, *, host: str
) -> float | None:
    """Return when, after a moment, this host first held the disk no more."""
    for seen in of_disk(sightings, disk, after_s):
        if all(holder.host != host for holder in seen.holders):
            return seen.at_s
    return None


def runs_of(sightings: Iterable[Sighting], disk: str) -> list[str]:
    """Return the hosts of all QEMUs that held the disk, one for each QEMU, in the order they appeared."""
    found: dict[tuple[int, str], str] = {}
    for seen in of_disk(sightings, disk):
        for holder in seen.holders:
            found.setdefault((holder.pid, holder.start), holder.host)
    return list(found.values())


def last_began_s(sightings: Iterable[Sighting], disk: str) -> float:
    """Return when the QEMU that appeared last at the disk was first seen there.

    Raises:
        ValueError: there was none.
    """
    first_s: dict[tuple[int, str], float] = {}
    for seen in of_disk(sightings, disk):
        for holder in seen.holders:
            first_s.setdefault((holder.pid, holder.start), seen.at_s)
    return max(first_s.values())
