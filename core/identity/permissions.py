"""What a set of permissions allows, and the three roles that always exist. Pure.

Used by the API for every request, and whenever somebody hands out rights.
"""

from __future__ import annotations

from collections.abc import Iterable

from core.model import Permission, Role

ANY = "*"
READ, CREATE, CHANGE, DELETE, OPERATE = "read", "create", "change", "delete", "operate"
ACTIONS = (READ, CREATE, CHANGE, DELETE, OPERATE)

WORKLOAD_KINDS = ("vm", "image", "disk", "nic", "port-group", "security-group", "task")
"""What an operator works with."""

INFRASTRUCTURE_KINDS = (
    "data-center",
    "cluster",
    "host",
    "data-storage",
    "image-storage",
    "distributed-switch",
    "event",
)
"""What everybody who is let in may look at, and only an administrator changes."""

GUARDED_KINDS = (
    "account",
    "role",
    "session",
    "access-token",
    "access-key",
    "join-token",
    "audit",
    "state",
    "api-certificate",
    "secrets-key",
    "callback-key",
)
"""What only an administrator may even look at."""

VIEWER = Role(
    id="viewer",
    name="viewer",
    description="looks at everything but identities, tokens and audits",
    permissions=(Permission(kinds=WORKLOAD_KINDS + INFRASTRUCTURE_KINDS, actions=(READ,)),),
)
OPERATOR = Role(
    id="operator",
    name="operator",
    description="runs VMs with their images, disks and networks",
    permissions=(*VIEWER.permissions, Permission(kinds=WORKLOAD_KINDS, actions=ACTIONS)),
)
ADMIN = Role(
    id="admin",
    name="admin",
    description="may do everything",
    permissions=(Permission(kinds=(ANY,), actions=(ANY,)),),
)
BUILT_IN = {role.id: role for role in (ADMIN, OPERATOR, VIEWER)}


def allows(held: Iterable[Permission], kind: str, action: str) -> bool:
    """Tell whether permissions allow an action on a kind. `*` is only allowed by `*`."""
    return any(
        (ANY in p.kinds or kind in p.kinds) and (ANY in p.actions or action in p.actions)
        for p in held
    )


def covers(held: Iterable[Permission], given: Iterable[Permission]) -> bool:
    """Tell whether whoever holds some permissions may hand out others: nobody gives what they don't have."""
    held = tuple(held)
    return all(
        allows(held, kind, action) for p in given for kind in p.kinds for action in p.actions
    )
