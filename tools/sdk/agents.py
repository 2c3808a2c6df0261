"""How a client learns where the cluster's agents are: from the hosts that any of them lists.

Asked by the transport, beside what programs ask. Credentials that may not list hosts learn nothing, and use the addresses
they were given.
"""

from __future__ import annotations

import msgspec

from core.errors import InvalidError
from tools.sdk.addresses import LEARNED_MAX
from tools.sdk.endpoints import DEFAULT_PORT, Endpoint, parse_endpoints

FRESH_S = 60.0
ASK_TIMEOUT_S = 2.0


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """A host, as far as it matters here."""

    address: str = ""
    api_port: int = DEFAULT_PORT


class Agents(msgspec.Struct, frozen=True, kw_only=True):
    """The answer."""

    items: tuple[Agent, ...] = ()


def agents_query() -> tuple[tuple[str, str], ...]:
    """Return what to ask `GET /v1/hosts` for."""
    return (
        ("q", "state=member"),
        ("q", "joining=false"),
        ("fields", "address,api_port"),
        ("sort", "id"),  # of many hosts, some that have nothing in common
        ("limit", str(LEARNED_MAX)),
    )


def agents_of(body: bytes) -> tuple[Endpoint, ...]:
    """Return the agents that an answer names; what makes no sense is left out."""
    try:
        found = msgspec.json.decode(body, type=Agents).items
    except msgspec.DecodeError:
        return ()
    agents: list[Endpoint] = []
    for agent in found:
        host = f"[{agent.address}]" if ":" in agent.address else agent.address
        try:
            agents += parse_endpoints(f"{host}:{agent.api_port}") if host else ()
        except InvalidError:
            continue
    return tuple(agent for agent in agents if not agent.local)
