"""Turn a spooled upload into a stored image: checked, converted in a sandbox, named by its hash.

Called by the image service after an upload. The result is always a fresh qcow2 that stands alone, whatever was
uploaded, so nothing that a user wrote byte by byte is ever opened by a VM's QEMU. Either `<sha256>.qcow2`
appears whole and on disk, or nothing is left.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from core.command import CommandError, CommandTimeoutError
from core.errors import InvalidError, PermanentError
from storage.errors import NoSpaceError
from storage.file_thread import FileThread
from storage.image_check import VIRTUAL_SIZE_LIMIT_BYTES, CheckedImage, ImageFormat, check_image
from storage.sandbox import (
    OUTPUT_INSIDE,
    SANDBOX_GID,
    SANDBOX_UID,
    SOURCE_INSIDE,
    SandboxLimits,
    one_line,
    run_confined,
)
from storage.sizes import RESERVE_BYTES, capacity_of, format_size
from storage.whole_files import DIRECTORY_MODE, IMAGE_MODE, discard, publish, unfinished_name

log = logging.getLogger(__name__)

QEMU_IMG = "/usr/bin/qemu-img"
CONVERT_TIMEOUT_S = 3600.0
CHUNK_BYTES = 4 << 20
# Without -W: in order, so that the same source gives the same file.
CONVERT_OPTIONS = ("-m", "8", "-O", "qcow2", "-o", "compat=1.1")
CONVERTED_NAME = "image.qcow2"
# Formats whose inner references `qemu-img check` can follow, to find images that are cut short.
CHECKABLE = frozenset({ImageFormat.QCOW2, ImageFormat.VMDK, ImageFormat.VHDX})
CHECK_DAMAGED, CHECK_LEAKS, CHECK_UNSUPPORTED = 2, 3, 63
KILLED_FOR_FILE_SIZE = 128 + signal.SIGXFSZ


@dataclass(frozen=True, slots=True)
class ImportedImage:
    """A stored image. `sha256` and `size_bytes` are of the stored file at `path`."""

    path: Path
    sha256: str
    size_bytes: int
    virtual_size_bytes: int
    source_format: ImageFormat


class ImageImporter:
    """Imports into one directory of images. Equal sources give equal files, so a repeated import changes nothing."""

    def __init__(
        self,
        image_dir: Path,
        *,
        host_id: str,
        files: FileThread,
        timeout_s: float = CONVERT_TIMEOUT_S,
        virtual_size_limit_bytes: int = VIRTUAL_SIZE_LIMIT_BYTES,
    ) -> None:
        self._image_dir = image_dir
        self._host_id = host_id
        self._files = files
        self._timeout_s = timeout_s
        self._virtual_size_limit_bytes = virtual_size_limit_bytes

    async def import_file(
        self, spool: Path, *, expected: ImageFormat | None = None
    ) -> ImportedImage:
        """Check, convert and store an uploaded file. The spool file is removed, however it ends.

        Raises:
            InvalidError: the file is not a disk image that stands alone; the message says what to do.
            NoSpaceError: the image does not fit.
            PermanentError: this host cannot convert images.
        """
        # Named here and made by the thread: a cancelled caller still knows what to remove.
        workshop = self._image_dir / unfinished_name(self._host_id)
        try:
            checked = await self._files.call("check the image", self._check, spool, expected)
            await self._files.call("store the image", self._open_workshop, workshop)
            await self._convert(spool, workshop, checked)
            return await self._store(workshop / CONVERTED_NAME, checked)
        finally:
            await self._files.clean_up("clean up after the import", lambda: _clean(spool, workshop))

    def _check(self, spool: Path, expected: ImageFormat | None) -> CheckedImage:
        checked = check_image(
            spool, expected=expected, virtual_size_limit_bytes=self._virtual_size_limit_bytes
        )
        # Only now, and only inside the sandbox can others reach it: the spool directory is private.
        spool.chmod(0o444)
        return checked

    def _open_workshop(self, workshop: Path) -> None:
        self._image_dir.mkdir(parents=True, exist_ok=True, mode=DIRECTORY_MODE)
        workshop.mkdir(mode=0o700)
        os.chown(workshop, SANDBOX_UID, SANDBOX_GID)

    async def _convert(self, spool: Path, workshop: Path, checked: CheckedImage) -> None:
        space = await self._files.call("store the image", capacity_of, self._image_dir)
        room = max(0, space.free_bytes - RESERVE_BYTES)
        full_size = checked.virtual_size_bytes + checked.virtual_size_bytes // 64 + (16 << 20)
        limits = SandboxLimits(
            output_bytes=min(room, full_size),
            timeout_s=self._timeout_s,
            cpu_s=int(self._timeout_s) + 1,
        )
        source = _source_options(checked.format)
        try:
            if checked.format in CHECKABLE:
                await self._check_references(spool, source, limits)
            await run_confined(
                [
                    QEMU_IMG,
                    "convert",
                    *CONVERT_OPTIONS,
                    source,
                    f"{OUTPUT_INSIDE}/{CONVERTED_NAME}",
                ],
                source=spool,
                output=workshop,
                limits=limits,
            )
        except CommandTimeoutError:
            raise InvalidError(
                f"the image could not be converted within {self._timeout_s:g} s: "
                "make it smaller, or upload it as qcow2"
            ) from None
        except CommandError as error:
            full = room < full_size and (
                error.code_number == KILLED_FOR_FILE_SIZE
                or "too large" in error.stderr_tail.lower()
            )
            if full or "No space left" in error.stderr_tail:
                raise NoSpaceError(
                    f"the image does not fit: {format_size(room)} are free in {self._image_dir}; "
                    "free some space and upload it again"
                ) from error
            raise InvalidError(
                f"the image cannot be converted ({one_line(error.stderr_tail)}): "
                "check it with 'qemu-img check' and upload it again"
            ) from error

    async def _check_references(self, spool: Path, source: str, limits: SandboxLimits) -> None:
        try:
            await run_confined(
                [QEMU_IMG, "check", "-q", source], source=spool, output=None, limits=limits
            )
        except CommandError as error:
            if error.code_number == CHECK_DAMAGED:
                raise InvalidError(
                    "the image is damaged or cut short: check it with 'qemu-img check' and upload it again"
                ) from error
            if error.code_number not in (CHECK_LEAKS, CHECK_UNSUPPORTED):
                raise

    async def _store(self, converted: Path, checked: CheckedImage) -> ImportedImage:
        file = await self._files.call("store the image", _take_over, converted)
        try:
            digest, size = hashlib.sha256(), 0
            while chunk := await self._files.call("store the image", _read_and_hash, file, digest):
                size += chunk
            sha256 = digest.hexdigest()
            # The tool had to read what a stranger wrote: its output is no more trusted than its input.
            result = await self._files.call(
                "store the image", check_image, converted, expected=ImageFormat.QCOW2
            )
        finally:
            await self._files.clean_up("close the image", file.close)
        if (
            result.virtual_size_bytes < checked.virtual_size_bytes
            and checked.format is not ImageFormat.VHD
        ):
            raise PermanentError("the converted image is smaller than its source: upload it again")
        final = self._image_dir / f"{sha256}.qcow2"
        await self._files.call("store the image", publish, converted, final, IMAGE_MODE)
        log.info(
            "image stored",
            extra={"sha256": sha256, "size_bytes": size, "source": checked.format.value},
        )
        return ImportedImage(
            path=final,
            sha256=sha256,
            size_bytes=size,
            virtual_size_bytes=result.virtual_size_bytes,
            source_format=checked.format,
        )


def _source_options(format_: ImageFormat) -> str:
    """Return QEMU's options for the source: every layer's driver is said, nothing is left to guess."""
    options: dict[str, object] = {
        "driver": format_.qemu_driver,
        "read-only": True,
        "file": {"driver": "file", "filename": SOURCE_INSIDE, "locking": "off"},
    }
    if format_ in (ImageFormat.QCOW2, ImageFormat.VMDK):
        options["backing"] = None
    return "json:" + json.dumps(options)


def _take_over(path: Path) -> BinaryIO:
    """Open the sandbox's output as ours; refuse anything but a plain file with this one name."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(handle)
        raise PermanentError(
            "the converter left something that is no plain file; the upload was refused"
        )
    os.fchown(handle, 0, 0)
    os.fchmod(handle, 0o400)
    os.chown(path.parent, 0, 0)
    return os.fdopen(handle, "rb", buffering=0)


def _read_and_hash(file: BinaryIO, digest: hashlib._Hash) -> int:
    chunk = file.read(CHUNK_BYTES)
    digest.update(chunk)
    return len(chunk)


def _clean(*unfinished: Path) -> None:
    for path in unfinished:
        discard(path)
