"""The allocator of the example: fills hosts up one after the other, so that others can be switched off."""

from __future__ import annotations

from ha.placement import Candidate, PlacementRequest


def least_memory_free(request: PlacementRequest, candidates: tuple[Candidate, ...]) -> str:
    """Return the host with the least room among those that can take the VM."""
    del request
    return min(candidates, key=lambda candidate: candidate.free_mib).host.id
