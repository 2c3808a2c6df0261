"""What runs on the hosts of a matrix cluster: the product's services, with what a shape asks for."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from tools.ha_matrix import wall_clock
from tools.ha_matrix.verdict import Shape
from tools.lab.layout import VENV_BIN
from tools.lab.services import AGENT, GUARD, PRODUCT, SERF, Service

CLOCK_FILE = "/etc/kvorum/wall-clock"


def services_of(shape: Shape) -> dict[str, Sequence[Service]]:
    """Return the services of each host."""
    names = tuple(f"h{number}" for number in range(1, shape.hosts + 1))
    return {
        host: tuple(
            _chosen(service, shape)
            for service in ((GUARD, AGENT, SERF) if host in shape.witness else PRODUCT)
        )
        for host in names
    }


def _chosen(service: Service, shape: Shape) -> Service:
    if service is AGENT and shape.profile != "default":
        module = "tests.integration.founding_agent"
        argv = (str(VENV_BIN / "python"), "-m", module, shape.profile)
        return replace(service, argv=argv)
    if shape.clock and service in (AGENT, GUARD):
        return replace(
            service, argv=("/usr/bin/env", *wall_clock.settings(CLOCK_FILE), *service.argv)
        )
    return service
