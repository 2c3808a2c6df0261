"""Which files of a host are its copy of the replicated state: the log, and the database with its side files."""

from __future__ import annotations

from core.paths import Paths


def state_files(paths: Paths) -> tuple[str, ...]:
    """Return their names in the state directory, as they are there now."""
    found = (paths.raft, *sorted(paths.state.glob(f"{paths.database.name}*")))
    return tuple(path.name for path in found if path.exists())
