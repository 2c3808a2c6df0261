"""What drives a host's guests, network and firewall: the product's own drivers, or those of plug-ins that its settings name.

`nodeagent.member` asks once, when the host's part of the cluster is put together. A driver that is named and can't be used
never ends the agent, and is never replaced by another: what runs on the host is left as it is, nothing new starts there,
and the reason is in the host's record (`driver_fault`), so placement passes it over and people are told.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, cast

from core.errors import FatalError, PermanentError, PlatformError, TemporaryError
from core.model import VM, Host, PowerState, VMPhase
from netfabric.driver import FirewallDriver, NetworkDriver, NetworkReport
from netfabric.linux import LinuxNetwork, nftables
from netfabric.plan import NetworkPlan
from nodeagent.compute.hypervisor import Hypervisor
from nodeagent.compute.libvirt_hypervisor import LibvirtHypervisor
from nodeagent.compute.missing_hypervisor import MissingHypervisor
from nodeagent.plugins.contained import contained, failure_of
from nodeagent.plugins.loading import Group

log = logging.getLogger(__name__)

HYPERVISORS_GROUP = "kvorum.hypervisors"
NETWORKS_GROUP = "kvorum.networks"
FIREWALLS_GROUP = "kvorum.firewalls"

OWN_HYPERVISOR, OWN_NETWORK, OWN_FIREWALL = "libvirt", "linux", "nftables"

CALL_S_MAX = 120.0
_UNBOUNDED = frozenset({"run", "wait_connected", "migrate"})

Make = Callable[..., Any]
"""Called as `make(host_id=..., run_dir=...)`; that of a network also gets `firewall=...`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the settings name; empty is the product's own."""

    hypervisor: str = ""
    network: str = ""
    firewall: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InUse:
    """The drivers of this host. `fault` says which of those in the settings can't be used, empty when all can."""

    hypervisor: Hypervisor
    network: NetworkDriver
    hypervisor_name: str
    fault: str = ""


class HostDrivers:
    """The drivers that were loaded."""

    def __init__(self) -> None:
        self._make: dict[str, dict[str, Make]] = {
            HYPERVISORS_GROUP: {},
            NETWORKS_GROUP: {},
            FIREWALLS_GROUP: {},
        }

    def groups(self) -> tuple[Group, ...]:
        """Return how plug-ins add to them."""
        own = {
            HYPERVISORS_GROUP: ("hypervisor", OWN_HYPERVISOR),
            NETWORKS_GROUP: ("network driver", OWN_NETWORK),
            FIREWALLS_GROUP: ("firewall", OWN_FIREWALL),
        }
        return tuple(
            Group(group, gives, _load, self._acceptor(group), (name,))
            for group, (gives, name) in own.items()
        )

    def choose(
        self, choice: Choice, *, host_id: str, run_dir: Path, held_by_other: str = ""
    ) -> InUse:
        """Return what the settings name; what can't be used is replaced by what refuses everything.

        `held_by_other` says why the hypervisor must not be this one, e.g. that guests run under another.
        """
        site = {"host_id": host_id, "run_dir": run_dir}
        faults: list[str] = []
        name = choice.hypervisor or OWN_HYPERVISOR
        hypervisor: Hypervisor
        try:
            if held_by_other:
                raise PermanentError(held_by_other)
            hypervisor = self._hypervisor(name, site)
        except PlatformError as error:
            faults.append(error.message)
            hypervisor = MissingHypervisor(error.message)
        firewall: FirewallDriver
        try:
            firewall = self.firewall(
                choice.firewall or OWN_FIREWALL, host_id=host_id, run_dir=run_dir
            )
        except PlatformError as error:
            faults.append(error.message)
            firewall = MissingFirewall(error.message)
        network: NetworkDriver
        try:
            network = self._network(choice.network or OWN_NETWORK, site, run_dir, firewall)
        except PlatformError as error:
            faults.append(error.message)
            network = MissingNetwork(error.message)
        fault = "; ".join(faults)
        if fault:
            log.error("a driver of the settings can't be used", extra={"error": fault})
        return InUse(hypervisor=hypervisor, network=network, hypervisor_name=name, fault=fault)

    def _hypervisor(self, name: str, site: Mapping[str, object]) -> Hypervisor:
        if name == OWN_HYPERVISOR:
            return LibvirtHypervisor()
        made = self._made(HYPERVISORS_GROUP, "hypervisor", name, Hypervisor, site)
        return cast(Hypervisor, made)

    def firewall(self, name: str, *, host_id: str, run_dir: Path) -> FirewallDriver:
        """Return the firewall of that name.

        Raises:
            PermanentError: it can't be used; the message says what to do.
        """
        if name == OWN_FIREWALL:
            return nftables(run_dir)
        site = {"host_id": host_id, "run_dir": run_dir}
        made = self._made(FIREWALLS_GROUP, "firewall", name, FirewallDriver, site)
        return cast(FirewallDriver, made)

    def _network(
        self, name: str, site: Mapping[str, object], run_dir: Path, firewall: FirewallDriver
    ) -> NetworkDriver:
        if name == OWN_NETWORK:
            return LinuxNetwork(run_dir, firewall=firewall)
        site = {**site, "firewall": firewall}
        return cast(NetworkDriver, self._made(NETWORKS_GROUP, "network", name, NetworkDriver, site))

    def _made(
        self,
        group: str,
        gives: str,
        name: str,
        seam: type,
        site: Mapping[str, object],
    ) -> object:
        """Return a plug-in's driver of what `seam` says, contained.

        Raises:
            PermanentError: it isn't here or isn't what it says; the message says what to do.
        """
        make = self._make[group].get(name)
        if make is None:
            here = ", ".join(sorted(self._make[group])) or "none from plug-ins"
            raise PermanentError(
                f"the setting {gives} = {name[:60]!r} names what this host lacks (there are: {here}, and the product's own): "
                "install its plug-in or change /etc/kvorum/agent.toml, and restart the agent ('kvorum plugin list')"
            )
        what = f"{gives} {name}"
        driver = contained(what, make, **site)
        missing = [m for m in _methods(seam) if not contained(what, hasattr, driver, m)]
        if missing:
            raise PermanentError(f"{what} is none: it has no {missing[0]!r}")
        return _Contained(driver, what, passes=seam is Hypervisor)

    def _acceptor(self, group: str) -> Callable[[str, object], None]:
        def accept(name: str, loaded: object) -> None:
            self._make[group][name] = cast(Make, loaded)

        return accept


def held_by_other(host: Host | None, vms: Iterable[VM], wanted: str) -> str:
    """Return why a host's hypervisor must not be `wanted` now: VMs may run there under another, which only that can see.

    A guest that the new driver doesn't see would be started a second time.
    """
    if host is None or host.witness:
        return ""
    before = host.hypervisor or OWN_HYPERVISOR
    here = [
        vm
        for vm in vms
        if vm.host_id == host.id
        and (vm.power is PowerState.RUNNING or vm.phase is not VMPhase.STOPPED)
    ]
    if before == (wanted or OWN_HYPERVISOR) or not here:
        return ""
    return (
        f"{len(here)} VMs of this host may run under {before}, which {wanted or OWN_HYPERVISOR} can't see: set hypervisor = "
        f"{before!r} again, stop or move them, then change it"
    )


class MissingFirewall:
    """A firewall that refuses everything: no guest is plugged in, and what was loaded stays."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def apply(self, plan: NetworkPlan) -> int:
        """See `FirewallDriver.apply`."""
        raise PermanentError(self._why)

    async def remove(self) -> int:
        """See `FirewallDriver.remove`."""
        raise PermanentError(self._why)


class MissingNetwork:
    """A network that changes nothing, so that guests that are plugged in stay so."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def apply(self, plan: NetworkPlan) -> NetworkReport:
        """See `NetworkDriver.apply`."""
        raise PermanentError(self._why)

    async def teardown(self) -> NetworkReport:
        """See `NetworkDriver.teardown`."""
        raise PermanentError(self._why)

    async def port_groups(self) -> tuple[int, ...]:
        """See `NetworkDriver.port_groups`."""
        raise PermanentError(self._why)


class _Contained:
    """A plug-in's driver whose calls end in time, with a result or an error of ours."""

    def __init__(self, driver: object, what: str, *, passes: bool) -> None:
        self._driver = driver
        self._what = what
        self._passes = passes

    def __getattr__(self, name: str) -> Any:  # as the driver has it
        found = contained(self._what, getattr, self._driver, name)
        if not callable(found):
            return found

        def call(*args: object, **kwargs: object) -> object:
            result = contained(self._what, found, *args, **kwargs)
            return self._awaited(name, result) if inspect.isawaitable(result) else result

        return call

    async def _awaited(self, name: str, result: Awaitable[object]) -> object:
        limit = asyncio.timeout(None if name in _UNBOUNDED else CALL_S_MAX)
        try:
            async with limit:
                return await result
        except TimeoutError as error:
            if limit.expired():
                text = f"{self._what} did not answer within {CALL_S_MAX:g} s"
                raise TemporaryError(text) from error
            raise self._failure(error) from error
        except FatalError as error:
            raise self._failure(error) from error
        except PlatformError:
            raise
        except (Exception, SystemExit) as error:
            log.exception("a plug-in failed", extra={"plugin": self._what})
            raise self._failure(error) from error

    def _failure(self, error: BaseException) -> PlatformError:
        """An unexpected failure of a hypervisor leaves open what came of the call: its state has to be read again."""
        failure = failure_of(self._what, error)
        return TemporaryError(failure.message) if self._passes else failure


def _methods(protocol: type) -> tuple[str, ...]:
    return tuple(name for name in vars(protocol) if not name.startswith("_"))


def _load(plugin: EntryPoint) -> object:
    make = plugin.load()
    if not callable(make):
        raise FatalError(f"{plugin.value} can't be called: it makes no driver")
    return make
