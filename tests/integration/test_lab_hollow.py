"""Hollow guests: libvirt and the observer take them for guests, though nothing runs in them."""

from __future__ import annotations

import pytest

from tests.integration.conftest import LabFactory, poll
from tools.lab import processes
from tools.lab.hollow_qemu import HOLLOW_MIB
from tools.lab.lab import Lab
from tools.lab.observer import Observer
from tools.lab.services import LIBVIRTD

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

DOMAIN = """
<domain type='qemu'>
  <name>{name}</name><memory unit='MiB'>{mib}</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/><source file='/srv/shared/{name}.qcow2'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <serial type='pty'/>
    <memballoon model='virtio'><stats period='5'/></memballoon>
  </devices>
</domain>
"""


@pytest.fixture(scope="module")
def lab(lab_factory: LabFactory) -> Lab:
    return lab_factory(1, (LIBVIRTD,), hollow=True)


async def create(lab: Lab, name: str, mib: int) -> None:
    (lab.shared / f"{name}.xml").write_text(DOMAIN.format(name=name, mib=mib))
    await lab.run("h1", "qemu-img", "create", "-f", "qcow2", f"/srv/shared/{name}.qcow2", "16M")
    await virsh(lab, "create", f"/srv/shared/{name}.xml")


async def virsh(lab: Lab, *words: str) -> str:
    return (await lab.text("h1", "virsh", *words)).strip()


def is_hollow(pid: int) -> bool:
    return "python" in processes.command_line(pid)[0]


async def test_a_guest_of_that_memory_is_a_process_with_its_disk_and_others_are_real(
    lab: Lab,
) -> None:
    with Observer(lab) as seen:
        await create(lab, "hollow", HOLLOW_MIB)
        await create(lab, "real", HOLLOW_MIB + 1)
        for name, hollow in (("hollow", True), ("real", False)):
            await poll(lambda name=name: seen.holders(f"{name}.qcow2"), 10)
            (holder,) = seen.holders(f"{name}.qcow2")
            assert is_hollow(holder.pid) is hollow
        for name in ("hollow", "real"):
            await virsh(lab, "destroy", name)
        await poll(lambda: not seen.holders(), 10)


async def test_libvirt_pauses_and_ends_it_and_finds_it_again(lab: Lab) -> None:
    await create(lab, "kept", HOLLOW_MIB)
    assert await virsh(lab, "domstate", "kept") == "running"
    await virsh(lab, "suspend", "kept")
    assert await virsh(lab, "domstate", "kept") == "paused"
    before = lab.service_pid("h1", "libvirtd")
    lab.kill("h1", "libvirtd")
    await poll(lambda: lab.service_pid("h1", "libvirtd") not in (None, before), 20)
    await lab.wait_ready("h1")
    assert await virsh(lab, "domstate", "kept") == "paused"
    await virsh(lab, "resume", "kept")
    assert "balloon.current=65536" in await virsh(lab, "domstats", "kept")
    await virsh(lab, "shutdown", "kept")

    async def ended() -> bool:
        return await virsh(lab, "list", "--name") == ""

    await poll(ended, 10)
