"""Which member of a set a key belongs to: the same answer on every host, and as little movement as can be.

Used to choose the agent that does the work on a resource which lives on no host (`core.bus`), and the hosts that hold
copies of an image. Rendezvous hashing ("highest random weight", Thaler and Ravishankar, 1998): each member has a
pseudo-random score for the key and the highest wins. Against a ring of virtual nodes: a member that comes takes
exactly the keys it wins, one that goes gives up exactly its own, spread evenly over all others; there is no table to
build and no number of virtual nodes to tune; and the runner-up, who takes over when the owner dies, is known too.
The price is one hash a member for a look-up: about 7 ms when there are 10,000 members.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

# Hosts of all versions must agree: changing the scheme moves every key, so it would need a new feature level.
PERSON = b"kvorum-ring-v1"
SCORE_BYTES = 8


class Ring:
    """A fixed set of members; make a new one when the set changes."""

    def __init__(self, members: Iterable[str]) -> None:
        """`members` in any order; repeated ones count once."""
        self._members = tuple(sorted(set(members)))

    @property
    def members(self) -> tuple[str, ...]:
        """The members in the order of their names."""
        return self._members

    def owner(self, key: str) -> str | None:
        """Return the member that a key belongs to; None when there are no members."""
        return max(self._members, key=lambda member: (score(key, member), member), default=None)

    def in_order(self, key: str) -> list[str]:
        """Return all members, the owner first, then whoever owns the key once those before are gone."""
        return sorted(self._members, key=lambda member: (score(key, member), member), reverse=True)


def score(key: str, member: str) -> int:
    """Return the 64-bit score of a member for a key: a function of the two only, in every process and version."""
    member_bytes = member.encode()
    # The length keeps ("a", "bc") and ("ab", "c") apart.
    message = len(member_bytes).to_bytes(4, "big") + member_bytes + key.encode()
    return int.from_bytes(blake2b(message, digest_size=SCORE_BYTES, person=PERSON).digest(), "big")
