"""The API without TLS, for operators who switch it on: on one address and port of theirs, and with loud warnings.

Off unless `[plain_http]` of the settings names a place. Whoever can listen on the way there reads passwords, tokens and
everything else; what it means is in docs/certificates.md. Made by `nodeagent.lifecycle`; the warning is a service of the member.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from typing import Annotated

import msgspec

from core.member_file import bracketed
from core.mesh.doorway import Doorway
from core.model import Severity
from nodeagent.api.serving import Front
from nodeagent.node import Node
from nodeagent.services.catching_up import caught_up
from nodeagent.services.event_log import EventLog

log = logging.getLogger(__name__)

CODE = "plain-http"


class PlainHttp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[plain_http]` of the settings. `address` is one address of this host: not "all of them", which nobody overlooks."""

    address: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]

    def __post_init__(self) -> None:
        if ipaddress.ip_address(self.address).is_unspecified:
            raise ValueError(f"{self.address} is every address of the host: name one")

    @property
    def url(self) -> str:
        """Where it is served."""
        return f"http://{bracketed(self.address)}:{self.port}"

    @property
    def warning(self) -> str:
        """What operators are told."""
        return (
            f"the API is served without TLS on {self.url}: passwords and tokens can be read on the way there; "
            "to end that, remove [plain_http] from agent.toml and restart the agent"
        )


def open_plain(front: Front, plain: PlainHttp) -> Doorway | None:
    """Listen, and say so loudly; None when the place can't be had, which must not keep the rest from working."""
    try:
        door = front.open(plain.address, plain.port, None)
    except OSError as error:
        log.error("can't serve plain HTTP", extra={"url": plain.url, "error": error.strerror})
        return None
    log.warning("the API is served WITHOUT TLS", extra={"url": plain.url})
    return door


class PlainHttpWarning:
    """An event of the host at each start of its agent."""

    def __init__(self, node: Node, plain: PlainHttp) -> None:
        self._node, self._plain = node, plain

    async def run(self) -> None:
        """Record it once there is a quorum to record it, then do nothing until cancelled."""
        await caught_up(self._node.store)
        events = EventLog(self._node)
        await events.record(CODE, self._node.host(), self._plain.warning, severity=Severity.WARNING)
        await asyncio.Event().wait()
