"""The main job as a story: three hosts become a cluster, run a VM, lose a host, and the VM lives.

Told by `python -m tools.demo`. The operator's commands are the product's own; everything that is claimed is seen from
outside: processes, pings, log-ins, and what a guest writes to its disk.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.command import run
from core.errors import ConflictError
from tools.demo.operator import Operator
from tools.demo.outside import hosts_running, last_write, until
from tools.demo.probe import Probe
from tools.demo.timeline import Timeline
from tools.guests.build import guest_image
from tools.lab.diskreader import read_records, took_turns
from tools.lab.lab import Lab
from tools.lab.observer import Observer

Shown = dict[str, Any]
"""A resource as the command line shows it in JSON."""

PROBE_ADDRESS = "10.100.0.250/16"
BRIDGE = "kbr100"
NETWORK = "10.100.0.0/16"
BOOT_DEADLINE_S = 240.0
FAILOVER_DEADLINE_S = 90.0
DISK_LOOK_S = 0.5  # each look starts a qemu-img, which takes the processor from translated guests


class Story:
    """One telling. `lab` stands already, with nothing on it."""

    def __init__(
        self, lab: Lab, timeline: Timeline, scratch: Path, say: Callable[[str], object]
    ) -> None:
        self._lab = lab
        self._timeline = timeline
        self._scratch = scratch
        self._say = say
        self._operator = Operator(lab)
        self._key = scratch / "id_ed25519"

    async def tell(self) -> None:
        """Go through all of it.

        Raises:
            PlatformError: something did not happen; the message says what.
        """
        with Observer(self._lab) as observer:
            await self._form_cluster()
            await self._upload_images()
            web = await self._create("web1", "debian-12", "--memory", "768MiB")
            home = await self._home_of(web["id"])
            away = [host for host in self._lab.hosts if host != home]
            probe = Probe(self._lab, away[0], self._scratch)
            await self._reach(probe, web["ips"][0], home)
            target = away[1]
            await self._migrate(probe, web, target)
            counter = await self._create("counter1", "tiny", "--memory", "192MiB", "--host", target)
            await self._lose(target, probe, web, counter, observer)
            self._judge(observer)

    # -- the chapters

    async def _form_cluster(self) -> None:
        first, *others = self._lab.hosts
        async with self._timeline.step("kvorum init") as step:
            step.detail = (await self._operator.types(first, "init")).splitlines()[0]
        async with self._timeline.step("kvorum token create") as step:
            count = str(len(others))
            tokens = (
                await self._operator.types(first, "token", "create", "--count", count)
            ).split()
            step.detail = f"{len(tokens)} single-use tokens"
        for host, token in zip(others, tokens, strict=True):
            async with self._timeline.step(f"kvorum join TOKEN on {host}") as step:
                step.detail = (await self._operator.types(host, "join", token)).splitlines()[-1]
        async with self._timeline.step("kvorum data-storage create shared1"):
            await self._operator.types(
                first,
                "data-storage",
                "create",
                "shared1",
                "--kind",
                "shared",
                "--path",
                "/srv/shared",
            )

    async def _upload_images(self) -> None:
        for name, kind, host in (("tiny", "tiny", 1), ("debian-12", "full", 2)):
            file = await guest_image(kind, say=self._say)
            async with self._timeline.step(f"kvorum image upload {name}") as step:
                where = self._lab.hosts[host]
                await self._operator.types(where, "image", "upload", name, "--file", str(file))
                step.detail = f"{file.stat().st_size >> 20} MiB, through {where}"

    async def _create(self, name: str, image: str, *options: str) -> Shown:
        if not self._key.exists():
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._key)]
            await run(argv, timeout_s=20.0)
        words = ["--image", image, "--data-storage", "shared1"]
        if image != "tiny":
            words += ["--hostname", name, "--ssh-key", f"{self._key}.pub"]
        async with self._timeline.step(f"kvorum vm create {name}") as step:
            host = self._lab.hosts[0]
            await self._operator.types(host, "vm", "create", name, *words, *options)
            vm: Shown = await self._operator.asks(host, "vm", "show", name)
            where = hosts_running(self._lab, str(vm["id"]))
            step.detail = f"its QEMU runs on {', '.join(where) or 'no host'}"
        return vm

    async def _home_of(self, vm_id: object) -> str:
        hosts = hosts_running(self._lab, str(vm_id))
        if len(hosts) != 1:
            raise ConflictError(f"one QEMU of the VM should run, seen on: {hosts}")
        return hosts[0]

    async def _reach(self, probe: Probe, address: object, home: str) -> None:
        ip = str(address)
        await probe.plug(BRIDGE, PROBE_ADDRESS)
        first = self._lab.hosts[0]
        async with self._timeline.step("firewall: closed by default, opened by two rules") as step:
            if await probe.answers_ping(ip):
                raise ConflictError(f"{ip} answers an outsider although no rule allows it")
            rule = ("security-group", "rule", "add", "default", "--ingress", "--cidr", NETWORK)
            await self._operator.types(first, *rule, "--protocol", "icmp")
            await self._operator.types(first, *rule, "--protocol", "tcp", "--port", "22")
            step.detail = "ping refused before"
        async with self._timeline.step(f"ping web1 on {home} from {probe.host} over VXLAN") as step:
            await until(
                f"{ip} answers pings", lambda: probe.answers_ping(ip), deadline_s=BOOT_DEADLINE_S
            )
            step.detail = f"{ip} answers"
        async with self._timeline.step("log into web1 by SSH") as step:
            await self._log_in(probe, ip)
            seen = await probe.ssh(self._key, ip, "hostname; ip -4 -o address show scope global")
            if seen is None or not seen.startswith("web1\n") or ip not in seen:
                raise ConflictError(f"web1 has not the name or address that it was given: {seen!r}")
            if "dynamic" not in seen:
                raise ConflictError(f"the address of web1 does not come from DHCP: {seen!r}")
            step.detail = f"host name web1, address {ip} by DHCP"
        async with self._timeline.step("web1 has finished its first boot") as step:
            await until(
                "cloud-init is done",
                # What a guest made a moment ago and didn't sync, its SSH host keys too, is lost with its host's power.
                lambda: probe.ssh(
                    self._key, ip, "test -e /run/cloud-init/result.json && sync && echo done"
                ),
                deadline_s=BOOT_DEADLINE_S,
                every_s=1.0,
            )

    async def _log_in(self, probe: Probe, ip: str) -> None:
        await until(
            f"{ip} lets the key in",
            lambda: probe.ssh(self._key, ip, "true && echo in"),
            deadline_s=BOOT_DEADLINE_S,
            every_s=0.5,
        )

    async def _migrate(self, probe: Probe, vm: Shown, target: str) -> None:
        ip = str(vm["ips"][0])
        boot = await probe.ssh(self._key, ip, "cat /proc/sys/kernel/random/boot_id")
        async with self._timeline.step(f"kvorum vm migrate web1 --host {target}") as step:
            pinging = await probe.start_pinging(ip)
            await until(f"{ip} answers pings", lambda: probe.answers_ping(ip), deadline_s=10.0)
            await self._operator.types(
                self._lab.hosts[0], "vm", "migrate", "web1", "--host", target
            )
            where = await self._home_of(vm["id"])
            await until(f"{ip} answers pings", lambda: probe.answers_ping(ip), deadline_s=10.0)
            lost = await pinging.lost()
            self._timeline.report.migration_pings_lost = lost
            if where != target:
                raise ConflictError(f"its QEMU runs on {where} instead of {target}")
            if (
                boot is None
                or await probe.ssh(self._key, ip, "cat /proc/sys/kernel/random/boot_id") != boot
            ):
                raise ConflictError("web1 was rebooted by its migration")
            self._check_console(target, str(vm["id"]))
            step.detail = f"now on {target}, {lost} pings lost of ten a second, same boot"

    def _check_console(self, host: str, vm_id: str) -> None:
        """A guest whose memory was damaged on the way says so on its console."""
        log = self._lab.inside(host, f"/var/log/libvirt/qemu/kvorum-{vm_id}.console.log")
        text = log.read_text(errors="replace") if log.exists() else ""
        for line in text.splitlines():
            if "BUG:" in line or "Oops" in line or "Kernel panic" in line:
                raise ConflictError(
                    f"the guest's kernel complains after its migration: {line.strip()}"
                )

    async def _lose(
        self,
        host: str,
        probe: Probe,
        web: Shown,
        counter: Shown,
        observer: Observer,
    ) -> None:
        disk = await self._disk_of(counter)
        async with self._timeline.step("counter1 writes to its disk") as step:

            async def writes() -> bool:
                record = await last_write(disk)
                return record is not None and record.host == host

            await until(
                "the first write of counter1",
                writes,
                deadline_s=BOOT_DEADLINE_S,
                every_s=DISK_LOOK_S,
            )
            step.detail = f"records of {host} seen on {disk.name[:8]}…"
        async with self._timeline.step(f"power off {host}") as step:
            off_s = time.monotonic()
            await self._lab.power_off(host)
            left = self._lab.qemus(host)
            if left:
                raise ConflictError(f"QEMUs are left on {host}: {left}")
            step.detail = "all its processes are gone"
        async with self._timeline.step("counter1 writes again, from another host") as step:

            async def writes_elsewhere() -> bool:
                record = await last_write(disk)
                return record is not None and record.host not in (host, "-")

            await until(
                "a write from another host",
                writes_elsewhere,
                deadline_s=FAILOVER_DEADLINE_S,
                every_s=DISK_LOOK_S,
            )
            self._timeline.report.failover_seconds = round(time.monotonic() - off_s, 2)
            record = await last_write(disk)
            step.detail = f"from {record.host if record else '?'}, {self._timeline.report.failover_seconds} s after power-off"
        async with self._timeline.step("web1 answers SSH again") as step:
            ip = str(web["ips"][0])
            await self._log_in(probe, ip)
            where = await self._home_of(web["id"])
            step.detail = f"on {where}, {time.monotonic() - off_s:.1f} s after power-off"
        async with self._timeline.step("look at every record on counter1's disk") as step:
            records = await read_records(disk)
            counters = [record.counter for record in records]
            if not took_turns(records) or counters != list(
                range(counters[0], counters[0] + len(counters))
            ):
                self._timeline.report.double_writer = True
                raise ConflictError(
                    "counter1's records are not one after the other: it ran twice at a time"
                )
            hosts = list(dict.fromkeys(record.host for record in records))
            step.detail = (
                f"{len(records)} records without gap or overlap, by {' then '.join(hosts)}"
            )

    async def _disk_of(self, vm: Shown) -> Path:
        disks = await self._operator.asks(self._lab.hosts[0], "disk", "list")
        (disk,) = (d for d in disks if d["vm_id"] == vm["id"])
        return self._lab.shared / "disks" / f"{disk['id']}.qcow2"

    def _judge(self, observer: Observer) -> None:
        report = self._timeline.report
        report.double_writer = bool(observer.double_writers)
        if report.double_writer:
            raise ConflictError(
                f"a disk was open in two running QEMUs: {observer.double_writers[0]}"
            )
        self._say(
            f"observer: {observer.samples} looks, {observer.longest_gap_s:.2f} s at most between two; "
            "no disk was ever open for writing in two running QEMUs"
        )


def clean_scratch(scratch: Path) -> None:
    """Make the scratch directory, empty."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
