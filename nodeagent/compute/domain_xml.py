"""Turn a `DomainSpec` into the XML libvirt starts, and read back what we wrote into a running domain.

Called by the libvirt driver. It exists because the XML is where guests' rights on the host are decided: it is
built as a tree, so no value of a user can become markup, and it holds no device that nobody asked for.

Choices that are not obvious:
- The clock is UTC, a crash ends the domain (the HA controller decides what follows), a reboot stays inside QEMU.
- The seed is a read-only virtio disk, not a CD-ROM: Debian's cloud kernel has no AHCI driver, so a guest would
  not find it on q35's SATA bus. cloud-init finds it by its label.
- KVM guests get `host-model`: a named model plus features, so a migration is refused before it starts when the
  target's processor cannot take it. TCG guests get `Westmere`: the translator knows all of it, distributions
  that ask for x86-64-v2 run on it, and it boots as fast as `qemu64`.
- TCG guests get 8 KiB less memory than asked for. QEMU before 9.0 loses pages when it migrates a translated guest
  whose memory is a multiple of 256 KiB (64 pages): it clears the dirty bits of such memory without telling the
  translator (fixed upstream by 03bfc2188f, not in Debian 12's 7.2). Other sizes take a slower, correct path. See
  docs/decisions/0006. KVM tracks dirty memory itself and is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree as ET

from core.errors import InvalidError
from nodeagent.compute.domain_spec import (
    Accelerator,
    Architecture,
    DiskSpec,
    DomainSpec,
    NicSpec,
    check_spec,
    console_log_path,
    domain_name,
)

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
TCG_MEMORY_LESS_KIB = 8
TCG_MEMORY_ID = "kvorum.ram"
METADATA_NAMESPACE = "urn:kvorum:domain:1"
METADATA_PREFIX = "kvorum"
SEED_TARGET = "vdz"
GUEST_AGENT_CHANNEL = "org.qemu.guest_agent.0"
BALLOON_STATS_PERIOD_S = 5
XML_CHARS_MAX = 1_000_000

ET.register_namespace(METADATA_PREFIX, METADATA_NAMESPACE)
ET.register_namespace("qemu", QEMU_NAMESPACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainMark:
    """What we wrote into a domain to know it by: see `DomainSpec`."""

    vm_id: str
    name: str
    generation: int


def domain_xml(spec: DomainSpec) -> str:
    """Return the libvirt XML of a VM.

    Raises:
        InvalidError: a value of the spec is not allowed.
    """
    check_spec(spec)
    root = ET.Element("domain", type="kvm" if spec.accelerator is Accelerator.KVM else "qemu")
    _text(root, "name", domain_name(spec.vm_id))
    _text(root, "uuid", spec.vm_id)
    _text(root, "title", spec.name)
    metadata = ET.SubElement(root, "metadata")
    metadata.append(
        _mark_element(DomainMark(vm_id=spec.vm_id, name=spec.name, generation=spec.generation))
    )
    _text(root, "memory", str(spec.memory_mib), unit="MiB")
    _text(root, "vcpu", str(spec.cpus), placement="static")
    _add_firmware(root, spec)
    _add_processor(root, spec)
    ET.SubElement(root, "clock", offset="utc")
    _text(root, "on_poweroff", "destroy")
    _text(root, "on_reboot", "restart")
    _text(root, "on_crash", "destroy")
    _add_devices(ET.SubElement(root, "devices"), spec)
    if spec.accelerator is Accelerator.TCG and spec.architecture is Architecture.X86_64:
        _add_uneven_memory(root, spec.memory_mib)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _add_uneven_memory(root: ET.Element, memory_mib: int) -> None:
    """Replace the guest's memory by one that is no multiple of 64 pages; libvirt itself rounds to whole MiB."""
    size = f"{memory_mib * 1024 - TCG_MEMORY_LESS_KIB}K"
    command = ET.SubElement(root, f"{{{QEMU_NAMESPACE}}}commandline")
    for words in (
        ("-m", size),
        ("-object", f"memory-backend-ram,id={TCG_MEMORY_ID},size={size}"),
        ("-machine", f"memory-backend={TCG_MEMORY_ID}"),
    ):
        for word in words:
            ET.SubElement(command, f"{{{QEMU_NAMESPACE}}}arg", value=word)


def mark_xml(mark: DomainMark) -> str:
    """Return the metadata element alone and without its namespace, as libvirt's metadata call takes it."""
    return ET.tostring(ET.Element("vm", _mark_attributes(mark)), encoding="unicode")


def parse_mark(xml: str) -> DomainMark:
    """Read our metadata element, alone or inside a whole domain's XML.

    Raises:
        InvalidError: there is none, or it is damaged.
    """
    if len(xml) > XML_CHARS_MAX:
        raise InvalidError(f"the domain's XML has {len(xml)} characters, more than {XML_CHARS_MAX}")
    tag = f"{{{METADATA_NAMESPACE}}}vm"
    try:
        root = ET.fromstring(xml)
    except ET.ParseError as error:
        raise InvalidError(f"the domain's XML cannot be read: {error}") from error
    # libvirt's metadata call, which is given the namespace, hands the element out without it.
    found = root if root.tag in (tag, "vm") else root.find(f"metadata/{tag}")
    if found is None:
        raise InvalidError("the domain has no Kvorum metadata: it was not started by this platform")
    vm_id, name, generation = (
        found.get("id", ""),
        found.get("name", ""),
        found.get("generation", ""),
    )
    if not generation.isdecimal():
        raise InvalidError(f"the domain's generation {generation[:20]!r} is not a number")
    return DomainMark(vm_id=vm_id, name=name, generation=int(generation))


def with_generation(xml: str, generation: int) -> str:
    """Return a domain's XML with another generation: what a migration's target is to know it by.

    Raises:
        InvalidError: it has no Kvorum metadata.
    """
    mark = parse_mark(xml)
    root = ET.fromstring(xml)
    metadata = root.find("metadata")
    assert metadata is not None, "parse_mark found the mark in it"
    for old in metadata.findall(f"{{{METADATA_NAMESPACE}}}vm"):
        metadata.remove(old)
    metadata.append(
        _mark_element(DomainMark(vm_id=mark.vm_id, name=mark.name, generation=generation))
    )
    return ET.tostring(root, encoding="unicode")


def _mark_attributes(mark: DomainMark) -> dict[str, str]:
    return {"id": mark.vm_id, "name": mark.name, "generation": str(mark.generation)}


def _mark_element(mark: DomainMark) -> ET.Element:
    return ET.Element(f"{{{METADATA_NAMESPACE}}}vm", _mark_attributes(mark))


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _add_firmware(root: ET.Element, spec: DomainSpec) -> None:
    """Boot from disk. SMBIOS tells the guest its id (system serial, unless it has another) and where it started
    (chassis asset)."""
    x86 = spec.architecture is Architecture.X86_64
    os = ET.SubElement(root, "os") if x86 else ET.SubElement(root, "os", firmware="efi")
    _text(os, "type", "hvm", arch=str(spec.architecture), machine="q35" if x86 else "virt")
    ET.SubElement(os, "boot", dev="hd")
    ET.SubElement(os, "smbios", mode="sysinfo")
    sysinfo = ET.SubElement(root, "sysinfo", type="smbios")
    system = ET.SubElement(sysinfo, "system")
    _text(system, "entry", "Kvorum", name="manufacturer")
    _text(system, "entry", "Virtual Machine", name="product")
    _text(system, "entry", spec.smbios_serial or spec.vm_id, name="serial")
    _text(system, "entry", spec.vm_id, name="uuid")
    if spec.smbios_family:
        _text(system, "entry", spec.smbios_family, name="family")
    chassis = ET.SubElement(sysinfo, "chassis")
    _text(chassis, "entry", "Kvorum", name="manufacturer")
    _text(chassis, "entry", spec.host_name, name="asset")
    if spec.oem_strings:
        strings = ET.SubElement(sysinfo, "oemStrings")
        for text in spec.oem_strings:
            _text(strings, "entry", text)


def _add_processor(root: ET.Element, spec: DomainSpec) -> None:
    x86 = spec.architecture is Architecture.X86_64
    features = ET.SubElement(root, "features")
    ET.SubElement(features, "acpi")
    if x86:
        ET.SubElement(features, "apic")
    if spec.accelerator is Accelerator.KVM:
        ET.SubElement(root, "cpu", mode="host-model" if x86 else "host-passthrough")
    elif x86:
        cpu = ET.SubElement(root, "cpu", mode="custom", match="exact", check="none")
        _text(cpu, "model", "Westmere", fallback="forbid")
    else:
        ET.SubElement(root, "cpu", mode="maximum")


def _add_devices(devices: ET.Element, spec: DomainSpec) -> None:
    for disk in spec.disks:
        _add_disk(devices, disk)
    if spec.seed_path:
        _add_seed(devices, spec.seed_path)
    ET.SubElement(devices, "controller", type="usb", model="none")
    for nic in spec.nics:
        _add_nic(devices, nic)
    serial = ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(serial, "log", file=console_log_path(spec), append="on")
    ET.SubElement(serial, "target", port="0")
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "target", type="virtio", name=GUEST_AGENT_CHANNEL)
    rng = ET.SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
    balloon = ET.SubElement(devices, "memballoon", model="virtio")
    ET.SubElement(balloon, "stats", period=str(BALLOON_STATS_PERIOD_S))
    if spec.architecture is Architecture.X86_64:
        ET.SubElement(devices, "panic", model="isa")


def _add_disk(devices: ET.Element, spec: DiskSpec) -> None:
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(
        disk,
        "driver",
        name="qemu",
        type="qcow2",
        cache=str(spec.cache),
        io="threads",
        discard="unmap",
        # The guest stops when its storage fails, and goes on, here or elsewhere, as if nothing had been.
        error_policy="stop",
        rerror_policy="stop",
    )
    ET.SubElement(disk, "source", file=spec.path)
    ET.SubElement(disk, "target", dev=spec.target, bus="virtio")


def _add_seed(devices: ET.Element, path: str) -> None:
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="raw")
    ET.SubElement(disk, "source", file=path)
    ET.SubElement(disk, "target", dev=SEED_TARGET, bus="virtio")
    ET.SubElement(disk, "readonly")


def _add_nic(devices: ET.Element, spec: NicSpec) -> None:
    nic = ET.SubElement(devices, "interface", type="bridge")
    ET.SubElement(nic, "mac", address=spec.mac)
    ET.SubElement(nic, "source", bridge=spec.bridge)
    ET.SubElement(nic, "target", dev=spec.tap)
    ET.SubElement(nic, "model", type="virtio")
    ET.SubElement(nic, "mtu", size=str(spec.mtu))
