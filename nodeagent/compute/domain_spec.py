"""What a host needs to know to run one VM, as plain values checked once.

The VM controller builds a `DomainSpec` from the stored VM, its disks and its NICs; `domain_xml` turns it into
libvirt's form. It exists so that nothing else in the agent knows libvirt's vocabulary.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from core.errors import InvalidError

DOMAIN_PREFIX = "kvorum-"
MEMORY_MIB_MIN = 16
CPUS_MAX = 255
MTU_MIN, MTU_MAX = 576, 65535
OEM_STRINGS_MAX = 16

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DEVICE_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}")
_DISK_TARGET = re.compile(r"vd[a-z]")
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")
_TEXT = re.compile(r"[ -~]{1,200}")
_PATH = re.compile(r"/[^\x00-\x1f\x7f]{1,1000}")


class Accelerator(StrEnum):
    """What executes guest code: the processor, or QEMU's translator (slow, works everywhere)."""

    KVM = "kvm"
    TCG = "tcg"


class Architecture(StrEnum):
    """Guests have the architecture of their host."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"


class DiskCache(StrEnum):
    """`NONE` goes round the host's page cache (O_DIRECT): needed for safe migration; tmpfs cannot do it."""

    NONE = "none"
    WRITEBACK = "writeback"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSpec:
    """A qcow2 file and the name the guest gives it, `vda` to `vdy`."""

    path: str
    target: str
    cache: DiskCache = DiskCache.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class NicSpec:
    """A virtio card. libvirt makes the tap device, puts it into the bridge, and removes it with the domain."""

    tap: str
    mac: str
    bridge: str
    mtu: int = 1450


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainSpec:
    """A VM as one host runs it.

    `name` is the VM's name; the domain's name comes from the id. `generation` is written into the domain, so
    that whoever finds it later can tell whether it may still run. `host_name` is where it starts; a guest reads
    it as its chassis asset tag (it keeps that value when it migrates). `seed_path` is a cloud-init NoCloud ISO.
    `console_log_path` gets everything the guest writes to its serial console; empty: libvirt's log directory.
    `smbios_serial` (empty: the id), `smbios_family` and `oem_strings` are texts that the guest reads in its firmware tables.
    """

    vm_id: str
    name: str
    generation: int
    host_name: str
    cpus: int
    memory_mib: int
    disks: tuple[DiskSpec, ...]
    accelerator: Accelerator
    nics: tuple[NicSpec, ...] = ()
    seed_path: str = ""
    architecture: Architecture = Architecture.X86_64
    console_log_path: str = ""
    smbios_serial: str = ""
    smbios_family: str = ""
    oem_strings: tuple[str, ...] = ()


def check_vm_id(vm_id: str) -> str:
    """Return the id, which is safe to be part of a path or a name.

    Raises:
        InvalidError: not a UUID in canonical text form.
    """
    if not _UUID.fullmatch(vm_id):
        raise InvalidError(f"VM id {vm_id[:80]!r} is not a UUID in lower case with dashes")
    return vm_id


def domain_name(vm_id: str) -> str:
    """Return the libvirt name of a VM's domain."""
    return DOMAIN_PREFIX + check_vm_id(vm_id)


def console_log_path(spec: DomainSpec) -> str:
    """Return the file that gets what the guest writes to its serial console."""
    return spec.console_log_path or f"/var/log/libvirt/qemu/{domain_name(spec.vm_id)}.console.log"


def check_spec(spec: DomainSpec) -> DomainSpec:
    """Return the spec if every value can be given to libvirt.

    Raises:
        InvalidError: says which value is wrong.
    """
    check_vm_id(spec.vm_id)
    _check(1 <= spec.cpus <= CPUS_MAX, f"a VM has 1 to {CPUS_MAX} CPUs, not {spec.cpus}")
    _check(
        spec.memory_mib >= MEMORY_MIB_MIN,
        f"a VM has {MEMORY_MIB_MIN} MiB of memory or more, not {spec.memory_mib}",
    )
    _check(spec.generation >= 0, f"a generation is not negative, but it is {spec.generation}")
    _check_match(_TEXT, spec.name, "VM name", "1 to 200 printable ASCII characters")
    _check_match(_TEXT, spec.host_name, "host name", "1 to 200 printable ASCII characters")
    _check(
        len(spec.oem_strings) <= OEM_STRINGS_MAX, f"a VM has {OEM_STRINGS_MAX} OEM strings at most"
    )
    for text in (spec.smbios_serial or "-", spec.smbios_family or "-", *spec.oem_strings):
        _check_match(_TEXT, text, "SMBIOS text", "1 to 200 printable ASCII characters")
    for path in (
        *(disk.path for disk in spec.disks),
        spec.seed_path or "/seed",
        console_log_path(spec),
    ):
        _check_match(_PATH, path, "path", "absolute and without control characters")
    for disk in spec.disks:
        _check_match(_DISK_TARGET, disk.target, "disk target", "vda to vdz")
    targets = [disk.target for disk in spec.disks] + (["vdz"] if spec.seed_path else [])
    _check(
        len(set(targets)) == len(targets),
        f"two disks have the same target, or one has the seed's vdz: {targets}",
    )
    for nic in spec.nics:
        _check_match(
            _DEVICE_NAME, nic.tap, "tap name", "up to 15 letters, digits, '_', '.' and '-'"
        )
        _check_match(
            _DEVICE_NAME, nic.bridge, "bridge name", "up to 15 letters, digits, '_', '.' and '-'"
        )
        _check_match(
            _MAC, nic.mac, "MAC", "a unicast address in lower case, such as 52:54:00:12:34:56"
        )
        _check(MTU_MIN <= nic.mtu <= MTU_MAX, f"an MTU is {MTU_MIN} to {MTU_MAX}, not {nic.mtu}")
    return spec


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise InvalidError(message)


def _check_match(pattern: re.Pattern[str], value: str, what: str, rule: str) -> None:
    _check(
        pattern.fullmatch(value) is not None,
        f"{what} {value[:80]!r} is not allowed: it must be {rule}",
    )
