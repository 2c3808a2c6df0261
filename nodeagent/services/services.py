"""All services of a member that the API and the mesh RPC reach, in one struct."""

from __future__ import annotations

from dataclasses import dataclass

from core.bus import Bus
from nodeagent.drills.drills import Drills
from nodeagent.drills.target import DrillTarget
from nodeagent.identity.identity import Identity
from nodeagent.joining.doorkeeper import Doorkeeper
from nodeagent.plugins.plugins import Plugins
from nodeagent.services.arbitration import ArbitrationService
from nodeagent.services.bmcs import Bmcs
from nodeagent.services.callbacks import Callbacks
from nodeagent.services.certificate_renewal import CertificateRenewal
from nodeagent.services.exclusion import Exclusion
from nodeagent.services.ha_settings import HaSettings
from nodeagent.services.health import ClusterHealth
from nodeagent.services.host_shutdown import HostShutdown
from nodeagent.services.image_service import ImageService
from nodeagent.services.incoming import IncomingMigrations
from nodeagent.services.lease_relay import LeaseRelay
from nodeagent.services.member_states import MemberStates
from nodeagent.services.network_controller import NetworkController
from nodeagent.services.own_certificates import OwnCertificates
from nodeagent.services.secrets_rotation import SecretsRotation
from nodeagent.services.snapshots import SnapshotService
from nodeagent.services.storages import Storages
from nodeagent.services.thin_feeds import ThinFeeds
from nodeagent.services.vip import VipService
from nodeagent.services.vm_service import VmService


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What a member can do. Made by `nodeagent.lifecycle`."""

    arbitration: ArbitrationService
    bmcs: Bmcs
    bus: Bus
    callbacks: Callbacks
    certificates: OwnCertificates
    doorkeeper: Doorkeeper
    drill_target: DrillTarget
    drills: Drills
    exclusion: Exclusion
    ha: HaSettings
    health: ClusterHealth
    identity: Identity
    images: ImageService
    incoming: IncomingMigrations
    leases: LeaseRelay
    network: NetworkController
    plugins: Plugins
    renewal: CertificateRenewal
    shutdown: HostShutdown
    secrets: SecretsRotation
    snapshots: SnapshotService
    states: MemberStates
    storages: Storages
    thin: ThinFeeds
    vip: VipService
    vms: VmService
