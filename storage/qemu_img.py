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
CP = "/usr/bin/cp"
TIMEOUT_S = 60.0
COPY_TIMEOUT_S = 6 * 3600.0
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


async def copy(path: Path, to: Path) -> None:
    """Copy a disk's file that nobody writes, byte for byte, with the holes it has; shared blocks where the file system can."""
    await _run(["--sparse=always", "--reflink=auto", str(path), str(to)], CP, COPY_TIMEOUT_S)


async def rebase(path: Path, base: Path | None) -> None:
    """Put a disk that nobody has open on another base, or on none; what it shows stays, so it takes over what differs."""
    link = ["-b", str(base), "-F", FORMAT] if base is not None else ["-b", ""]
    await _run(["rebase", "-q", "-f", FORMAT, *link, str(path)], timeout_s=COPY_TIMEOUT_S)


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


async def _run(
    arguments: list[str], program: str = QEMU_IMG, timeout_s: float = TIMEOUT_S
) -> command.CommandResult:
    name = "cp" if program == CP else f"qemu-img {arguments[0]}"
    try:
        return await command.run([program, *arguments], timeout_s=timeout_s)
    except command.CommandTimeoutError:
        raise TemporaryError(
            f"{name} has not ended within {timeout_s:g} s: is the storage reachable?"
        ) from None
    except command.CommandError as error:
        said = error.stderr_tail.strip().replace("\n", " ")[-300:]
        if "lock" in said and "Failed to get" in said:
            raise ConflictError("the disk is in use by a running VM: stop the VM first") from error
        if "No space left" in said:
            raise NoSpaceError(
                "cannot write the disk: no space left on its storage; free some space"
            ) from error
        raise PermanentError(f"{name} failed: {said or 'no message'}") from error
