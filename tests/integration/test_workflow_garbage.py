"""Workflows disturbed on real hosts: agents killed, steps failed and work cancelled at many points, and nothing is left.

`tests/unit/test_workflow_faults.py` tries every point with drivers in memory. Here libvirt, QEMU (without KVM), directories,
bridges, taps, nftables, dnsmasq and the guard are real, and `host_audit` looks at them from outside. Many VMs are worked
on at once, each stands still at a point of its own, and one SIGKILL hits them all. `--every-step` takes each point instead
of some: `make garbage`.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from core.errors import ConflictError, PlatformError
from tests.integration import faulty_agent
from tests.integration.conftest import LabFactory, in_own_loop, poll
from tests.integration.faulty_agent import FAIL, HOLD, PAUSE, Orders
from tests.integration.host_audit import garbage
from tools.lab.cluster import form_cluster
from tools.lab.lab import Lab
from tools.lab.layout import VENV_BIN
from tools.lab.services import AGENT, GUARD, LIBVIRTD, PRODUCT, SERF
from tools.sdk.bodies import Body, EmptyBody, MigrateBody, SnapshotBody, StopBody, VMBody
from tools.sdk.client import Client, Started
from tools.sdk.endpoints import Endpoint
from tools.sdk.items import Item

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

FAULTY_AGENT = msgspec.structs.replace(
    AGENT, argv=(str(VENV_BIN / "python"), "-m", "tests.integration.faulty_agent")
)
IMAGE, SHARED = "blank", "shared1"
AT_ONCE = 16
# How many points each workflow has: its effects on the outside, before and after each; and with its commits.
EFFECTS = {
    "create-vm": 16,
    "start-vm": 8,
    "stop-vm": 8,
    "migrate-vm": 8,
    "delete-vm": 10,
    "reboot-vm": 2,
    "take-snapshot": 12,
    "revert-snapshot": 12,
    "delete-snapshot": 24,
}
WITH_COMMITS = {
    "create-vm": 44,
    "start-vm": 24,
    "stop-vm": 24,
    "migrate-vm": 28,
    "delete-vm": 28,
    "reboot-vm": 8,
    "take-snapshot": 28,
    "revert-snapshot": 32,
    "delete-snapshot": 44,
}
CALM_S = 12.0
ENDED = ("succeeded", "failed", "cancelled")


@dataclass
class Site:
    """Two hosts; the agent of h1 obeys orders, and all work is done on it."""

    lab: Lab
    every_step: bool
    made: int = 0
    seen: dict[str, set[str]] = field(default_factory=dict)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        socket = str(self.lab.inside("h1", "/run/kvorum/api.sock"))
        async with Client(
            [Endpoint(socket_path=socket)], rng=random.SystemRandom(), patience_s=60.0
        ) as client:
            yield client

    def order(self, workflow: str, kind: str, points: dict[str, int]) -> None:
        """Have the agent of h1 stop or fail the work on these VMs, each at its point."""
        self.report.unlink(missing_ok=True)
        orders = Orders(workflow=workflow, kind=kind, points=points, commits=self.every_step)
        self._orders.write_bytes(msgspec.json.encode(orders))

    def calm(self) -> None:
        """Order nothing any more."""
        self._orders.unlink(missing_ok=True)

    def reached(self) -> dict[str, str]:
        """Return the VMs whose work is at its point, or at its end before that, and where."""
        lines = self.report.read_text().splitlines() if self.report.exists() else []
        return {line.split("\t")[0]: line.split("\t")[2] for line in lines}

    @property
    def report(self) -> Path:
        return self.lab.inside("h1", str(faulty_agent.REPORT))

    @property
    def _orders(self) -> Path:
        return self.lab.inside("h1", str(faulty_agent.ORDERS))

    def count(self, workflow: str) -> int:
        return (WITH_COMMITS if self.every_step else EFFECTS)[workflow]

    def points(self, workflow: str, step: int = 1) -> list[list[int]]:
        """Return the points to try, in groups that fit on a host: every `step`-th, or each."""
        chosen = list(range(1, self.count(workflow) + 1, 1 if self.every_step else step))
        return [chosen[i : i + AT_ONCE] for i in range(0, len(chosen), AT_ONCE)]

    def spread(self, workflow: str, names: Iterable[str], turn: int) -> dict[str, int]:
        """Return points of another workflow for VMs that are there; the next `turn` goes on where this one ends."""
        count = self.count(workflow)
        return {n: (turn * AT_ONCE + i) % count + 1 for i, n in enumerate(names)}

    async def all_stand(self, workflow: str, names: list[str]) -> None:
        """Wait until the work on each VM is at its point or over; what waits for another's lock may never get there."""
        loop = asyncio.get_running_loop()
        before, since_s = -1, loop.time()
        while (now := len(self.reached())) < len(names) and loop.time() - since_s < CALM_S:
            if now != before:
                before, since_s = now, loop.time()
            await asyncio.sleep(0.1)
        assert len(self.reached()) >= len(names) * 2 / 3, self.reached()
        self.seen.setdefault(workflow, set()).update(self.reached().values())

    async def kill_agent(self, host: str = "h1") -> None:
        """Kill an agent once, which starts again and meets no trouble; what it had to do with goes on."""
        if host == "h1":
            self.calm()
        dead = self.lab.service_pid(host, "agent")
        self.lab.kill(host, "agent", signal.SIGKILL)
        self.calm()
        await poll(lambda: self.lab.service_pid(host, "agent") not in (None, dead), 20.0)
        await self.answering()

    async def cut_power(self) -> None:
        """Take the power from h1, and give it back."""
        self.calm()
        await self.lab.power_off("h1")
        await self.lab.power_on("h1")
        await self.answering()

    async def answering(self) -> None:
        """Wait until the agent of h1 answers."""

        async def answers() -> bool:
            async with self.client() as client:
                try:
                    await client.status()
                except PlatformError:
                    return False
            return True

        await poll(answers, 40.0)

    async def nothing_is_left(self, within_s: float = 60.0) -> None:
        """Wait until no work is open and the audit finds nothing; show what it finds at last."""
        found: list[str] = ["not looked yet"]

        async def is_clean() -> bool:
            async with self.client() as client:
                tasks = (await client.list_all("tasks")).items
                found[:] = [
                    f"task {task.text('workflow')} of {task.text('subject')} is {task.text('state')}: {task.text('error')}"
                    for task in tasks
                    if task.text("state") not in ENDED
                ] or await garbage(self.lab, client)
            return found == []

        try:
            await poll(is_clean, within_s, every_s=0.5)
        except BaseException:
            print("\n".join(found))
            raise


@pytest.fixture(scope="module")
def site(
    lab_factory: LabFactory, request: pytest.FixtureRequest, tmp_path_factory
) -> Iterator[Site]:
    services = {"h1": (LIBVIRTD, GUARD, FAULTY_AGENT, SERF), "h2": PRODUCT}
    lab = lab_factory(2, services)
    image = tmp_path_factory.mktemp("image") / "blank.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "8M"], check=True)

    async def begin() -> None:
        await form_cluster(lab)
        storage = ("--kind", "shared", "--path", "/srv/shared")
        await lab.run("h1", "kvorum", "data-storage", "create", SHARED, *storage)
        await lab.run("h1", "kvorum", "image", "upload", IMAGE, "--file", str(image))

    in_own_loop(begin())
    return Site(lab, bool(request.config.getoption("--every-step")))


@pytest.fixture(autouse=True)
async def no_vms(site: Site) -> None:
    """Begin with none, whatever a test before has left because it failed."""
    site.calm()
    await gone(site)


# -- work on many VMs at once


async def phases(site: Site) -> dict[str, str]:
    return {name: vm.text("phase") for name, vm in (await vms_of(site)).items()}


async def vms_on(site: Site, host: str) -> set[str]:
    """Return the names of the VMs that belong to a host."""
    async with site.client() as client:
        id_ = (await client.get("hosts", host)).text("id")
    return {name for name, vm in (await vms_of(site)).items() if vm.text("host_id") == id_}


async def vms_of(site: Site) -> dict[str, Item]:
    async with site.client() as client:
        return {vm.text("name"): vm for vm in (await client.list_all("vms")).items}


async def on_all(
    site: Site, names: list[str], act: Callable[[Client, str], Awaitable[Started]]
) -> dict[str, str]:
    """Begin work on each; return its tasks by VM."""
    begun: dict[str, str] = {}
    async with site.client() as client:
        for name in names:
            started = await act(client, name)
            if started.task is not None:
                begun[name] = started.task.id
    return begun


def creating(client: Client, name: str) -> Awaitable[Started]:
    """Make a VM of the least memory, every other one on the host's own storage."""
    storage = SHARED if int(name.rpartition("p")[2]) % 2 else "local"
    body = VMBody(name=name, image=IMAGE, memory_mib=64, data_storage=storage, host="h1")
    return client.create_vm(body)


def creating_shared(client: Client, name: str) -> Awaitable[Started]:
    body = VMBody(name=name, image=IMAGE, memory_mib=64, data_storage=SHARED, host="h1")
    return client.create_vm(body)


def creating_stopped(client: Client, name: str) -> Awaitable[Started]:
    storage = SHARED if int(name.rpartition("p")[2]) % 2 else "local"
    body = VMBody(
        name=name, image=IMAGE, memory_mib=64, data_storage=storage, host="h1", start=False
    )
    return client.create_vm(body)


def taking(which: str) -> Callable[[Client, str], Awaitable[Started]]:
    return lambda client, name: client.take_snapshot(SnapshotBody(vm=name, name=f"{name}-{which}"))


def reverting(which: str) -> Callable[[Client, str], Awaitable[Started]]:
    return lambda client, name: client.act("snapshots", f"{name}-{which}", "revert", EmptyBody())


def forgetting(which: str) -> Callable[[Client, str], Awaitable[Started]]:
    return lambda client, name: client.delete("snapshots", f"{name}-{which}")


def acting(verb: str, body: Body) -> Callable[[Client, str], Awaitable[Started]]:
    return lambda client, name: client.act("vms", name, verb, body)


def deleting(client: Client, name: str) -> Awaitable[Started]:
    return client.delete("vms", name)


ACTS = {
    "create-vm": creating,
    "start-vm": acting("start", EmptyBody()),
    "stop-vm": acting("stop", StopBody(force=True)),
    "migrate-vm": acting("migrate", MigrateBody(host="h2")),
    "delete-vm": deleting,
    "reboot-vm": acting("reboot", EmptyBody()),
}


def fresh(site: Site, points: list[int]) -> dict[str, int]:
    """Return new names for VMs, one for each point."""
    site.made += 1
    return {f"r{site.made}-p{point}": point for point in points}


async def undisturbed(site: Site, names: list[str], workflow: str, act=None) -> None:
    begun = await on_all(site, names, act or ACTS[workflow])
    async with site.client() as client:
        for name, task in begun.items():
            done = await client.wait_task(task)
            assert done.succeeded, f"{workflow} of {name}: {done}"


async def killed(site: Site, workflow: str, points: dict[str, int], act=None) -> None:
    """Begin the work on all, kill the agent when each is at its point, and wait for the end."""
    site.order(workflow, HOLD, points)
    await on_all(site, list(points), act or ACTS[workflow])
    await site.all_stand(workflow, list(points))
    await site.kill_agent()
    await site.nothing_is_left()


async def failed(site: Site, workflow: str, points: dict[str, int], act=None) -> set[str]:
    """Begin the work on all, let each fail at its point, and wait for the end; return whose work is undone."""
    site.order(workflow, FAIL, points)
    begun = await on_all(site, list(points), act or ACTS[workflow])
    undone = set()
    async with site.client() as client:
        for name, task in begun.items():
            if not (await client.wait_task(task)).succeeded:
                undone.add(name)
    site.seen.setdefault(workflow, set()).update(site.reached().values())
    site.calm()
    await site.nothing_is_left()
    return undone


async def gone(site: Site) -> None:
    """Delete all VMs in peace."""
    await undisturbed(site, list(await vms_of(site)), "delete-vm")
    await site.nothing_is_left()


async def snapshots_of(site: Site) -> dict[str, set[str]]:
    """Return what snapshots there are, by the name of the VM."""
    async with site.client() as client:
        items = (await client.list_all("snapshots")).items
    found: dict[str, set[str]] = {}
    for item in items:
        vm, _, which = item.text("name").rpartition("-")
        found.setdefault(vm, set()).add(which)
    return found


# -- the stories


async def test_agents_killed_while_vms_are_made_and_deleted_leave_nothing(site: Site) -> None:
    for turn, group in enumerate(site.points("create-vm")):
        points = fresh(site, group)
        await killed(site, "create-vm", points)
        assert await phases(site) == dict.fromkeys(points, "running")
        await killed(site, "delete-vm", site.spread("delete-vm", points, turn))
        assert await vms_of(site) == {}
    assert len(site.seen["create-vm"]) >= 12, site.seen


async def test_steps_that_fail_while_vms_are_made_and_deleted_leave_nothing(site: Site) -> None:
    for turn, group in enumerate(site.points("create-vm")):
        points = fresh(site, group)
        undone = await failed(site, "create-vm", points)
        assert undone, "some failures can't be passed over"
        left = [name for name in points if name not in undone]
        assert await phases(site) == dict.fromkeys(left, "running")
        await undisturbed(site, sorted(undone), "create-vm")
        await failed(site, "delete-vm", site.spread("delete-vm", points, turn))
        assert set((await phases(site)).values()) <= {"stopped"}
        await gone(site)


async def test_creates_that_are_cancelled_before_the_agent_dies_leave_nothing(site: Site) -> None:
    cancelled = 0
    for group in site.points("create-vm", 3):
        points = fresh(site, group)
        site.order("create-vm", HOLD, points)
        tasks = await on_all(site, list(points), ACTS["create-vm"])
        await site.all_stand("create-vm", list(points))
        async with site.client() as client:
            for task in tasks.values():
                with suppress(ConflictError):  # over already
                    await client.cancel_task(task)
        await site.kill_agent()
        await site.nothing_is_left()
        async with site.client() as client:
            states = {name: (await client.get_task(task)).state for name, task in tasks.items()}
        whole = [name for name, state in states.items() if state == "succeeded"]
        assert await phases(site) == dict.fromkeys(whole, "running")
        cancelled += sum(state == "cancelled" for state in states.values())
        await gone(site)
    assert cancelled >= 3


async def test_agents_killed_while_vms_are_stopped_and_started_leave_nothing(site: Site) -> None:
    for group in site.points("stop-vm"):
        points = fresh(site, group)
        await undisturbed(site, list(points), "create-vm")
        await killed(site, "stop-vm", points)
        assert await phases(site) == dict.fromkeys(points, "stopped")
        await killed(site, "start-vm", site.spread("start-vm", points, 0))
        assert await phases(site) == dict.fromkeys(points, "running")
        await killed(site, "reboot-vm", site.spread("reboot-vm", points, 0))
        await failed(site, "reboot-vm", site.spread("reboot-vm", points, 0))
        assert await phases(site) == dict.fromkeys(points, "running")
        await gone(site)


async def test_agents_killed_while_snapshots_come_and_go_leave_nothing(site: Site) -> None:
    for turn, group in enumerate(site.points("delete-snapshot", 3)):
        points = fresh(site, group)
        await undisturbed(site, list(points), "create-vm", creating_stopped)
        await undisturbed(site, list(points), "take-snapshot", taking("a"))
        taken = site.spread("take-snapshot", points, turn)
        await killed(site, "take-snapshot", taken, taking("b"))
        assert await snapshots_of(site) == {name: {"a", "b"} for name in points}
        reverted = site.spread("revert-snapshot", points, turn)
        await killed(site, "revert-snapshot", reverted, reverting("a"))
        undone = await failed(site, "take-snapshot", taken, taking("c"))
        await undisturbed(site, sorted(undone), "take-snapshot", taking("c"))
        # The first is what the two others go on from.
        undone = await failed(site, "delete-snapshot", points, forgetting("a"))
        await killed(site, "delete-snapshot", {n: points[n] for n in undone}, forgetting("a"))
        assert await snapshots_of(site) == {name: {"b", "c"} for name in points}
        # The last is what the disk goes on from.
        await killed(site, "delete-snapshot", points, forgetting("c"))
        assert await snapshots_of(site) == {name: {"b"} for name in points}
        await undisturbed(site, list(points), "start-vm")
        assert await phases(site) == dict.fromkeys(points, "running")
        await gone(site)


async def test_agents_killed_while_vms_move_leave_each_on_one_host(site: Site) -> None:
    for group in site.points("migrate-vm"):
        points = fresh(site, group)
        await undisturbed(site, list(points), "create-vm", creating_shared)
        await killed(site, "migrate-vm", points)
        assert await phases(site) == dict.fromkeys(points, "running")
        here = await vms_on(site, "h1")
        assert here != set(points), "some had moved far enough, or were moved to the end"
        await failed(site, "migrate-vm", {n: p for n, p in points.items() if n in here})
        assert await phases(site) == dict.fromkeys(points, "running")
        await gone(site)


async def test_targets_whose_agent_is_killed_while_vms_move_leave_each_on_one_host(
    site: Site,
) -> None:
    for group in site.points("migrate-vm"):
        points = fresh(site, group)
        await undisturbed(site, list(points), "create-vm", creating_shared)
        site.order("migrate-vm", PAUSE, points)
        await on_all(site, list(points), ACTS["migrate-vm"])
        await site.all_stand("migrate-vm", list(points))
        await site.kill_agent("h2")
        await site.nothing_is_left()
        assert await phases(site) == dict.fromkeys(points, "running")
        await gone(site)


@pytest.mark.parametrize("workflow", ["migrate-vm", "create-vm", "delete-vm"])
async def test_a_host_that_loses_power_in_the_middle_of_work_leaves_nothing(
    site: Site, workflow: str
) -> None:
    if not site.every_step:
        pytest.skip("takes a boot and the end of all leases: make garbage")
    for group in site.points(workflow):
        points = fresh(site, group)
        if workflow != "create-vm":
            await undisturbed(site, list(points), "create-vm", creating_shared)
        site.order(workflow, HOLD, points)
        tasks = await on_all(site, list(points), ACTS[workflow])
        await site.all_stand(workflow, list(points))
        await site.cut_power()
        await site.nothing_is_left(240.0)
        async with site.client() as client:
            ended = {name: await client.get_task(task) for name, task in tasks.items()}
        done = [name for name, task in ended.items() if task.state == "succeeded"]
        left = {"create-vm": done, "delete-vm": []}.get(workflow, list(points))
        assert await phases(site) == dict.fromkeys(left, "running"), ended
        print({t.error for t in ended.values()})
        await gone(site)


async def test_a_host_that_loses_power_while_snapshots_go_leaves_nothing(site: Site) -> None:
    """The host itself goes on once it is back, or the other one does where it has the disk."""
    if not site.every_step:
        pytest.skip("takes a boot and the end of all leases: make garbage")
    for group in site.points("delete-snapshot", 2):
        points = fresh(site, group)
        await undisturbed(site, list(points), "create-vm", creating_stopped)
        for which in ("a", "b"):
            await undisturbed(site, list(points), "take-snapshot", taking(which))
        site.order("delete-snapshot", HOLD, points)
        await on_all(site, list(points), forgetting("a"))
        await site.all_stand("delete-snapshot", list(points))
        await site.cut_power()
        await site.nothing_is_left(240.0)
        assert await snapshots_of(site) == {name: {"b"} for name in points}
        await undisturbed(site, list(points), "start-vm")
        assert await phases(site) == dict.fromkeys(points, "running")
        await gone(site)
