"""Tells the engine from whom this host takes the log while it doesn't vote: `raftstate.feed_tree`, kept up to date.

Every host runs it, because any may lose its vote. It only names hosts; links, repetition and order are the engine's.
"""

from __future__ import annotations

import asyncio

from core.model import Host
from nodeagent.joining.doorkeeper import peer_of
from nodeagent.node import Node
from nodeagent.services.member_states import alive_hosts
from raftstate.consensus.engine import NodeId, Peer
from raftstate.feed_tree import parents

ROUND_S = 1.0


class FeedFollower:
    """Keeps the engine's list of parents true."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._hosts: list[Host] = []
        self._seen: object = None
        self._told: tuple[Peer, ...] | None = None

    async def run(self) -> None:
        """Look once a second until cancelled; work is done only when something changed."""
        watch = self._node.store.watch(Host)
        self._hosts = self._node.store.all(Host)
        try:
            while True:
                self._follow()
                try:
                    async with asyncio.timeout(ROUND_S):
                        await watch.next()
                    self._hosts, self._seen = self._node.store.all(Host), None
                except TimeoutError:
                    continue
        finally:
            self._node.store.unwatch(watch)

    def _follow(self) -> None:
        engine, me = self._node.engine, NodeId(self._node.host_id)
        voters, leader = engine.voters(), engine.leader()
        seen = (voters, leader, engine.connected(), self._node.membership.version)
        if seen == self._seen:
            return
        self._seen = seen
        alive = alive_hosts(self._node, self._hosts)
        places = {NodeId(host.id): peer_of(host) for host in self._hosts}
        ids = frozenset(peer.id for peer in voters)
        line = parents(me, voters=ids, leader=leader, replicas=places.keys() - ids, alive=alive)
        known: dict[NodeId, Peer] = {**places, **{peer.id: peer for peer in voters}}
        told = tuple(known[id_] for id_ in line)
        if told != self._told:
            self._told = told
            engine.follow(told)
