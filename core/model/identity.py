"""Who may do what, and who did what: accounts, roles, sessions, audits.

Written by the log-in and the identity routes of the API; every request is judged by this host's copy of them.
Secrets are kept as hashes or sealed; `nodeagent.api.views` never shows either.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from core.model.resource import Relation, Resource, Tagged


class Permission(msgspec.Struct, frozen=True, kw_only=True):
    """The right to do each of `actions` to each of `kinds`; `*` stands for all of them.

    `action@tag` is limited to resources that carry the tag.
    """

    kinds: tuple[str, ...]
    actions: tuple[str, ...]


class Role(Tagged, tag="role.v1", frozen=True, kw_only=True):
    """A named set of permissions, given to accounts and access tokens.

    Its id is its name. The built-in roles (`core.identity.permissions`) are not stored.
    """

    PLURAL: ClassVar[str] = "roles"

    permissions: tuple[Permission, ...] = ()
    description: str = ""


class Account(Tagged, tag="account.v1", frozen=True, kw_only=True):
    """A person, or a program.

    `password_hash` is an argon2id text, empty as long as there is no password. `sealed_totp` is the secret of the time
    codes, asked for once `totp_confirmed`; a code of time step `totp_last_step` or an earlier one is never accepted
    again. `recovery_sha256` are the codes that may each stand in for one time code. `failures` counts wrong log-ins since
    the last good one, and none is accepted until `locked_until_ms` but from `known_addresses`, from which a log-in
    succeeded before.
    """

    PLURAL: ClassVar[str] = "accounts"
    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset(
        {"role_ids"}
    )  # built-in ones are not stored
    SECRET: ClassVar[frozenset[str]] = frozenset(
        {"password_hash", "sealed_totp", "recovery_sha256"}
    )
    SEALED: ClassVar[dict[str, str]] = {"sealed_totp": "totp/{id}"}

    role_ids: tuple[str, ...] = ()
    description: str = ""
    disabled: bool = False
    password_hash: str = ""
    sealed_totp: bytes = b""
    totp_confirmed: bool = False
    totp_last_step: int = 0
    recovery_sha256: tuple[str, ...] = ()
    failures: int = 0
    locked_until_ms: int = 0
    known_addresses: tuple[str, ...] = ()


class Session(Tagged, tag="session.v1", frozen=True, kw_only=True):
    """A log-in that lasts until `expires_ms`. The token names the id, so it is found without a search; name = id."""

    PLURAL: ClassVar[str] = "sessions"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation("account_id", target="account", name="account", reverse="sessions"),
    )
    SECRET: ClassVar[frozenset[str]] = frozenset({"secret_sha256"})

    account_id: str
    secret_sha256: str
    expires_ms: int
    address: str = ""

    def claims(self) -> tuple[str, ...]:
        return ()


class Audit(Resource, tag="audit.v1", frozen=True, kw_only=True):
    """What somebody did or tried. Begins before the change is made, ends after it; name = id.

    `result` is the HTTP status, 0 as long as the end is not recorded: then the outcome is unknown. `operator` is the
    account, token or `root`; `via` how they were known. `subject` is `kind/id`, or `kind/` and what the caller wrote.
    `before` and `after` are the attributes that differ, as JSON with secrets masked. `count` is more than 1 where many
    equal failures of one address are told together.
    """

    PLURAL: ClassVar[str] = "audits"
    # Relations would let whoever may look at hosts look at audits through them.
    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset({"account_id", "host_id", "request_id"})
    INDEXED: ClassVar[tuple[str, ...]] = ("operator", "address", "subject", "created_ms")

    action: str
    operator: str = ""
    account_id: str = ""
    via: str = ""
    address: str = ""
    subject: str = ""
    subject_name: str = ""
    host_id: str = ""
    request_id: str = ""
    result: int = 0
    code: str = ""
    message: str = ""
    ended_ms: int = 0
    count: int = 1
    before: str = ""
    after: str = ""

    def claims(self) -> tuple[str, ...]:
        return ()
