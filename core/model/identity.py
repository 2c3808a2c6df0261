"""Who may do what, and who did what: accounts, roles, sessions, audits.

Written by the log-in and the identity routes of the API; every request is judged by this host's copy of them.
Secrets are kept as hashes or sealed; `nodeagent.api.views` never shows either.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from core.attributes import CLUSTER, attribute
from core.model.resource import DESCRIPTION_LENGTH_MAX, Relation, Resource


class Permission(msgspec.Struct, frozen=True, kw_only=True):
    """The right to do each of `actions` to each of `kinds`; `*` stands for all of them."""

    kinds: Annotated[tuple[str, ...], attribute("Kinds of resources; `*` is all of them.")]
    actions: Annotated[
        tuple[str, ...],
        attribute("`read`, `create`, `change`, `delete`, `operate`; `*` is all of them."),
    ]


class Role(Resource, tag="role.v1", frozen=True, kw_only=True):
    """A named set of permissions, given to accounts and access tokens.

    Its id is its name. The built-in roles (`core.identity.permissions`) are not stored.
    """

    PLURAL: ClassVar[str] = "roles"

    permissions: Annotated[tuple[Permission, ...], attribute("What it allows.", count_max=32)] = ()
    description: Annotated[
        str, attribute("A note for people.", length_max=DESCRIPTION_LENGTH_MAX)
    ] = ""


class Account(Resource, tag="account.v1", frozen=True, kw_only=True):
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

    role_ids: Annotated[tuple[str, ...], attribute("Roles that say what it may do.")] = ()
    description: Annotated[
        str, attribute("A note for people.", length_max=DESCRIPTION_LENGTH_MAX)
    ] = ""
    disabled: Annotated[bool, attribute("Whether it is kept out.")] = False
    password_hash: Annotated[
        str,
        attribute("Argon2id hash of the password; empty: nobody can log in with one.", by=CLUSTER),
    ] = ""
    sealed_totp: Annotated[
        bytes, attribute("Secret of its time codes, sealed; empty: it has none.", by=CLUSTER)
    ] = b""
    totp_confirmed: Annotated[
        bool, attribute("Whether a log-in needs a time code.", by=CLUSTER)
    ] = False
    totp_last_step: Annotated[
        int,
        attribute(
            "Time step of the last code that was used; none up to it counts again.", by=CLUSTER
        ),
    ] = 0
    recovery_sha256: Annotated[
        tuple[str, ...], attribute("Hashes of the recovery codes that are left.", by=CLUSTER)
    ] = ()
    failures: Annotated[
        int, attribute("Wrong log-ins since the last good one.", by=CLUSTER, least=0)
    ] = 0
    locked_until_ms: Annotated[
        int, attribute("Until when log-ins from new addresses are refused.", by=CLUSTER)
    ] = 0
    known_addresses: Annotated[
        tuple[str, ...], attribute("Networks that it has logged in from.", by=CLUSTER)
    ] = ()


class Session(Resource, tag="session.v1", frozen=True, kw_only=True):
    """A log-in that lasts until `expires_ms`. The token names the id, so it is found without a search; name = id."""

    PLURAL: ClassVar[str] = "sessions"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation("account_id", target="account", name="account", reverse="sessions", required=True),
    )
    SECRET: ClassVar[frozenset[str]] = frozenset({"secret_sha256"})

    account_id: Annotated[str, attribute("Who logged in.", by=CLUSTER)]
    secret_sha256: Annotated[str, attribute("Hash of its secret.", by=CLUSTER)]
    expires_ms: Annotated[int, attribute("Until when it is good.", by=CLUSTER)]
    address: Annotated[str, attribute("Where the log-in came from.", by=CLUSTER)] = ""

    def claims(self) -> tuple[str, ...]:
        return ()


class AccessKey(Resource, tag="access-key.v1", frozen=True, kw_only=True):
    """What a program of others signs its requests with; its id is part of each signature.

    It may do what its `role_ids` allow or, if it has an `account_id`, what that account may; with neither, nothing. The
    secret is sealed and not hashed, because a signature can be checked only with the secret itself. `expires_ms` 0: never.
    """

    PLURAL: ClassVar[str] = "access-keys"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation("account_id", target="account", name="account", reverse="access_keys"),
    )
    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset({"role_ids"})
    SECRET: ClassVar[frozenset[str]] = frozenset({"sealed_secret"})
    SEALED: ClassVar[dict[str, str]] = {"sealed_secret": "access-key/{id}"}

    sealed_secret: Annotated[bytes, attribute("Its secret, sealed.", by=CLUSTER)]
    account_id: Annotated[
        str, attribute("It may do what this account may; empty: by its roles.")
    ] = ""
    role_ids: Annotated[tuple[str, ...], attribute("Roles that say what it may do.")] = ()
    expires_ms: Annotated[int, attribute("Until when it is good; 0: for ever.")] = 0
    disabled: Annotated[bool, attribute("Whether what it signs is refused.")] = False
    description: Annotated[
        str, attribute("A note for people.", length_max=DESCRIPTION_LENGTH_MAX)
    ] = ""

    def __repr__(self) -> str:
        return f"AccessKey({self.id}, ***)"


class UsedNonce(Resource, tag="used-nonce.v1", frozen=True, kw_only=True):
    """A signed request that was let in, so that it never is again; its id is `<access key>.<nonce>`, its name empty.

    Kept until no agent would take a signature of its time any more.
    """

    INDEXED: ClassVar[tuple[str, ...]] = ("signed_ms",)

    signed_ms: Annotated[int, attribute("The time of the signature.", by=CLUSTER)]

    def claims(self) -> tuple[str, ...]:
        return ()


class NonceFloor(Resource, tag="nonce-floor.v1", frozen=True, kw_only=True):
    """No signature of this time or before is good, as nonces up to it may be forgotten; exactly one, id `nonce-floor`."""

    signed_ms: Annotated[int, attribute("The time up to which none is good.", by=CLUSTER)]


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
    # There is one for each change, so each index counts.
    NOT_INDEXED: ClassVar[frozenset[str]] = NOT_RELATIONS
    INDEXED: ClassVar[tuple[str, ...]] = ("operator", "address", "subject", "created_ms")

    action: Annotated[str, attribute("What was asked, as method and path.", by=CLUSTER)]
    operator: Annotated[str, attribute("Who asked: an account, a token or `root`.", by=CLUSTER)] = (
        ""
    )
    account_id: Annotated[str, attribute("The account, if there was one.", by=CLUSTER)] = ""
    via: Annotated[
        str, attribute("How they were known: session, token or the host's own socket.", by=CLUSTER)
    ] = ""
    address: Annotated[str, attribute("Where the request came from.", by=CLUSTER)] = ""
    subject: Annotated[str, attribute("What it was about, as `kind/id`.", by=CLUSTER)] = ""
    subject_name: Annotated[str, attribute("The name that it had.", by=CLUSTER)] = ""
    host_id: Annotated[str, attribute("The host that was asked.", by=CLUSTER)] = ""
    request_id: Annotated[
        str, attribute("Id of the request, as in the answer and in the agent's log.", by=CLUSTER)
    ] = ""
    result: Annotated[int, attribute("HTTP status; 0: the outcome isn't known.", by=CLUSTER)] = 0
    code: Annotated[str, attribute("Code of the refusal; empty: it worked.", by=CLUSTER)] = ""
    message: Annotated[str, attribute("More about it, in words.", by=CLUSTER)] = ""
    ended_ms: Annotated[int, attribute("When it was over; 0: not known.", by=CLUSTER)] = 0
    count: Annotated[
        int, attribute("How many equal ones are told together.", by=CLUSTER, least=1)
    ] = 1
    before: Annotated[
        str, attribute("What differs, as it was: JSON, secrets masked.", by=CLUSTER)
    ] = ""
    after: Annotated[
        str, attribute("What differs, as it is now: JSON, secrets masked.", by=CLUSTER)
    ] = ""

    def claims(self) -> tuple[str, ...]:
        return ()
