"""Start processes that outlive whoever started them: hosts and the power controller.

Not `core.command.run`, which kills what it started; these end by themselves or by the power switch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path


def start(argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> int:
    """Start a program in a session of its own, its output appended to `log`; return its pid."""
    log.parent.mkdir(parents=True, exist_ok=True)
    return os.posix_spawn(
        argv[0],
        list(argv),
        env,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def collect(pid: int) -> None:
    """Take leave of a child that has ended, so that it is no zombie."""
    os.waitpid(pid, 0)
