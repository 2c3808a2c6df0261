"""Data storages that contract tests work on, and their ids."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from storage.driver import DataStorageDriver

MIB = 1 << 20
STORAGE = "22222222-2222-4333-8444-555555555555"
HOST = "11111111-2222-4333-8444-555555555555"
OTHER_HOST = "99999999-2222-4333-8444-555555555555"
DISK = "aaaaaaaa-2222-4333-8444-555555555555"
OTHER_DISK = "bbbbbbbb-2222-4333-8444-555555555555"
SHA256 = "ab" * 32


@dataclass(frozen=True, slots=True)
class Subject:
    """A driver, and what the outside can do to its storage."""

    driver: DataStorageDriver
    add_image: Callable[[str, int], None]
    unmount: Callable[[], None] | None


def qemu_img(*arguments: object) -> str:
    argv = ["qemu-img", *map(str, arguments)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def make_image(driver: DataStorageDriver) -> Callable[[str, int], None]:
    def make(sha256: str, size: int) -> None:
        qemu_img("create", "-f", "qcow2", driver.image_path(sha256), size)

    return make


def move_away(mounted: Path) -> None:
    """What an unmounted directory looks like: there, and empty."""
    mounted.rename(mounted.with_name("elsewhere"))
    mounted.mkdir()
