"""What must hold in every simulated run, whatever breaks."""

from collections import Counter


class History:
    """Watches all machines and clients of a run; the first violation raises."""

    def __init__(self) -> None:
        self._book: dict[int, tuple[str, list[bytes]]] = {}
        self.acknowledged: set[bytes] = set()

    def applied(self, node: str, index: int, payloads: list[bytes]) -> None:
        """State Machine Safety: no two nodes ever apply different entries at one index."""
        first, expected = self._book.setdefault(index, (node, payloads))
        assert payloads == expected, f"{node} and {first} differ at index {index}"

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
