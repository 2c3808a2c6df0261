"""Disks as `qemu-img` sees them.

Called by `storage.directory_driver`. Only for disks that we made ourselves; uploads go through `sandbox`. The
format is always said, since a guest can write any header into its own disk.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from core import command
from core.errors import ConflictError, PermanentError, TemporaryError
from storage.driver import DiskFacts
from storage.errors import NoSpaceError

QEMU_IMG = "/usr/bin/qemu-img"
TIMEOUT_S = 60.0
FORMAT = "qcow2"


class _SpecificData(msgspec.Struct, frozen=True):
    corrupt: bool = False


class _Specific(msgspec.Struct, frozen=True):
    data: _SpecificData = _SpecificData()


class _Answer(msgspec.Struct, frozen=True, rename="kebab"):
    virtual_size: int
    actual_size: int
    backing_filename: str = ""
    format_specific: _Specific = _Specific()


async def create(path: Path, size_bytes: int, base: Path | None) -> None:
    """Write a new qcow2 file. The base is named, not opened: its size must have been checked."""
    link = ["-u", "-b", str(base), "-F", FORMAT] if base is not None else []
    await _run(
        ["create", "-q", "-f", FORMAT, "-o", "compat=1.1", *link, str(path), str(size_bytes)]
    )


async def resize(path: Path, size_bytes: int) -> None:
    """Grow a disk that no VM has open (ConflictError)."""
    await _run(["resize", "-q", "-f", FORMAT, str(path), str(size_bytes)])


async def facts(path: Path) -> DiskFacts:
    """Read the header of a disk, whoever has it open."""
    found = await _run(["info", "-U", "-f", FORMAT, "--output=json", str(path)])
    answer = msgspec.json.decode(found.stdout, type=_Answer)
    return DiskFacts(
        path=path,
        virtual_size_bytes=answer.virtual_size,
        allocated_bytes=answer.actual_size,
        base_path=Path(answer.backing_filename) if answer.backing_filename else None,
        corrupt=answer.format_specific.data.corrupt,
    )


async def require_unused(path: Path) -> None:
    """Refuse (ConflictError) when a process has the disk open for writing; a damaged disk counts as unused."""
    try:
        await _run(["info", "-f", FORMAT, "--output=json", str(path)])
    except PermanentError:
        return


async def _run(arguments: list[str]) -> command.CommandResult:
    try:
        return await command.run([QEMU_IMG, *arguments], timeout_s=TIMEOUT_S)
    except command.CommandTimeoutError:
        raise TemporaryError(
            f"qemu-img {arguments[0]} has not ended within {TIMEOUT_S:g} s: is the storage reachable?"
        ) from None
    except command.CommandError as error:
        said = error.stderr_tail.strip().replace("\n", " ")[-300:]
        if "lock" in said and "Failed to get" in said:
            raise ConflictError("the disk is in use by a running VM: stop the VM first") from error
        if "No space left" in said:
            raise NoSpaceError(
                "cannot write the disk: no space left on its storage; free some space"
            ) from error
        raise PermanentError(f"qemu-img {arguments[0]} failed: {said or 'no message'}") from error
