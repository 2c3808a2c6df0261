"""What runs on a lab host: the services that `hostinit` starts in place of systemd.

Tests choose sets of them; `PRODUCT` is what a real host runs.
"""

from __future__ import annotations

import msgspec

from tools.lab.layout import REPOSITORY, SYSTEM_PYTHON, VENV_BIN, host_address

SERF_CONFIG = "/etc/kvorum/serf.json"


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One process that is kept running.

    `after` is a file: the service starts once it exists. A service with `restart` false is started
    once per boot. `ready` is a file that exists once the service can be used, or its unix socket.
    """

    name: str
    argv: tuple[str, ...]
    restart: bool = True
    after: str | None = None
    cwd: str = "/"
    ready: str | None = None


LIBVIRTD = Service(name="libvirtd", argv=("/usr/sbin/libvirtd",), ready="/run/libvirt/libvirt-sock")
GUARD = Service(
    name="guard",
    argv=(SYSTEM_PYTHON, "-I", "-S", str(REPOSITORY / "ha/guard/main.py")),
    restart=False,
    ready="/run/kvorum/guard.sock",
)
AGENT = Service(
    name="agent",
    argv=(str(VENV_BIN / "python"), "-m", "nodeagent.main"),
    cwd=str(REPOSITORY),
    ready="/run/kvorum/api.sock",
)
SERF = Service(
    name="serf", argv=("/usr/bin/serf", "agent", f"-config-file={SERF_CONFIG}"), after=SERF_CONFIG
)
PRODUCT = (LIBVIRTD, GUARD, AGENT, SERF)


def plain_serf(host: str) -> Service:
    """Return serf on its own, unencrypted, for tests of the lab without the product."""
    address = host_address(host)
    seed = host_address("h1")
    argv = (
        "/usr/bin/serf",
        "agent",
        f"-node={host}",
        f"-bind={address}",
        f"-retry-join={seed}",
        "-retry-interval=1s",
    )
    return Service(name="serf", argv=argv)
