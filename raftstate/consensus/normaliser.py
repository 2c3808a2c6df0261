"""Raft's receiver rules for AppendEntries (§5.3), done before PySyncObj sees the message.

PySyncObj truncates its log whenever a message ends before it, matching or not, and so loses acknowledged entries when
a leader repeats itself. Here everything already held is taken out of the message, only what was verified against the
leader's log is acknowledged, and the commit index never reaches beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import FatalError
from raftstate.consensus.journal import Journal
from raftstate.consensus.messages import Append, Entry


@dataclass(frozen=True, slots=True)
class Plan:
    """What PySyncObj is told, and what to acknowledge: `next`, or with `back_to` how far the leader must go back."""

    previous: tuple[int, int] | None
    entries: list[Entry]
    commit: int
    next: int | None = None
    back_to: int | None = None


def normalise(append: Append, journal: Journal, committed: int) -> Plan:
    """Return the harmless equivalent of `append`.

    Raises:
        FatalError: it contradicts an entry that was committed.
    """
    if append.previous is None:
        return Plan(None, append.entries, append.commit)
    (index, term), entries = append.previous, append.entries
    end = index + len(entries)
    if index < journal.first():  # below our snapshot everything was committed, so it matches
        if end < journal.first():
            return verified(journal, end, append.commit)
        entries = [entry for entry in entries if entry[1] > journal.first()]
        index = journal.first()
        term = journal.term_at(index) or 0
    if (held := journal.term_at(index)) != term:
        if held is None:
            # A gap. Our own tail may be wrong too, and the messages behind a refused one all find a gap: an answer
            # that names our last entry would take back, for ever, what the refusal asked for.
            return Plan((index, term), entries, append.commit, back_to=committed + 1)
        if index <= committed:
            raise FatalError(_contradiction(index))
        back_to = max(committed + 1, journal.first_of_term(index))
        return Plan((index, term), entries, append.commit, back_to=back_to)
    known = 0
    while known < len(entries) and journal.term_at(entries[known][1]) == entries[known][2]:
        known += 1
    if known:
        index, term = entries[known - 1][1], entries[known - 1][2]
        entries = entries[known:]
    if not entries and index < journal.last():
        return verified(journal, end, append.commit)
    if entries and entries[0][1] <= committed:
        raise FatalError(_contradiction(entries[0][1]))
    return Plan((index, term), entries, min(append.commit, end), next=end + 1)


def verified(journal: Journal, end: int, commit: int) -> Plan:
    """Return a heartbeat at our own last entry, which truncates nothing, where only `end` was verified."""
    return Plan((journal.last(), journal.last_term()), [], min(commit, end), next=end + 1)


def _contradiction(index: int) -> str:
    return (
        f"the leader's log contradicts the committed entry {index}; this must never happen: "
        "keep the raft directories of all hosts and report it"
    )
