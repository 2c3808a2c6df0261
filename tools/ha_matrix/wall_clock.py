"""Wall clocks that can be set for a few processes: builds what is preloaded into them, and sets their offset.

`ground` builds it for the shape that asks for it, `services` preloads it, the row of clocks sets it. See `wall_clock.c`.
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from core.command import run
from core.errors import UnavailableError
from tools.lab.layout import REPOSITORY

SOURCE = Path(__file__).with_suffix(".c")
LIBRARY = REPOSITORY / "build" / "wall_clock.so"
OFFSET = struct.Struct("=q")
COMPILER = "cc"


async def build(library: Path = LIBRARY) -> None:
    """Compile the library that is preloaded.

    Raises:
        UnavailableError: there is no C compiler.
        CommandError: it refuses.
    """
    if shutil.which(COMPILER) is None:
        raise UnavailableError(
            f"there is no C compiler ({COMPILER}) to build a wall clock that can be set: apt-get install gcc libc6-dev"
        )
    library.parent.mkdir(parents=True, exist_ok=True)
    options = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
    await run([COMPILER, *options, "-o", str(library), str(SOURCE), "-ldl"], timeout_s=60.0)


def settings(file: str, library: Path = LIBRARY) -> tuple[str, ...]:
    """Return the environment (`NAME=value`) of a process whose wall clock follows `file`, which it makes if need be."""
    return (f"LD_PRELOAD={library}", f"KVORUM_LAB_WALL_CLOCK={file}")


def set_offset(file: Path, offset_s: int) -> None:
    """Let the wall clocks that follow an existing file be ahead by so many seconds; negative: behind.

    Raises:
        FileNotFoundError: no process follows it.
    """
    with file.open("r+b", buffering=0) as there:  # in place: the file is mapped
        there.write(OFFSET.pack(offset_s))


def follows(pid: int, file: str) -> bool:
    """Tell whether a process has mapped this file (a path as it sees it), so that its wall clock follows it."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text(errors="replace")
    except OSError:
        return False
    return any(line.endswith(f" {file}") for line in maps.splitlines())
