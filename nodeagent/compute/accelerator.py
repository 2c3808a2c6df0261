"""Choose how guests run: by the processor (KVM) or by QEMU's translator (TCG).

The agent reads the machine once at start and shows the answer in the host's status. On x86 `/dev/kvm` alone
proves nothing: para-virtual hypervisors offer one under which ordinary guests hang, so the module of a real
processor's extension must be loaded as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nodeagent.compute.domain_spec import Accelerator, Architecture

X86_MODULES = frozenset({"kvm_intel", "kvm_amd"})


def choose_accelerator(
    *, architecture: Architecture, kvm_device_usable: bool, modules: Iterable[str]
) -> Accelerator:
    """Return KVM only when its device can be opened and the processor's own extension stands behind it.

    `modules` are names of loaded or built-in kernel modules. On Arm KVM has no module of its own, but the
    kernel makes the device only after it came up in the processor's hypervisor mode.
    """
    real = architecture is not Architecture.X86_64 or not X86_MODULES.isdisjoint(modules)
    return Accelerator.KVM if kvm_device_usable and real else Accelerator.TCG


def read_accelerator(
    architecture: Architecture,
    *,
    device: Path = Path("/dev/kvm"),
    modules_dir: Path = Path("/sys/module"),
) -> Accelerator:
    """Read this machine and choose; what cannot be read counts as missing."""
    try:
        modules = os.listdir(modules_dir)
    except OSError:
        modules = []
    return choose_accelerator(
        architecture=architecture,
        kvm_device_usable=os.access(device, os.R_OK | os.W_OK),
        modules=modules,
    )
