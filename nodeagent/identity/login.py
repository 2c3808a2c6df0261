"""Log-in: name, password and perhaps a time code become a session.

Used by `POST /v1/login`. Every refusal is the same answer after the same time, whether the account exists or not, is
disabled, is held back, or only the code was wrong. The new session, the used-up code and the audit are one transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Callable

from msgspec.structs import replace

from core.clock import Clock, new_id
from core.errors import ConflictError, ForbiddenError, PlatformError, UnauthenticatedError
from core.identity.lockout import FREE_OF_ACCOUNT, AddressBook, delay_ms, network_of, with_known
from core.identity.passwords import Passwords
from core.identity.sealing import Keys
from core.identity.totp import accepted_step, new_recovery_codes, recovery_hash, without_code
from core.model import Account, Session
from nodeagent.identity.audits import Audits
from nodeagent.identity.callers import Caller
from nodeagent.identity.opening import Opener
from nodeagent.identity.tokens import new_session_token
from raftstate.store import Store

SESSION_MS = 12 * 3_600_000
SESSIONS_MAX = 50
FAILURE_TAKES_S = 1.0
ATTEMPTS = 5
WRONG_CODE = "the code is wrong or was used already"
WRONG = (
    "the name, the password or the code is wrong, or the account is held back after too many wrong ones: "
    "wait up to 15 minutes, or let root set the password anew on a host"
)


class HeldBackError(PlatformError):
    """Too many wrong log-ins from one address."""

    code = "held-back"
    http_status = 429


class Login:
    """Opens sessions. `failure_takes_s` is the time that each refusal takes, or a multiple of it."""

    def __init__(
        self,
        store: Store,
        audits: Audits,
        *,
        clock: Clock,
        rng: random.Random,
        secrets_key: Callable[[], Keys],
        failure_takes_s: float = FAILURE_TAKES_S,
    ) -> None:
        self.passwords = Passwords()
        self._store = store
        self._audits = audits
        self._clock = clock
        self._rng = rng
        self._opener = Opener(store, secrets_key)
        self._failure_takes_s = failure_takes_s
        self._addresses = AddressBook()

    async def log_in(
        self, name: str, password: str, code: str, *, address: str, request_id: str
    ) -> tuple[str, Session]:
        """Return a session's token, which is stored nowhere, and the session.

        Raises:
            UnauthenticatedError: refused; the message never tells why.
            HeldBackError: too many failures from this address.
            UnavailableError: no quorum, too many log-ins at once, or this host lacks the secrets key in use.
        """
        loop = asyncio.get_running_loop()
        began_s, network = loop.time(), network_of(address)
        self._check_address(address, name)
        await self._store.barrier()
        self._opener.keys()  # without them nobody logs in here, so that nothing of an account shows by it
        found = self._store.with_value(Account, "name", name)
        account = found[0] if found else None
        good = await self.passwords.check(
            password, account.password_hash if account else "", of=network
        )
        if account is not None:
            opened = await self._settle(
                account.id, account.password_hash, good, code, address, request_id
            )
            if opened is not None:
                self._addresses.succeeded(network)
                return opened
        self._addresses.failed(network, self._clock.wall_ms())
        self._audits.login_failed(address, name, "refused")
        spent_s = loop.time() - began_s
        if self._failure_takes_s:
            whole_s = math.ceil(spent_s / self._failure_takes_s) * self._failure_takes_s
            await asyncio.sleep(whole_s - spent_s)
        raise UnauthenticatedError(WRONG)

    async def check_own(self, account: Account, password: str, *, address: str) -> None:
        """See that whoever holds a session knows its account's password; wrong ones count like wrong log-ins.

        Raises:
            ForbiddenError: the password is wrong.
            HeldBackError: too many wrong ones from this address, or for this account.
        """
        self._check_address(address, account.name)
        self._check_lock(account, address)
        good = await self.passwords.check(password, account.password_hash, of=network_of(address))
        if not good:
            await self._count_failure(account, address)
            raise ForbiddenError("the old password is wrong")

    async def use_code(self, account: Account, code: str, *, address: str) -> None:
        """See that whoever holds a session has a time or recovery code of its account, and use it up; as `check_own`."""
        self._check_address(address, account.name)
        self._check_lock(account, address)
        used = self._with_code_used(account, code, self._clock.wall_ms())
        if used is None:
            await self._count_failure(account, address)
            raise ForbiddenError(WRONG_CODE)
        await self._store.apply(puts=(used,))

    async def renew_recovery_codes(
        self, account: Account, code: str, *, address: str
    ) -> tuple[str, ...]:
        """Return new recovery codes in place of the old ones, for a time code and no other; as `check_own`."""
        self._check_address(address, account.name)
        self._check_lock(account, address)
        step = self._step_of(account, code, self._clock.wall_ms())
        if step is None:
            await self._count_failure(account, address)
            raise ForbiddenError(WRONG_CODE)
        codes = new_recovery_codes()
        hashes = tuple(recovery_hash(one) for one in codes)
        renewed = replace(account, totp_last_step=step, recovery_sha256=hashes)
        await self._store.apply(puts=(renewed,))
        return codes

    def _check_address(self, address: str, name: str) -> None:
        wait_ms = self._addresses.waits_ms(network_of(address), self._clock.wall_ms())
        if wait_ms > 0:
            self._audits.login_failed(address, name, "held-back")
            raise HeldBackError(
                f"too many wrong log-ins from this address: wait {wait_ms // 1000 + 1} seconds"
            )

    def _check_lock(self, account: Account, address: str) -> None:
        """Hold back whoever guesses with a stolen session: an account that is held back is so here as well."""
        wait_ms = account.locked_until_ms - self._clock.wall_ms()
        if wait_ms > 0 and network_of(address) not in account.known_addresses:
            self._audits.login_failed(address, account.name, "held-back")
            raise HeldBackError(
                f"too many wrong ones for this account: wait {wait_ms // 1000 + 1} seconds"
            )

    async def _count_failure(self, account: Account, address: str) -> None:
        """Count a wrong one, also when others are counted at the same moment."""
        now_ms = self._clock.wall_ms()
        self._addresses.failed(network_of(address), now_ms)
        for _ in range(ATTEMPTS):
            with contextlib.suppress(ConflictError):
                await self._store.apply(puts=(_failed(account, now_ms),))
                return
            account = self._store.need(Account, account.id)

    async def _settle(
        self, id_: str, checked: str, good: bool, code: str, address: str, request_id: str
    ) -> tuple[str, Session] | None:
        """Record the outcome; judged again when the account was changed meanwhile, so that no code works twice."""
        for _ in range(ATTEMPTS):
            account = self._store.get(Account, id_)
            if account is None or account.password_hash != checked:
                return None
            try:
                return await self._settle_once(account, good, code, address, request_id)
            except ConflictError:
                continue
        return None

    async def _settle_once(
        self, account: Account, good: bool, code: str, address: str, request_id: str
    ) -> tuple[str, Session] | None:
        network, now_ms = network_of(address), self._clock.wall_ms()
        if now_ms < account.locked_until_ms and network not in account.known_addresses:
            return None
        used = self._with_code_used(account, code, now_ms) if good else None
        if used is None or account.disabled:
            await self._store.apply(puts=(_failed(account, now_ms),))
            return None
        session_id = new_id(self._rng)
        token, hash_ = new_session_token(session_id)
        session = Session(
            id=session_id,
            name=session_id,
            account_id=account.id,
            secret_sha256=hash_,
            expires_ms=now_ms + SESSION_MS,
            address=address,
            created_ms=now_ms,
        )
        entered = replace(
            used,
            failures=0,
            locked_until_ms=0,
            known_addresses=with_known(account.known_addresses, network),
        )
        caller = Caller(account.name, "session", (), address, account.id, session_id)
        audit = replace(
            self._audits.make(
                caller, "log in", subject=f"account/{account.id}", request_id=request_id
            ),
            subject_name=account.name,
            result=200,
            ended_ms=now_ms,
        )
        await self._store.apply(
            puts=(entered, session, audit), deletes=self._superfluous(account.id)
        )
        return token, session

    def _with_code_used(self, account: Account, code: str, now_ms: int) -> Account | None:
        """Return the account with the code used up, None if it is wrong; without time codes any will do."""
        if not account.totp_confirmed:
            return account
        step = self._step_of(account, code, now_ms)
        if step is not None:
            return replace(account, totp_last_step=step)
        left = without_code(account.recovery_sha256, code)
        return None if left is None else replace(account, recovery_sha256=left)

    def _step_of(self, account: Account, code: str, now_ms: int) -> int | None:
        secret = self._opener.open(f"totp/{account.id}", account.sealed_totp)
        return accepted_step(secret, code, now_ms=now_ms, last_step=account.totp_last_step)

    def _superfluous(self, account_id: str) -> list[Session]:
        """Return the oldest sessions of an account that has as many as it may."""
        sessions = self._store.with_value(Session, "account_id", account_id)
        sessions.sort(key=lambda session: session.created_ms)
        return sessions[: max(0, len(sessions) - SESSIONS_MAX + 1)]


def _failed(account: Account, now_ms: int) -> Account:
    failures = min(account.failures + 1, 1000)
    until_ms = now_ms + delay_ms(failures, FREE_OF_ACCOUNT)
    return replace(account, failures=failures, locked_until_ms=until_ms)
