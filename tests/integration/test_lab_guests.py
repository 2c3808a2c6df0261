"""Guests in the lab: what they write is seen from outside, and two writers never go unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import LabFactory, poll
from tools.guests.records import Record
from tools.lab.diskreader import newest, read_records, took_turns, writers
from tools.lab.lab import Lab
from tools.lab.observer import Observer
from tools.lab.services import LIBVIRTD

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

DOMAIN = """
<domain type='qemu'>
  <name>{name}</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><smbios mode='sysinfo'/></os>
  <sysinfo type='smbios'>
    <system><entry name='serial'>generation-1</entry></system>
    <chassis><entry name='asset'>{host}</entry></chassis>
  </sysinfo>
  <features><acpi/></features>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='{kind}' cache='none'/><source file='{disk}'/>{shareable}
      <target dev='vda' bus='virtio'/>
    </disk>
    <serial type='file'><source path='/var/log/libvirt/{name}.console'/></serial>
  </devices>
</domain>
"""


@pytest.fixture(scope="module")
def two_hosts(lab_factory: LabFactory) -> Lab:
    """Two hosts that only run libvirtd."""
    return lab_factory(2, (LIBVIRTD,))


@pytest.fixture
async def pair(two_hosts: Lab) -> Lab:
    """The same, freshly booted: no guest of the test before runs."""
    await two_hosts.power_off(*two_hosts.hosts)
    await two_hosts.power_on(*two_hosts.hosts)
    return two_hosts


async def start(lab: Lab, host: str, name: str, *, shareable: bool = False) -> None:
    """Start a transient guest by plain libvirt, on its qcow2 or on a raw disk that may be shared."""
    kind = "raw" if shareable else "qcow2"
    text = DOMAIN.format(
        name=name,
        host=host,
        disk=f"/srv/shared/{name}.{kind}",
        kind=kind,
        shareable="<shareable/>" if shareable else "",
    )
    uri = ("virsh", "-q", "-c", "qemu:///system")
    await lab.run(host, *uri, "create", "/dev/stdin", input=text.encode(), timeout_s=30)


async def make_disk(lab: Lab, image: str, name: str) -> Path:
    """Make a linked disk as the product does: image and overlay beside each other on shared storage."""
    base = lab.shared / "tiny.qcow2"
    if not base.exists():
        base.write_bytes(Path(image).read_bytes())
    inside = ("-b", "/srv/shared/tiny.qcow2", "-F", "qcow2", f"/srv/shared/{name}")
    await lab.run("h1", "qemu-img", "create", "-q", "-f", "qcow2", *inside)
    return lab.shared / name


async def writes_from(disk: Path, host: str, *, after: int = 0) -> Record | None:
    record = await newest(disk)
    if record is None or record.host != host or record.counter <= after:
        return None
    return record


async def test_a_guest_tells_on_its_disk_where_it_ran_over_the_death_of_its_host(
    pair: Lab, tiny_image: str
) -> None:
    lab = pair
    disk = await make_disk(lab, tiny_image, "teller.qcow2")
    with Observer(lab) as seen:
        await start(lab, "h1", "teller")
        first = await poll(lambda: writes_from(disk, "h1", after=9), 60, every_s=0.5)
        assert first.serial == "generation-1"
        assert [holder.host for holder in seen.holders("teller.qcow2")] == ["h1"]
        await poll(lambda: writes_from(disk, "h1", after=first.counter + 2), 20, every_s=0.5)
        await lab.power_off("h1")
        assert lab.qemus("h1") == ()
        last = await newest(disk)
        assert last is not None
        await start(lab, "h2", "teller")
        await poll(lambda: writes_from(disk, "h2", after=last.counter), 60, every_s=0.5)
        await lab.run("h2", "virsh", "-q", "-c", "qemu:///system", "shutdown", "teller")
        await poll(lambda: seen.holders("teller.qcow2") == (), 30)
        assert lab.qemus("h2") == ()
    records = await read_records(disk)
    assert [writer.host for writer in writers(records)] == ["h1", "h2"]
    assert [record.counter for record in records] == list(range(1, len(records) + 1))
    assert took_turns(records)
    assert seen.double_writers == []
    assert [
        tuple(holder.host for holder in sighting.holders)
        for sighting in seen.sightings
        if sighting.path.endswith("teller.qcow2")
    ] == [("h1",), (), ("h2",), ()]


async def test_the_observer_catches_two_hosts_writing_one_disk(pair: Lab) -> None:
    lab = pair
    (lab.shared / "torn.raw").write_bytes(bytes(1 << 20))
    with Observer(lab) as seen:
        for host in lab.hosts:
            await start(lab, host, "torn", shareable=True)
        await poll(lambda: seen.double_writers, 10)
    caught = seen.double_writers[0]
    assert caught.path.endswith("torn.raw")
    assert {holder.host for holder in caught.holders} == {"h1", "h2"}


async def test_a_stopped_qemu_is_no_writer(pair: Lab) -> None:
    lab = pair
    (lab.shared / "frozen.raw").write_bytes(bytes(1 << 20))
    with Observer(lab) as seen:
        await start(lab, "h1", "frozen", shareable=True)
        await lab.freeze("h1")
        await start(lab, "h2", "frozen", shareable=True)
        await poll(lambda: [it.host for it in seen.holders("frozen.raw")] == ["h2"], 10)
        before = seen.samples
        await poll(lambda: seen.samples > before + 3, 10)
        assert seen.double_writers == []
        lab.thaw("h1")
        await poll(lambda: seen.double_writers, 10)
