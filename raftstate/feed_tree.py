"""Who feeds whom: a tree over all replicas, computed by each host for itself. Pure; `nodeagent.services.feed_follower` calls it.

Committed entries go from the voters, the roots, down to every replica. Each host works its parent out from what all
know, the ids of the hosts, so nobody assigns anything and nothing is agreed on.

Every replica has a hash, made from its id alone. One part of it is its *rank*: a parent's rank is always the smaller
one, so there is no cycle, whatever two hosts think of who is alive. The rest are digits below `fan_out`. The replicas
with the same first digit form a group; the one of the lowest rank heads it and is fed by a root, and the others of the
group are divided by their next digit into groups below that head, and so on (a treap that branches by digits). So nobody
feeds more than `fan_out`, the depth is about log_fan_out(hosts), and a host that comes or goes moves only those on one
path below it: on average one or two hosts, where positions in a sorted list would move every sixteenth. The first digit
chooses the root, too, so a change of voters moves only the heads of the first groups.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from functools import lru_cache

from raftstate.consensus.engine import NodeId

FAN_OUT = 16
RANK_BITS = 64
HOSTS_REMEMBERED = 1 << 16


def parents(
    me: NodeId,
    *,
    voters: Collection[NodeId],
    leader: NodeId | None,
    replicas: Collection[NodeId],
    alive: Collection[NodeId],
    fan_out: int = FAN_OUT,
) -> tuple[NodeId, ...]:
    """Return from whom `me` takes its feed, best first; nothing for a voter.

    First the own parent, then its parent and so on up to the root, then the other roots: voters that don't lead before
    the leader, and voters that seem dead at the very end, because `alive` is a hint.
    """
    if me in voters:
        return ()
    group = [r for r in replicas if (r in alive or r == me) and r not in voters]
    if me not in replicas:
        group.append(me)
    line = _line(me, group, fan_out)
    roots = _roots(voters, leader, alive)
    if not roots:
        return tuple(reversed(line))
    first = _digits(me) % fan_out % _spared(roots, leader)
    roots = (roots[first], *roots[:first], *roots[first + 1 :])
    return (*reversed(line), *roots)


def _line(me: NodeId, group: list[NodeId], fan_out: int) -> list[NodeId]:
    """Return the heads of the groups that `me` is in, the outermost first."""
    line: list[NodeId] = []
    mine = _digits(me)
    step = 1
    while True:
        digit = mine // step % fan_out
        group = [r for r in group if _digits(r) // step % fan_out == digit]
        head = min(group, key=_rank)
        if head == me:
            return line
        line.append(head)
        group.remove(head)
        step *= fan_out


def _roots(
    voters: Collection[NodeId], leader: NodeId | None, alive: Collection[NodeId]
) -> tuple[NodeId, ...]:
    """Return the voters in the order of preference."""
    return tuple(sorted(voters, key=lambda v: (v not in alive, v == leader, v)))


def _spared(roots: Sequence[NodeId], leader: NodeId | None) -> int:
    """Return how many roots share the replicas: all that come before the leader, so that it is spared; at least one."""
    return roots.index(leader) or 1 if leader in roots else len(roots)


def _rank(id_: NodeId) -> tuple[int, str]:
    return _hash(id_) & ((1 << RANK_BITS) - 1), id_


def _digits(id_: NodeId) -> int:
    return _hash(id_) >> RANK_BITS


@lru_cache(maxsize=HOSTS_REMEMBERED)
def _hash(id_: NodeId) -> int:
    return int.from_bytes(hashlib.blake2b(id_.encode(), digest_size=32).digest(), "big")
