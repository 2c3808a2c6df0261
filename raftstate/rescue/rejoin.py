"""A member that lets go of its copy of the state and follows the cluster anew, as a host that has just joined.

Used by `kvorum recover rejoin` with the agent stopped, and by the agent itself for a replica of an older generation. Identity and
name stay. A voter of the present generation must not simply forget its votes and entries, others count on them: its
vote has to end first (`rejoin_request`), which takes a quorum of the others.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from core.errors import ConflictError, FatalError
from core.member_file import MemberAddress
from core.paths import Paths, write_file
from raftstate.consensus.generation import shown
from raftstate.rescue.known import other_members, read_log, read_record
from raftstate.rescue.state_files import state_files
from raftstate.rescue.swap import swap, work_directory

VERB = "recover rejoin"


class MayRejoin(msgspec.Struct, frozen=True, kw_only=True):
    """A member's answer: the host that asked has no vote in its generation now, and may ask `members` for the state."""

    generation: int
    had_vote: bool
    members: tuple[MemberAddress, ...]


class WantsToRejoin(msgspec.Struct, frozen=True, kw_only=True):
    """What a host says of itself that wants to let go of its state. `generation` 0: it can't read its own."""

    generation: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a host knows before it asks: its generation (0: unknown), what is damaged, and whom it can ask."""

    generation: int
    damage: str
    members: tuple[MemberAddress, ...]


def standing(paths: Paths) -> Standing:
    """Return how this host stands.

    Raises:
        ConflictError: it is no member.
    """
    record = read_record(paths)
    try:
        generation, damage = read_log(paths).generation, ""
    except (ConflictError, FatalError) as error:
        generation, damage = 0, error.message
    return Standing(generation, damage, other_members(paths, record))


def check_answer(standing: Standing, answer: MayRejoin) -> None:
    """Raise ConflictError if the host that answered lives in an older generation than this one."""
    if answer.generation < standing.generation:
        raise ConflictError(
            f"the member that answered is of generation {shown(answer.generation)}, this host of "
            f"{shown(standing.generation)}: it is that member which has to rejoin"
        )


def begin_to_follow(paths: Paths, members: Iterable[MemberAddress], *, when: str) -> Path | None:
    """Move this host's state aside, and have it follow `members` from the agent's next start on. All or nothing.

    Returns where the old files are.

    Raises:
        FatalError: it can't be written.
    """
    record = read_record(paths)
    others = tuple(member for member in members if member.id != record.host_id)
    record = msgspec.structs.replace(record, founder=False, members=others)
    work = work_directory(paths.state)
    write_file(work / paths.member_file.name, msgspec.json.encode(record))
    old = (*state_files(paths), paths.member_file.name)
    return swap(paths.state, verb=VERB, when=when, old=old, new=(paths.member_file.name,))


def follow_anew(paths: Paths, *, when: str) -> None:
    """Let go of a replica's copy of an older generation: it voted for nothing, so nothing is lost.

    Raises:
        FatalError: it can't be written.
    """
    record = read_record(paths)
    kept = begin_to_follow(paths, other_members(paths, record), when=when)
    if kept is not None:
        shutil.rmtree(kept, ignore_errors=True)
