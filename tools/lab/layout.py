"""The names and places of a lab: everything it leaves on the machine is derived here.

Used by all modules of the lab. Labs with different names share nothing: their addresses repeat, but
each has a wire (network namespace) of its own.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from core.errors import InvalidError

STATE_ROOT = Path("/var/lib/kvorum-lab")
RUN_ROOT = Path("/run/kvorum-lab")
ENVIRONMENT_MARK = "KVORUM_LAB"
HOST_MARK = "KVORUM_LAB_HOST"
HOSTS_MAX = 99
WIRE_ADDRESS = "10.77.0.254"
PREFIX_LENGTH = 24
REPOSITORY = Path(__file__).resolve().parents[2]
VENV_BIN = REPOSITORY / ".venv" / "bin"
SYSTEM_PYTHON = "/usr/bin/python3"
SEARCH_PATH = f"{VENV_BIN}:/usr/sbin:/usr/bin:/sbin:/bin"

_LAB_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,23}")
_HOST_NAME = re.compile(r"h([1-9][0-9]?)")


def host_number(host: str) -> int:
    """Return N of host `hN`, from 1 to 99.

    Raises:
        InvalidError: not a name of a lab host.
    """
    found = _HOST_NAME.fullmatch(host)
    if found is None:
        raise InvalidError(f"no lab host {host!r}: hosts are called h1, h2, …")
    return int(found[1])


def host_address(host: str) -> str:
    """Return the address of a host on the wire."""
    return f"10.77.0.{host_number(host)}"


def environment(lab: str, host: str) -> dict[str, str]:
    """Return the environment of processes in a lab host; the mark is how they are found again."""
    return {
        ENVIRONMENT_MARK: lab,
        HOST_MARK: host,
        "PATH": SEARCH_PATH,
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TERM": os.environ.get("TERM", "dumb"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of one lab. `state` outlives a power-off of its hosts, `run` belongs to a boot."""

    lab: str

    def __post_init__(self) -> None:
        if _LAB_NAME.fullmatch(self.lab) is None:
            raise InvalidError(
                f"bad lab name {self.lab!r}: use up to 24 lower-case letters, digits and dashes"
            )

    @property
    def wire(self) -> str:
        """Name of the network namespace that holds the bridge between the hosts."""
        return f"kvl-{self.lab}-wire"

    @property
    def state(self) -> Path:
        return STATE_ROOT / self.lab

    @property
    def run(self) -> Path:
        return RUN_ROOT / self.lab

    @property
    def shared(self) -> Path:
        """The directory that all hosts see as /srv/shared."""
        return self.state / "shared"

    @property
    def power_socket(self) -> Path:
        """Where the operator of the lab switches hosts on and off; always tells the truth."""
        return self.run / "power.sock"

    @property
    def bmc_socket(self) -> Path:
        """The same as a host's management board shows it: may be slow, dead or lying."""
        return self.run / "bmc.sock"

    @property
    def power_pid(self) -> Path:
        return self.run / "power.pid"

    @property
    def power_log(self) -> Path:
        return self.state / "power.log"

    @property
    def plan(self) -> Path:
        """What `up` was asked for, for commands that come later."""
        return self.state / "lab.json"

    def host_state(self, host: str) -> Path:
        return self.state / host

    def host_run(self, host: str) -> Path:
        return self.run / host

    def host_boot_file(self, host: str) -> Path:
        """What `hostboot` and `hostinit` read."""
        return self.host_state(host) / "boot.json"

    def pid_file(self, host: str) -> Path:
        """The host's PID 1 as the machine numbers it; stale when the controller was killed."""
        return self.host_run(host) / "pid"

    def watchdog_socket(self, host: str) -> Path:
        return self.host_run(host) / "watchdog.sock"

    def glass(self, host: str) -> Path:
        """What a host sees of the shared directory when it is behind glass: `clear`, `dark` or `stuck`."""
        return self.host_state(host) / "glass"

    def service_log(self, host: str, service: str) -> Path:
        return self.host_state(host) / "log" / f"{service}.log"
