"""The agent's client of the guard, against the guard's own control server in a thread."""

from __future__ import annotations

import selectors
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConflictError, UnavailableError
from ha.guard.control import ControlServer
from ha.guard.lease_clock import LeaseClock, Refusal
from ha.guard_client import GuardClient

STATUS: dict[str, Any] = {
    "host_id": "h",
    "boot_id": "b",
    "phase": "held",
    "lease_valid": True,
    "remaining_s": 11.5,
    "first_index": 3,
    "renewed_index": 9,
    "seq": 12,
    "watchdog": {"kind": "socket", "armed": True},
    "grants": {"vm": {"generation": 4, "lease_bound": True}},
    "running": ["vm"],
    "kills": 0,
    "last_kill_boottime_s": None,
    "stopping": False,
}


class Server:
    """A control server on a path, serving until closed."""

    def __init__(self, path: Path) -> None:
        self.clock = LeaseClock(epoch_s=0.0)
        self.clock.renewed(sent_s=1.0, lease_s=12.0, index=7, now_s=1.0)
        self._selector = selectors.DefaultSelector()
        self._control = ControlServer(str(path), self._selector, self.handle)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def handle(self, request: Mapping[str, Any]) -> dict[str, Any]:
        match request["op"]:
            case "status":
                return STATUS
            case "grant":
                wanted = {
                    name: request[name] for name in ("generation", "lease_bound", "applied_index")
                }
                self.clock.grant(request["vm_id"], **wanted, now_s=2.0)
                return {}
            case "check":
                grant = self.clock.check(request["vm_id"], request.get("generation"), 2.0)
                return {"generation": grant.generation, "lease_bound": grant.lease_bound}
            case "revoke":
                self.clock.revoke(request["vm_id"])
                return {}
        raise Refusal("invalid", "no such op")

    def _serve(self) -> None:
        while not self._ended.is_set():
            for key, mask in self._selector.select(0.02):
                key.data(mask)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._control.close()
        self._selector.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "guard.sock")
    yield server
    server.close()


async def test_status_is_decoded(server: Server, tmp_path: Path) -> None:
    status = await GuardClient(str(tmp_path / "guard.sock")).status()
    assert (
        status.watchdog.armed and status.grants["vm"].generation == 4 and status.running == ("vm",)
    )


async def test_grant_check_and_revoke(server: Server, tmp_path: Path) -> None:
    client = GuardClient(str(tmp_path / "guard.sock"))
    await client.grant("vm", generation=2, lease_bound=True, applied_index=7)
    assert (await client.check("vm", generation=2)).lease_bound
    await client.revoke("vm")
    with pytest.raises(ConflictError) as caught:
        await client.check("vm")
    assert caught.value.code == "guard-not-granted"
    with pytest.raises(ConflictError) as caught:
        await client.grant("vm", generation=2, lease_bound=True, applied_index=6)
    assert caught.value.code == "guard-behind"


async def test_guard_that_is_not_there_or_silent_means_no(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="is kvorum-guard running"):
        await GuardClient(str(tmp_path / "nobody.sock")).check("vm")
    with (
        ControlServerThatIsSilent(tmp_path / "silent.sock"),
        pytest.raises(UnavailableError, match="timeout"),
    ):
        await GuardClient(str(tmp_path / "silent.sock"), timeout_s=0.1).check("vm")


class ControlServerThatIsSilent:
    """Accepts in the kernel and never reads."""

    def __init__(self, path: Path) -> None:
        self._control = ControlServer(str(path), selectors.SelectSelector(), lambda request: {})

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        self._control.close()
