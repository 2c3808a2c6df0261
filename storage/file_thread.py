"""One thread for the blocking file work of one directory.

Used by every part of `storage` that hashes, copies or lists files. The house rule is that only libvirt and
SQLite get threads; this is the third case, for two reasons. A file on a network storage can block for minutes
in the kernel when its server is gone, which would stop consensus and leases if it happened on the event loop;
and hashing gigabytes takes seconds. One thread a directory keeps a dead storage from holding up the others,
and makes the order of calls the order of effects: a clean-up always runs after the write that it cleans up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from core.errors import TemporaryError
from storage.errors import translate

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 30.0

P = ParamSpec("P")
T = TypeVar("T")


class FileThread:
    """Runs short pieces of blocking file work, one at a time, in the order of the calls.

    Pieces should take well under a second on a healthy disk (e.g. one chunk of a copy), so that callers take
    turns and a cancelled caller stops at the next piece.
    """

    def __init__(self, name: str, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"files-{name}")

    async def call(self, what: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` and return its result; `what` completes "cannot ..." in an error message.

        Raises:
            NoSpaceError: the disk is full.
            TemporaryError: no answer in time; the work may still take effect later.
            PermanentError: any other refusal of the file system.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await loop.run_in_executor(self._executor, lambda: work(*args, **kwargs))
        except TimeoutError:
            raise TemporaryError(
                f"cannot {what}: the storage at {self._name} has not answered for {self._timeout_s:g} s; "
                "check its mount and its server",
                retry_after_s=self._timeout_s,
            ) from None
        except OSError as error:
            raise translate(error, what) from error

    async def clean_up(self, what: str, work: Callable[[], object]) -> None:
        """Run `work` behind all that was called so far, even if the caller is cancelled meanwhile.

        Meant for `finally`: an error is logged and not raised, so that it never hides the first one.
        """
        done = self._executor.submit(work)
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.shield(asyncio.wrap_future(done))
        except (OSError, TimeoutError) as error:
            log.warning(
                "clean-up failed", extra={"what": what, "files": self._name, "error": str(error)}
            )

    def close(self) -> None:
        """Take no more calls; pieces already begun end by themselves."""
        self._executor.shutdown(wait=False)
