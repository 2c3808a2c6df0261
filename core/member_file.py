"""`member.json`: what a host that is a member knows of itself before it has opened its state.

Written by joining and leaving (`nodeagent.lifecycle`), and by recovery, which works without an agent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from core.attributes import CLUSTER, attribute
from core.errors import FatalError


class MemberAddress(msgspec.Struct, frozen=True, kw_only=True):
    """A member as a new host must know it. `address` is an IP address."""

    id: Annotated[str, attribute("The host's id.", by=CLUSTER)]
    name: Annotated[str, attribute("Its name.", by=CLUSTER)]
    address: Annotated[str, attribute("Its IP address.", by=CLUSTER)]
    mesh_port: Annotated[int, attribute("TCP port of the mesh.", by=CLUSTER)]


class MemberRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A host that has it is a member, or goes on becoming one after a crash. `members` are those to ask for the state."""

    host_id: str
    host_name: str
    address: str
    cluster_name: str
    api_port: int
    mesh_port: int
    founder: bool
    members: tuple[MemberAddress, ...]
    witness: bool = False


def read_member_file(path: Path) -> MemberRecord | None:
    """Return what the file says, None if there is none.

    Raises:
        FatalError: it is damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=MemberRecord)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FatalError(f"{path} is damaged ({error}): restore it") from None


def bracketed(address: str) -> str:
    """Return an IP address as it stands in front of a port."""
    return f"[{address}]" if ":" in address else address
