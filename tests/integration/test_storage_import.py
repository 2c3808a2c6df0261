"""Uploads through the real tools: what is good comes out the same, what attacks is refused, and a crash leaves nothing.

Needs root: the sandbox takes namespaces, and a full disk is a small tmpfs.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.command import CommandError, CommandTimeoutError
from core.errors import InvalidError, PermanentError
from storage.directory_driver import LocalDriver
from storage.errors import NoSpaceError
from storage.file_thread import FileThread
from storage.image_check import ImageFormat, check_image
from storage.image_import import ImageImporter, ImportedImage
from storage.image_store import ImageStore
from storage.sandbox import SandboxLimits, run_confined, sandbox_argv
from storage.verified_copy import marker_path

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

MIB = 1 << 20
HOST = "11111111-2222-4333-8444-555555555555"
STORAGE = "22222222-2222-4333-8444-555555555555"
DISK = "aaaaaaaa-2222-4333-8444-555555555555"
SECRET = b"root:$6$the-hosts-own-secret:19000:0:99999:7:::\n"


def qemu_img(*arguments: object) -> str:
    done = subprocess.run(
        ["qemu-img", *map(str, arguments)], check=True, capture_output=True, text=True
    )
    return done.stdout


def disk_content(seed: int = 1, size: int = 8 * MIB) -> bytes:
    """A disk with a partition table's signature, noise, and a hole."""
    noise = random.Random(seed).randbytes(MIB) * (size // 2 // MIB)
    return (noise[:510] + b"\x55\xaa" + noise[512:]).ljust(size, b"\0")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "source.raw"
    path.write_bytes(disk_content())
    return path


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the host, as large as an image needs it, that must never be read on an uploader's behalf."""
    path = tmp_path / "shadow"
    path.write_bytes(SECRET * 20000)
    return path


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store", host_id=HOST, convert_timeout_s=30)


async def upload(
    store: ImageStore, path: Path, expected: ImageFormat | None = None
) -> ImportedImage:
    content = path.read_bytes()
    async with await store.begin_upload(
        len(content), hashlib.sha256(content).hexdigest()
    ) as writer:
        await writer.write(content)
        spooled = await writer.finish()
    return await store.import_upload(spooled, expected=expected)


def left_in(directory: Path) -> list[str]:
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.name != "spool")


# ------------------------------------------------------------------ good images


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        (ImageFormat.RAW, ()),
        (ImageFormat.QCOW2, ()),
        (ImageFormat.QCOW2, ("-c", "-o", "compression_type=zstd")),
        (ImageFormat.QCOW2, ("-o", "extended_l2=on")),
        (ImageFormat.QCOW2, ("-o", "compat=0.10")),
        (ImageFormat.VMDK, ()),
        (ImageFormat.VMDK, ("-o", "subformat=streamOptimized")),
        (ImageFormat.VHD, ("-o", "force_size=on")),
        (ImageFormat.VHD, ("-o", "force_size=on,subformat=fixed")),
        (ImageFormat.VHDX, ()),
    ],
)
async def test_the_content_of_an_image_survives_the_import(
    tmp_path: Path, raw: Path, store: ImageStore, format_: ImageFormat, options: tuple[str, ...]
) -> None:
    source = tmp_path / "source"
    qemu_img("convert", "-f", "raw", "-O", format_.qemu_driver, *options, raw, source)
    image = await upload(store, source)
    assert image.source_format is format_
    assert image.virtual_size_bytes == 8 * MIB
    assert image.path == store.path / f"{image.sha256}.qcow2"
    assert hashlib.sha256(image.path.read_bytes()).hexdigest() == image.sha256
    assert image.size_bytes == image.path.stat().st_size
    assert (image.path.stat().st_mode & 0o777, image.path.stat().st_uid) == (0o444, 0)
    told = json.loads(qemu_img("info", "--output=json", image.path))
    assert told["format"] == "qcow2"
    assert told["format-specific"]["data"]["compat"] == "1.1"
    assert "backing-filename" not in told
    qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, image.path)
    qemu_img("check", image.path)
    assert left_in(store.path) == sorted([image.path.name, marker_path(image.path).name])


async def test_an_iso_is_kept_as_a_disk_of_its_content(tmp_path: Path, store: ImageStore) -> None:
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "file").write_bytes(b"x" * 5000)
    iso = tmp_path / "x.iso"
    subprocess.run(["genisoimage", "-quiet", "-R", "-o", iso, tmp_path / "content"], check=True)  # noqa: ASYNC221 - a test may wait
    image = await upload(store, iso)
    assert image.source_format is ImageFormat.ISO
    qemu_img("compare", "-f", "raw", "-F", "qcow2", iso, image.path)


async def test_the_same_source_gives_the_same_image(raw: Path, store: ImageStore) -> None:
    first, second = await upload(store, raw), await upload(store, raw)
    assert first == second
    assert await store.list_images() == (first.sha256,)


async def test_a_disk_linked_to_an_imported_image_shows_its_content(
    tmp_path: Path, raw: Path, store: ImageStore
) -> None:
    image = await upload(store, raw)
    driver = LocalDriver(STORAGE, tmp_path / "data", host_id=HOST)
    await driver.ensure_ready()
    driver.image_path(image.sha256).write_bytes(image.path.read_bytes())
    disk = await driver.create_disk(DISK, 8 * MIB, image.sha256)
    qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, disk)
    facts = await driver.disk_facts(DISK)
    assert facts.allocated_bytes < MIB


# ------------------------------------------------------------------ attacks


def backing_file(at: Path, secret: Path) -> None:
    qemu_img("create", "-f", "qcow2", "-b", secret, "-F", "raw", at)


def backing_file_without_format(at: Path, secret: Path) -> None:
    backing_file(at, secret)
    at.write_bytes(at.read_bytes().replace(b"\xe2\x79\x2a\xca", b"\x12\x34\x56\x78", 1))


def json_backing(at: Path, secret: Path) -> None:
    inner = json.dumps({"driver": "raw", "file": {"driver": "file", "filename": str(secret)}})
    qemu_img("create", "-f", "qcow2", "-u", "-b", f"json:{inner}", "-F", "raw", at, "1M")


def network_backing(at: Path, secret: Path) -> None:
    qemu_img("create", "-f", "qcow2", "-u", "-b", "http://192.0.2.1/x", "-F", "raw", at, "1M")


def external_data_file(at: Path, secret: Path) -> None:
    copy = at.with_name("data.raw")
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={copy},data_file_raw=on", at, "1M")
    content = at.read_bytes()
    at.write_bytes(
        content.replace(str(copy).encode(), str(secret).encode().ljust(len(str(copy)), b"\0"))
    )


def vmdk_flat(at: Path, secret: Path) -> None:
    at.write_text(
        textwrap.dedent(
            f"""\
            # Disk DescriptorFile
            version=1
            CID=12345678
            parentCID=ffffffff
            createType="monolithicFlat"
            RW 1024 FLAT "{secret}" 0
            """
        )
    )


def vmdk_with_parent(at: Path, secret: Path) -> None:
    qemu_img("create", "-f", "vmdk", at, "1M")
    content = at.read_bytes()
    hint = f'parentFileNameHint="{secret}"\n'.encode()
    at_end = content.index(b"createType")
    at.write_bytes(content[:at_end] + hint + content[at_end : -len(hint)])


def vmdk_descriptor_inside(at: Path, secret: Path) -> None:
    """Capacity 0 makes QEMU read the embedded text as a list of extents."""
    vmdk_flat(at, secret)
    text = at.read_bytes()
    qemu_img("create", "-f", "vmdk", at, "1M")
    content = bytearray(at.read_bytes())
    content[12:20] = bytes(8)
    content[512 : 512 + len(text)] = text
    at.write_bytes(content)


def vhd_differencing(at: Path, secret: Path) -> None:
    qemu_img("create", "-f", "vpc", at, "1M")
    content = bytearray(at.read_bytes())
    for footer in (0, len(content) - 512):
        content[footer + 60 : footer + 64] = (4).to_bytes(4, "big")
    at.write_bytes(content)


def empty(at: Path, secret: Path) -> None:
    at.touch()


def text(at: Path, secret: Path) -> None:
    at.write_bytes(SECRET * 1000)


def noise(at: Path, secret: Path) -> None:
    at.write_bytes(random.Random(7).randbytes(MIB))


def bomb(at: Path, secret: Path) -> None:
    qemu_img("create", "-f", "qcow2", at, "60T")


def internal_snapshot(at: Path, secret: Path) -> None:
    qemu_img("create", "-f", "qcow2", at, "1M")
    qemu_img("snapshot", "-c", "s1", at)


ATTACKS = [
    *(backing_file, backing_file_without_format, json_backing, network_backing, external_data_file),
    *(
        vmdk_flat,
        vmdk_with_parent,
        vmdk_descriptor_inside,
        vhd_differencing,
        empty,
        text,
        noise,
        bomb,
    ),
    internal_snapshot,
]
LEAKING = [backing_file, json_backing, external_data_file, vmdk_flat, vmdk_descriptor_inside]


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attack_is_refused_and_leaves_nothing(
    tmp_path: Path, secret: Path, store: ImageStore, attack: object
) -> None:
    assert callable(attack)
    image = tmp_path / "image"
    attack(image, secret)
    for expected in (None, *ImageFormat):
        if expected is ImageFormat.RAW and attack in (text, noise):
            continue  # bytes that are said to be a raw disk are one
        with pytest.raises(InvalidError) as refusal:
            check_image(image, expected=expected)
        assert SECRET[:10].decode() not in refusal.value.message
    if attack is not empty:
        with pytest.raises(InvalidError):
            await upload(store, image)
    assert left_in(store.path) == []


@pytest.mark.parametrize("attack", LEAKING)
async def test_the_sandbox_alone_keeps_the_hosts_files_in(
    tmp_path: Path, secret: Path, attack: object
) -> None:
    """Were the header check wrong, the converter would still find nothing to leak."""
    assert callable(attack)
    image, output = tmp_path / "image", tmp_path / "out"
    attack(image, secret)
    qemu_img("convert", "-O", "raw", image, tmp_path / "leaked")
    assert SECRET in (tmp_path / "leaked").read_bytes(), "the attack works without us"
    output.mkdir()
    os.chown(output, 65534, 65534)
    image.chmod(0o444)
    tool = ["/usr/bin/qemu-img", "convert", "-O", "raw", "/source", "/out/result"]
    with pytest.raises(CommandError) as error:
        await run_confined(tool, source=image, output=output, limits=SandboxLimits(64 * MIB))
    assert SECRET.decode() not in error.value.stderr_tail
    assert not any(SECRET in path.read_bytes() for path in output.iterdir())


@pytest.mark.parametrize("where", ["l1", "middle", "end"])
async def test_an_image_that_is_cut_short_is_refused(
    tmp_path: Path, raw: Path, store: ImageStore, where: str
) -> None:
    source, cut = tmp_path / "whole", tmp_path / "cut"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, source)
    content = source.read_bytes()
    cut.write_bytes(
        content[: {"l1": 100_000, "middle": len(content) // 2, "end": len(content) - 65536}[where]]
    )
    with pytest.raises(InvalidError, match="cut short"):
        await upload(store, cut)
    assert left_in(store.path) == []


# ------------------------------------------------------------------ the sandbox


async def confined(tmp_path: Path, *tool: str, **limits: float) -> str:
    source, output = tmp_path / "source.raw", tmp_path / "out"
    source.chmod(0o444)
    output.mkdir(exist_ok=True)
    os.chown(output, 65534, 65534)
    bounds = SandboxLimits(output_bytes=int(limits.pop("output_bytes", MIB)), **limits)  # type: ignore[arg-type]  # values of a test table
    return (await run_confined(tool, source=source, output=output, limits=bounds)).stdout.decode()


@pytest.mark.usefixtures("raw")
async def test_inside_there_is_only_the_image_and_nobodys_rights(tmp_path: Path) -> None:
    assert set((await confined(tmp_path, "/usr/bin/ls", "/")).split()) == {
        *("bin", "dev", "lib", "lib64", "out", "source", "usr")
    }
    assert (await confined(tmp_path, "/usr/bin/id", "-u")).strip() == "65534"
    assert (await confined(tmp_path, "/usr/bin/ls", "/dev")).split() != []
    for forbidden in (
        ("/usr/bin/cat", "/etc/passwd"),
        ("/usr/bin/touch", "/source"),
        ("/usr/bin/touch", "/usr/x"),
        ("/usr/bin/touch", "/x"),
        (
            "/usr/bin/unshare",
            "--user",
            "--map-root-user",
            "/usr/bin/mount",
            "-t",
            "tmpfs",
            "x",
            "/usr",
        ),
        ("/usr/bin/python3", "-c", "bytearray(4 << 30)"),
        ("/usr/bin/python3", "-c", "open('/out/x', 'wb').write(bytes(2 << 20))"),
    ):
        with pytest.raises(CommandError):
            await confined(tmp_path, *forbidden)


@pytest.mark.usefixtures("raw")
async def test_inside_there_is_no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = (
            f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5)"
        )
        subprocess.run([sys.executable, "-c", connect], check=True)  # noqa: ASYNC221 - a test may wait
        with pytest.raises(CommandError, match=r"ConnectionRefused|unreachable"):
            await confined(tmp_path, "/usr/bin/python3", "-c", connect)


@pytest.mark.usefixtures("raw")
async def test_a_tool_that_does_not_end_is_killed_with_all_it_started(tmp_path: Path) -> None:
    mark = f"{os.getpid()}.25"
    with pytest.raises(CommandTimeoutError):
        await confined(tmp_path, "/usr/bin/sleep", mark, timeout_s=0.5)
    poll(lambda: not running_with(mark))


@pytest.mark.usefixtures("raw")
async def test_without_the_sandbox_nothing_is_converted(tmp_path: Path) -> None:
    argv = sandbox_argv(["/usr/bin/true"], source=tmp_path, output=None, limits=SandboxLimits(MIB))
    assert argv[0] == "/usr/bin/bwrap"
    with pytest.raises(PermanentError, match="sandbox for images cannot be made"):
        await run_confined(
            ["/usr/bin/true"], source=tmp_path / "missing", output=None, limits=SandboxLimits(MIB)
        )


# ------------------------------------------------------------------ crashes


def running_with(mark: str) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                if mark in (process / "cmdline").read_text():
                    found.append(process.name)
            except OSError:
                continue
    return found


def poll(done: object, deadline_s: float = 20.0) -> None:
    assert callable(done)
    end = time.monotonic() + deadline_s
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


IMPORTING = """
import asyncio, sys
from pathlib import Path
from storage.file_thread import FileThread
from storage.image_import import ImageImporter

async def main():
    importer = ImageImporter(Path(sys.argv[1]), host_id=sys.argv[2], files=FileThread("x"))
    await importer.import_file(Path(sys.argv[3]))
asyncio.run(main())
"""

CREATING = """
import asyncio, sys
from storage.directory_driver import LocalDriver

async def main():
    driver = LocalDriver(sys.argv[3], sys.argv[1], host_id=sys.argv[2])
    n = 0
    while True:
        n += 1
        await driver.create_disk(f"{n:08x}-2222-4333-8444-555555555555", 1 << 30)
asyncio.run(main())
"""


def start(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(
        argv, env={**os.environ, "PYTHONPATH": os.getcwd()}, stderr=subprocess.DEVNULL
    )


async def test_an_agent_killed_in_the_middle_of_an_import_leaves_nothing_after_the_sweep(
    tmp_path: Path, store: ImageStore
) -> None:
    await store.ensure_ready()
    spool = store.path / "spool" / f".unfinished-{HOST}-0123"
    spool.write_bytes(disk_content(size=128 * MIB))
    agent = start(IMPORTING, store.path, HOST, spool)
    try:
        poll(lambda: any(p.stat().st_size > MIB for p in store.path.glob(".unfinished-*/*")))
    finally:
        agent.send_signal(signal.SIGKILL)
        agent.wait()
    assert left_in(store.path), "it was in the middle"
    poll(lambda: not running_with(str(spool)))
    assert await store.sweep() == 2
    assert left_in(store.path) == []


async def test_an_agent_killed_while_it_makes_disks_leaves_whole_disks_only(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for _ in range(3):
        agent = start(CREATING, data, HOST, STORAGE)
        try:
            poll(lambda: len(list((data / "disks").glob("*.qcow2"))) > 2)
        finally:
            agent.send_signal(signal.SIGKILL)
            agent.wait()
        poll(lambda: not running_with(str(data)))
    driver = LocalDriver(STORAGE, data, host_id=HOST)
    await driver.sweep()
    assert list((data / "disks").glob(".*")) == []
    for disk in await driver.list_disks():
        assert (await driver.disk_facts(disk)).virtual_size_bytes == 1 << 30
        qemu_img("check", driver.disk_path(disk))


# ------------------------------------------------------------------ full disks


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for the reserve (64 MiB) and a little more."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "kvt-storage", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


async def test_an_import_that_does_not_fit_says_so_and_leaves_nothing(
    tmp_path: Path, small: Path
) -> None:
    spool = tmp_path / "spool.raw"
    spool.write_bytes(disk_content(size=64 * MIB))
    files = FileThread("small")
    importer = ImageImporter(small / "images", host_id=HOST, files=files)
    with pytest.raises(NoSpaceError, match="does not fit"):
        await importer.import_file(spool)
    assert left_in(small) == ["images"]
    assert not spool.exists()


async def test_an_upload_onto_a_disk_that_fills_up_says_so_and_leaves_nothing(small: Path) -> None:
    store = ImageStore(small / "store", host_id=HOST)
    with pytest.raises(NoSpaceError, match="are needed"):
        await store.begin_upload(32 * MIB)
    writer = await store.begin_upload(8 * MIB)
    (small / "filler").write_bytes(bytes(78 * MIB))
    with pytest.raises(NoSpaceError, match="no space left"):
        await writer.write(bytes(8 * MIB))
    assert left_in(small / "store") == []


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


async def test_a_disk_on_a_full_storage_says_so_and_leaves_nothing(small: Path) -> None:
    driver = LocalDriver(STORAGE, small / "data", host_id=HOST)
    await driver.ensure_ready()
    fill(small / "filler")
    with pytest.raises(NoSpaceError):
        await driver.create_disk(DISK, 8 * MIB)
    assert left_in(small / "data" / "disks") == []
