"""What a set of permissions allows, and the three roles that always exist. Pure.

Used by the API for every request, and whenever somebody hands out rights.

An action may be limited to resources that carry a tag: `operate@env=test`. The limit is part of the action's text, so an
agent of a version that knows no limits takes it for an action that nobody ever asks for, and allows less, not more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from core.model import KINDS, Permission, Role, Tagged

ANY = "*"
READ, CREATE, CHANGE, DELETE, OPERATE = "read", "create", "change", "delete", "operate"
ACTIONS = (READ, CREATE, CHANGE, DELETE, OPERATE)

WORKLOAD_KINDS = (
    "vm",
    "image",
    "disk",
    "snapshot",
    "nic",
    "port-group",
    "security-group",
    "placement-rule",
    "task",
)
"""What an operator works with."""

INFRASTRUCTURE_KINDS = (
    "data-center",
    "cluster",
    "host",
    "bmc",
    "data-storage",
    "image-storage",
    "distributed-switch",
    "event",
    "drill",
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
    "workflow",
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


def is_limitable(kind: str) -> bool:
    """Tell whether a right to a kind may be limited by a tag. Kinds of plug-ins come later, so this is asked each time."""
    type_ = KINDS.get(kind)
    return type_ is not None and issubclass(type_, Tagged) and kind not in GUARDED_KINDS


def split_action(text: str) -> tuple[str, str]:
    """Return an action and the tag it is limited to, which is empty when it isn't."""
    action, _, tag = text.partition("@")
    return action, tag


def limits(held: Iterable[Permission], kind: str, action: str) -> frozenset[str] | None:
    """Return the tags of which a resource of the kind must carry one for the action; None: it may be done to all.

    An empty set: it may be done to none. `*` as a kind or action is only allowed by `*`. A right that is limited to a
    tag never allows to create: what is new carries none yet.
    """
    tags: set[str] = set()
    for permission in held:
        if ANY not in permission.kinds and kind not in permission.kinds:
            continue
        for text in permission.actions:
            allowed, at, tag = text.partition("@")
            if allowed not in (ANY, action):
                continue
            if not at:
                return None
            if is_limitable(kind) and action not in (CREATE, ANY):
                tags.add(tag)
    return frozenset(tags)


def allows(held: Iterable[Permission], kind: str, action: str, tags: Collection[str] = ()) -> bool:
    """Tell whether permissions allow an action on a kind, or on a resource of it that carries these tags."""
    wanted = limits(held, kind, action)
    return wanted is None or not wanted.isdisjoint(tags)


def covers(held: Iterable[Permission], given: Iterable[Permission]) -> bool:
    """Tell whether whoever holds some permissions may hand out others: nobody gives what they don't have."""
    held = tuple(held)
    return all(
        _covers_one(held, kind, text) for p in given for kind in p.kinds for text in p.actions
    )


def _covers_one(held: tuple[Permission, ...], kind: str, text: str) -> bool:
    action, at, tag = text.partition("@")
    return any(
        (ANY in p.kinds or kind in p.kinds)
        and any(
            own in (ANY, action) and (not own_at or (bool(at) and own_tag == tag))
            for own, own_at, own_tag in (one.partition("@") for one in p.actions)
        )
        for p in held
    )
