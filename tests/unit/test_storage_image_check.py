"""What the header check accepts, what it refuses, and that no bytes at all can confuse it."""

from __future__ import annotations

import io
import os
import struct
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InvalidError
from storage import image_vhd
from storage.image_bytes import ImageBytes
from storage.image_check import CheckedImage, ImageFormat, check_bytes, check_image

MIB = 1 << 20
LIMIT = 1 << 40


def qcow2(
    *,
    version: int = 3,
    backing: tuple[int, int] = (0, 0),
    cluster_bits: int = 16,
    size: int = 10 * MIB,
    crypt: int = 0,
    l1_entries: int = 1,
    l1_offset: int = 0x30000,
    refcount_clusters: int = 1,
    snapshots: int = 0,
    features: int = 0,
    compression: int = 0,
    extensions: bytes = bytes(8),
    length: int = 0x40000,
) -> bytes:
    head = struct.pack(
        ">4sIQIIQIIQQIIQ",
        *(b"QFI\xfb", version, *backing, cluster_bits, size, crypt, l1_entries, l1_offset, 0x10000),
        *(refcount_clusters, snapshots, 0),
    )
    if version == 3:
        head += struct.pack(">QQQIIB7x", features, 0, 0, 4, 112, compression)
    return (head + extensions).ljust(length, b"\0")


def extension(kind: int, content: bytes) -> bytes:
    return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)


DESCRIPTOR = """# Disk DescriptorFile
version=1
CID=11111111
parentCID=ffffffff
createType="monolithicSparse"
RW 20480 SPARSE "disk.vmdk"
ddb.adapterType = "ide"
"""


def vmdk(
    descriptor: str = DESCRIPTOR,
    *,
    version: int = 1,
    capacity: int = 20480,
    grain: int = 128,
    descriptor_at: int = 1,
    entries: int = 512,
    directory_at: int = 60,
    length: int = 64 * 1024,
) -> bytes:
    head = struct.pack(
        "<4sIIQQQQIQQQ",
        *(b"KDMV", version, 3, capacity, grain, descriptor_at, 20, entries, 26, directory_at, 128),
    ).ljust(512, b"\0")
    return (head + descriptor.encode().ljust(20 * 512, b"\0")).ljust(length, b"\0")


def vhd_footer(kind: int, size: int = 10 * MIB) -> bytes:
    return struct.pack(
        ">8sIIQI4sI4sQQHBBI",
        b"conectix",
        2,
        0x10000,
        512,
        0,
        b"qemu",
        1,
        b"Wi2k",
        size,
        size,
        1,
        1,
        1,
        kind,
    ).ljust(512, b"\0")


def vhd_dynamic(kind: int = 3, *, entries: int = 5, block: int = 2 * MIB) -> bytes:
    header = struct.pack(">8sQQIII", b"cxsparse", 2**64 - 1, 1536, 0x10000, entries, block)
    footer = vhd_footer(kind)
    return footer + header.ljust(1024, b"\0") + bytes(512) + footer


def vhdx(
    *, log: bytes = bytes(16), flags: int = 0, parent: bool = False, size: int = 10 * MIB
) -> bytes:
    image = bytearray(3 * MIB)
    image[:8] = b"vhdxfile"
    for at in image_vhd.VHDX_HEADERS_AT:
        image[at : at + 64] = b"head".ljust(48, b"\0") + log
    regions = [(image_vhd.VHDX_BAT, 2 * MIB, MIB), (image_vhd.VHDX_METADATA, MIB, MIB)]
    table = struct.pack("<4sIII", b"regi", 0, len(regions), 0)
    table += b"".join(kind.bytes_le + struct.pack("<QII", at, n, 1) for kind, at, n in regions)
    for at in image_vhd.VHDX_REGIONS_AT:
        image[at : at + len(table)] = table
    items = [
        (image_vhd.VHDX_FILE_PARAMETERS, struct.pack("<II", MIB, flags)),
        (image_vhd.VHDX_DISK_SIZE, struct.pack("<Q", size)),
    ]
    if parent:
        items.append((image_vhd.VHDX_PARENT_LOCATOR, bytes(16)))
    entries, values = struct.pack("<8s2xH20x", b"metadata", len(items)), b""
    for kind, value in items:
        entries += kind.bytes_le + struct.pack("<III4x", 65536 + len(values), len(value), 4)
        values += value
    image[MIB : MIB + len(entries)] = entries
    image[MIB + 65536 : MIB + 65536 + len(values)] = values
    return bytes(image)


def iso(blocks: int = 20, length: int = 20 * 2048) -> bytes:
    image = bytearray(length)
    descriptor = b"\x01CD001\x01".ljust(80, b"\0") + struct.pack("<I", blocks)
    image[32768 : 32768 + 84] = descriptor
    image[32768 + 128 : 32768 + 130] = struct.pack("<H", 2048)
    return bytes(image)


def raw(length: int = MIB) -> bytes:
    return (bytes(510) + b"\x55\xaa").ljust(length, b"\0")


GOOD = {
    ImageFormat.QCOW2: qcow2(),
    ImageFormat.VMDK: vmdk(),
    ImageFormat.VHD: vhd_dynamic(),
    ImageFormat.VHDX: vhdx(),
    ImageFormat.ISO: iso(),
    ImageFormat.RAW: raw(),
}


def check(content: bytes, expected: ImageFormat | None = None, limit: int = LIMIT) -> CheckedImage:
    return check_bytes(ImageBytes(io.BytesIO(content), len(content), limit), expected)


@pytest.mark.parametrize("format_", GOOD)
def test_an_image_that_stands_alone_is_accepted_as_what_it_is(format_: ImageFormat) -> None:
    for expected in (None, format_):
        found = check(GOOD[format_], expected)
        assert found.format is format_
        assert found.virtual_size_bytes == {ImageFormat.ISO: 40960, ImageFormat.RAW: MIB}.get(
            format_, 10 * MIB
        )


@pytest.mark.parametrize("format_", GOOD)
def test_an_image_of_another_format_than_said_is_refused(format_: ImageFormat) -> None:
    for other in set(ImageFormat) - {format_}:
        with pytest.raises(InvalidError, match=f"is {format_}, not {other}"):
            check(GOOD[format_], other)


def test_more_good_images() -> None:
    assert check(qcow2(version=2)).virtual_size_bytes == 10 * MIB
    assert check(qcow2(features=0b11001, compression=1)).format is ImageFormat.QCOW2
    assert (
        check(qcow2(extensions=extension(0x6803F857, bytes(96)) + bytes(8))).format
        is ImageFormat.QCOW2
    )
    assert check(bytes(10 * MIB) + vhd_footer(2)).format is ImageFormat.VHD
    assert (
        check(vmdk(DESCRIPTOR.replace("monolithicSparse", "streamOptimized"))).format
        is ImageFormat.VMDK
    )
    assert check(bytes(1024), ImageFormat.RAW).virtual_size_bytes == 1024


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "empty"),
        (qcow2(version=1), "version 1"),
        (qcow2(backing=(512, 11)), "backing file"),
        (qcow2(backing=(0, 11)), "backing file"),
        (qcow2(version=2, backing=(512, 11)), "backing file"),
        (qcow2(cluster_bits=8), "cluster size"),
        (qcow2(cluster_bits=22), "cluster size"),
        (qcow2(size=0), "size 0"),
        (qcow2(size=LIMIT + 512, l1_entries=4096), "more than"),
        (qcow2(crypt=1), "encrypted"),
        (qcow2(crypt=2), "encrypted"),
        (qcow2(size=1 << 30), "L1 table"),
        (qcow2(l1_entries=(32 << 20) // 8 + 1), "L1 table"),
        (qcow2(l1_offset=0x50000), "L1 table lies beyond"),
        (qcow2(l1_offset=0x30008), "not on a cluster"),
        (qcow2(refcount_clusters=0), "refcount table"),
        (qcow2(refcount_clusters=129), "refcount table"),
        (qcow2(snapshots=1), "snapshots"),
        (qcow2(features=4), "in another file"),
        (qcow2(features=2), "corrupt"),
        (qcow2(features=32), "unknown"),
        (qcow2(compression=1), "compression"),
        (qcow2(features=8, compression=2), "compression"),
        (qcow2(extensions=extension(0xE2792ACA, b"raw")), "backing format"),
        (
            qcow2(
                extensions=extension(0x6803F857, bytes(8)) + extension(0x44415441, b"/etc/passwd")
            ),
            "external data",
        ),
        (qcow2(extensions=extension(0x0537BE77, bytes(16))), "encrypted"),
        (qcow2(extensions=struct.pack(">II", 1, 1 << 31)), "extension"),
        (qcow2()[:64], "cut short"),
        (qcow2()[: 0x30000 - 8], "cut short"),
        (vmdk(version=9), "version 9"),
        (vmdk(capacity=0), "size 0"),
        (vmdk(capacity=LIMIT // 512 + 1), "more than"),
        (vmdk(grain=0), "grain"),
        (vmdk(grain=96), "grain"),
        (vmdk(entries=0), "grain table"),
        (vmdk(descriptor_at=0), "cut short|descriptor"),
        (vmdk(descriptor_at=30), "descriptor"),
        (vmdk(directory_at=10**9), "grain directory lies beyond"),
        (vmdk("garbage"), "descriptor"),
        (vmdk(DESCRIPTOR.replace("SPARSE", "FLAT")), "other files"),
        (vmdk(DESCRIPTOR + 'rdonly 20480 flat "/etc/passwd" 0\n'), "other files"),
        (vmdk(DESCRIPTOR + '\rRW 20480 FLAT "/etc/passwd" 0\n'), "other files"),
        (vmdk(DESCRIPTOR + 'RW 1 SPARSE "b.vmdk"\n'), "split"),
        (vmdk(DESCRIPTOR.replace("monolithicSparse", "monolithicFlat")), "type"),
        (vmdk(DESCRIPTOR.replace("monolithicSparse", "twoGbMaxExtentSparse")), "type"),
        (vmdk(DESCRIPTOR.replace("ffffffff", "12345678")), "parent"),
        (vmdk(DESCRIPTOR + 'parentFileNameHint="/etc/passwd"\n'), "parent"),
        (vmdk(DESCRIPTOR + '\0parentFileNameHint="/etc/passwd"\n'), "parent"),
        (vmdk(directory_at=2**64 - 1), "footer"),
        (DESCRIPTOR.encode(), "description of a VMDK"),
        (b"\n \n" + DESCRIPTOR.encode(), "description of a VMDK"),
        (b"COWD" + bytes(2048), "other files"),
        (vhd_dynamic(4), "differencing"),
        (bytes(10 * MIB) + vhd_footer(4), "differencing"),
        (vhd_dynamic(7), "unknown kind"),
        (vhd_dynamic(entries=1), "block table"),
        (vhd_dynamic(entries=1 << 30), "block table"),
        (vhd_dynamic(block=1000), "block size"),
        (vhd_dynamic()[:-512], "cut short"),
        (bytes(MIB) + vhd_footer(2), "cut short"),
        (vhdx(log=uuid.UUID(int=7).bytes), "closed cleanly"),
        (vhdx(flags=2), "parent"),
        (vhdx(parent=True), "parent"),
        (vhdx(size=0), "size 0"),
        (vhdx(size=LIMIT + 512), "more than"),
        (vhdx()[: MIB + 100], "cut short"),
        (b"vhdxfile", "cut short"),
        (iso(blocks=21), "cut short"),
        (iso(blocks=0), "damaged"),
        (raw(MIB + 100), "whole number"),
        (bytes(MIB), "no format known"),
        (bytes(range(1, 251)) * 4096, "no format known"),
        (b"\x1f\x8b\x08" + bytes(4096), "gzip"),
        (b"\xfd7zXZ\0" + bytes(4096), "xz"),
        (bytes(257) + b"ustar" + bytes(4096), "OVA"),
        (b"LUKS\xba\xbe" + bytes(4096), "encrypted"),
        (b"QED\0" + bytes(4096), "QED"),
        (bytes(64) + b"\x7f\x10\xda\xbe" + bytes(4096), "VDI"),
        (b"<!DOCTYPE html>", "web page"),
    ],
)
def test_anything_that_could_reach_further_or_is_broken_is_refused(
    image: bytes, reason: str
) -> None:
    with pytest.raises(InvalidError, match=reason) as refusal:
        check(image)
    assert "\n" not in refusal.value.message
    assert ":" in refusal.value.message or ";" in refusal.value.message, "it says what to do"


@pytest.mark.parametrize(
    "image", [qcow2(), b"LUKS\xba\xbe" + bytes(506), DESCRIPTOR.encode().ljust(512)]
)
def test_saying_raw_does_not_get_other_formats_in(image: bytes) -> None:
    with pytest.raises(InvalidError):
        check(image, ImageFormat.RAW)


def test_only_plain_files_are_opened(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(raw())
    assert check_image(image).format is ImageFormat.RAW
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(image)
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="symbolic links"):
        check_image(link)
    for odd in (pipe, Path("/dev/zero")):
        with pytest.raises(InvalidError, match="plain file"):
            check_image(odd)


def decide(content: bytes, expected: ImageFormat | None) -> None:
    """The law: an answer within the limits, or a refusal of one line; nothing else."""
    refused = ""
    try:
        found = check(content, expected)
    except InvalidError as refusal:
        refused = refusal.message
    else:
        assert 0 < found.virtual_size_bytes <= LIMIT
        assert expected in (None, found.format)
    assert refused.isprintable()


@settings(max_examples=300, deadline=1000)
@given(st.binary(max_size=4096), st.sampled_from([None, *ImageFormat]))
def test_random_bytes_are_decided(content: bytes, expected: ImageFormat | None) -> None:
    decide(content, expected)


MAGICS = [b"QFI\xfb", b"KDMV", b"conectix", b"vhdxfile", b"# Disk DescriptorFile\n"]


@settings(max_examples=300, deadline=1000)
@given(st.sampled_from(MAGICS), st.binary(max_size=4096))
def test_random_bytes_behind_a_magic_are_decided(magic: bytes, content: bytes) -> None:
    decide(magic + content, None)


# Where headers and tables are: mutations elsewhere change nothing.
INTERESTING = {
    ImageFormat.QCOW2: [(0, 160)],
    ImageFormat.VMDK: [(0, 80), (512, 200)],
    ImageFormat.VHD: [(0, 100), (512, 60)],
    ImageFormat.VHDX: [(65536, 80), (196608, 96), (MIB, 140), (MIB + 65536, 32)],
    ImageFormat.ISO: [(32768, 140)],
    ImageFormat.RAW: [(0, 512)],
}


@settings(max_examples=600, deadline=1000)
@given(st.data())
def test_mutated_images_are_decided(data: st.DataObject) -> None:
    format_ = data.draw(st.sampled_from(list(GOOD)))
    image = bytearray(GOOD[format_])
    for _ in range(data.draw(st.integers(1, 4))):
        start, length = data.draw(st.sampled_from(INTERESTING[format_]))
        at = start + data.draw(st.integers(0, length - 1))
        odd = st.sampled_from(
            [b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7, b"\x80" + bytes(7), b"\0\0\0\x01"]
        )
        value = data.draw(st.one_of(odd, st.binary(min_size=1, max_size=8)))
        image[at : at + len(value)] = value
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(image))))
    decide(bytes(image[:cut]), data.draw(st.sampled_from([None, format_])))


@settings(max_examples=200, deadline=1000)
@given(st.text(max_size=400))
def test_no_text_in_a_vmdk_descriptor_names_a_flat_extent(text: str) -> None:
    image = vmdk(DESCRIPTOR + text[:400] + '\nRW 1 FLAT "/etc/passwd" 0\n')
    if "\0" in text:
        return  # QEMU's text ends there as ours does
    with pytest.raises(InvalidError):
        check(image)
