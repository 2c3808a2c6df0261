"""The guard and its hook with a real libvirtd and a real QEMU: side doors are shut, and the kill is real."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConflictError
from ha.guard_client import GuardClient
from tests.integration.compute_hosts import ComputeHost
from tests.integration.test_guard import HOST, ROOT, FakeAgent, UnixServer, wait_until
from tools.lab.provision import HOOK_SOURCES

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(60)]

LEASE_S = 3.0
DOMAIN = """
<domain type='qemu'>
  <name>{name}</name><uuid>{uuid}</uuid>
  <memory unit='MiB'>16</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <on_poweroff>destroy</on_poweroff>
</domain>
"""


class GuardedHost:
    """A host with libvirtd, the hook, a guard that is started later, and an agent that can fall silent."""

    def __init__(self, base: Path) -> None:
        self.compute = ComputeHost(base, "g1")
        hooks = self.compute.root / "etc/libvirt/hooks"
        hooks.mkdir()
        for name, source in HOOK_SOURCES.items():
            shutil.copyfile(source, hooks / name)
            (hooks / name).chmod(0o755)
        self.restart_libvirtd()  # it looks for hooks when it starts
        self.run_dir = self.compute.root / "run/kvorum"
        self.state_dir = base / "state"
        self.state_dir.mkdir()
        (self.state_dir / "guard.json").write_text(
            json.dumps({"host_id": HOST, "lease_s": LEASE_S})
        )
        self.agent: Any = UnixServer(str(self.run_dir / "api.sock"), FakeAgent)
        self.agent.renewals = []
        threading.Thread(target=self.agent.serve_forever, args=(0.05,), daemon=True).start()
        self.guard = GuardClient(str(self.run_dir / "guard.sock"))

    def restart_libvirtd(self) -> None:
        self.compute.signal_libvirtd(signal.SIGKILL)
        wait_until(lambda: not self._libvirtd_runs(), "libvirtd has ended")
        self.compute.start_libvirtd()

    def _libvirtd_runs(self) -> bool:
        return bool(self.compute.run("sh", "-c", "pidof libvirtd || true").strip())

    def start_guard(self) -> None:
        guard = f"/usr/bin/python3 -I -S {ROOT}/ha/guard/main.py --state-dir {self.state_dir}"
        self.compute.run("sh", "-c", f"{guard} </dev/null >{self.state_dir}/log 2>&1 &")

    def virsh(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["virsh", "-q", "-c", self.compute.uri, *args],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    def create(self, name: str, vm_id: str) -> subprocess.CompletedProcess[str]:
        path = self.state_dir / "domain.xml"
        path.write_text(DOMAIN.format(name=name, uuid=vm_id))
        return self.virsh("create", "--paused", str(path))

    def close(self) -> None:
        self.compute.stop()
        self.agent.shutdown()
        self.agent.server_close()


@pytest.fixture
def host() -> Iterator[GuardedHost]:
    base = Path(tempfile.mkdtemp(prefix="kvt-guard-"))
    host = GuardedHost(base)
    try:
        yield host
    finally:
        host.close()
        shutil.rmtree(base)


async def holds_lease(host: GuardedHost) -> None:
    wait_until((host.run_dir / "guard.sock").exists, "the guard listens")
    async with asyncio.timeout(8):
        while not (await host.guard.status()).lease_valid:
            await asyncio.sleep(0.05)


async def sees_running(host: GuardedHost, vm_id: str) -> None:
    """Wait until the guard, which looks for guests once a second, knows that this one runs."""
    async with asyncio.timeout(8):
        while vm_id not in (await host.guard.status()).running:
            await asyncio.sleep(0.05)


async def test_libvirt_starts_our_guests_only_with_a_grant_and_loses_them_with_the_lease(
    host: GuardedHost,
) -> None:
    vm_id = str(uuid.uuid4())
    name = f"kvorum-{vm_id}"
    refused = host.create(name, vm_id)
    assert refused.returncode != 0 and "the guard does not answer" in refused.stderr
    assert host.create("someone-elses", str(uuid.uuid4())).returncode == 0

    host.start_guard()
    await holds_lease(host)
    refused = host.create(name, vm_id)
    assert refused.returncode != 0 and "is not granted to this host" in refused.stderr

    await host.guard.grant(vm_id, generation=1, lease_bound=True, applied_index=10**6)
    assert host.create(name, vm_id).returncode == 0
    assert (await host.guard.check(vm_id, generation=1)).lease_bound
    assert host.virsh("resume", name).returncode == 0
    wait_until(lambda: len(host.compute.qemu_pids()) == 2, "both guests run")

    host.restart_libvirtd()
    assert host.virsh("domstate", name).stdout.strip() == "running"
    await sees_running(host, vm_id)

    host.agent.silent = True
    took_s = wait_until(
        lambda: len(host.compute.qemu_pids()) == 1, "ours is killed, the other one is not"
    )
    assert took_s < LEASE_S + 1.0
    wait_until(lambda: host.virsh("domstate", name).returncode != 0, "libvirt has noticed")
    assert host.virsh("domstate", "someone-elses").stdout.strip() == "paused"
    with pytest.raises(ConflictError, match="not granted"):
        await host.guard.check(vm_id)
    assert host.create(name, vm_id).returncode != 0
