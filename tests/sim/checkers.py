"""What must hold in every simulated run, whatever breaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

Entries = Sequence[tuple[bytes, int, int]]  # command, index, term


class History:
    """Watches all machines, leaders and clients of a run; the first violation raises.

    `report` counts what the run reached. `first_applied` is called when an index is applied for the first time anywhere.
    """

    def __init__(self) -> None:
        self._book: dict[int, tuple[str, list[bytes], int]] = {}
        self._leaders: dict[int, str] = {}
        self.acknowledged: set[bytes] = set()
        self.report: Counter[str] = Counter()
        self.first_applied: Callable[[str, int], None] = lambda node, index: None

    def applied(self, node: str, index: int, payloads: list[bytes], digest: int) -> None:
        """State Machine Safety: at one index no two nodes ever apply different entries, after the same ones before."""
        known = self._book.get(index)
        if known is None:
            self._book[index] = (node, payloads, digest)
            self.first_applied(node, index)
            return
        first, expected, expected_digest = known
        assert payloads == expected, f"{node} and {first} differ at index {index}"
        assert digest == expected_digest, f"{node} and {first} differ below index {index}"

    def leads(self, node: str, term: int) -> None:
        """Election Safety: at most one leader a term."""
        other = self._leaders.setdefault(term, node)
        assert other == node, f"{node} and {other} both lead in term {term}"

    def read(self, before: set[bytes], seen: list[bytes]) -> None:
        """A read barrier shows everything that was acknowledged before it was asked for."""
        missing = before - set(seen)
        assert not missing, f"a barrier missed {sorted(missing)[:3]}"

    def check(self, final: list[bytes]) -> None:
        """Nothing acknowledged is lost, and nothing is applied twice."""
        lost = self.acknowledged - set(final)
        assert not lost, f"acknowledged but lost: {sorted(lost)[:3]}"
        twice = [payload for payload, count in Counter(final).items() if count > 1]
        assert not twice, f"applied twice: {twice[:3]}"


def logs_match(a: str, entries_a: Entries, b: str, entries_b: Entries) -> None:
    """Log Matching: two logs with equal terms at an index are equal there and below, as far as both reach."""
    if not entries_a or not entries_b:
        return
    start = max(entries_a[0][1], entries_b[0][1])
    ours, theirs = entries_a[start - entries_a[0][1] :], entries_b[start - entries_b[0][1] :]
    shared = min(len(ours), len(theirs))
    while shared and ours[shared - 1][2] != theirs[shared - 1][2]:
        shared -= 1
    for mine, other in zip(ours[:shared], theirs[:shared], strict=True):
        assert tuple(mine) == tuple(other), f"the logs of {a} and {b} differ at {mine[1]}"


def acknowledged_truly(
    leader: str, follower: str, matched: int, ours: Entries, theirs: Entries
) -> None:
    """A leader believes of a follower only what is true: up to `matched` it has the leader's entries.

    True as long as the follower knows of no later term (Raft's matchIndex).
    """
    if not matched or not ours or not theirs or matched < max(ours[0][1], theirs[0][1]):
        return
    assert matched <= theirs[-1][1], f"{leader} believes {follower} holds {matched}; it doesn't"
    mine, other = ours[matched - ours[0][1]], theirs[matched - theirs[0][1]]
    assert mine[2] == other[2], f"{leader} believes {follower} holds its {matched}; it differs"


def committed_by_quorum(index: int, voters: set[str], holders: set[str]) -> None:
    """An entry is applied only once a majority of the voters has it in its log."""
    assert 2 * len(voters & holders) > len(voters), (
        f"entry {index} was applied, but of the voters {sorted(voters)} only {sorted(holders)} hold it"
    )
