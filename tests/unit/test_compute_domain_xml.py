"""What libvirt is given for a VM: golden files for whole domains, laws for hostile values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidError
from nodeagent.compute.domain_spec import (
    Accelerator,
    Architecture,
    DiskCache,
    DiskSpec,
    DomainSpec,
    NicSpec,
)
from nodeagent.compute.domain_xml import (
    METADATA_NAMESPACE,
    DomainMark,
    domain_xml,
    mark_xml,
    parse_mark,
    with_generation,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "compute"
VM = "6f9d2f5e-1111-4222-8333-444455556666"

SMALL = DomainSpec(
    vm_id=VM,
    name="web1",
    generation=3,
    host_name="host-a",
    cpus=1,
    memory_mib=128,
    disks=(DiskSpec(path="/srv/vms/web1.qcow2", target="vda"),),
    accelerator=Accelerator.TCG,
)
FULL = replace(
    SMALL,
    cpus=4,
    memory_mib=4096,
    disks=(
        DiskSpec(path="/srv/vms/web1.qcow2", target="vda"),
        DiskSpec(path="/srv/fast/web1-db.qcow2", target="vdb", cache=DiskCache.WRITEBACK),
    ),
    accelerator=Accelerator.KVM,
    nics=(
        NicSpec(tap="tap0123456789a", mac="52:54:00:00:00:01", bridge="kbr100"),
        NicSpec(tap="tap0123456789b", mac="52:54:00:00:00:02", bridge="kbr4000000", mtu=8950),
    ),
    seed_path="/var/lib/kvorum/local/seeds/web1.iso",
    console_log_path="/var/log/kvorum/web1.console.log",
)


@pytest.mark.parametrize(
    ("story", "spec"),
    [
        ("small_guest_without_kvm", SMALL),
        ("full_guest_with_kvm", FULL),
        ("arm_guest_without_kvm", replace(SMALL, architecture=Architecture.AARCH64)),
        ("arm_guest_with_kvm", replace(FULL, architecture=Architecture.AARCH64)),
    ],
)
def test_the_whole_domain_is_as_written_down(story: str, spec: DomainSpec, rewrite: bool) -> None:
    path = GOLDEN / f"{story}.xml"
    if rewrite:
        path.write_text(domain_xml(spec))
    assert domain_xml(spec) == path.read_text()


def test_the_mark_in_a_domain_can_be_read_back() -> None:
    mark = DomainMark(vm_id=VM, name="web1", generation=3)
    assert parse_mark(domain_xml(SMALL)) == mark
    assert parse_mark(mark_xml(mark)) == mark


def test_a_domain_of_somebody_else_has_no_mark() -> None:
    for xml in (
        "<domain/>",
        "<domain><metadata/></domain>",
        "<domain><metadata><vm id='x'/></metadata></domain>",
    ):
        with pytest.raises(InvalidError, match="no Kvorum metadata"):
            parse_mark(xml)


def test_damaged_metadata_is_refused() -> None:
    for xml in (
        "",
        "<vm",
        '<vm id="a" name="b"/>',
        '<vm generation="-1"/>',
        '<vm generation="²"/>',
    ):
        with pytest.raises(InvalidError):
            parse_mark(xml)


def test_a_migration_changes_the_generation_and_nothing_else() -> None:
    moved = with_generation(domain_xml(FULL), 4)
    assert parse_mark(moved).generation == 4
    assert ET.canonicalize(with_generation(moved, 3), strip_text=True) == ET.canonicalize(
        domain_xml(FULL), strip_text=True
    )


@pytest.mark.parametrize(
    "wrong",
    [
        replace(SMALL, vm_id="../../etc"),
        replace(SMALL, cpus=0),
        replace(SMALL, memory_mib=1),
        replace(SMALL, generation=-1),
        replace(SMALL, host_name="a\nb"),
        replace(SMALL, disks=(DiskSpec(path="relative.qcow2", target="vda"),)),
        replace(SMALL, disks=(DiskSpec(path="/a\0b", target="vda"),)),
        replace(SMALL, disks=(DiskSpec(path="/a", target="sda"),)),
        replace(
            SMALL, disks=(DiskSpec(path="/a", target="vda"), DiskSpec(path="/b", target="vda"))
        ),
        replace(SMALL, disks=(DiskSpec(path="/a", target="vdz"),), seed_path="/seed.iso"),
        replace(
            SMALL, nics=(NicSpec(tap="tap0123456789abc", mac="52:54:00:00:00:01", bridge="b"),)
        ),
        replace(SMALL, nics=(NicSpec(tap="tap0", mac="53:54:00:00:00:01", bridge="b"),)),
        replace(SMALL, nics=(NicSpec(tap="tap0", mac="52:54:00:00:00:01", bridge="b", mtu=100),)),
    ],
)
def test_values_libvirt_must_not_get_are_refused(wrong: DomainSpec) -> None:
    with pytest.raises(InvalidError):
        domain_xml(wrong)


@given(name=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=60))
def test_no_name_becomes_markup(name: str) -> None:
    root = ET.fromstring(domain_xml(replace(SMALL, name=name, host_name=name)))
    assert root.findtext("title") == name
    assert root.findtext("sysinfo/chassis/entry[@name='asset']") == name
    assert [child.tag for child in root] == [
        child.tag for child in ET.fromstring(domain_xml(SMALL))
    ]
    mark = root.find(f"metadata/{{{METADATA_NAMESPACE}}}vm")
    assert mark is not None and mark.get("name") == name
