"""From credentials to a caller and what they may do, by this agent's own copy of the state.

Asked for each request; what was found is used again only while nothing that it was found by has changed here. So whatever is revoked, disabled or changed counts everywhere as soon as it is applied there. Look-ups are by id or by
index: nothing grows with the number of tokens or sessions.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import UnauthenticatedError
from core.identity.permissions import ADMIN, BUILT_IN, allows
from core.model import AccessKey, AccessToken, Account, Permission, Role, Session
from nodeagent.identity.tokens import (
    ACCESS_PREFIX,
    SESSION_PREFIX,
    is_secret,
    limited_hash,
    parse_session_token,
    secret_hash,
)
from raftstate.store import Store

HOW_TO = (
    "credentials are needed: send 'Authorization: Bearer kvt_...' (make a token with "
    "'kvorum access-token create NAME' on a member), log in with 'kvorum login NAME', or sign with an access key"
)
TOKEN_LENGTH_MAX = 200


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. `via` is `root`, `session`, `access-token` or `access-key`; an empty `account_id`: no account's.
    `until_ms`: when the credentials end, 0 if they don't."""

    name: str
    via: str
    permissions: tuple[Permission, ...]
    address: str = ""
    account_id: str = ""
    session_id: str = ""
    until_ms: int = 0

    def may(self, kind: str, action: str) -> bool:
        """Tell whether the caller's roles allow an action on a kind."""
        return allows(self.permissions, kind, action)


def root() -> Caller:
    """Return the caller on the unix socket, whom the kernel has vouched for."""
    return Caller("root", "root", ADMIN.permissions, address="local")


def permissions_of(store: Store, role_ids: tuple[str, ...]) -> tuple[Permission, ...]:
    """Return what roles allow together; one that is gone allows nothing."""
    held: list[Permission] = []
    for id_ in role_ids:
        role = BUILT_IN.get(id_) or store.get(Role, id_)
        held += role.permissions if role else ()
    return tuple(held)


def caller_of_bearer(store: Store, header: str, *, address: str, now_ms: int) -> Caller:
    """Return the caller of an Authorization header.

    Raises:
        UnauthenticatedError: it names nobody who may come in now.
    """
    scheme, _, secret = header.partition(" ")
    if scheme.lower() == "bearer" and len(secret) <= TOKEN_LENGTH_MAX and secret.isascii():
        if secret.startswith(ACCESS_PREFIX):
            return _of_token(store, secret, address, now_ms)
        if secret.startswith(SESSION_PREFIX):
            return _of_session(store, secret, address, now_ms)
    raise UnauthenticatedError(HOW_TO)


def caller_of_key(store: Store, key: AccessKey, *, address: str, now_ms: int) -> Caller | None:
    """Return whom an access key stands for, None when it doesn't let anybody in now. The signature is another matter."""
    if key.disabled or 0 < key.expires_ms <= now_ms:
        return None
    if key.account_id:
        account = store.get(Account, key.account_id)
        if account is None or account.disabled:
            return None
    permissions = permissions_of_key(store, key)
    return Caller(key.name, "access-key", permissions, address, key.account_id)


def permissions_of_key(store: Store, key: AccessKey) -> tuple[Permission, ...]:
    """Return what an access key allows while it is good: its account's rights, or its own roles'."""
    if not key.account_id:
        return permissions_of(store, key.role_ids)
    account = store.get(Account, key.account_id)
    return permissions_of(store, account.role_ids) if account else ()


def _of_token(store: Store, secret: str, address: str, now_ms: int) -> Caller:
    refused = UnauthenticatedError("this access token is unknown, revoked or expired")
    hashes = (secret_hash(secret), limited_hash(secret))
    found = [t for h in hashes for t in store.with_value(AccessToken, "secret_sha256", h)]
    if not found or 0 < found[0].expires_ms <= now_ms:
        raise refused
    token = found[0]
    permissions = ADMIN.permissions
    if token.account_id:
        account = store.get(Account, token.account_id)
        if account is None or account.disabled:
            raise refused
        permissions = permissions_of(store, account.role_ids)
    elif token.role_ids:
        permissions = permissions_of(store, token.role_ids)
    return Caller(
        token.name,
        "access-token",
        permissions,
        address,
        token.account_id,
        until_ms=token.expires_ms,
    )


def _of_session(store: Store, secret: str, address: str, now_ms: int) -> Caller:
    id_, secret_part = parse_session_token(secret)
    session = store.get(Session, id_)
    known = session is not None and is_secret(secret_part, session.secret_sha256)
    account = store.get(Account, session.account_id) if session and known else None
    if session is None or account is None or account.disabled or session.expires_ms <= now_ms:
        raise UnauthenticatedError("this session has ended: log in again")
    return Caller(
        account.name,
        "session",
        permissions_of(store, account.role_ids),
        address,
        account.id,
        session.id,
        session.expires_ms,
    )
