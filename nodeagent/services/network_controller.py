"""Keeps this host's network as the store wants it: level-triggered, one worker.

`ensure` lets others wait until everything up to a log index is in place, which a VM needs before its card is
plugged: rules first, then the port.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from core.clock import Clock
from core.errors import PlatformError, TemporaryError
from core.model import VM, DistributedSwitch, Host, Nic, PortGroup, SecurityGroup, kind_of
from netfabric.driver import NetworkDriver, NetworkReport
from netfabric.plan import NetworkPlan, NetworkView, desired_network, read_of_host, read_of_vm
from nodeagent.services.catching_up import caught_up_within
from raftstate.store import Store
from raftstate.watch import Watch

log = logging.getLogger(__name__)

DRIFT_CHECK_S = 15.0
RETRY_S = 2.0
CATCH_UP_S = 5.0
PAUSE_S_MAX = 0.5
_GROUP, _VM, _HOST = kind_of(SecurityGroup), kind_of(VM), kind_of(Host)


@dataclass(frozen=True, slots=True)
class _Read:
    """What a plan was made of, as far as it changes often: groups that a NIC is in, and what is read of VMs and hosts, by id."""

    groups: frozenset[str]
    vms: Mapping[str, tuple[str, ...] | None]
    hosts: Mapping[str, tuple[str, ...] | None]


class NetworkController:
    """Applies the plan made from the store whenever it changes, and now and then anyway."""

    def __init__(self, store: Store, host_id: str, driver: NetworkDriver, clock: Clock) -> None:
        self._store = store
        self._host_id = host_id
        self._driver = driver
        self._clock = clock
        self._applied_index = 0
        self._read: _Read | None = None  # None: the last plan isn't in place
        self._last_plan: NetworkPlan | None = None
        self._problem = ""
        self._report = NetworkReport()
        self._progress = asyncio.Condition()

    async def run(self) -> None:
        """Reconcile until cancelled, at most half of the time: many changes at once come into few plans."""
        loop = asyncio.get_running_loop()
        await caught_up_within(self._store, CATCH_UP_S)
        watch = self._store.watch(Host, VM, Nic, DistributedSwitch, PortGroup, SecurityGroup)
        try:
            while True:
                began_s = loop.time()
                await self._reconcile()
                await asyncio.sleep(min(loop.time() - began_s, PAUSE_S_MAX))
                await self._wait_for_work(watch)
        finally:
            self._store.unwatch(watch)

    async def _wait_for_work(self, watch: Watch) -> None:
        """Return when there may be another plan, or when it is time to look at what is in place."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + (RETRY_S if self._problem else DRIFT_CHECK_S)
        try:
            async with asyncio.timeout_at(end_s):
                while not self._matters(await watch.next()):
                    await self._in_place(self._store.index)
        except TimeoutError:
            self._last_plan = None

    def _matters(self, changed: frozenset[str]) -> bool:
        """Tell whether a change can lead to another plan: not if the last one didn't read what changed."""
        return self._read is None or any(self._was_read(self._read, key) for key in changed)

    def _was_read(self, read: _Read, key: str) -> bool:
        kind, _, id_ = key.partition("/")
        if kind == _GROUP:
            return id_ in read.groups
        if kind == _VM:
            return read_of_vm(self._store.get(VM, id_)) != read.vms.get(id_)
        if kind == _HOST:
            return read_of_host(self._store.get(Host, id_)) != read.hosts.get(id_)
        return True

    async def ensure(self, index: int, vnis: Iterable[int], *, timeout_s: float) -> None:
        """Return when the plan of that log index, or a later one, is in place here for these port groups.

        What is wrong with others, or with DHCP, which may be back before the guest asks, holds nobody up.

        Raises:
            TemporaryError: it could not be put in place in time; the message is the driver's.
        """
        wanted = tuple(vnis)
        try:
            async with asyncio.timeout(timeout_s), self._progress:
                await self._progress.wait_for(
                    lambda: self._applied_index >= index and not self._refusal(wanted)
                )
        except TimeoutError:
            why = self._refusal(wanted) or self._problem or "no answer in time"
            raise TemporaryError(f"the network of this host is not ready: {why}") from None

    def _refusal(self, vnis: tuple[int, ...]) -> str:
        return next((why for vni in vnis if (why := self._report.plug_refusal(vni))), "")

    async def _reconcile(self) -> None:
        index = self._store.index
        self._read = None
        try:
            view = self._view()
            plan = desired_network(view, self._host_id)
            if plan != self._last_plan or self._problem:
                self._report = await self._driver.apply(plan)
                self._note("; ".join(f"{p.part}: {p.message}" for p in self._report.problems))
                self._last_plan = plan
        except (PlatformError, OSError) as error:
            self._note(str(error))
            return
        self._read = _Read(
            groups=_groups_of(view.nics),
            vms={vm.id: read_of_vm(vm) for vm in view.vms},
            hosts={host.id: read_of_host(host) for host in view.hosts},
        )
        await self._in_place(index)

    async def _in_place(self, index: int) -> None:
        async with self._progress:
            self._applied_index = index
            self._progress.notify_all()

    def _note(self, problem: str) -> None:
        if problem and problem != self._problem:
            log.warning("the network could not be put in place", extra={"problem": problem})
        self._problem = problem

    def _view(self) -> NetworkView:
        store = self._store
        nics = tuple(store.all(Nic))
        groups = (store.get(SecurityGroup, id_) for id_ in sorted(_groups_of(nics)))
        return NetworkView(
            hosts=tuple(store.all(Host)),
            vms=tuple(store.all(VM)),
            nics=nics,
            switches=tuple(store.all(DistributedSwitch)),
            port_groups=tuple(store.all(PortGroup)),
            security_groups=tuple(group for group in groups if group is not None),
        )


def _groups_of(nics: Iterable[Nic]) -> frozenset[str]:
    """Return the ids of all groups that a NIC is in: the only ones that a plan reads."""
    return frozenset(id_ for nic in nics for id_ in nic.security_group_ids)
