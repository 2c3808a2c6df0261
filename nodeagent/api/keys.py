"""Typed keys under which the aiohttp application keeps what handlers need."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from core.member_file import MemberRecord
from nodeagent.joining.messages import JoinAnswer
from nodeagent.node import Node
from nodeagent.services.services import Services


class Agent(Protocol):
    """The part of `nodeagent.lifecycle.Lifecycle` that handlers use."""

    @property
    def node(self) -> Node | None: ...

    @property
    def services(self) -> Services | None: ...

    async def init(self, *, cluster_name: str, host_name: str, address: str) -> MemberRecord: ...

    async def join(
        self, *, token: str, host_name: str, address: str, witness: bool = False
    ) -> MemberRecord: ...

    async def leave(self, *, force: bool, confirm: str, audit_id: str = "") -> MemberRecord: ...


AGENT: web.AppKey[Agent] = web.AppKey("agent", Agent)

__all__ = ["AGENT", "Agent", "JoinAnswer"]
