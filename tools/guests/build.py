"""Find a guest image in the cache, or build it there.

Called by `python -m tools.guests`, the test fixtures and the demo. The name of an image in the cache
is a hash of the recipe and of the packages' versions, so an outdated image is never used.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.clock import SystemClock
from core.errors import InvalidError
from tools.guests import full, tiny

HERE = Path(__file__).parent
DEFAULT_CACHE = Path("/var/cache/kvorum")
LOCK_POLL_S = 0.2
KEPT_S = 14 * 86400.0


class _Build(Protocol):
    def __call__(self, target: Path, *, scratch: Path) -> Awaitable[None]: ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one kind of guest is made."""

    ingredients: Callable[[], Awaitable[tuple[str, ...]]]
    build: _Build


RECIPES = {
    "tiny": Recipe(tiny.ingredients, tiny.build),
    "full": Recipe(full.ingredients, full.build),
}


def cache_directory() -> Path:
    """Return where images are kept: `$KVORUM_CACHE/guests`, by default below /var/cache."""
    return Path(os.environ.get("KVORUM_CACHE", str(DEFAULT_CACHE))) / "guests"


def _key(kind: str, ingredients: tuple[str, ...]) -> str:
    """Return a short hash of everything the image depends on."""
    shared = ("image.py", "initrd.py", "packages.py", "records.py")
    names = [*shared, *(path.name for path in HERE.glob(f"{kind}*") if path.is_file())]
    digest = hashlib.sha256("\n".join(ingredients).encode())
    for name in sorted(names):
        digest.update(name.encode() + b"\0" + (HERE / name).read_bytes())
    return digest.hexdigest()[:16]


def _remove_outdated(cache: Path, kind: str) -> None:
    """Delete images nobody has asked for in a long time, and what a killed build left.

    Only under the lock. Other clones may still use newer images.
    """
    oldest_s = SystemClock().wall_ms() / 1000 - KEPT_S
    for path in cache.glob(f"{kind}-*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
    for path in cache.glob(f"{kind}-*.qcow2"):
        if path.stat().st_mtime < oldest_s:
            path.unlink()


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold a lock file, so that two builds of one image wait for each other."""
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_POLL_S)
        yield


async def guest_image(kind: str, *, say: Callable[[str], object] = lambda line: None) -> Path:
    """Return the path of a read-only qcow2 of this kind, building it if the cache has none.

    Raises:
        InvalidError: no such kind.
        PlatformError: a package or a tool is missing; the message says which.
    """
    recipe = RECIPES.get(kind)
    if recipe is None:
        raise InvalidError(f"no guest image {kind!r}: choose from {', '.join(RECIPES)}")
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"{kind}-{_key(kind, await recipe.ingredients())}.qcow2"
    async with _locked(cache / f"{kind}.lock"):
        _remove_outdated(cache, kind)
        if target.exists():
            os.utime(target)
            return target
        say(f"building the {kind} guest image (once; kept in {cache})")
        scratch = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=cache))
        try:
            await recipe.build(scratch / "made.qcow2", scratch=scratch)
            (scratch / "made.qcow2").chmod(0o444)
            (scratch / "made.qcow2").replace(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target
