"""A member at work: everything a host of a cluster runs, put together and kept running.

Made by `nodeagent.lifecycle` after init, after join, and at every start of a host that is a member. This is the
composition root: the one place that knows every package.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import random
import ssl
from dataclasses import dataclass

from aiohttp import web

from core.bus import Bus
from core.clock import Clock
from core.errors import FatalError, PlatformError
from core.identity.keyring import Keyring
from core.member_file import MemberRecord, bracketed
from core.mesh.client import MeshClient
from core.mesh.dialer import MeshDialer
from core.mesh.server import MeshServer
from core.mesh.tls import TlsFiles
from core.model import KINDS, VM, Host, Lease, Plugin
from core.paths import Paths
from core.supervise import keep_running
from core.work_queue import WorkQueues
from ha.guard_client import GuardClient
from ha.lease import LeaseJudge
from ha.renewal_gaps import RenewalGaps
from ha.serf.membership import SerfMembership
from ha.serf.rpc import SerfRpc
from ha.vip import lifetime_s
from netfabric.ping import IcmpPinger
from netfabric.vip import LinuxVip
from nodeagent.api.plain_http import PlainHttpWarning
from nodeagent.api.tls import ApiTls
from nodeagent.compute.accelerator import read_accelerator
from nodeagent.compute.domain_spec import Architecture, DiskCache
from nodeagent.compute.tunnel import remove_leftovers, serve_tunnel
from nodeagent.config import Config
from nodeagent.drills.drills import Drills
from nodeagent.drills.faults import LinuxFaults
from nodeagent.drills.power_loss import PowerLossWatch
from nodeagent.drills.runner import DrillRunner
from nodeagent.drills.target import DrillTarget
from nodeagent.identity.identity import Identity
from nodeagent.joining.doorkeeper import Doorkeeper
from nodeagent.joining.founding import IMAGES_PATH
from nodeagent.mesh_rpc import MeshRpc
from nodeagent.node import Node
from nodeagent.plugins.drivers import Choice, held_by_other
from nodeagent.plugins.observing import Observing
from nodeagent.plugins.plugins import Plugins
from nodeagent.power.drivers import PowerDrivers
from nodeagent.services.admission import AdmissionControl
from nodeagent.services.arbitration import ArbitrationService
from nodeagent.services.bmc_checks import BmcChecks
from nodeagent.services.bmcs import Bmcs
from nodeagent.services.callback_sender import CallbackSender
from nodeagent.services.callback_targets import CallbackTargets, is_own_address
from nodeagent.services.callbacks import Callbacks
from nodeagent.services.certificate_renewal import CertificateRenewal
from nodeagent.services.evacuation import Evacuation
from nodeagent.services.event_log import EventLog
from nodeagent.services.exclusion import Exclusion
from nodeagent.services.expiry_warnings import ExpiryWarnings
from nodeagent.services.fault_reporter import FaultReporter
from nodeagent.services.feed_follower import FeedFollower
from nodeagent.services.fencing import Fencing
from nodeagent.services.files_for_others import FilesForOthers, serf_rpc_secret
from nodeagent.services.ha_controller import HaController
from nodeagent.services.ha_settings import HaSettings
from nodeagent.services.health import ClusterHealth
from nodeagent.services.host_reporter import HostReporter
from nodeagent.services.host_shutdown import HostShutdown
from nodeagent.services.housekeeping import Housekeeping
from nodeagent.services.image_service import ImageService
from nodeagent.services.incoming import IncomingMigrations
from nodeagent.services.lease_relay import LeaseRelay
from nodeagent.services.member_states import MemberStates
from nodeagent.services.mesh_carrier import MeshCarrier
from nodeagent.services.migration import TUNNEL_CHANNEL, MigrationService
from nodeagent.services.moving_on import MovingOn
from nodeagent.services.network_controller import NetworkController
from nodeagent.services.own_certificates import OwnCertificates
from nodeagent.services.placing import Placing
from nodeagent.services.revocation import Revocation
from nodeagent.services.secrets_rotation import SecretsRotation
from nodeagent.services.self_look import SelfLook
from nodeagent.services.services import Services
from nodeagent.services.snapshots import SnapshotService
from nodeagent.services.storage_checks import StorageChecks
from nodeagent.services.storage_fencing import StorageFencing
from nodeagent.services.storage_loss import StorageLoss
from nodeagent.services.storage_watch import StorageWatch
from nodeagent.services.storages import Storages
from nodeagent.services.task_rescue import TaskRescue
from nodeagent.services.task_runner import TaskRunner
from nodeagent.services.thin_feeds import ThinFeeds
from nodeagent.services.vip import VipService, own_addresses
from nodeagent.services.vm_controller import VmController
from nodeagent.services.vm_power import VmPower
from nodeagent.services.vm_service import VmService
from nodeagent.services.voter_controller import VoterController
from nodeagent.services.whereabouts import Whereabouts
from nodeagent.workflows.registry import StepMaker
from nodeagent.workflows.work import Workshop
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.links import RAFT_CHANNEL, MeshLinks
from raftstate.consensus.pysyncobj_engine import PySyncObjEngine
from raftstate.state.machine import Machine
from raftstate.store import Store
from storage.image_store import ImageStore

log = logging.getLogger(__name__)

STEP_ASIDE_TIMEOUT_S = 2.0
AUDITS_TIMEOUT_S = 1.0
NOT_ON_WITNESSES = ("network", "storages", "vms", "images", "incoming", "host-shutdown")


@dataclass(frozen=True, slots=True)
class Basics:
    """What the process brings: settings, places, time and chance."""

    config: Config
    paths: Paths
    clock: Clock
    rng: random.Random
    resource_types: tuple[Plugin, ...] = ()


class Member:
    """One host's part of the cluster. `run` it as a task; `node` and `services` work at once."""

    def __init__(self, basics: Basics, record: MemberRecord) -> None:
        """Open the state of this host. Needs a running event loop.

        Raises:
            FatalError: state or log are damaged; the message says what to do.
        """
        paths, clock, rng = basics.paths, basics.clock, basics.rng
        self._basics = basics
        self._record = record
        me = Peer(NodeId(record.host_id), f"{bracketed(record.address)}:{record.mesh_port}")
        tls = TlsFiles.in_directory(paths.identity)
        self._dialer = MeshDialer(tls)
        self._machine = Machine(paths.database, types=KINDS.values())
        self._links = MeshLinks(me, self._dialer, rng=rng)
        self._engine = PySyncObjEngine(
            me=me,
            directory=paths.raft,
            machine=self._machine,
            links=self._links,
            bootstrap=(me,) if record.founder else _peers(record),
            rng=rng,
        )
        store = Store(self._machine, self._engine, clock=clock, rng=rng)
        self._judge = LeaseJudge(clock)
        self._judge.reset(store.all(Lease))
        self._gaps = RenewalGaps(clock)
        self._machine.on_applied(self._judge_leases)
        plugins = Plugins(allocator=basics.config.allocator, types=basics.resource_types)
        drivers = plugins.drivers.choose(
            _choice(basics.config, witness=record.witness),
            host_id=record.host_id,
            run_dir=paths.run,
            held_by_other=held_by_other(
                store.get(Host, record.host_id), store.all(VM), basics.config.hypervisor
            ),
        )
        self._hypervisor = drivers.hypervisor
        rpc = SerfRpc(auth_key=_serf_secret(paths, record.host_id))
        self._membership = SerfMembership(rpc, clock)
        self._kept = ImageStore(IMAGES_PATH, host_id=record.host_id)
        self.node = Node(
            host_id=record.host_id,
            host_name=record.host_name,
            paths=paths,
            clock=clock,
            rng=rng,
            store=store,
            engine=self._engine,
            mesh=MeshClient(self._dialer, generation=self._engine.generation),
            guard=GuardClient(str(paths.guard_socket)),
            hypervisor=self._hypervisor,
            membership=self._membership,
            queues=WorkQueues(basics.config.limits.by_kind(), clock),
            hypervisor_name=drivers.hypervisor_name,
            driver_fault=drivers.fault,
        )
        self._events = EventLog(self.node)
        leases = LeaseRelay(self.node, self._judge)
        network = NetworkController(store, record.host_id, drivers.network, clock)
        whereabouts = Whereabouts(self.node, leases)
        images = ImageService(self.node, self._kept, leases, whereabouts)
        storages = Storages(self.node, images, plugins.storage_drivers)
        checks = StorageChecks(storages.driver_of)
        self._storage_watch = StorageWatch(self.node, checks)
        self._accelerator = read_accelerator(Architecture(platform.machine()))
        self._power = VmPower(
            self.node,
            storages,
            network,
            accelerator=self._accelerator,
            cache=DiskCache(basics.config.disk_cache),
            shape=plugins.system_tags.shape,
            storages_answer=self._storage_watch.check,
        )
        self._placing = Placing(self.node, self._judge, plugins.allocators.prefer)
        secrets = SecretsRotation(self.node, Keyring(paths, basics.config.secrets_key))
        self._api_tls = ApiTls(tls)
        bus = Bus(
            record.host_id,
            whereabouts,
            MeshCarrier(self.node),
            self.node.queues,
            self.node.faults,
            clock,
        )
        bmcs = Bmcs(self.node, leases, PowerDrivers(), secrets.keys)
        self._fencing = Fencing(self.node, bmcs, self._events)
        self._storage_fencing = StorageFencing(self.node, storages.fencing, self._events)
        self._fencing_ids = storages.fencing_ids
        self._bmc_checks = BmcChecks(self.node, bmcs, self._events)
        arbitration = ArbitrationService(self.node, IcmpPinger(rng), leases, self._events)
        vip = VipService(self.node, LinuxVip(clock, lifetime_s), self._events, arbitration.vetoed)
        look = SelfLook(
            self.node, checks, secrets.kept, self._gaps.worst_s, vip.seen, arbitration.seen
        )
        health = ClusterHealth(self.node, look, leases)
        drills = Drills(self.node, health)
        plain = basics.config.plain_http
        targets = CallbackTargets(
            basics.config.callbacks,
            hosts=lambda: own_addresses(store),
            is_own=is_own_address,
        )
        self.services = Services(
            arbitration=arbitration,
            bmcs=bmcs,
            bus=bus,
            callbacks=Callbacks(
                self.node,
                whereabouts,
                CallbackSender(targets),
                targets=targets,
                secrets_key=secrets.keys,
            ),
            certificates=OwnCertificates(self.node, self._api_tls, secrets_key=secrets.keys),
            doorkeeper=Doorkeeper(
                store, self._engine, clock=clock, rng=rng, secrets_key=secrets.keys
            ),
            exclusion=Exclusion(self.node),
            drill_target=DrillTarget(self.node, LinuxFaults(paths.guard_socket)),
            drills=drills,
            ha=HaSettings(self.node, leases, health),
            health=health,
            identity=Identity(
                store, record.host_id, clock=clock, rng=rng, secrets_key=secrets.keys
            ),
            images=images,
            incoming=IncomingMigrations(self.node, self._power, network, storages),
            leases=leases,
            network=network,
            plugins=plugins,
            renewal=CertificateRenewal(
                self.node, secrets_key=secrets.keys, reload=self._reload_identity
            ),
            secrets=secrets,
            shutdown=HostShutdown(self.node, self._power, self._placing, self._judge, self._events),
            snapshots=SnapshotService(self.node),
            states=MemberStates(
                self.node, secrets.kept, plain_http=plain.url if plain is not None else ""
            ),
            storages=storages,
            thin=ThinFeeds(self.node),
            vip=vip,
            vms=VmService(self.node, self._placing, AdmissionControl(store, self._judge).admit),
        )
        self._drill_runner = DrillRunner(self.node, drills, leases, bmcs, self._events)
        self._power_loss = PowerLossWatch(self.node, drills, self._events)
        self._rescue = TaskRescue(self.node, self._judge, self.services.vms, self._placing, bus)
        self._rpc = MeshRpc(self.node, self.services, admits=self._admits)
        self._server = MeshServer(tls, record.address, record.mesh_port, admit=self._admits)
        Revocation(self._machine, self._server, self._dialer, admits=self._admits)

    async def run_consensus(self) -> None:
        """Serve the mesh and the log until cancelled: what a joining host needs before it is a member."""
        runner = web.AppRunner(self._rpc.app(), access_log=None, shutdown_timeout=2.0)
        await runner.setup()
        assert runner.server is not None, "set up above"
        self._server.add_http(runner.server)
        self._server.add_channel(RAFT_CHANNEL, self._links.serve)
        self._server.add_channel(TUNNEL_CHANNEL, self._serve_tunnel)
        try:
            async with self.node.mesh, asyncio.TaskGroup() as group:
                group.create_task(self._server.run(), name="mesh-server")
                group.create_task(self._engine.run(), name="consensus")
                if not self._record.witness:
                    group.create_task(
                        keep_running("hypervisor", self._hypervisor.run), name="hypervisor"
                    )
        finally:
            await runner.cleanup()
            self._machine.close()
            self._kept.close()

    def follow_the_first_members(self) -> None:
        """Take the log from the members named at admission: an old snapshot may know none that is up."""
        self._engine.follow(_peers(self._record))

    async def step_aside(self) -> None:
        """Before a planned stop, store how changes ended and hand leadership over: others need not notice a silence first."""
        await self.services.identity.audits.flush_ends(timeout_s=AUDITS_TIMEOUT_S)
        await self._engine.step_aside(timeout_s=STEP_ASIDE_TIMEOUT_S)

    async def run_services(self) -> None:
        """Run everything else until cancelled. The host is a member and its record is in its state."""
        remove_leftovers()
        await self._kept.ensure_ready()
        await self._kept.sweep()
        shop = Workshop(
            node=self.node,
            power=self._power,
            storages=self.services.storages,
            migration=MigrationService(
                self.node,
                self._dialer,
                trust_shared_storage=self._basics.config.trust_shared_storage,
            ),
        )
        plugins = self.services.plugins
        registry = plugins.registry

        async def before_tasks() -> None:
            await self.services.storages.sweep()
            await plugins.report_refused(self.node, self._events)

        moving_on = MovingOn(self.node, self._power, self._placing, self._events)
        storage_loss = StorageLoss(self.node, self._storage_watch, moving_on)
        runs = {
            "leases": self.services.leases.run,
            "files-for-others": FilesForOthers(self.node, self.services.secrets.keys).run,
            "membership": self._membership.run,
            "network": self.services.network.run,
            "host-reporter": HostReporter(self.node, str(self._accelerator), plugins.reports).run,
            "storages": self._storage_watch.run,
            "vms": VmController(self.node, self._power, self._events, moving_on, storage_loss).run,
            "tasks": TaskRunner(
                self.node,
                registry.definitions,
                StepMaker(shop, registry.steps),
                prepare=before_tasks,
            ).run,
            "ha": HaController(self.node, self._judge, self._events, self._fencing_ids).run,
            "evacuation": Evacuation(self.node, self._judge, self.services.vms, self._events).run,
            "host-shutdown": self.services.shutdown.run,
            "ha-settings": self.services.ha.run,
            "fencing": self._fencing.run,
            "storage-fencing": self._storage_fencing.run,
            "bmc-checks": self._bmc_checks.run,
            "drill-runner": self._drill_runner.run,
            "drill-target": self.services.drill_target.run,
            "drill-power-loss": self._power_loss.run,
            "task-rescue": self._rescue.run,
            "images": self.services.images.run,
            "incoming": self.services.incoming.run,
            "housekeeping": Housekeeping(self.node).run,
            "vip": self.services.vip.run,
            "arbitration": self.services.arbitration.run,
            "voters": VoterController(self.node, self.services.states, self._events).run,
            "feed": FeedFollower(self.node).run,
            "audits": self.services.identity.audits.run,
            "exclusion": self.services.exclusion.run,
            "certificates": self.services.certificates.run,
            "secrets": self.services.secrets.run,
            "renewal": self.services.renewal.run,
            "expiry": ExpiryWarnings(self.node).run,
            "faults": FaultReporter(self.node).run,
            "observers": Observing(
                self.node, self._events, plugins.observers.all(), plugins.tell
            ).run,
            "callbacks": self.services.callbacks.run,
        }
        if (plain := self._basics.config.plain_http) is not None:
            runs["plain-http"] = PlainHttpWarning(self.node, plain).run
        if self._record.witness:
            for name in NOT_ON_WITNESSES:
                del runs[name]
        async with asyncio.TaskGroup() as group:
            for name, run in runs.items():
                group.create_task(
                    keep_running(name, run, on_fault=self._note_fault), name=f"service-{name}"
                )

    def _note_fault(self, name: str, error: Exception) -> None:
        self.node.faults.note(name, error, self._basics.clock.wall_ms())

    async def open_keys(self) -> None:
        """Open this host's secrets keys, if its HSM does so soon."""
        await self.services.secrets.open()

    def api_context(self) -> ssl.SSLContext:
        """Return the HTTPS listener's context, which answers with what is imported for this host from the beginning."""
        try:
            self.services.certificates.serve()
        except PlatformError as error:
            log.warning("can't serve the imported certificate", extra={"error": error.message})
        return self._api_tls.context

    def _reload_identity(self) -> None:
        """Have everything use the host's new certificate for new connections."""
        self._server.reload()
        self._dialer.reload()
        self._api_tls.reload()

    def _admits(self, peer_id: str) -> bool:
        """Let in the hosts of the state; while this copy is young, those that let us join."""
        if self._rpc.is_member(peer_id):
            return True
        young = self.node.store.get(Host, self.node.host_id) is None
        return young and any(member.id == peer_id for member in self._record.members)

    async def _serve_tunnel(
        self, peer_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await serve_tunnel(peer_id, reader, writer, allowed=self.services.incoming.is_allowed)

    def _judge_leases(self, index: int, changed: frozenset[str]) -> None:
        """Stamp renewals at the very moment they are applied here."""
        del index
        if "*" in changed:
            self._judge.reset(self.node.store.all(Lease))
            return
        for key in changed:
            kind, _, host_id = key.partition("/")
            if kind == "lease":
                lease = self.node.store.get(Lease, host_id)
                if lease is None:
                    self._judge.removed(host_id)
                else:
                    self._judge.applied(lease)
                    if host_id == self.node.host_id:
                        self._gaps.renewed(lease.lease_s)


def _choice(config: Config, *, witness: bool) -> Choice:
    """Return which drivers the settings name; a witness runs no guests and needs none."""
    if witness:
        return Choice()
    return Choice(hypervisor=config.hypervisor, network=config.network, firewall=config.firewall)


def _serf_secret(paths: Paths, host_id: str) -> str:
    try:
        return serf_rpc_secret(paths, host_id)
    except OSError as error:
        raise FatalError(f"the secrets key of this host can't be read: {error}") from None


def _peers(record: MemberRecord) -> tuple[Peer, ...]:
    return tuple(
        Peer(NodeId(m.id), f"{bracketed(m.address)}:{m.mesh_port}") for m in record.members
    )
