"""The lab as tests, drills and the demo use it: hosts that can be switched, cut, frozen and asked.

`Lab.up` makes one from nothing, `Lab.attach` finds one that stands. Every verb returns once its
effect is there, so callers wait only for what the product does about it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from core.clock import system_random
from core.command import CommandResult, run
from core.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from tools.lab import cleanup, processes
from tools.lab.boards import LabBoard, start_board
from tools.lab.layout import REPOSITORY, Layout, environment, host_address, host_number
from tools.lab.power_protocol import BmcMode, PowerClient, Reply, Request, Verb
from tools.lab.processes import Process, poll
from tools.lab.provision import SHARED_MOUNT, provision
from tools.lab.services import PRODUCT, Service
from tools.lab.spawn import start
from tools.lab.wire import Wire

CONTROLLER_DEADLINE_S = 30.0
READY_DEADLINE_S = 60.0
MTU = 1500
SERVICES_FILE = "run/kvorum-lab/services.json"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a lab was made of: kept in its directory for later commands."""

    hosts: tuple[str, ...]
    services: dict[str, tuple[Service, ...]]


class Lab:
    """A standing lab. Hosts are called h1 … hN and have the addresses 10.77.0.1 … 10.77.0.N."""

    def __init__(self, layout: Layout, plan: Plan) -> None:
        self.layout = layout
        self.plan = plan
        self.hosts = plan.hosts
        self.wire = Wire(layout)
        self.power = PowerClient(layout.power_socket)

    # ------------------------------------------------------------ up and down

    @classmethod
    async def up(
        cls,
        name: str,
        hosts: int,
        *,
        services: Sequence[Service] | dict[str, Sequence[Service]] = PRODUCT,
        mtu: int = MTU,
        hollow: bool = False,
    ) -> Lab:
        """Make a lab of that name, after removing any that is left over; all hosts are on and ready.

        `services` are the same for all hosts, or chosen per host. With `hollow`, guests of 64 MiB are processes that look like
        guests and run nothing (`hollow_qemu`). When this fails, what was made is removed by the next `up` or `remove`, and
        stays until then for a look.

        Raises:
            InvalidError: a bad name or number of hosts.
            UnavailableError: a host or service was not there in time; the message says which.
        """
        layout = Layout(name)
        if os.geteuid() != 0:
            raise InvalidError("the lab makes namespaces and mounts: run it as root")
        names = tuple(f"h{number}" for number in range(1, hosts + 1))
        host_number(names[-1] if names else "none")
        await cleanup.remove(name)
        cleanup.make_directories(layout)
        chosen = {
            host: tuple(services[host] if isinstance(services, dict) else services)
            for host in names
        }
        plan = Plan(hosts=names, services=chosen)
        layout.plan.write_bytes(msgspec.json.encode(plan))
        rng = system_random()
        for host in names:
            provision(
                layout,
                host,
                hosts=names,
                services=chosen[host],
                mtu=mtu,
                rng=rng,
                hollow=hollow,
            )
        lab = cls(layout, plan)
        await lab.wire.create(mtu=mtu)
        await lab._start_controller()
        await lab._all("on")
        await lab.wait_ready()
        return lab

    @classmethod
    def attach(cls, name: str) -> Lab:
        """Return the lab of that name.

        Raises:
            NotFoundError: there is none.
        """
        layout = Layout(name)
        if not layout.plan.exists():
            raise NotFoundError(f"there is no lab {name!r}: make one with `kvorum-lab up 3`")
        return cls(layout, msgspec.json.decode(layout.plan.read_bytes(), type=Plan))

    async def down(self) -> None:
        """Remove every trace of the lab."""
        await cleanup.remove(self.layout.lab)

    async def _start_controller(self) -> None:
        env = environment(self.layout.lab, "") | {"PYTHONPATH": str(REPOSITORY)}
        argv = [sys.executable, "-m", "tools.lab.power", self.layout.lab, *self.hosts]
        start(argv, env=env, log=self.layout.power_log)
        what = f"the power controller of lab {self.layout.lab} starts ({self.layout.power_log})"
        place = str(self.layout.power_socket)
        await poll(
            lambda: processes.listens(os.getpid(), place),  # it is there a moment before that
            deadline_s=CONTROLLER_DEADLINE_S,
            what=what,
        )

    async def _all(self, verb: Verb) -> None:
        async with asyncio.TaskGroup() as group:
            for host in self.hosts:
                group.create_task(self._switch(verb, host), name=f"{verb} {host}")

    async def wait_ready(self, *hosts: str, deadline_s: float = READY_DEADLINE_S) -> None:
        """Wait until every service of these hosts (default: all) that says how can be used."""

        def missing() -> list[str]:
            return [
                f"{service.name} of {host}"
                for host in hosts or self.hosts
                for service in self.plan.services[host]
                if service.ready is not None
                and service.after is None
                and not (self._booted(host) and self._can_be_used(host, service.ready))
            ]

        try:
            await poll(lambda: not missing(), deadline_s=deadline_s, what="all services are ready")
        except UnavailableError as error:
            names = ", ".join(missing())
            raise UnavailableError(f"{error.message}: {names} (see kvorum-lab logs)") from None

    def _can_be_used(self, host: str, place: str) -> bool:
        """Tell whether a service is ready; a killed one leaves its socket, at which nobody listens."""
        path = self.inside(host, place)
        return processes.listens(self._pid(host), place) if path.is_socket() else path.exists()

    # ------------------------------------------------------------ looking in

    def _check(self, host: str) -> None:
        if host not in self.hosts:
            raise NotFoundError(f"lab {self.layout.lab} has no {host!r}: {', '.join(self.hosts)}")

    def address(self, host: str) -> str:
        """Return a host's address on the wire."""
        self._check(host)
        return host_address(host)

    @property
    def shared(self) -> Path:
        """The directory that hosts see as /srv/shared, as the outside sees it."""
        return self.layout.shared

    def first_pid(self, host: str) -> int | None:
        """Return the host's PID 1 as the machine numbers it, or None when the host is off."""
        self._check(host)
        try:
            pid = int(self.layout.pid_file(host).read_text())
        except (OSError, ValueError):
            return None
        return pid if processes.carries(pid, environment(self.layout.lab, host)) else None

    def inside(self, host: str, path: str) -> Path:
        """Return `path` of a running host as a path of the machine.

        Raises:
            ConflictError: the host is off.
        """
        return Path(f"/proc/{self._pid(host)}/root") / path.lstrip("/")

    def _pid(self, host: str) -> int:
        pid = self.first_pid(host)
        if pid is None:
            raise ConflictError(f"{host} is off: kvorum-lab power-on {host}")
        return pid

    def _booted(self, host: str) -> bool:
        pid = self.first_pid(host)
        return pid is not None and Path(f"/proc/{pid}/root/{SERVICES_FILE}").exists()

    def enter(self, host: str, argv: Sequence[str], *, cwd: str = "/") -> list[str]:
        """Return the command that runs `argv` inside a host, or on the wire (`wire`) as an outsider."""
        if host == "wire":
            return ["nsenter", f"--net=/run/netns/{self.layout.wire}", "--", *argv]
        environ = [f"{key}={value}" for key, value in environment(self.layout.lab, host).items()]
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid"]
        target = ["nsenter", "--target", str(self._pid(host)), *spaces, "--"]
        return [*target, "env", "-i", "-C", cwd, *environ, *argv]

    async def run(
        self,
        host: str,
        *argv: str,
        timeout_s: float = 30.0,
        input: bytes | None = None,  # noqa: A002
    ) -> CommandResult:
        """Run a command inside a host (or `wire`) to its end.

        Raises:
            CommandError: it failed.
            ConflictError: the host is off.
        """
        return await run(self.enter(host, argv), timeout_s=timeout_s, input=input)

    async def text(self, host: str, *argv: str, timeout_s: float = 30.0) -> str:
        """Run a command inside a host and return what it printed."""
        return (await self.run(host, *argv, timeout_s=timeout_s)).stdout.decode()

    def processes(self, host: str) -> tuple[Process, ...]:
        """Return all processes of a host; none when it is off."""
        pid = self.first_pid(host)
        return processes.in_same_namespace(pid) if pid is not None else ()

    def qemus(self, host: str) -> tuple[Process, ...]:
        """Return the QEMU processes of a host."""
        return tuple(p for p in self.processes(host) if p.name.startswith("qemu-system"))

    def service_pid(self, host: str, service: str) -> int | None:
        """Return a service's process as the machine numbers it, or None when it is not running."""
        state = json.loads(self.inside(host, SERVICES_FILE).read_bytes())
        if service not in state:
            raise NotFoundError(f"{host} has no service {service!r}: {', '.join(state)}")
        inner = state[service]["pid"]
        for process in self.processes(host):
            if inner and process.inner_pid == inner and process.state not in "ZX":
                return process.pid
        return None

    def log_text(self, host: str, service: str) -> str:
        """Return what a service has written since the lab was made (`init`: the host itself)."""
        self._check(host)
        path = self.layout.service_log(host, service)
        return path.read_text(errors="replace") if path.exists() else ""

    # ------------------------------------------------------------ power

    async def _switch(self, verb: Verb, host: str) -> Reply:
        self._check(host)
        return await self.power.ask(Request(verb=verb, host=host), timeout_s=90.0)

    async def status(self, host: str) -> Reply:
        """Return how a host's power and watchdog stand, and why."""
        return await self._switch("status", host)

    async def power_off(self, *hosts: str) -> None:
        """Cut the power of hosts at the same time: all their processes are gone on return."""
        async with asyncio.TaskGroup() as group:
            for host in hosts:
                group.create_task(self._switch("off", host), name=f"power off {host}")

    async def power_on(self, *hosts: str, wait: bool = True) -> None:
        """Boot hosts; with `wait`, until their services are ready."""
        async with asyncio.TaskGroup() as group:
            for host in hosts:
                group.create_task(self._switch("on", host), name=f"power on {host}")
        if wait:
            await self.wait_ready(*hosts)

    async def shutdown(self, host: str) -> None:
        """Press the power button: services end in order, then the host is off."""
        await self._switch("shutdown", host)

    async def reset(self, host: str) -> None:
        """Press the reset button; the host boots again if `boot_after_reset` says so."""
        await self._switch("reset", host)

    async def boot_after_reset(self, host: str, boot: bool) -> None:
        """Choose whether a reset (by the watchdog too) boots the host or leaves it off (default)."""
        self._check(host)
        await self.power.ask(Request(verb="after-reset", host=host, boot=boot))

    async def bmc(self, host: str, mode: BmcMode, *, delay_s: float = 0.0) -> None:
        """Choose how the host's management board behaves."""
        self._check(host)
        await self.power.ask(Request(verb="bmc", host=host, mode=mode, delay_s=delay_s))

    async def start_boards(self, *hosts: str) -> dict[str, LabBoard]:
        """Give hosts (default: all) management boards that speak IPMI; return where they are."""
        boards = {}
        for host in hosts or self.hosts:
            self._check(host)
            boards[host] = await start_board(self.layout, host)
        return boards

    # ------------------------------------------------------------ faults

    async def glaze(self, host: str) -> None:
        """Put glass (`tools.lab.glass`) between a host and the shared directory, until it is off; before guests use it."""
        control = self.layout.glass(host)
        control.write_text("clear")
        argv = [sys.executable, "-m", "tools.lab.glass", SHARED_MOUNT, str(control)]
        command = self.enter(host, ["env", f"PYTHONPATH={REPOSITORY}", *argv])
        start(
            ["/usr/bin/nsenter", *command[1:]],
            env=environment(self.layout.lab, ""),
            log=self.layout.service_log(host, "glass"),
        )
        await poll(lambda: self.is_glazed(host), deadline_s=10.0, what=f"the glass of {host}")

    def is_glazed(self, host: str) -> bool:
        """Tell whether there is glass between a host and the shared directory."""
        mounts = Path(f"/proc/{self._pid(host)}/mounts").read_text()
        return f" {SHARED_MOUNT} fuse" in mounts

    def shade(self, host: str, word: Literal["clear", "dark", "stuck"]) -> None:
        """Have the shared directory of a glazed host fail (`dark`), hang (`stuck`) or work (`clear`)."""
        self._check(host)
        self.layout.glass(host).write_text(word)

    async def cut(self, *hosts: str) -> None:
        """Pull the network cables of hosts."""
        for host in hosts:
            self._check(host)
            await self.wire.cut(host)

    async def one_way(self, host: str, direction: Literal["in", "out"]) -> None:
        """Lose all frames a host receives (`in`) or sends (`out`)."""
        self._check(host)
        await self.wire.one_way(host, direction)

    async def partial(self, first: str, second: str) -> None:
        """Make two hosts invisible to each other; all others see both."""
        self._check(first)
        self._check(second)
        await self.wire.partial(first, second)

    async def heal(self, *hosts: str) -> None:
        """Take back the network faults of these hosts, or of all."""
        if not hosts:
            await self.wire.heal_all()
        for host in hosts:
            self._check(host)
            await self.wire.heal(host, self.hosts)

    async def freeze(self, host: str) -> None:
        """Stop every process of a host, as a hypervisor pause or a swap storm does."""
        self._pid(host)

        def all_stopped() -> bool:
            running = [p.pid for p in self.processes(host) if not p.stopped]
            processes.send(running, signal.SIGSTOP)
            return not running

        await poll(all_stopped, deadline_s=10.0, what=f"{host} freezes")

    def thaw(self, host: str) -> None:
        """Let a frozen host go on."""
        processes.send([p.pid for p in self.processes(host)], signal.SIGCONT)

    def kill(self, host: str, service: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a service (SIGKILL, or SIGSTOP to hang it, SIGCONT to go on).

        Raises:
            ConflictError: it is not running.
        """
        pid = self.service_pid(host, service)
        if pid is None:
            raise ConflictError(f"{service} is not running on {host}")
        os.kill(pid, number)
