"""Debian packages as raw material: their versions, and their files unpacked but not installed.

Called by the recipes. Versions go into the key under which an image is cached, so that a security
update of the kernel makes a new image by itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.command import CommandError, run
from core.errors import UnavailableError

KERNEL = "linux-image-cloud-amd64"
QUERY_TIMEOUT_S = 60.0
DOWNLOAD_TIMEOUT_S = 600.0


async def kernel_package() -> str:
    """Return the package that holds the current cloud kernel, e.g. `linux-image-6.1.0-1-cloud-amd64`.

    Raises:
        UnavailableError: the package lists do not know it even after `apt-get update`.
    """
    for attempt in ("as-is", "updated"):
        if attempt == "updated":
            await run(["apt-get", "update", "-qq"], timeout_s=DOWNLOAD_TIMEOUT_S)
        try:
            answer = await run(["apt-cache", "depends", KERNEL], timeout_s=QUERY_TIMEOUT_S)
        except CommandError:
            continue
        found = re.search(r"Depends: (linux-image-\S+)", answer.stdout.decode())
        if found:
            return found[1]
    raise UnavailableError(f"no package {KERNEL}: check /etc/apt/sources.list, then apt-get update")


async def versions(packages: Sequence[str]) -> tuple[str, ...]:
    """Return `name=version` of what apt would install for each package, in the given order."""
    answer = await run(["apt-cache", "policy", *packages], timeout_s=QUERY_TIMEOUT_S)
    found = dict(
        re.findall(r"^(\S+):\n  Installed: .*\n  Candidate: (\S+)", answer.stdout.decode(), re.M)
    )
    missing = [name for name in packages if name not in found]
    if missing:
        raise UnavailableError(f"apt knows no {', '.join(missing)}: run apt-get update")
    return tuple(f"{name}={found[name]}" for name in packages)


async def unpack(packages: Sequence[str], *, into: Path) -> None:
    """Download packages and unpack their files below `into`, without running their scripts."""
    debs = into / "debs"
    debs.mkdir(parents=True)
    as_root = ("-o", "APT::Sandbox::User=root")
    argv = ["env", "-C", str(debs), "apt-get", "download", "-q", *as_root, *packages]
    await run(argv, timeout_s=DOWNLOAD_TIMEOUT_S)
    for deb in sorted(debs.glob("*.deb")):
        await run(["dpkg-deb", "-x", str(deb), str(into)], timeout_s=QUERY_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class KernelTree:
    """An unpacked kernel package."""

    root: Path

    @property
    def image(self) -> Path:
        """The bootable kernel."""
        return next((self.root / "boot").glob("vmlinuz-*"))

    @property
    def version(self) -> str:
        """What `uname -r` will say."""
        return self.image.name.removeprefix("vmlinuz-")

    async def modules(self, names: Sequence[str]) -> tuple[Path, ...]:
        """Return the files of modules and of all they need, in the order they must be loaded."""
        base = str(self.root)
        await run(["depmod", "-b", base, self.version], timeout_s=QUERY_TIMEOUT_S)
        ordered: dict[Path, None] = {}
        for name in names:
            argv = ["modprobe", "-d", base, "-S", self.version, "--show-depends", name]
            answer = await run(argv, timeout_s=QUERY_TIMEOUT_S)
            for line in answer.stdout.decode().splitlines():
                if line.startswith("insmod "):
                    ordered[Path(line.split()[1])] = None
        return tuple(ordered)
