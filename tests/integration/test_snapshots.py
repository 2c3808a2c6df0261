"""Snapshots of a real guest's disk: what it wrote comes back, nothing else changes, and its chain goes where the VM goes.

That agents may die at any point of it is in `test_workflow_garbage.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cluster import BOOTED_S, Cluster
from tests.integration.conftest import in_own_loop, poll
from tools.demo.outside import hosts_running, last_write
from tools.guests.records import Record
from tools.lab.diskreader import read_records
from tools.lab.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MORE = 10


@pytest.fixture(scope="module")
def cluster(lab: Lab, tiny_image: str) -> Cluster:
    return in_own_loop(Cluster.form(lab, tiny_image))


class Guest:
    """A VM that writes a record after the other, seen by its disk's files."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.first_host = cluster.lab.hosts[0]

    async def types(self, *words: str) -> str:
        return await self.cluster.operator.types(self.first_host, *words)

    async def files(self) -> list[Path]:
        """Return the files of the disk: that which is written, then those of its snapshots."""
        disks = await self.cluster.operator.asks(self.first_host, "disk", "list")
        (disk,) = (d for d in disks if d["name"] == f"{self.name}.0")
        snapshots = await self.cluster.operator.asks(self.first_host, "snapshot", "list")
        layers = [s["layer_id"] for s in snapshots if s["disk_id"] == disk["id"]]
        ids = [disk["layer_id"] or disk["id"], *layers]
        return [self.cluster.lab.shared / "disks" / f"{id_}.qcow2" for id_ in ids]

    async def writes(self, than: Record | None = None) -> Record:
        """Wait until it has written on, in another boot than that of the record; return the last."""
        disk = (await self.files())[0]
        last: list[Record] = []

        async def wrote() -> bool:
            record = await last_write(disk)
            first = than.counter if than is not None else 0
            if record is None or (than is not None and record.boot == than.boot):
                return False
            last[:] = [record]
            return record.counter >= min(first, record.counter) + 1

        await poll(wrote, BOOTED_S, every_s=0.3)
        boot = last[0].boot
        enough = last[0].counter + MORE

        async def wrote_more() -> bool:
            record = await last_write(disk)
            if record is not None:
                last[:] = [record]
            return last[0].boot == boot and last[0].counter >= enough

        await poll(wrote_more, BOOTED_S, every_s=0.3)
        return last[0]

    async def stopped(self) -> Record:
        """Cut its power; return the last that it wrote."""
        await self.types("vm", "stop", self.name, "--force")
        record = await last_write((await self.files())[0])
        assert record is not None
        return record

    async def began_at(self, boot: str) -> int:
        """Return the first counter that a boot wrote."""
        records = await read_records((await self.files())[0])
        return min(record.counter for record in records if record.boot == boot)

    async def is_sound(self) -> None:
        """See that no file of the disk is damaged, where the whole chain can be read."""
        for file in await self.files():
            words = ("qemu-img", "check", "-q", "-f", "qcow2", f"/srv/shared/disks/{file.name}")
            await self.cluster.lab.run(self.first_host, *words)


async def test_what_was_written_comes_back_and_what_came_later_is_gone(cluster: Cluster) -> None:
    guest = Guest(cluster, "undo")
    await cluster.create("undo")
    before = await guest.writes()
    refused = await cluster.refusal(guest.first_host, "snapshot", "create", "undo", "too-soon")
    assert "only a stopped VM's snapshots" in refused.line
    kept = await guest.stopped()
    assert kept.boot == before.boot
    await guest.types("snapshot", "create", "undo", "good")
    await guest.types("vm", "start", "undo")
    later = await guest.writes(kept)
    assert await guest.began_at(later.boot) == kept.counter + 1, "it goes on where it was"
    await guest.stopped()
    await guest.types("snapshot", "revert", "good", "--yes")
    await guest.types("vm", "start", "undo")
    again = await guest.writes(later)
    assert await guest.began_at(again.boot) == kept.counter + 1, "as if the second never was"
    assert len(await guest.files()) == 2

    last = await guest.stopped()
    await guest.types("snapshot", "delete", "good", "--yes")
    assert len(await guest.files()) == 1
    await guest.is_sound()
    await guest.types("vm", "start", "undo")
    end = await guest.writes(last)
    assert await guest.began_at(end.boot) == last.counter + 1
    await cluster.delete("undo")
    assert await cluster.files() == {"kvorum-storage.json"}


async def test_a_vm_with_snapshots_moves_and_is_started_elsewhere_with_all_it_wrote(
    cluster: Cluster,
) -> None:
    lab, guest = cluster.lab, Guest(cluster, "mobile")
    await cluster.create("mobile", "--host", lab.hosts[2])
    await guest.writes()
    await guest.stopped()
    await guest.types("snapshot", "create", "mobile", "one")
    await guest.types("snapshot", "create", "mobile", "two")
    await guest.types("vm", "start", "mobile")
    vm = await cluster.vm("mobile")
    (host,) = hosts_running(lab, vm["id"])
    target = next(h for h in lab.hosts[1:] if h != host)
    await guest.types("vm", "migrate", "mobile", "--host", target)
    assert hosts_running(lab, vm["id"]) == [target]
    disk = (await guest.files())[0]
    moved = await poll(lambda: last_write(disk), BOOTED_S, every_s=0.3)
    await lab.power_off(target)

    async def writes_elsewhere() -> bool:
        record = await last_write(disk)
        return record is not None and record.boot != moved.boot

    await poll(writes_elsewhere, 120.0, every_s=0.5)
    records = await read_records(disk)
    counters = [record.counter for record in records]
    assert counters == list(range(counters[0], counters[0] + len(counters)))
    await lab.power_on(target)
    await guest.types("vm", "stop", "mobile", "--force")
    await guest.types("snapshot", "delete", "one", "two", "--yes")
    await guest.is_sound()
    await cluster.delete("mobile")
    assert await cluster.files() == {"kvorum-storage.json"}
