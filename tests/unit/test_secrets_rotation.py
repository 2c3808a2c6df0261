"""Changing the secrets key: nothing is ever sealed by a key that is lost, whoever is off or dies at whatever moment."""

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace

from core.errors import (
    ConflictError,
    FatalError,
    NotFoundError,
    PlatformError,
    UnavailableError,
)
from core.identity.hsm import KeySettings, SecretsLockedError
from core.identity.keyring import Keyring
from core.identity.sealing import key_id, make_key, seal, sealed_by, unseal
from core.model import RESOURCE_TYPES, AccessKey, Account, Event, Host, HostKey, Mesh, SecretsKey
from core.paths import Paths, write_file
from nodeagent.services.own_certificates import OwnCertificates
from nodeagent.services.sealing_guard import sealing_guards
from nodeagent.services.secrets_rotation import KeyAnswer, SecretsRotation
from tests.canaries import forms_of
from tests.hsm import MemoryHsm
from tests.one_member import HOST_ID, OTHER_ID, THIRD_ID, OneMember, founded
from tests.own_certificates import for_names
from tests.whole_states import dump_of

IDS = (HOST_ID, OTHER_ID, THIRD_ID)


class LostAnswers:
    """The store of a host whose commits fail as a test says: before they are made, or after."""

    def __init__(self, store, rng: random.Random, chance: float) -> None:
        self._store, self._rng, self._chance = store, rng, chance

    def __getattr__(self, name: str):
        return getattr(self._store, name)

    async def apply(self, **what) -> int:
        if self._rng.random() < self._chance / 2:
            raise UnavailableError("no quorum")
        index = await self._store.apply(**what)
        if self._rng.random() < self._chance:
            raise UnavailableError("the answer was lost")
        return index


@dataclass
class World:
    """Three hosts on one state; `off` are those that don't answer and do nothing. `kept`, `hsms`: how they keep keys."""

    member: OneMember
    directory: Path
    off: set[str] = field(default_factory=set)
    leader: str = HOST_ID
    hosts: dict[str, SecretsRotation] = field(default_factory=dict)
    keyrings: dict[str, Keyring] = field(default_factory=dict)
    lying: bool = False
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    chance: float = 0.0
    kept: dict[str, KeySettings] = field(default_factory=dict)
    hsms: dict[str, MemoryHsm] = field(default_factory=dict)

    def start(self, host_id: str) -> None:
        """Start a host's agent, or start it again after a crash."""
        paths = Paths(state=self.directory / host_id)
        if not paths.secrets_key.exists():
            write_file(paths.secrets_key, self.member.secrets_key)
        node = self.member.node_of(host_id, host_id)
        for name, value in {
            "paths": paths,
            "mesh": self,
            "engine": _Engine(self, host_id),
            "store": LostAnswers(self.member.store, self.rng, self.chance),
        }.items():
            object.__setattr__(node, name, value)
        hsm = self.hsms.setdefault(host_id, MemoryHsm())
        self.keyrings[host_id] = Keyring(paths, self.kept.get(host_id), hsm)
        self.hosts[host_id] = SecretsRotation(node, self.keyrings[host_id])

    async def call(self, host: Host, path: str, body, answer, **_) -> KeyAnswer:
        assert (path, answer) == ("/mesh/secrets-key", KeyAnswer)
        if host.id in self.off:
            raise UnavailableError("it is off")
        key = self.hosts[host.id].give(body.key_id)
        return KeyAnswer(key_hex=(make_key() if self.lying else key).hex())

    async def step_all(self, rounds: int = 4) -> None:
        for _ in range(rounds):
            for host_id in self.hosts:
                if host_id not in self.off:
                    await self.hosts[host_id].step()

    def record(self) -> SecretsKey | None:
        return self.member.store.get(SecretsKey, "secrets-key")

    def opens(self, host_id: str) -> bool:
        """Tell whether a host can open every secret as the state has it."""
        mesh = self.member.mesh()
        try:
            keys = self.keyrings[host_id].keys()
            unseal(keys, "ca-key", mesh.sealed_ca_key)
            return unseal(keys, "gossip-key", mesh.sealed_gossip_key) == bytes(32)
        except (FatalError, SecretsLockedError):
            return False

    def files(self, host_id: str) -> set[str]:
        return {p.name for p in (self.directory / host_id / "identity").iterdir()}


class _Engine:
    """Consensus as each of the hosts sees it."""

    def __init__(self, world: World, host_id: str) -> None:
        self._world, self._host_id = world, host_id

    def is_leader(self) -> bool:
        return self._world.leader == self._host_id

    def leader(self) -> str:
        return self._world.leader

    def connected(self) -> frozenset[str]:
        return frozenset(self._world.hosts) - self._world.off - {self._host_id}


@pytest.fixture
async def world(tmp_path) -> World:
    return await three_hosts(tmp_path)


async def three_hosts(tmp_path: Path, **options) -> World:
    member = await founded()
    await member.add_host(OTHER_ID, "h2", "192.0.2.2")
    await member.add_host(THIRD_ID, "h3", "192.0.2.3")
    world = World(member, tmp_path, **options)
    for host_id in IDS:
        world.start(host_id)
    return world


async def test_every_host_gets_the_new_key_and_the_former_one_is_gone(world):
    before = world.member.secrets_key
    await world.hosts[OTHER_ID].rotate()
    await world.step_all()
    record = world.record()
    assert record.key_id != key_id(before)
    assert (record.next_key_id, record.former_key_id) == ("", "")
    for host_id in IDS:
        assert world.opens(host_id)
        assert world.keyrings[host_id].current_id() == record.key_id
        assert world.files(host_id) == {"secrets.key"}
    mesh = world.member.mesh()
    assert {sealed_by(s) for s in (mesh.sealed_ca_key, mesh.sealed_gossip_key)} == {record.key_id}
    with pytest.raises(FatalError):
        unseal(before, "ca-key", mesh.sealed_ca_key)
    assert world.member.store.all(HostKey) == []
    assert [e.code for e in world.member.store.all(Event)] == ["secrets-key-changed"]
    assert world.hosts[HOST_ID].shown() == {
        "key_id": record.key_id,
        "next_key_id": "",
        "former_key_id": "",
        "changing": False,
        "hosts_without_key": [],
        "secrets_by_key": {record.key_id: 2},
    }


async def test_a_host_that_is_off_delays_nobody_and_gets_the_key_when_it_is_back(world):
    before = world.member.secrets_key
    world.off = {THIRD_ID}
    await world.hosts[HOST_ID].rotate()
    await world.step_all()
    record = world.record()
    assert record.former_key_id == key_id(before), "the former key stays until it is back"
    assert world.hosts[HOST_ID].shown()["hosts_without_key"] == ["h3"]
    assert world.opens(HOST_ID)
    assert not world.opens(THIRD_ID)
    with pytest.raises(ConflictError, match="under way"):
        await world.hosts[OTHER_ID].rotate()
    world.off = set()
    await world.step_all()
    assert world.opens(THIRD_ID)
    assert world.record().former_key_id == ""
    assert world.files(THIRD_ID) == {"secrets.key"}


async def test_a_host_that_is_off_and_removed_is_not_waited_for(world):
    world.off = {THIRD_ID}
    await world.hosts[HOST_ID].rotate()
    await world.step_all()
    await world.member.store.apply(deletes=(world.member.store.need(Host, THIRD_ID),))
    await world.step_all()
    assert world.record().former_key_id == ""


async def test_no_key_is_ever_in_the_state(world):
    keys = [world.member.secrets_key]
    await world.hosts[HOST_ID].rotate()
    for _ in range(4):
        keys += world.keyrings[HOST_ID].keys()
        dump = dump_of(world.member.machine)
        assert not [form for key in keys for form in forms_of(key) if form in dump]
        await world.step_all(1)


async def test_nothing_is_sealed_anew_before_enough_hosts_have_the_key(world):
    world.off = {OTHER_ID, THIRD_ID}
    await world.hosts[HOST_ID].rotate()
    await world.step_all()
    assert world.record().next_key_id, "a minority could be lost with the key"
    world.off = {OTHER_ID}
    world.lying = True
    with pytest.raises(UnavailableError, match="no host that answers"):
        await world.step_all()
    assert world.record().next_key_id
    assert world.opens(OTHER_ID)
    world.lying = False
    await world.step_all()
    assert world.record().next_key_id == ""


async def test_a_host_within_reach_that_lacks_the_key_is_waited_for(world):
    await world.hosts[HOST_ID].rotate()
    for _ in range(3):
        await world.hosts[OTHER_ID].step()
        await world.hosts[HOST_ID].step()
    assert world.record().next_key_id, "h3 answers but has not taken the key"
    await world.hosts[THIRD_ID].step()
    await world.hosts[HOST_ID].step()
    assert world.record().next_key_id == ""


async def test_a_host_that_is_just_joining_is_waited_for(world):
    host = world.member.store.need(Host, THIRD_ID)
    now_ms = world.member.clock.wall_ms()
    await world.member.store.apply(puts=(replace(host, joining=True, created_ms=now_ms),))
    await world.hosts[HOST_ID].rotate()
    await world.step_all()
    assert world.record().next_key_id
    world.member.clock.pass_s(601)
    await world.step_all()
    assert world.record().next_key_id == "", "a join that broke off holds nothing up"


async def test_a_key_whose_maker_died_is_replaced(world):
    await world.hosts[THIRD_ID].rotate()
    lost = world.record().next_key_id
    await world.member.store.apply(deletes=world.member.store.all(HostKey))
    world.off = {THIRD_ID}
    with pytest.raises(UnavailableError):
        await world.step_all(1)
    await world.hosts[HOST_ID].rotate()
    await world.step_all()
    assert world.record().key_id != lost
    assert all(map(world.opens, (HOST_ID, OTHER_ID)))


async def test_a_host_whose_disk_lost_the_next_key_takes_its_word_back(world):
    await world.hosts[THIRD_ID].rotate()
    (world.directory / THIRD_ID / "identity" / "secrets.next").unlink()
    with pytest.raises(UnavailableError):
        await world.hosts[THIRD_ID].step()
    await world.hosts[HOST_ID].rotate()
    await world.step_all()
    assert all(map(world.opens, IDS))


async def test_a_host_that_lags_puts_the_present_key_in_use_before_it_makes_another(world):
    await world.hosts[HOST_ID].rotate()
    for host_id in (OTHER_ID, THIRD_ID, HOST_ID, OTHER_ID, HOST_ID):
        await world.hosts[host_id].step()
    assert world.files(THIRD_ID) == {"secrets.key", "secrets.next"}
    await world.hosts[THIRD_ID].rotate()
    await world.hosts[THIRD_ID].step()
    await world.step_all()
    assert all(map(world.opens, IDS))
    assert world.record().former_key_id == ""


async def test_keys_are_given_only_while_they_are_in_use_or_the_next(world):
    before = key_id(world.member.secrets_key)
    assert world.hosts[HOST_ID].give(before) == world.member.secrets_key
    for asked in ("", "ff" * 8):
        with pytest.raises(NotFoundError):
            world.hosts[HOST_ID].give(asked)
    world.off = {THIRD_ID}
    await world.hosts[HOST_ID].rotate()
    await world.step_all()
    with pytest.raises(NotFoundError):
        world.hosts[HOST_ID].give(before)
    assert "***" in repr(KeyAnswer(key_hex="ab"))
    assert msgspec.json.encode(KeyAnswer(key_hex="ab"))


def sealed_as_before(key: bytes, name: str, secret: bytes) -> bytes:
    """The format without mark and data key."""
    nonce = os.urandom(12)
    return nonce + AESGCM(key).encrypt(nonce, secret, name.encode())


async def test_what_was_sealed_in_the_former_format_is_sealed_anew(world):
    mesh, key = world.member.mesh(), world.member.secrets_key
    ca_key = unseal(key, "ca-key", mesh.sealed_ca_key)
    old = replace(
        mesh,
        sealed_ca_key=sealed_as_before(key, "ca-key", ca_key),
        sealed_gossip_key=sealed_as_before(key, "gossip-key", bytes(32)),
    )
    await world.member.store.apply(puts=(old,))
    assert world.opens(HOST_ID)
    assert world.hosts[HOST_ID].shown()["secrets_by_key"] == {"old format": 2}
    await world.hosts[HOST_ID].rotate()
    await world.step_all()
    assert world.opens(HOST_ID)
    assert world.hosts[HOST_ID].shown()["secrets_by_key"] == {world.record().key_id: 2}


class _NoTls:
    def use(self, own) -> None:
        del own


@pytest.mark.parametrize("moment", ["before", "under way"])
async def test_an_import_that_did_not_see_the_change_is_refused(world, moment):
    """It would seal with a key that is about to be deleted."""
    if moment == "under way":
        world.off = {THIRD_ID}
        await world.hosts[HOST_ID].rotate()
    own = for_names("h1")
    store = world.member.store

    class Overtaken(LostAnswers):
        async def apply(self, **what) -> int:
            txn = store.change(**what)
            if moment == "before":
                await world.hosts[HOST_ID].rotate()
            await world.step_all()
            world.off = set()
            await world.step_all()
            if (await store.commit(txn)).__class__.__name__ == "Rejected":
                raise ConflictError("changed meanwhile")
            return 0

    node = world.member.node_of(OTHER_ID, "h2")
    object.__setattr__(node, "store", Overtaken(store, world.rng, 0.0))
    importing = OwnCertificates(node, _NoTls(), secrets_key=world.hosts[OTHER_ID].keys)
    with pytest.raises(ConflictError):
        await importing.import_(own.as_pem(), "", host=None, request_id="r")
    again = OwnCertificates(
        world.member.node_of(OTHER_ID, "h2"), _NoTls(), secrets_key=world.hosts[OTHER_ID].keys
    )
    await again.import_(own.as_pem(), "", host=None, request_id="r2")
    assert set(world.hosts[HOST_ID].shown()["secrets_by_key"]) == {world.record().key_id}


@pytest.mark.parametrize("seed", range(40))
async def test_secrets_can_be_opened_by_the_leader_at_any_time_whatever_fails(seed, tmp_path):
    """Lost commits, lost answers, crashes, hosts that go and come, leaders that change; then peace, and it is over."""
    rng = random.Random(seed)
    world = await three_hosts(tmp_path, rng=rng, chance=0.4)
    begun = False
    for _ in range(80):
        host_id = rng.choice(IDS)
        match rng.randrange(8):
            case 0:
                world.start(host_id)
            case 1:
                world.off = set(rng.sample(IDS, rng.randrange(2)))
            case 2:
                world.leader = rng.choice(sorted(set(IDS) - world.off))
            case _ if host_id in world.off:
                continue
            case 3:
                begun |= await _tried(world.hosts[host_id].rotate)
            case _:
                await _tried(world.hosts[host_id].step)
        able = [h for h in IDS if world.opens(h)]
        assert len(able) >= 2, f"seed {seed}: a majority has the key by which everything is sealed"
    world.off, world.chance = set(), 0.0
    for host_id in IDS:
        world.start(host_id)
    if world.record() is None:
        return
    await world.step_all(6)
    assert all(map(world.opens, IDS))
    record = world.record()
    assert (record.next_key_id, record.former_key_id) == ("", "")


async def _tried(what) -> bool:
    try:
        await what()
    except PlatformError:
        return False
    return True


@pytest.mark.parametrize("done", range(4))
async def test_a_crash_while_a_key_is_put_in_use_loses_none(tmp_path, done):
    paths, old, new = Paths(state=tmp_path), make_key(), make_key()
    write_file(paths.secrets_key, old)
    keyring = Keyring(paths)
    await keyring.take(new)
    if done >= 1:
        write_file(paths.secrets_old, old)
    if done >= 2:
        write_file(paths.secrets_key, new)
    if done >= 3:
        paths.secrets_next.unlink()
    assert set(keyring.keys()) == {old, new}
    keyring.use(key_id(new))
    keyring.use(key_id(new))
    assert keyring.keys() == (new, old)
    assert not paths.secrets_next.exists()
    assert {p.stat().st_mode & 0o777 for p in paths.identity.iterdir()} == {0o600}


def test_a_host_without_its_key_says_so(tmp_path):
    with pytest.raises(FatalError, match=r"restore .*secrets\.key"):
        Keyring(Paths(state=tmp_path)).keys()


def test_everything_sealed_is_known_to_be():
    """What the change of the key doesn't know of would be lost with the former key."""
    for type_ in RESOURCE_TYPES:
        sealed = {name for name in type_.__struct_fields__ if name.startswith("sealed_")}
        assert sealed == set(type_.SEALED), type_
    assert Mesh.SEALED


async def test_time_codes_are_sealed_anew_and_accounts_without_them_are_left_alone(world):
    store, before = world.member.store, world.member.secrets_key
    secret = seal(before, "totp/a", b"of a device")
    await store.apply(
        puts=(
            Account(id="a", name="alice", sealed_totp=secret),
            Account(id="b", name="bob"),
        )
    )
    bob = store.need(Account, "b")
    await world.hosts[HOST_ID].rotate()
    await world.step_all()
    alice = store.need(Account, "a")
    assert sealed_by(alice.sealed_totp) == world.record().key_id
    keys = world.keyrings[OTHER_ID].keys()
    assert unseal(keys, "totp/a", alice.sealed_totp) == b"of a device"
    assert store.need(Account, "b") == bob


async def test_access_keys_are_sealed_anew_and_go_on_signing(world):
    store, before = world.member.store, world.member.secrets_key
    key = AccessKey(
        id="kvk_a", name="ci", sealed_secret=seal(before, "access-key/kvk_a", b"of a program")
    )
    await store.apply(puts=(key,))
    await world.hosts[HOST_ID].rotate()
    await world.step_all()
    anew = store.need(AccessKey, "kvk_a").sealed_secret
    assert sealed_by(anew) == world.record().key_id
    for host_id in IDS:
        keys = world.keyrings[host_id].keys()
        assert unseal(keys, "access-key/kvk_a", anew) == b"of a program"


async def test_a_secret_sealed_with_a_key_that_was_changed_meanwhile_is_not_stored(world):
    """Else it would be lost with that key."""
    store, before = world.member.store, world.member.secrets_key
    await store.apply(puts=(Account(id="a", name="alice"),))
    alice, guards = store.need(Account, "a"), sealing_guards(store)
    late = replace(alice, sealed_totp=seal(before, "totp/a", b"of a device"))
    await world.hosts[HOST_ID].rotate()
    await world.step_all()
    with pytest.raises(ConflictError):
        await store.apply(puts=(late,), guards=guards)
    assert store.need(Account, "a").sealed_totp == b""
