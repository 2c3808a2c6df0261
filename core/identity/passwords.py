"""Passwords: argon2id hashes, made and checked in a thread of their own, one at a time.

Used by the log-in and by whoever sets a password. A hash takes 64 MiB and about a tenth of a second on purpose; a flood
of log-ins waits in a short queue, or is refused, and never holds up the event loop or takes more memory than one hash.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from core.errors import InvalidError, UnavailableError

T = TypeVar("T")

LENGTH_MIN, LENGTH_MAX = 12, 1024
WAITING_MAX = 32
WAITING_MAX_OF_ONE = 4

HASHER = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
"""RFC 9106 section 4, the second recommended option: argon2id, 3 passes over 64 MiB, 4 lanes."""

NOBODYS_HASH = "$argon2id$v=19$m=65536,t=3,p=4$a3ZvcnVtLW5vYm9keSEhIQ$Fk4oH9y5DtjPPs7Y4GzlKmh3mijZvzxPt5lEqwxbrCU"
"""What is checked in place of an account that does not exist, so that its absence takes the same time."""


def check_new_password(password: str, name: str) -> str:
    """Return the password if it may be one (NIST SP 800-63B: long rather than odd).

    Raises:
        InvalidError: shorter than 12 or longer than 1024 characters, the account's name, or one character repeated.
    """
    if not LENGTH_MIN <= len(password) <= LENGTH_MAX:
        raise InvalidError(f"a password has {LENGTH_MIN} to {LENGTH_MAX} characters")
    if password.lower() in (name, name * 2, name[::-1]) or len(set(password)) < 4:
        raise InvalidError("this password is too easy to guess: take another")
    return password


def hash_password(password: str) -> str:
    """Return the text that is stored in place of a password. Takes a tenth of a second: call it in a thread."""
    return HASHER.hash(password)


def is_password(password: str, stored: str) -> bool:
    """Tell whether a password belongs to a stored text; with an empty one it never does, after the same time."""
    try:
        HASHER.verify(stored or NOBODYS_HASH, password)
    except (VerificationError, InvalidHashError):
        return False
    return stored != ""


class Passwords:
    """Hashes and checks beside the event loop, one at a time and only so many waiting."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="passwords")
        self._waiting: Counter[str] = Counter()

    async def hash(self, password: str, *, of: str) -> str:
        """Return the stored text; `of` is who asks, such as an address.

        Raises:
            UnavailableError: too many are waiting.
        """
        return await self._run(lambda: hash_password(password), of)

    async def check(self, password: str, stored: str, *, of: str) -> bool:
        """Tell whether a password belongs to a stored text; see `is_password`.

        Raises:
            UnavailableError: too many are waiting.
        """
        if len(password) > LENGTH_MAX:
            password = ""  # no account's; as long to check as any other
        return await self._run(lambda: is_password(password, stored), of)

    async def _run(self, work: Callable[[], T], of: str) -> T:
        if self._waiting.total() >= WAITING_MAX or self._waiting[of] >= WAITING_MAX_OF_ONE:
            raise UnavailableError(
                "too many log-ins at once: try again in some seconds", code="busy"
            )
        self._waiting[of] += 1
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        future.add_done_callback(lambda _: self._done(of))
        return await asyncio.shield(future)

    def _done(self, of: str) -> None:
        self._waiting[of] -= 1
        if not self._waiting[of]:
            del self._waiting[of]
