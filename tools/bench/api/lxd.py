"""A daemon of Debian's LXD with an empty state of its own: what our API is compared with. It starts nothing and joins nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from core.errors import NotFoundError, UnavailableError

UP_TIMEOUT_S = 60.0
END_TIMEOUT_S = 30.0
PROFILES = "/1.0/profiles"
UNMOUNTED = ("devlxd", "shmounts")


@contextlib.asynccontextmanager
async def lxd(directory: Path) -> AsyncIterator[Path]:
    """Run it with its state in `directory` and return the path of its socket.

    Raises:
        NotFoundError: LXD isn't installed.
        UnavailableError: it doesn't come up.
    """
    program = shutil.which("lxd")
    if program is None:
        raise NotFoundError("there is no LXD: apt-get install lxd")
    directory.mkdir()
    with (directory.parent / "lxd.log").open("wb") as log:
        running = await asyncio.create_subprocess_exec(
            program,
            env={**os.environ, "LXD_DIR": str(directory)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        path = directory / "unix.socket"
        await _answers(path)
        yield path
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.terminate()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await running.wait()
        except TimeoutError:
            running.kill()
            await running.wait()
        for name in UNMOUNTED:
            await _unmount(directory / name)


async def _answers(path: Path) -> None:
    try:
        async with asyncio.timeout(UP_TIMEOUT_S):
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with client(path) as http, http.get("/1.0") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise UnavailableError(f"LXD gave no answer in {UP_TIMEOUT_S:g} s") from None


async def _unmount(path: Path) -> None:
    """Take away a file system that the daemon has mounted in its state, if there is one."""
    if not os.path.ismount(path):
        return
    process = await asyncio.create_subprocess_exec("umount", "--lazy", str(path))
    await process.wait()


def pid_behind(path: Path) -> int:
    """Return the process that listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        credentials = connection.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def client(path: Path) -> aiohttp.ClientSession:
    """Return an HTTP client of a unix socket."""
    return aiohttp.ClientSession("http://host", connector=aiohttp.UnixConnector(str(path)))
