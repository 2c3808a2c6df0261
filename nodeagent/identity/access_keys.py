"""Who sent a signed request: the access key that signed it, and the claim that keeps it from being taken twice.

Used by the API's middlewares, in two steps. `judge` changes nothing, so that a stranger can't cause a commit; an unknown
key costs the same work and gets the same answer as a wrong signature. `claim` then stores the nonce, guarded by the
records that were judged by: a key that is disabled anywhere at the same moment is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from core.clock import Clock
from core.errors import ConflictError, PlatformError, UnauthenticatedError, UnavailableError
from core.identity.lockout import AddressBook, network_of
from core.identity.sealing import Keys, key_id, seal, sealed_by
from core.identity.signing import WINDOW_S, Signature, Signed, is_signed, new_secret
from core.model import AccessKey, Account, NonceFloor, Resource, UsedNonce
from nodeagent.identity.audits import Audits
from nodeagent.identity.callers import Caller, caller_of_key
from nodeagent.identity.login import HeldBackError
from nodeagent.identity.nonces import Nonces, floor_of
from nodeagent.identity.opening import Opener
from raftstate.store import Store

ATTEMPTS = 5
DECOY = "access-key/decoy"
REFUSED = (
    "this access key is unknown, disabled or expired, or the signature is not of this request: "
    "docs/identity.md has an example to compare with"
)
REPLAYED = (
    "a request with this nonce was taken before: sign each try anew, and repeat a change with "
    "the same Idempotency-Key"
)


@dataclass(frozen=True, slots=True)
class Presented:
    """A signed request as it came in."""

    signature: Signature
    signed: Signed
    address: str


@dataclass(frozen=True, slots=True)
class Judged:
    """Whose a good signature is, and the records that this was judged by."""

    caller: Caller
    guards: tuple[Resource, ...]


class AccessKeys:
    """Judges signed requests by this agent's copy of the state."""

    def __init__(
        self, store: Store, audits: Audits, *, clock: Clock, secrets_key: Callable[[], Keys]
    ) -> None:
        self._store = store
        self._audits = audits
        self._clock = clock
        self._opener = Opener(store, secrets_key)
        self._nonces = Nonces(store)
        self._addresses = AddressBook()
        self._decoy = b""

    def let_in(self, presented: Presented) -> Caller:
        """Return the caller of a signed request, which is still to be claimed.

        Raises:
            UnauthenticatedError: the signature isn't good, or its time or nonce isn't.
            HeldBackError: the same, and too many before from this address.
            SecretsKeyMissingError: this host can't check signatures now.
            TooManyRequestsError: more are signed than are remembered.
        """
        caller = self.judge(presented).caller
        self._nonces.check_room(presented.signature.key_id)
        return caller

    async def claim(self, presented: Presented, *puts: Resource) -> None:
        """Store that the nonce is used, in one transaction with `puts`, before anything is done for the request.

        Raises:
            UnauthenticatedError: the request was taken before, or its key isn't good any more.
            UnavailableError: no quorum.
        """
        signature = presented.signature
        nonce = UsedNonce(id=nonce_id(signature), name="", signed_ms=signature.time_s * 1000)
        for _ in range(ATTEMPTS):
            guards = self.judge(presented).guards
            try:
                await self._store.apply(puts=(nonce, *puts), guards=guards)
            except ConflictError:
                continue  # the nonce, the key, its account or the floor: judging again tells
            return
        raise UnavailableError("the access key or its account is being changed: try again")

    def judge(self, presented: Presented) -> Judged:
        """Judge a request by what this agent knows now; changes nothing. Raises like `let_in`."""
        signature, store, now_ms = presented.signature, self._store, self._clock.wall_ms()
        key, caller = self._found(presented, now_ms)
        if key is None or caller is None:
            raise self._refused(presented, now_ms, known=key is not None)
        floor = floor_of(store)
        _check_time(signature.time_s * 1000, floor, now_ms)
        if self._nonces.is_used(nonce_id(signature)):
            self._audits.signature_refused(presented.address, key.id, "replayed")
            raise UnauthenticatedError(REPLAYED)
        account = store.get(Account, key.account_id) if key.account_id else None
        return Judged(caller, (floor, key, *((account,) if account else ())))

    def again(self, presented: Presented) -> Caller:
        """Return the caller of a request that was taken before and still goes on, such as a stream.

        Raises:
            UnauthenticatedError: its key isn't good any more.
        """
        _, caller = self._found(presented, self._clock.wall_ms())
        if caller is None:
            raise UnauthenticatedError(REFUSED)
        return caller

    def _found(self, presented: Presented, now_ms: int) -> tuple[AccessKey | None, Caller | None]:
        """Return the key, if there is one, and the caller, if it is good and the signature too."""
        key = self._store.get(AccessKey, presented.signature.key_id)
        good = is_signed(self._secret_of(key), presented.signature, presented.signed)
        if key is None or not good:
            return key, None
        return key, caller_of_key(self._store, key, address=presented.address, now_ms=now_ms)

    def _secret_of(self, key: AccessKey | None) -> bytes:
        """Return the secret; of an unknown key another one, which takes as long to open."""
        keys = self._opener.keys()
        if key is not None:
            return self._opener.open(secret_name(key.id), key.sealed_secret, keys)
        first = keys if isinstance(keys, bytes) else keys[0]
        if sealed_by(self._decoy) != key_id(first):
            self._decoy = seal(first, DECOY, new_secret().encode())
        return self._opener.open(DECOY, self._decoy, keys)

    def _refused(self, presented: Presented, now_ms: int, *, known: bool) -> PlatformError:
        """Return the error of a wrong signature. It is counted for its address, of known keys for the audits too.

        Good signatures of that address aren't held back: a secret can't be guessed, so that would only let strangers
        shut programs out.
        """
        network = network_of(presented.address)
        waits_ms = self._addresses.waits_ms(network, now_ms)
        if not waits_ms:
            self._addresses.failed(network, now_ms)
        if known:
            code = "held-back" if waits_ms else "refused"
            self._audits.signature_refused(presented.address, presented.signature.key_id, code)
        if waits_ms:
            return HeldBackError(
                f"too many wrong signatures from this address: wait {waits_ms // 1000 + 1} seconds"
            )
        return UnauthenticatedError(REFUSED)


def _check_time(signed_ms: int, floor: NonceFloor, now_ms: int) -> None:
    if abs(now_ms - signed_ms) <= WINDOW_S * 1000 and signed_ms > floor.signed_ms:
        return
    late_s = (now_ms - signed_ms) // 1000
    when = f"{late_s} s ago" if late_s >= 0 else f"{-late_s} s in the future"
    raise UnauthenticatedError(
        f"this request was signed {when} by this host's clock, and {WINDOW_S // 60} minutes "
        "are allowed: sign it anew, and see that the clocks are right"
    )


def secret_name(id_: str) -> str:
    """Return the name under which an access key's secret is sealed."""
    return AccessKey.SEALED["sealed_secret"].format(id=id_)


def nonce_id(signature: Signature) -> str:
    """Return the id of the record that a nonce was used."""
    return f"{signature.key_id}.{signature.nonce}"
