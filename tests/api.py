"""The API of one member in a process, for the tests that ask it: an agent, its application, its refusals."""

import dataclasses
import random
import shutil
import ssl
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp

import aiohttp
from aiohttp import web

from core.errors import UnavailableError
from core.identity.certificates import make_request, sign_request
from core.identity.keyring import Keyring
from core.member_file import MemberRecord
from core.paths import Paths, write_file
from ha.lease import RenewalAnswer, answer_to
from ha.vip import lifetime_s
from netfabric.memory_ping import MemoryPinger
from netfabric.memory_vip import MemoryVip, MemoryVipNetwork
from nodeagent.api.app import build_app, serve_unix
from nodeagent.api.limits import DEFAULT_LIMITS, ApiLimits
from nodeagent.api.serving import Front
from nodeagent.drills.drills import Drills
from nodeagent.drills.memory_faults import MemoryFaults
from nodeagent.drills.target import DrillTarget
from nodeagent.identity.identity import Identity
from nodeagent.joining.doorkeeper import Doorkeeper
from nodeagent.node import Node
from nodeagent.plugins.plugins import Plugins
from nodeagent.power.memory import MemoryPower
from nodeagent.services.arbitration import ArbitrationService
from nodeagent.services.bmcs import Bmcs
from nodeagent.services.callback_sender import CallbackSender
from nodeagent.services.callback_targets import CallbackPolicy, CallbackTargets
from nodeagent.services.callbacks import Callbacks
from nodeagent.services.event_log import EventLog
from nodeagent.services.exclusion import Exclusion
from nodeagent.services.ha_settings import HaSettings
from nodeagent.services.health import ClusterHealth
from nodeagent.services.member_states import MemberStates
from nodeagent.services.own_certificates import OwnCertificates
from nodeagent.services.secrets_rotation import SecretsRotation
from nodeagent.services.self_look import SelfLook
from nodeagent.services.services import Services
from nodeagent.services.snapshots import SnapshotService
from nodeagent.services.storage_checks import StorageChecks
from nodeagent.services.vip import VipService
from nodeagent.services.vm_service import VmService
from storage.memory_driver import MemoryDriver
from tests.one_member import ADMIN_TOKEN, HOST_ID, OneMember, authority, running

ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}


class Ages:
    """The part of the lease relay that is shown."""

    def age_s(self, host_id: str) -> float:
        del host_id
        return 1.0

    async def renew(self, renewal) -> RenewalAnswer:
        return answer_to(renewal, renewal.seq)


class FirstHost:
    def choose(self, vm, disks, *, only="", never="", joined=()) -> str:
        del vm, disks, only, never
        return HOST_ID


class NoStorages:
    async def prepare_new(self, storage) -> None:
        del storage


def driver_of_memory(storage) -> MemoryDriver:
    return MemoryDriver(storage.id)


class NoTls:
    def use(self, own) -> None:
        del own


def with_identity(node: Node, directory: Path) -> Node:
    """Return a node whose host has the files of a member's identity."""
    paths, now_ms = Paths(state=directory), node.clock.wall_ms()
    request_pem, key_pem = make_request(HOST_ID)
    about = {"host_id": HOST_ID, "host_name": "h1", "address": "192.0.2.1", "now_ms": now_ms}
    write_file(paths.ca_pem, authority().certificate_pem.encode())
    write_file(paths.host_pem, sign_request(authority(), request_pem, **about).encode())
    write_file(paths.host_key, key_pem.encode())
    return dataclasses.replace(node, paths=paths)


class OwnsAll:
    """This host does all the work."""

    def owners(self, key: str, *, records_only: bool) -> list[str]:
        del key, records_only
        return [HOST_ID]


class FakeAgent:
    """An agent that is a member, or not yet."""

    def __init__(self, member: OneMember | None) -> None:
        self.node = member.node if member else None
        self.services = None
        self.asked: list[dict[str, str]] = []
        if member is not None:
            home = Path(mkdtemp(prefix="kvt-agent-"))
            weakref.finalize(self, shutil.rmtree, home, ignore_errors=True)
            node = with_identity(member.node, home)
            write_file(node.paths.secrets_key, member.secrets_key)
            secrets = SecretsRotation(node, Keyring(node.paths))
            targets = CallbackTargets(CallbackPolicy(), hosts=tuple, is_own=lambda _: False)
            self.power = MemoryPower()
            ages = Ages()
            self.vip_network = MemoryVipNetwork("192.0.2.0/24")
            driver = MemoryVip(self.vip_network, "02:00:00:00:00:01", member.clock, lifetime_s)
            events = EventLog(member.node)
            self.pinger = MemoryPinger()
            self.arbitration = ArbitrationService(node, self.pinger, ages, events)
            self.vip = VipService(member.node, driver, events, self.arbitration.vetoed)
            checks = StorageChecks(driver_of_memory)
            health = ClusterHealth(
                member.node,
                SelfLook(
                    member.node,
                    checks,
                    secrets.kept,
                    vip=self.vip.seen,
                    arbitration=self.arbitration.seen,
                ),
                Ages(),
            )
            self.services = Services(
                arbitration=self.arbitration,
                bmcs=Bmcs(node, ages, self.power, secrets.keys),
                bus=None,
                callbacks=Callbacks(
                    node,
                    OwnsAll(),
                    CallbackSender(targets),
                    targets=targets,
                    secrets_key=secrets.keys,
                ),
                certificates=OwnCertificates(node, NoTls(), secrets_key=secrets.keys),
                doorkeeper=Doorkeeper(
                    member.store,
                    member.engine,
                    clock=member.clock,
                    rng=member.rng,
                    secrets_key=lambda: member.secrets_key,
                ),
                exclusion=Exclusion(member.node),
                drill_target=DrillTarget(member.node, MemoryFaults()),
                drills=Drills(member.node, health),
                ha=HaSettings(node, ages, health),
                health=health,
                identity=Identity(
                    member.store,
                    HOST_ID,
                    clock=member.clock,
                    rng=member.rng,
                    secrets_key=lambda: member.secrets_key,
                    failure_takes_s=0.0,
                ),
                images=None,
                incoming=None,
                leases=ages,
                network=None,
                plugins=Plugins([]),
                renewal=None,
                secrets=secrets,
                shutdown=None,
                snapshots=SnapshotService(member.node),
                states=MemberStates(member.node),
                storages=NoStorages(),
                thin=None,
                vip=self.vip,
                vms=VmService(member.node, FirstHost()),
            )

    async def init(self, **asked: str) -> MemberRecord:
        self.asked.append(asked)
        raise UnavailableError("not in this test")

    async def join(self, **asked: str) -> MemberRecord:
        self.asked.append(asked)
        raise UnavailableError("not in this test")


def app_of(
    member: OneMember, agent: FakeAgent | None = None, limits: ApiLimits = DEFAULT_LIMITS
) -> web.Application:
    agent = agent or FakeAgent(member)
    return build_app(agent, clock=member.clock, rng=member.rng, limits=limits)


@asynccontextmanager
async def open_door(
    runner: web.AppRunner,
    context: ssl.SSLContext | None = None,
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    limits: ApiLimits = DEFAULT_LIMITS,
) -> AsyncIterator[int]:
    """Serve over TCP as an agent does, for the length of the context; gives the port."""
    if runner.server is None:
        await runner.setup()
    front = Front(runner, limits, rng=random.Random(1))
    door = front.open(address, port, context)
    async with running(door.run, front.watch):
        yield door.port


async def problem_of(response: aiohttp.ClientResponse, status: int, code: str) -> dict:
    problem = await response.json(content_type="application/problem+json")
    assert (response.status, problem["status"], problem["code"]) == (status, status, code)
    assert problem["detail"] and "\n" not in problem["detail"]
    assert problem["type"] == f"about:kvorum#{code}"
    assert problem["request_id"] == response.headers["X-Request-Id"]
    return problem


async def unix_client(runner: web.AppRunner, path: Path) -> aiohttp.ClientSession:
    await runner.setup()
    await serve_unix(runner, path)
    return aiohttp.ClientSession("http://local", connector=aiohttp.UnixConnector(str(path)))
