"""Files that appear whole or not at all.

Used by the import, the cache, the drivers and the seeds (on their file threads): everything is made under a
temporary name, forced to disk and then renamed. The temporary name carries the host's id, so that a host that
was killed can remove its own leftovers at its next start and never those of a host that is still at work.
All functions block and raise `OSError`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from storage.ids import check_id

IMAGE_MODE = 0o444
PRIVATE_MODE = 0o600
DIRECTORY_MODE = 0o711  # QEMU's user may pass through, and needs to know a name to open it


_UNFINISHED = ".unfinished-"


def unfinished_prefix(host_id: str) -> str:
    """Return what all temporary names of a host start with."""
    return f"{_UNFINISHED}{check_id(host_id, 'host')}-"


def unfinished_name(host_id: str, purpose: str = "") -> str:
    """Return a new temporary name; no other host or call gets the same. See `unfinished_of` for `purpose`."""
    end = f"-{purpose}" if purpose else ""
    return f"{unfinished_prefix(host_id)}{os.urandom(8).hex()}{end}"


def unfinished_of(directory: Path, purpose: str = "") -> tuple[Path, ...]:
    """Return what any host has unfinished in a directory, for that purpose or for all."""
    end = f"-{purpose}" if purpose else ""
    names = (path for path in directory.iterdir() if path.name.startswith(_UNFINISHED))
    return tuple(path for path in names if path.name.endswith(end))


def create_file(path: Path) -> int:
    """Create a file (mode 0600) that does not exist yet; return its open descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def sync_path(path: Path) -> None:
    """Force a file's content, or a directory's entries, to disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(unfinished: Path, final: Path, mode: int) -> None:
    """Give a finished file its name, replacing any file that has it; durable on return."""
    unfinished.chmod(mode)
    sync_path(unfinished)
    unfinished.rename(final)
    sync_path(final.parent)


def publish_new(unfinished: Path, final: Path, mode: int) -> None:
    """Give a finished file its name, unless the name is taken; durable on return.

    Raises:
        FileExistsError: the name is taken; nothing was replaced.
    """
    unfinished.chmod(mode)
    sync_path(unfinished)
    os.link(unfinished, final)
    unfinished.unlink()
    sync_path(final.parent)


def write_whole(final: Path, content: bytes, *, host_id: str, mode: int) -> None:
    """Write a small file in one step that survives a crash."""
    unfinished = final.parent / unfinished_name(host_id)
    try:
        with os.fdopen(create_file(unfinished), "wb") as file:
            file.write(content)
        publish(unfinished, final, mode)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def discard(unfinished: Path) -> None:
    """Remove a temporary file or directory, if it is still there."""
    if unfinished.is_dir() and not unfinished.is_symlink():
        shutil.rmtree(unfinished, ignore_errors=True)
    else:
        unfinished.unlink(missing_ok=True)


def sweep_unfinished(directory: Path, host_id: str) -> int:
    """Remove what a host left unfinished in a directory; return how many things that were.

    Only at start, before new work begins. Also for a host that has left the cluster.
    """
    prefix = unfinished_prefix(host_id)
    try:
        leftovers = [path for path in directory.iterdir() if path.name.startswith(prefix)]
    except FileNotFoundError:
        return 0
    for path in leftovers:
        discard(path)
    return len(leftovers)
