"""One process at a time works on a host's state: the agent, or a command that needs it stopped.

Taken by `nodeagent.main` at the start and by every offline command. The kernel lets go of it when its process ends, however
it ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import ConflictError, InvalidError


@contextmanager
def only_process(lock: Path, refusal: str) -> Iterator[None]:
    """Hold the lock inside the block.

    Raises:
        ConflictError: another process has it; the message is `refusal`.
        InvalidError: there is no such directory, or no right to it.
    """
    try:
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidError(f"can't open {lock}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(refusal) from None
        yield
    finally:
        os.close(file)
