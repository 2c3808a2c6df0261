"""The real guard as a process, with guests that only look like QEMU, an agent that can fall silent, and a watchdog that
writes down what it is fed.

Everything runs in a PID and mount namespace of its own: a guard kills whatever looks like a guest of ours.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mesh_identity import Authority

pytestmark = [pytest.mark.integration, pytest.mark.alone]

ROOT = Path(__file__).resolve().parents[2]
LEASE_S = 2.0
HOST, PEER = str(uuid.uuid4()), str(uuid.uuid4())
SETUP = """
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/kvorum
mount --bind "$1" /run/kvorum
touch /run/kvorum/ready
exec sleep infinity
"""


def wait_until(ready: Callable[[], bool], what: str, deadline_s: float = 8.0) -> float:
    began = time.monotonic()
    while not ready():
        assert time.monotonic() - began < deadline_s, f"after {deadline_s:g} s still not: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


class FakeAgent(http.server.BaseHTTPRequestHandler):
    """Commits renewals while its server says so."""

    def do_POST(self) -> None:
        server: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if server.silent:
            time.sleep(1.0)
            return
        server.renewals.append((self.path, body))
        answer = json.dumps({"index": 100 + len(server.renewals)}).encode()
        self.send_response(server.status)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        pass

    def address_string(self) -> str:
        return "test"


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    silent = False
    status = 200

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class PeerServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    silent = False
    status = 200

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class FakeWatchdog:
    """A power controller that only writes down what it hears."""

    def __init__(self, path: str) -> None:
        self.lines: list[tuple[float, str]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                with connection, connection.makefile() as lines:
                    for line in lines:
                        self.lines.append((time.monotonic(), line.strip()))
        except OSError:
            return

    def heard(self, line: str) -> bool:
        return any(line == heard for _, heard in self.lines)

    def silence_s(self) -> float:
        return time.monotonic() - self.lines[-1][0]

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class GuardHost:
    """A host with nothing on it but a guard."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.run = base / "run"
        self.state = base / "state"
        self.run.mkdir()
        self.state.mkdir()
        self._space = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
             "tini", "--", "sh", "-c", SETUP, "setup", str(self.run)],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until((self.run / "ready").exists, "namespaces are set up")
        self._init = children(self._space.pid)[0]
        self._processes: list[subprocess.Popen[bytes]] = []
        self.servers: list[UnixServer | PeerServer] = []
        self.agent = UnixServer(str(self.run / "api.sock"), FakeAgent)
        self.serve(self.agent)
        self.watchdog = FakeWatchdog(str(self.run / "watchdog.sock"))

    def serve(self, server: Any) -> None:
        server.renewals = []
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self.servers.append(server)

    def spawn(self, *argv: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["nsenter", "-t", str(self._init), "-m", "-p", "--", *argv])
        self._processes.append(process)
        return process

    def configure(
        self, *, lease_s: float = LEASE_S, watchdog_s: float = 1.0, peers: tuple[Any, ...] = ()
    ) -> None:
        text = json.dumps(
            {"host_id": HOST, "lease_s": lease_s, "watchdog_s": watchdog_s, "peers": list(peers)}
        )
        (self.state / "guard.json.new").write_text(text)
        (self.state / "guard.json.new").rename(self.state / "guard.json")

    def start_guard(self) -> subprocess.Popen[bytes]:
        (self.run / "guard.sock").unlink(missing_ok=True)
        process = self.spawn(
            "/usr/bin/python3", "-I", "-S", str(ROOT / "ha/guard/main.py"), "--state-dir", str(self.state)
        )  # fmt: skip
        wait_until((self.run / "guard.sock").exists, "the guard listens")
        self.guard_pid = children(process.pid)[0]
        return process

    def ask(self, **request: object) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(3)
            connection.connect(str(self.run / "guard.sock"))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile() as lines:
                found: dict[str, Any] = json.loads(lines.readline())
                return found

    def holds_lease(self) -> bool:
        return bool(self.ask(op="status")["lease_valid"])

    def grant(
        self, vm_id: str, *, lease_bound: bool = True, applied_index: int = 10**6
    ) -> dict[str, Any]:
        return self.ask(
            op="grant",
            vm_id=vm_id,
            generation=1,
            lease_bound=lease_bound,
            applied_index=applied_index,
        )

    def start_guest(self, vm_id: str) -> subprocess.Popen[bytes]:
        sleeper = (
            'exec -a qemu-system-x86_64 /usr/bin/python3 -c "import time; time.sleep(60)" "$@"'
        )
        process = self.spawn(
            "bash", "-c", sleeper, "qemu", "-name", f"guest=kvorum-{vm_id},debug-threads=on", "-uuid", vm_id
        )  # fmt: skip
        wait_until(lambda: vm_id in self.ask(op="status")["running"], "the guard sees the guest")
        return process

    def hook(
        self, domain: str, operation: str = "prepare", sub: str = "begin"
    ) -> subprocess.CompletedProcess[str]:
        hook = str(ROOT / "ha/guard/qemu_hook.sh")
        return subprocess.run(
            ["nsenter", "-t", str(self._init), "-m", "-p", "--", hook, domain, operation, sub, "-"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip

    def close(self) -> None:
        self._space.kill()  # the namespace's first process dies with it, and everything inside
        self._space.wait()
        for process in self._processes:
            process.kill()
            process.wait()
        for server in self.servers:
            server.shutdown()
            server.server_close()
        self.watchdog.close()


def children(pid: int) -> list[int]:
    wait_until(
        lambda: bool(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()), "a child"
    )
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def host() -> Iterator[GuardHost]:
    base = Path(tempfile.mkdtemp(prefix="kvt-guard-"))
    host = GuardHost(base)
    try:
        yield host
    finally:
        host.close()
        shutil.rmtree(base)


def test_lease_bound_guest_is_killed_when_the_lease_ends_and_the_local_one_survives(
    host: GuardHost,
) -> None:
    host.configure()
    host.start_guard()
    wait_until(host.holds_lease, "a lease")
    bound, local, unknown = (str(uuid.uuid4()) for _ in range(3))
    assert host.grant(bound)["ok"]
    assert host.grant(local, lease_bound=False)["ok"]
    dies, stays, unasked = (
        host.start_guest(bound),
        host.start_guest(local),
        host.start_guest(unknown),
    )
    host.agent.silent = True
    silent_since = time.monotonic()
    wait_until(
        lambda: dies.poll() is not None and unasked.poll() is not None,
        "both lease-bound guests killed",
    )
    took = time.monotonic() - silent_since
    assert LEASE_S - 1.0 < took < LEASE_S + 0.5
    status = host.ask(op="status")
    assert stays.poll() is None
    assert not status["lease_valid"] and status["kills"] == 2 and list(status["grants"]) == [local]
    assert host.grant(bound)["code"] == "no-lease"
    host.agent.silent = False
    wait_until(host.holds_lease, "a new lease after a renewal sent after the kill")
    assert host.grant(bound, applied_index=1)["code"] == "behind"
    assert host.grant(bound)["ok"]
    wait_until(lambda: host.watchdog.silence_s() < 0.1, "the watchdog is fed again", 2.0)


def test_lease_goes_on_through_a_peer_while_the_local_agent_is_silent(host: GuardHost) -> None:
    authority = Authority(host.base / "ca")
    ours, theirs = authority.issue(HOST), authority.issue(PEER)
    shutil.copytree(ours.key.parent, host.state / "identity")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(theirs.ca)
    context.load_cert_chain(theirs.certificate, theirs.key)
    peer = PeerServer(("127.0.0.1", 0), FakeAgent)
    peer.socket = context.wrap_socket(peer.socket, server_side=True)
    host.serve(peer)
    stranger = {"id": str(uuid.uuid4()), "address": "127.0.0.1", "port": peer.server_port}
    host.configure(peers=(stranger, {"id": PEER, "address": "127.0.0.1", "port": peer.server_port}))
    host.start_guard()
    wait_until(host.holds_lease, "a lease")
    vm_id = str(uuid.uuid4())
    host.grant(vm_id)
    guest = host.start_guest(vm_id)
    assert len(host.agent.renewals) > len(peer.renewals)  # peers only help out
    host.agent.silent = True
    wait_until(
        lambda: len(peer.renewals) > 3 * LEASE_S,
        "renewals at the peer for several lease times",
        12.0,
    )
    assert guest.poll() is None and host.ask(op="status")["kills"] == 0
    path, body = peer.renewals[-1]
    assert (
        path == "/mesh/lease"
        and body["host_id"] == HOST
        and body["guests"] == 1
        and body["watchdog_armed"]
    )
    assert host.agent.renewals[0][0] == "/v1/local/lease"
    peer.status = 503
    wait_until(lambda: guest.poll() is not None, "refusals are no renewals: the guest is killed")


def test_hook_refuses_what_the_guard_did_not_grant(host: GuardHost) -> None:
    vm_id = str(uuid.uuid4())
    refused = host.hook(f"kvorum-{vm_id}")
    assert refused.returncode == 1 and "does not answer" in refused.stderr
    host.configure()
    host.start_guard()
    wait_until(host.holds_lease, "a lease")
    refused = host.hook(f"kvorum-{vm_id}")
    assert refused.returncode == 1 and "not granted" in refused.stderr
    assert host.hook(f"kvorum-{vm_id}", "migrate").returncode == 1
    assert host.hook(f"kvorum-{vm_id}", "reconnect").returncode == 0
    assert host.hook(f"kvorum-{vm_id}", "stopped", "end").returncode == 0
    assert host.hook("someone-elses").returncode == 0
    assert host.hook("kvorum-../etc").returncode == 1
    assert host.grant(vm_id)["ok"]
    assert host.hook(f"kvorum-{vm_id}").returncode == 0
    os.kill(host.guard_pid, signal.SIGSTOP)
    began = time.monotonic()
    refused = host.hook(f"kvorum-{vm_id}")
    assert refused.returncode == 1 and "does not answer" in refused.stderr
    assert time.monotonic() - began < 3.0
    host.agent.silent = True
    os.kill(host.guard_pid, signal.SIGCONT)
    wait_until(lambda: not host.holds_lease(), "the lease is over")
    assert host.hook(f"kvorum-{vm_id}").returncode == 1


def test_frozen_guard_feeds_nothing_and_kills_first_when_it_wakes(host: GuardHost) -> None:
    host.configure()
    host.start_guard()
    wait_until(host.holds_lease, "a lease")
    assert host.watchdog.heard("arm 1")
    vm_id = str(uuid.uuid4())
    host.grant(vm_id)
    guest = host.start_guest(vm_id)
    os.kill(host.guard_pid, signal.SIGSTOP)
    wait_until(lambda: host.watchdog.silence_s() > LEASE_S, "silence towards the watchdog")
    heard = len(host.watchdog.lines)
    assert guest.poll() is None
    os.kill(host.guard_pid, signal.SIGCONT)
    wait_until(lambda: guest.poll() is not None, "the guest is killed", 1.0)
    assert host.ask(op="status")["kills"] == 1
    wait_until(
        lambda: len(host.watchdog.lines) > heard, "feeding goes on after the guests are gone"
    )


def test_stop_waits_for_the_last_guest_and_then_disarms(host: GuardHost) -> None:
    host.configure()
    guard = host.start_guard()
    wait_until(host.holds_lease, "a lease")
    vm_id = str(uuid.uuid4())
    host.grant(vm_id)
    guest = host.start_guest(vm_id)
    os.kill(host.guard_pid, signal.SIGTERM)
    wait_until(lambda: host.ask(op="status")["stopping"], "the stop is noted")
    assert host.grant(str(uuid.uuid4()))["code"] == "stopping"
    time.sleep(1.0)
    assert guard.poll() is None and not host.watchdog.heard("disarm")
    os.kill(children(guest.pid)[0], signal.SIGKILL)
    host.ask(op="revoke", vm_id=vm_id)
    wait_until(lambda: guard.poll() == 0, "the guard ends")
    assert host.watchdog.heard("disarm")


def test_killed_guard_leaves_the_watchdog_armed_and_a_new_one_goes_on_with_its_grants(
    host: GuardHost,
) -> None:
    host.configure(lease_s=4.0)
    host.start_guard()
    wait_until(host.holds_lease, "a lease")
    vm_id = str(uuid.uuid4())
    host.grant(vm_id)
    guest = host.start_guest(vm_id)
    os.kill(host.guard_pid, signal.SIGKILL)
    wait_until(lambda: host.watchdog.silence_s() > 1.2, "silence towards the watchdog")
    assert not host.watchdog.heard("disarm")
    host.start_guard()
    assert list(host.ask(op="status")["grants"]) == [vm_id]
    host.agent.silent = True
    wait_until(lambda: guest.poll() is not None, "the new guard ends the old lease in time")


def test_unconfigured_guard_is_idle(host: GuardHost) -> None:
    host.start_guard()
    guest = host.start_guest(str(uuid.uuid4()))
    time.sleep(1.5)
    status = host.ask(op="status")
    assert guest.poll() is None and status["host_id"] == "" and not status["watchdog"]["armed"]
    assert host.watchdog.lines == [] and host.agent.renewals == []
    assert host.ask(op="nonsense")["code"] == "invalid"
    host.configure()
    wait_until(
        host.holds_lease, "a lease once configured, after guests that nobody granted were killed"
    )
    assert guest.poll() is not None
