"""KVM is used only where a real processor stands behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.compute.accelerator import choose_accelerator, read_accelerator
from nodeagent.compute.domain_spec import Accelerator, Architecture


@pytest.mark.parametrize(
    ("architecture", "device", "modules", "chosen"),
    [
        (Architecture.X86_64, True, {"kvm", "kvm_intel"}, Accelerator.KVM),
        (Architecture.X86_64, True, {"kvm", "kvm_amd"}, Accelerator.KVM),
        (Architecture.X86_64, True, {"kvm", "kvm_pvm"}, Accelerator.TCG),
        (Architecture.X86_64, False, {"kvm", "kvm_intel"}, Accelerator.TCG),
        (Architecture.X86_64, True, set(), Accelerator.TCG),
        (Architecture.AARCH64, True, set(), Accelerator.KVM),
        (Architecture.AARCH64, False, {"kvm_intel"}, Accelerator.TCG),
    ],
)
def test_kvm_needs_its_device_and_the_processors_extension(
    architecture: Architecture, device: bool, modules: set[str], chosen: Accelerator
) -> None:
    assert (
        choose_accelerator(architecture=architecture, kvm_device_usable=device, modules=modules)
        is chosen
    )


def test_a_machine_that_cannot_be_read_gets_the_translator(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert (
        read_accelerator(Architecture.X86_64, device=missing, modules_dir=missing)
        is Accelerator.TCG
    )


def test_a_machine_is_read(tmp_path: Path) -> None:
    (tmp_path / "kvm_amd").mkdir()
    assert (
        read_accelerator(Architecture.X86_64, device=tmp_path, modules_dir=tmp_path)
        is Accelerator.KVM
    )
