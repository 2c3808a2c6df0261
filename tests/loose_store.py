"""A store that takes relations to nothing, for tests of what lies below relations, and for states of former versions."""

from raftstate.store import Store


class LooseStore(Store):
    """Leaves out what the store holds relations to."""

    def _related(self, puts, deletes) -> dict[str, int]:
        del puts, deletes
        return {}
