"""Write an initrd: a busybox, an init script and kernel modules in the order they load.

Called by the recipes. The archive is written here (the kernel's "newc" cpio) because only a few
entries are needed and no other program then is.
"""

from __future__ import annotations

import gzip
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DIRECTORIES = ("bin", "dev", "etc", "lib", "lib/modules", "mnt", "proc", "run", "sys", "tmp")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or symbolic link of the archive."""

    path: str
    mode: int
    content: bytes = b""


def directory(path: str) -> Entry:
    """Return an entry for a directory."""
    return Entry(path, stat.S_IFDIR | 0o755)


def executable(path: str, content: bytes) -> Entry:
    """Return an entry for a file that may be run."""
    return Entry(path, stat.S_IFREG | 0o755, content)


def plain(path: str, content: bytes) -> Entry:
    """Return an entry for a file that is only read."""
    return Entry(path, stat.S_IFREG | 0o644, content)


def link(path: str, target: str) -> Entry:
    """Return an entry for a symbolic link."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def archive(entries: Sequence[Entry]) -> bytes:
    """Return a gzipped newc archive of `entries` (parents must come before children)."""
    out = bytearray()
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], start=1):
        name = entry.path.encode() + b"\0"
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        out += b"\0" * (-len(out) % 4)
        out += entry.content
        out += b"\0" * (-len(out) % 4)
    return gzip.compress(bytes(out), mtime=0)


def busybox_initrd(
    *, busybox: Path, init: str, modules: Sequence[Path], extra: Sequence[Entry] = ()
) -> bytes:
    """Return an initrd whose `/init` is the script `init`; `/modlist` names the modules in order."""
    names = [module.name for module in modules]
    entries = [directory(path) for path in DIRECTORIES]
    entries += [
        executable("bin/busybox", busybox.read_bytes()),
        link("bin/sh", "busybox"),
        executable("init", init.encode()),
        plain("modlist", "".join(f"{name}\n" for name in names).encode()),
    ]
    entries += [plain(f"lib/modules/{path.name}", path.read_bytes()) for path in modules]
    return archive([*entries, *extra])
