"""A directory seen through a pane of glass that can go dark: storage that fails or hangs on one host, and comes back.

`python -m tools.lab.glass DIRECTORY CONTROL` mounts the directory over itself by FUSE, in the mount namespace that it runs
in. The file CONTROL says how it behaves: `clear` passes everything on, `dark` fails every call with EIO, as a broken path
to a SAN does, `stuck` answers none until it is another word, as an NFS server that is gone does. Open files stay good.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fusepy

CLEAR, DARK, STUCK = "clear", "dark", "stuck"
POLL_S = 0.05
STAT = [
    "st_atime",
    "st_ctime",
    "st_gid",
    "st_mode",
    "st_mtime",
    "st_nlink",
    "st_size",
    "st_uid",
    "st_blocks",
    "st_ino",
    "st_rdev",
]


class Glass(fusepy.Operations):
    """Passes file operations on to the directory `below`, which was opened before the mount hid it."""

    use_ns = False

    def __init__(self, below: str, control: Path) -> None:
        self._below, self._control = below, control

    def __call__(self, op: str, *args: object) -> object:
        """Do one operation, or what the control file says instead."""
        while (word := self._control.read_text().strip()) == STUCK:
            time.sleep(POLL_S)
        if word == DARK:
            raise fusepy.FuseOSError(errno.EIO)
        path, *more = args
        return super().__call__(op, f"{self._below}{path}", *more)

    def access(self, path: str, amode: int) -> None:
        if not os.access(path, amode):
            raise fusepy.FuseOSError(errno.EACCES)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(path, mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(path, uid, gid, follow_symlinks=False)

    def create(self, path: str, mode: int, fi: object = None) -> int:
        del fi
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def flush(self, path: str, fh: int) -> None:
        del path, fh

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        del path
        (os.fdatasync if datasync else os.fsync)(fh)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, float]:
        found = os.lstat(path) if fh is None else os.fstat(fh)
        return {name: getattr(found, name) for name in STAT}

    def link(self, target: str, source: str) -> None:
        os.link(self._below + source, target)

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(path, mode)

    def open(self, path: str, flags: int) -> int:
        return os.open(path, flags & ~os.O_DIRECT)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        del path
        return os.pread(fh, size, offset)

    def readdir(self, path: str, fh: int) -> Iterator[str]:
        del fh
        yield from (".", "..", *os.listdir(path))

    def readlink(self, path: str) -> str:
        return os.readlink(path)

    def release(self, path: str, fh: int) -> None:
        del path
        os.close(fh)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, self._below + new)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(path)
        names = (
            "f_bavail f_bfree f_blocks f_bsize f_favail f_ffree f_files f_flag f_frsize f_namemax"
        )
        return {name: getattr(found, name) for name in names.split()}

    def symlink(self, target: str, source: str) -> None:
        os.symlink(source, target)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(path if fh is None else fh, length)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def utimens(self, path: str, times: tuple[float, float] | None = None) -> None:
        os.utime(path, times)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        del path
        return os.pwrite(fh, data, offset)


def main(directory: str, control: str) -> None:
    """Mount, and serve until the host ends."""
    below = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    glass = Glass(f"/proc/self/fd/{below}", Path(control))
    fusepy.FUSE(
        glass,
        directory,
        foreground=True,
        nonempty=True,
        allow_other=True,
        attr_timeout=0,
        entry_timeout=0,
        negative_timeout=0,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
