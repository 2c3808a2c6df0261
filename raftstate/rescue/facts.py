"""The facts that an operator compares between survivors before one of them is made the cluster: `kvorum recover show`.

Raft's own rule decides between survivors: whoever has the higher term in the last entry, then the higher index, holds
everything acknowledged that any of them holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from core.errors import InvalidError
from core.member_file import MemberRecord
from core.paths import Paths
from raftstate.rescue.known import applied_index, known_hosts, read_log, read_record


class Voter(msgspec.Struct, frozen=True, kw_only=True):
    """A voter as this host's log names it; `name` is empty if the state doesn't know it."""

    id: str
    name: str
    address: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a stopped host holds. `last_term` and `index` are of the last entry in its log, committed or not."""

    host_id: str
    host_name: str
    cluster_name: str
    generation: int
    term: int
    last_term: int
    index: int
    applied: int
    snapshot: int
    voters: tuple[Voter, ...]
    votes: bool
    written_ms: int
    members: dict[str, str] = {}

    @property
    def rank(self) -> tuple[int, int, int]:
        """What decides between survivors of one cluster."""
        return (self.generation, self.last_term, self.index)


def facts_of(paths: Paths) -> Facts:
    """Return the facts of this host.

    Raises:
        ConflictError: it is no member, or holds no state.
        FatalError: its files are damaged.
    """
    return _facts(paths, read_record(paths))


def _facts(paths: Paths, record: MemberRecord) -> Facts:
    log = read_log(paths)
    names = {host.id: host.name for host in known_hosts(paths)}
    applied = applied_index(paths)
    voters = log.members.latest()
    return Facts(
        host_id=record.host_id,
        host_name=record.host_name,
        cluster_name=record.cluster_name,
        generation=log.generation,
        term=log.term,
        last_term=log.last_term,
        index=log.last_index,
        applied=log.snapshot.machine_applied if applied is None else applied,
        snapshot=log.snapshot.index,
        voters=tuple(
            Voter(id=peer.id, name=names.get(peer.id, ""), address=peer.address) for peer in voters
        ),
        votes=any(peer.id == record.host_id for peer in voters),
        written_ms=int(log.written_s * 1000),
        members=names,
    )


def read_facts(files: Iterable[Path]) -> list[Facts]:
    """Return the facts that other survivors printed with `kvorum recover show -o json`.

    Raises:
        InvalidError: a file isn't that.
    """
    found = []
    for file in files:
        try:
            found.append(msgspec.json.decode(file.read_bytes(), type=Facts))
        except OSError as error:
            raise InvalidError(f"can't read {file}: {error.strerror}") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise InvalidError(f"{file} is no output of 'kvorum recover show -o json'") from None
    return found


def best_of(facts: Iterable[Facts]) -> Facts:
    """Return the survivor to begin anew from; of equal ones, the first.

    Raises:
        InvalidError: they aren't of one cluster.
    """
    survivors = list(facts)
    clusters = sorted({one.cluster_name for one in survivors})
    if len(clusters) > 1:
        raise InvalidError(f"these survivors are of different clusters: {', '.join(clusters)}")
    return max(survivors, key=lambda one: one.rank)
