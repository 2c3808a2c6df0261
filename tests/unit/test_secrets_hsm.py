"""The secrets key in HSMs, one of each host's own: changed, moved, locked and lost while the cluster goes on."""

import random

import pytest

from core.errors import FatalError, NotFoundError, PlatformError, UnavailableError
from core.identity.certificates import make_request
from core.identity.hsm import HsmSettings, KeySettings, SecretsLockedError
from core.identity.keyring import KeptKey, Keyring
from core.identity.sealing import key_id, unseal
from core.model import Event, HostKey, SecretsKey, Severity
from core.paths import Paths
from nodeagent.services.certificate_renewal import CertificateRenewal, IssuedCertificate
from tests.hsm import MemoryHsm
from tests.one_member import HOST_ID, OTHER_ID, THIRD_ID
from tests.unit.test_api_certificates import serving
from tests.unit.test_secrets_rotation import IDS, World, three_hosts


@pytest.fixture
async def world(tmp_path) -> World:
    return await three_hosts(tmp_path)


def move(world: World, host_id: str, token: str = "t", key: str = "k") -> HsmSettings:
    """Have a host keep its key in an HSM from its next start on."""
    settings = world.hsms[host_id].add(token, key)
    world.kept[host_id] = KeySettings(keep="hsm", hsm=settings)
    return settings


async def all_in_hsms(world: World) -> None:
    for host_id in IDS:
        move(world, host_id)
        world.start(host_id)
    await world.step_all()
    assert all(map(world.opens, IDS))


def in_clear(world: World, host_id: str) -> bool:
    """Tell whether a host's disk gives a key away that another host knows."""
    files = (world.directory / host_id / "identity").iterdir()
    content = b"".join(file.read_bytes() for file in files)
    return any(key in content for ring in world.keyrings.values() for key in _keys(ring))


def _keys(ring: Keyring) -> tuple[bytes, ...]:
    try:
        return ring.keys()
    except SecretsLockedError:
        return ()


def codes(world: World) -> list[str]:
    return [e.code for e in sorted(world.member.store.all(Event), key=lambda e: e.revision)]


async def test_the_key_is_changed_on_hosts_with_and_without_hsm(world):
    for host_id in (OTHER_ID, THIRD_ID):
        move(world, host_id)
        world.start(host_id)
    await world.step_all()
    assert [in_clear(world, h) for h in IDS] == [True, False, False]
    for maker in (HOST_ID, THIRD_ID):
        before = world.keyrings[HOST_ID].current_id()
        await world.hosts[maker].rotate()
        for _ in range(4):
            await world.step_all(1)
            assert [in_clear(world, h) for h in IDS] == [True, False, False]
        assert all(map(world.opens, IDS))
        assert world.record().former_key_id == ""
        assert {r.current_id() for r in world.keyrings.values()} == {world.record().key_id}
        assert world.record().key_id != before
    assert world.files(OTHER_ID) == {"secrets.key"}


async def test_a_host_whose_hsm_is_away_is_not_waited_for_and_follows_when_it_is_back(world):
    await all_in_hsms(world)
    world.hsms[THIRD_ID].broken = True
    world.start(THIRD_ID)
    with pytest.raises(SecretsLockedError):
        await world.hosts[THIRD_ID].step()
    await world.hosts[HOST_ID].rotate()
    for _ in range(4):
        await world.hosts[OTHER_ID].step()
        with pytest.raises(SecretsLockedError):
            await world.hosts[THIRD_ID].step()
        await world.hosts[HOST_ID].step()
    record = world.record()
    assert record.next_key_id == ""
    assert record.former_key_id, "the third needs it no more, but hasn't the new one yet"
    assert world.hosts[HOST_ID].shown()["hosts_without_key"] == ["h3"]
    assert [world.opens(h) for h in IDS] == [True, True, False]
    world.hsms[THIRD_ID].broken = False
    await world.step_all()
    assert all(map(world.opens, IDS))
    assert world.record().former_key_id == ""
    assert world.member.store.all(HostKey) == []


async def test_another_host_seals_when_the_leaders_hsm_is_away(world):
    await all_in_hsms(world)
    world.hsms[HOST_ID].broken = True
    world.start(HOST_ID)
    await world.hosts[THIRD_ID].rotate()
    for _ in range(4):
        with pytest.raises(SecretsLockedError):
            await world.hosts[HOST_ID].step()
        for host_id in (OTHER_ID, THIRD_ID):
            await world.hosts[host_id].step()
    record = world.record()
    assert record.next_key_id == ""
    assert [world.opens(h) for h in IDS] == [False, True, True]


async def test_an_hsm_that_fails_while_a_key_is_handed_out_holds_nobody_up(world):
    """Its host can open the present key, but not keep the next."""
    await all_in_hsms(world)
    world.hsms[OTHER_ID].broken = True
    await world.hosts[HOST_ID].rotate()
    for _ in range(4):
        with pytest.raises(SecretsLockedError):
            await world.hosts[OTHER_ID].step()
        await world.hosts[THIRD_ID].step()
        await world.hosts[HOST_ID].step()
    assert world.record().next_key_id == ""
    assert codes(world) == ["secrets-locked"], "told once, and not taken back in between"


async def test_a_change_begins_on_no_host_whose_hsm_is_away(world):
    await all_in_hsms(world)
    world.hsms[OTHER_ID].broken = True
    with pytest.raises(SecretsLockedError):
        await world.hosts[OTHER_ID].rotate()
    assert world.record() is None


async def test_a_lost_hsm_is_told_once_and_replaced_by_settings_alone(world):
    await all_in_hsms(world)
    world.hsms[THIRD_ID].dead = {"t"}
    world.start(THIRD_ID)
    for _ in range(3):
        with pytest.raises(SecretsLockedError):
            await world.hosts[THIRD_ID].step()
    (event,) = world.member.store.all(Event)
    assert (event.code, event.severity) == ("secrets-locked", Severity.ALARM)
    assert "host h3: the HSM can't be used for key k in token t" in event.message
    assert world.hosts[THIRD_ID].kept().fault
    move(world, THIRD_ID, token="new")
    world.start(THIRD_ID)
    await world.step_all(1)
    assert world.opens(THIRD_ID)
    assert not in_clear(world, THIRD_ID)
    assert world.hosts[THIRD_ID].kept() == KeptKey(
        place="hsm", key_id=key_id(world.member.secrets_key), hsm="key k in token new"
    )


async def test_a_host_that_lost_its_hsm_and_has_no_other_may_keep_the_key_in_a_file(world):
    await all_in_hsms(world)
    world.hsms[THIRD_ID].dead = {"t"}
    world.kept[THIRD_ID] = KeySettings(keep="file")
    world.start(THIRD_ID)
    await world.step_all(1)
    assert world.opens(THIRD_ID)
    assert world.hosts[THIRD_ID].kept().place == "file"


async def test_a_host_whose_file_is_lost_gets_the_key_from_another(world):
    (world.directory / THIRD_ID / "identity" / "secrets.key").unlink()
    assert world.hosts[THIRD_ID].kept().fault
    await world.step_all(1)
    assert world.opens(THIRD_ID)
    assert world.record() is None, "the key has never been changed"


async def test_a_key_that_nobody_can_give_stays_locked_and_its_file_is_left_alone(world):
    await all_in_hsms(world)
    file = world.directory / THIRD_ID / "identity" / "secrets.key"
    before = file.read_bytes()
    world.hsms[THIRD_ID].dead = {"t"}
    move(world, THIRD_ID, token="new")
    world.start(THIRD_ID)
    world.off = {HOST_ID, OTHER_ID}
    with pytest.raises(SecretsLockedError):
        await world.hosts[THIRD_ID].step()
    with pytest.raises(SecretsLockedError):
        world.hosts[THIRD_ID].give(key_id(world.member.secrets_key))
    world.off, world.lying = set(), True
    with pytest.raises(SecretsLockedError):
        await world.hosts[THIRD_ID].step()
    assert file.read_bytes() == before
    assert [e.code for e in world.member.store.all(Event)] == ["secrets-locked"]
    world.lying = False
    await world.hosts[THIRD_ID].step()
    assert world.opens(THIRD_ID)
    assert codes(world) == ["secrets-locked", "secrets-open"]


async def test_an_hsm_that_is_lost_while_the_agent_runs_is_noticed_within_the_hour(world):
    await all_in_hsms(world)
    world.hsms[OTHER_ID].broken = True
    await world.step_all(1)
    assert codes(world) == []
    world.member.clock.pass_s(3601)
    await world.step_all(3)
    assert codes(world) == ["secrets-locked"]
    assert world.opens(OTHER_ID), "until it starts again"
    world.hsms[OTHER_ID].broken = False
    world.member.clock.pass_s(61)
    await world.step_all(3)
    assert codes(world) == ["secrets-locked", "secrets-open"]


async def test_a_host_in_a_file_goes_on_while_the_hsm_it_shall_move_to_is_away(world):
    world.hsms[OTHER_ID].broken = True
    move(world, OTHER_ID)
    world.start(OTHER_ID)
    await world.step_all(2)
    assert world.opens(OTHER_ID)
    assert world.hosts[OTHER_ID].kept().place == "file"
    assert "it is away" in world.hosts[OTHER_ID].kept().fault
    world.hsms[OTHER_ID].broken = False
    await world.step_all(1)
    assert world.hosts[OTHER_ID].kept().place == "hsm"
    assert codes(world) == ["secrets-locked", "secrets-open"]


async def test_how_each_host_keeps_the_key_is_shown(world):
    move(world, OTHER_ID)
    world.start(OTHER_ID)
    await world.step_all(1)
    kept = {h: world.hosts[h].kept() for h in (HOST_ID, OTHER_ID)}
    shown = world.hosts[HOST_ID].shown_hosts(kept)
    id_ = key_id(world.member.secrets_key)
    assert shown == [
        {"name": "h1", "state": "ok", "place": "file", "key_id": id_, "hsm": "", "fault": ""},
        {
            "name": "h2",
            "state": "ok",
            "place": "hsm",
            "key_id": id_,
            "hsm": "key k in token t",
            "fault": "",
        },
        {"name": "h3", "state": "no answer", "place": "", "key_id": "", "hsm": "", "fault": ""},
    ]


async def test_a_locked_host_has_its_certificate_signed_by_another(world):
    await all_in_hsms(world)
    world.hsms[THIRD_ID].broken = True
    world.start(THIRD_ID)
    asked = []

    class Others:
        async def call(self, host, path, question, answer, **_):
            asked.append((host.name, path))
            raise UnavailableError("not in this test")

    node = world.member.node_of(THIRD_ID, "h3")
    object.__setattr__(node, "mesh", Others())
    renewal = CertificateRenewal(node, secrets_key=world.hosts[THIRD_ID].keys, reload=list)
    with pytest.raises(UnavailableError, match="no member could sign"):
        await renewal._signed(make_request(THIRD_ID)[0])
    assert asked
    assert IssuedCertificate


async def test_an_agent_with_a_locked_key_answers_all_that_needs_no_secret(tmp_path):
    async with serving(tmp_path) as api:
        paths, hsm = api.member.node.paths, MemoryHsm()
        kept = KeySettings(keep="hsm", hsm=hsm.add("t", "k"))
        await Keyring(paths, kept, hsm).settle()
        status, shown = await api.call("GET", "/v1/secrets")
        assert status == 200
        (host,) = shown["hosts"]
        assert (host["state"], host["place"]) == ("fault", "hsm")
        assert host["fault"] == "the HSM has not opened it yet"
        status, _ = await api.call("GET", "/v1/vms")
        assert status == 200
        status, problem = await api.call("POST", "/v1/secrets/actions/rotate")
        assert (status, problem["code"]) == (503, "secrets-locked")
        assert "kvorum secrets status" in problem["detail"]


@pytest.mark.parametrize("seed", range(12))
async def test_no_key_is_lost_whatever_fails_while_hosts_move_in_and_out_of_hsms(seed, tmp_path):
    """Lost commits, crashes, HSMs that go and come, hosts that move; a majority could open everything with its HSMs."""
    rng = random.Random(seed)
    world = await three_hosts(tmp_path, rng=rng, chance=0.3)
    for number in range(80):
        host_id = rng.choice(IDS)
        match rng.randrange(10):
            case 0:
                world.start(host_id)
            case 1:
                world.off = set(rng.sample(IDS, rng.randrange(2)))
            case 2:
                world.leader = rng.choice(sorted(set(IDS) - world.off))
            case 3:
                world.hsms[host_id].broken = not world.hsms[host_id].broken
            case 4:
                move(world, host_id, token=f"t{number}")
                world.start(host_id)
            case 5:
                world.kept[host_id] = KeySettings(keep=rng.choice(["file", "as-it-is"]))
                world.start(host_id)
            case _ if host_id in world.off:
                continue
            case 6:
                await _tried(world.hosts[host_id].rotate)
            case _:
                await _tried(world.hosts[host_id].step)
        able = [h for h in IDS if await _could_open(world, h)]
        assert len(able) >= 2, f"seed {seed}, step {number}"
    world.off, world.chance = set(), 0.0
    for host_id in IDS:
        world.hsms[host_id].broken = False
        world.start(host_id)
    for _ in range(6):
        for host_id in IDS:
            await _tried(world.hosts[host_id].step)
    assert all(map(world.opens, IDS)), f"seed {seed}"
    if (record := world.record()) is not None:
        assert (record.next_key_id, record.former_key_id) == ("", "")
        assert isinstance(record, SecretsKey)


async def _could_open(world: World, host_id: str) -> bool:
    hsm = world.hsms[host_id]
    broken, hsm.broken = hsm.broken, False
    ring = Keyring(Paths(state=world.directory / host_id), hsm=hsm)
    try:
        await ring.settle()
        unseal(ring.keys(), "ca-key", world.member.mesh().sealed_ca_key)
    except (FatalError, SecretsLockedError):
        return False
    finally:
        hsm.broken = broken
    return True


async def _tried(what) -> None:
    try:
        await what()
    except (PlatformError, NotFoundError):
        return
