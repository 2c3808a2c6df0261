"""The ground a row is played on: a lab cluster, what an operator does with it, and what is seen from outside.

Made by `run`, used by the rows. Between rows `heal` brings everything back and `is_healthy` says whether that worked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from core.command import CommandError
from core.errors import PlatformError, UnavailableError
from ha.profile import Profile, profile_of
from tools.demo.operator import Operator
from tools.demo.outside import hosts_running, last_write
from tools.guests.build import guest_image
from tools.ha_matrix import sightings, wall_clock
from tools.ha_matrix.services import services_of
from tools.ha_matrix.verdict import Missed, Shape
from tools.lab import processes
from tools.lab.api import Reply, ask
from tools.lab.boards import CIPHER_SUITE, PASSWORD, USER
from tools.lab.diskreader import read_records, took_turns
from tools.lab.lab import Lab
from tools.lab.observer import Observer

SHARED = "shared1"
VIP = "10.77.0.250"
ASK_TIMEOUT_S = 5.0
BOOT_DEADLINE_S = 90.0
HEALTHY_DEADLINE_S = 90.0
FRESH_LEASE_S = 4.0
LOOK_S = 0.1
DISK_LOOK_S = 0.4
GUEST_MARK = "guest=kvorum-"


@dataclass(frozen=True, slots=True)
class Guest:
    """A VM of a row: its disk's file on the machine, and the host that it was made on."""

    name: str
    id: str
    disk: Path
    host: str


@dataclass(slots=True)
class Ground:
    """A cluster that stands. `observer` watches while a row is played."""

    lab: Lab
    operator: Operator
    shape: Shape
    observer: Observer
    made: list[str] = field(default_factory=list)

    @classmethod
    async def make(cls, name: str, shape: Shape) -> Ground:
        """Make a lab and a cluster of this shape, with shared storage and the tiny image; it is healthy on return.

        Raises:
            PlatformError: it didn't come up.
        """
        if shape.clock:
            await wall_clock.build()
        lab = await Lab.up(name, shape.hosts, services=services_of(shape), hollow=shape.hollow)
        return await cls.form(lab, shape)

    @classmethod
    async def form(cls, lab: Lab, shape: Shape) -> Ground:
        """Make the hosts of a fresh lab a cluster of this shape.

        Raises:
            PlatformError: it didn't come up.
        """
        ground = cls(lab, Operator(lab), shape, Observer(lab))
        await ground._form()
        await ground.healthy()
        return ground

    async def _form(self) -> None:
        first, *others = self.hosts
        await self.types("init")
        tokens = (await self.types("token", "create", "--count", str(len(others)))).split()
        for host, token in zip(others, tokens, strict=True):
            options = ("--witness",) if host in self.shape.witness else ()
            await self.operator.types(host, "join", token, *options)
        await self.types(
            "data-storage", "create", SHARED, "--kind", "shared", "--path", "/srv/shared"
        )
        await self.types("vip", "set", VIP)
        await self.types("image", "upload", "tiny", "--file", str(await guest_image("tiny")))
        if self.shape.boards:
            for host, board in (await self.lab.start_boards()).items():
                words = f"kvorum bmc set {host} --address {board.address} --port {board.port}"
                said = f"echo {PASSWORD} | {words} --user {USER} --cipher-suite {CIPHER_SUITE}"
                await self.lab.run(first, "sh", "-c", said)

    @property
    def hosts(self) -> tuple[str, ...]:
        return self.lab.hosts

    @property
    def workers(self) -> tuple[str, ...]:
        """The hosts that run VMs."""
        return tuple(host for host in self.hosts if host not in self.shape.witness)

    @property
    def profile(self) -> Profile:
        return profile_of(self.shape.profile)

    def others(self, *hosts: str) -> tuple[str, ...]:
        """Return the hosts that run VMs without these."""
        return tuple(host for host in self.workers if host not in hosts)

    # ------------------------------------------------------------ the operator's side

    async def types(self, *words: str, host: str = "") -> str:
        """Run `kvorum WORDS` on a host (default: the first) and return what it printed."""
        return await self.operator.types(host or self.hosts[0], *words)

    async def ask(
        self,
        host: str,
        path: str,
        *,
        method: str = "GET",
        content: bytes = b"",
        timeout_s: float = ASK_TIMEOUT_S,
    ) -> Reply | None:
        """Ask the API of a host; None when it doesn't answer."""
        try:
            return await ask(self.lab, host, method, path, content=content, timeout_s=timeout_s)
        except (aiohttp.ClientError, OSError, TimeoutError, PlatformError):
            return None

    async def shown(self, path: str, *, host: str = "") -> Any:
        """Return the body that a host answers with, or None."""
        reply = await self.ask(host or self.hosts[0], path)
        return reply.body if reply is not None and reply.status == 200 else None

    async def leader(self) -> str:
        """Return the name of the leading host.

        Raises:
            Missed: nobody knows of one within ten seconds.
        """
        names: list[str] = []

        async def known() -> bool:
            for host in self.hosts:
                status = await self.shown("/v1/status", host=host)
                if status is not None and status["leader_name"]:
                    names.append(status["leader_name"])
                    return True
            return False

        await self.until("there is a leader", known, deadline_s=10.0)
        return names[-1]

    async def create(
        self, name: str, *options: str, host: str, image: str = "tiny", memory: str = "128MiB"
    ) -> Guest:
        """Create a VM on shared storage on this host; it runs on return."""
        self.made.append(name)
        words = ("--image", image, "--memory", memory, "--data-storage", SHARED, "--host", host)
        await self.types("vm", "create", name, *words, *options)
        vm = await self.operator.asks(self.hosts[0], "vm", "show", name)
        disks = await self.operator.asks(self.hosts[0], "disk", "list")
        (disk,) = (it for it in disks if it["vm_id"] == vm["id"])
        return Guest(name, vm["id"], self.lab.shared / "disks" / f"{disk['id']}.qcow2", host)

    async def writing(self, name: str, *options: str, host: str) -> Guest:
        """Create a VM and wait until its guest writes to its disk."""
        guest = await self.create(name, *options, host=host)
        await self.until(
            f"{name} writes",
            lambda: last_write(guest.disk),
            deadline_s=BOOT_DEADLINE_S,
            every_s=DISK_LOOK_S,
        )
        return guest

    # ------------------------------------------------------------ seen from outside

    async def until(
        self,
        what: str,
        check: Callable[[], Awaitable[object]],
        *,
        deadline_s: float,
        every_s: float = LOOK_S,
    ) -> None:
        """Wait until something is true.

        Raises:
            Missed: it wasn't within the deadline.
        """
        end_s = time.monotonic() + deadline_s
        while not await check():
            if time.monotonic() > end_s:
                raise Missed(f"{what}: not seen within {deadline_s:g} s")
            await asyncio.sleep(every_s)

    async def _sighting(
        self, look: Callable[[], float | None], what: str, since_s: float, deadline_s: float
    ) -> float:
        async def seen() -> bool:
            return look() is not None

        await self.until(what, seen, deadline_s=since_s + deadline_s - time.monotonic())
        at_s = look()
        assert at_s is not None
        return at_s - since_s

    async def runs_again_s(
        self, guest: Guest, since_s: float, *, hosts: Collection[str], deadline_s: float
    ) -> float:
        """Wait until a QEMU on one of these hosts holds the disk; return the seconds since a moment.

        Raises:
            Missed: none within the deadline, which counts from that moment.
        """
        return await self._sighting(
            lambda: sightings.ran_at_s(
                list(self.observer.sightings), guest.disk.name, since_s, hosts=hosts
            ),
            f"{guest.name} runs on {' or '.join(hosts)}",
            since_s,
            deadline_s,
        )

    async def gone_s(
        self, guest: Guest, since_s: float, *, deadline_s: float, host: str = ""
    ) -> float:
        """Wait until the QEMU of a guest is gone from its host; return the seconds since a moment."""
        where = host or guest.host
        return await self._sighting(
            lambda: sightings.gone_at_s(
                list(self.observer.sightings), guest.disk.name, since_s, host=where
            ),
            f"{guest.name} is gone from {where}",
            since_s,
            deadline_s,
        )

    def runs(self, guest: Guest) -> list[str]:
        """Return the hosts of all QEMUs of a guest since the row began, in order of appearance."""
        return sightings.runs_of(list(self.observer.sightings), guest.disk.name)

    def homes(self, guest: Guest) -> list[str]:
        """Return the hosts on which a QEMU of this guest runs now."""
        return hosts_running(self.lab, guest.id)

    def qemus(self) -> frozenset[tuple[str, int, str]]:
        """Return host, pid and start time of every guest's QEMU: equal before and after means that none was touched.

        libvirtd runs QEMUs without a guest, to ask what they can do; these don't count.
        """
        return frozenset(
            (host, qemu.pid, processes.state_and_start(qemu.pid)[1])
            for host in self.hosts
            for qemu in self.lab.qemus(host)
            if any(GUEST_MARK in word for word in processes.command_line(qemu.pid))
        )

    def qemus_of(self, guest: Guest) -> list[processes.Process]:
        """Return the QEMUs of a guest."""
        return [
            qemu
            for host in self.hosts
            for qemu in self.lab.qemus(host)
            if any(guest.id in word for word in processes.command_line(qemu.pid))
        ]

    async def writes_from(self, guest: Guest, *hosts: str, deadline_s: float = 60.0) -> str:
        """Wait for a write of the guest from one of these hosts; return the host."""
        found: list[str] = []

        async def wrote() -> bool:
            record = await last_write(guest.disk)
            if record is not None and record.host in hosts:
                found.append(record.host)
            return bool(found)

        await self.until(
            f"{guest.name} writes from {' or '.join(hosts)}",
            wrote,
            deadline_s=deadline_s,
            every_s=DISK_LOOK_S,
        )
        return found[0]

    async def newest(self, guest: Guest) -> int:
        """Return the number of the guest's last record; 0 when it can't be read right now."""
        record = await last_write(guest.disk)
        return record.counter if record is not None else 0

    async def check_writes(self, *guests: Guest) -> None:
        """Look at all that guests wrote themselves.

        Raises:
            Missed: the records of one say that two of it ran at a time, or that one is lost.
        """
        for guest in guests:
            records = await read_records(guest.disk)
            if not took_turns(records):
                raise Missed(f"the records on the disk of {guest.name} are of two guests at a time")
            counters = [record.counter for record in records]
            if counters != list(range(counters[0], counters[0] + len(counters))):
                raise Missed(f"records on the disk of {guest.name} are missing")

    async def hold_still(self, seconds: float, what: str, check: Callable[[], object]) -> None:
        """Wait this long while `check` stays true.

        Raises:
            Missed: it didn't; `what` says what should have stayed.
        """
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            if not check():
                left_s = end_s - time.monotonic()
                raise Missed(f"{what}: not so after {seconds - left_s:.1f} s")
            await asyncio.sleep(LOOK_S)

    # ------------------------------------------------------------ between rows

    async def is_healthy(self) -> bool:
        """Tell whether each host's agent says that all is well, and every lease is fresh."""
        for host in self.hosts:
            health = await self.shown("/v1/health", host=host)
            if health is None or health["verdict"] != "ok":
                return False
        members = await self.shown("/v1/members", host=self.hosts[-1])
        return members is not None and all(
            it["lease_age_s"] is not None and it["lease_age_s"] < FRESH_LEASE_S
            for it in members["items"]
        )

    async def healthy(self) -> None:
        """Wait until the cluster is healthy.

        Raises:
            UnavailableError: it isn't in time; the message is what the health check says.
        """
        try:
            await self.until("health", self.is_healthy, deadline_s=HEALTHY_DEADLINE_S, every_s=0.5)
        except Missed:
            lines = []
            for host in self.hosts:
                health = await self.shown("/v1/health", host=host)
                lines.append(f"{host}: {health['line'] if health else 'no answer'}")
            raise UnavailableError(f"the cluster isn't healthy: {'; '.join(lines)}") from None

    async def heal(self) -> None:
        """Take back all faults and delete the row's VMs; the cluster is healthy on return.

        Raises:
            PlatformError: it isn't; it is to be made anew.
        """
        await self.lab.heal()
        off = []
        for host in self.hosts:
            if self.lab.first_pid(host) is None:
                off.append(host)
            else:
                self.lab.thaw(host)
        if off:
            await self.lab.power_on(*off)
        await self.healthy()
        names, self.made = self.made, []
        for name in names:
            await self._delete(name)
        self.operator.typed.clear()

    async def _delete(self, name: str) -> None:
        try:
            await self.types("vm", "delete", name, "--yes")
        except CommandError as error:
            if "no vm" not in error.stderr_tail.lower():
                raise
