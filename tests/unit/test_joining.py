"""Who is let in, who is not, and that a refusal changes nothing."""

import asyncio
import random

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from msgspec.structs import replace

from core.clock import new_id
from core.errors import (
    ConflictError,
    InvalidError,
    PlatformError,
    UnauthenticatedError,
    UnavailableError,
)
from core.identity.certificates import fingerprint, make_request
from core.identity.sealing import make_key, unseal
from core.model import AccessToken, Host, JoinToken, Lease, Mesh, SecretsKey
from nodeagent.identity.tokens import is_secret, parse_join_token
from nodeagent.joining.doorkeeper import ADDRESSES_IN_TOKEN_MAX, Doorkeeper, checked_address
from nodeagent.joining.messages import (
    CLOCK_DIFFERENCE_S_MAX,
    FEATURE_LEVEL,
    MEMBERS_TOLD_MAX,
    JoinCancel,
    JoinRequest,
)
from raftstate.consensus.engine import NodeId, Peer
from tests.one_member import ADMIN_TOKEN, HOST_ID, OTHER_ID, THIRD_ID, OneMember, founded
from tests.whole_states import dump_of

REQUEST_PEM = make_request("a-name-the-host-made-up")[0]


class Door:
    """A doorkeeper, one fresh token, and what a good new host would say."""

    def __init__(self, member: OneMember) -> None:
        self.member, self.store, self.clock = member, member.store, member.clock
        self.keeper = Doorkeeper(
            member.store,
            member.engine,
            clock=member.clock,
            rng=random.Random(5),
            secrets_key=lambda: member.secrets_key,
        )

    async def fresh_request(self, **fields) -> JoinRequest:
        (text,), _ = await self.keeper.make_tokens(1, 3600)
        ticket = parse_join_token(text)
        good = {
            "token_id": ticket.token_id,
            "secret_hex": ticket.secret.hex(),
            "host_id": OTHER_ID,
            "host_name": "h2",
            "address": "192.0.2.2",
            "request_pem": REQUEST_PEM,
            "version": "0.1.0",
            "feature_level": FEATURE_LEVEL,
            "clock_ms": self.clock.wall_ms(),
            "cpus": 4,
            "memory_mib": 4096,
            "arch": "x86_64",
        }
        return JoinRequest(**(good | fields))


@pytest.fixture
async def door() -> Door:
    return Door(await founded())


def cancel_of(request: JoinRequest, **fields) -> JoinCancel:
    about = {
        "token_id": request.token_id,
        "secret_hex": request.secret_hex,
        "host_id": request.host_id,
    }
    return JoinCancel(**(about | fields))


async def test_a_good_request_makes_a_member_and_uses_up_its_token(door):
    request = await door.fresh_request()
    answer = await door.keeper.admit(request)
    host = door.store.need(Host, OTHER_ID)
    assert (host.name, host.address, host.cpus, host.memory_mib) == ("h2", "192.0.2.2", 4, 4096)
    assert door.store.need(JoinToken, request.token_id).used_by_host_id == OTHER_ID
    assert [m.id for m in answer.members] == [HOST_ID]
    assert bytes.fromhex(answer.secrets_key_hex) == door.member.secrets_key
    assert answer.ca_pem == door.member.mesh().ca_pem
    assert host.cluster_id == door.store.need(Host, HOST_ID).cluster_id


async def test_the_certificate_is_made_out_to_the_host_id_whatever_the_request_says(door):
    answer = await door.keeper.admit(await door.fresh_request())
    certificate = x509.load_pem_x509_certificate(answer.certificate_pem.encode())
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == OTHER_ID
    certificate.verify_directly_issued_by(
        x509.load_pem_x509_certificate(door.member.mesh().ca_pem.encode())
    )


async def test_tokens_say_where_to_go_and_whom_to_trust(door):
    await door.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    texts, expires_ms = await door.keeper.make_tokens(3, 60)
    tickets = [parse_join_token(text) for text in texts]
    assert len({t.token_id for t in tickets}) == len({t.secret for t in tickets}) == 3
    assert tickets[0].ca_fingerprint == fingerprint(door.member.mesh().ca_pem)
    assert set(tickets[0].addresses) == {"192.0.2.1:7443", "192.0.2.2:7443"}
    assert expires_ms == door.clock.wall_ms() + 60_000
    for ticket in tickets:
        record = door.store.need(JoinToken, ticket.token_id)
        assert is_secret(ticket.secret, record.secret_sha256)
        assert ticket.secret.hex() not in repr(record)


@pytest.mark.parametrize(
    ("count", "ttl_s"), [(0, 60), (-1, 60), (101, 60), (1, 0), (1, -5), (1, 7 * 86_400 + 1)]
)
async def test_tokens_out_of_bounds_are_refused(door, count, ttl_s):
    digest = door.store.digest()
    with pytest.raises(InvalidError):
        await door.keeper.make_tokens(count, ttl_s)
    assert door.store.digest() == digest


U, I, C = UnauthenticatedError, InvalidError, ConflictError  # noqa: E741 - columns of the table
REFUSALS = {
    "unknown token": ({"token_id": THIRD_ID}, U, "not known here"),
    "wrong secret": ({"secret_hex": "00" * 32}, U, "not known here"),
    "empty secret": ({"secret_hex": ""}, U, "not known here"),
    "secret that is no hex": ({"secret_hex": "xyz"}, U, "not known here"),
    "secret that is not ASCII": ({"secret_hex": "ää"}, U, "not known here"),
    "older version": ({"feature_level": FEATURE_LEVEL - 1}, I, "versions do not fit"),
    "newer version": ({"feature_level": FEATURE_LEVEL + 1}, I, "versions do not fit"),
    "name with capitals": ({"host_name": "Web 1"}, I, "host name"),
    "empty name": ({"host_name": ""}, I, "host name"),
    "endless name": ({"host_name": "a" * 64}, I, "host name"),
    "name with a slash": ({"host_name": "a/../b"}, I, "host name"),
    "taken name": ({"host_name": "h1"}, C, "--host-name"),
    "taken address": ({"address": "192.0.2.1"}, C, "--address"),
    "IPv6 address": ({"address": "2001:db8::1"}, I, "IPv6"),
    "loopback address": ({"address": "127.0.0.1"}, I, "can't reach"),
    "any address": ({"address": "0.0.0.0"}, I, "can't reach"),
    "multicast address": ({"address": "224.0.0.1"}, I, "can't reach"),
    "link-local address": ({"address": "169.254.1.1"}, I, "can't reach"),
    "address that is a name": ({"address": "h2.example"}, I, "not an IP address"),
    "address with a port": ({"address": "192.0.2.2:7443"}, I, "not an IP address"),
    "host id of a clone": ({"host_id": HOST_ID}, C, "cloned"),
    "host id in capitals": ({"host_id": "AAAAAAAA-AAAA-4AAA-8AAA-AAAAAAAAAAAA"}, I, "UUID"),
    "host id without dashes": ({"host_id": OTHER_ID.replace("-", "")}, I, "UUID"),
    "host id as a URN": ({"host_id": f"urn:uuid:{OTHER_ID}"}, I, "UUID"),
    "host id that is a path": ({"host_id": "../../etc"}, I, "UUID"),
    "damaged signing request": ({"request_pem": REQUEST_PEM[:100]}, I, "signing request"),
}


@pytest.mark.parametrize("case", REFUSALS, ids=str)
async def test_a_refused_request_changes_nothing_and_its_token_stays_good(door, case):
    wrong, error, words = REFUSALS[case]
    good = await door.fresh_request()
    digest = door.store.digest()
    with pytest.raises(error, match=words):
        await door.keeper.admit(replace(good, **wrong))
    assert door.store.digest() == digest
    await door.keeper.admit(good)


@pytest.mark.parametrize("sign", [1, -1])
async def test_a_clock_that_is_off_is_refused_either_way_and_just_within_is_not(door, sign):
    limit_ms = CLOCK_DIFFERENCE_S_MAX * 1000
    request = await door.fresh_request()
    now_ms, digest = door.clock.wall_ms(), door.store.digest()
    with pytest.raises(InvalidError, match="clock differs by 301 s"):
        await door.keeper.admit(replace(request, clock_ms=now_ms + sign * (limit_ms + 1000)))
    assert door.store.digest() == digest
    await door.keeper.admit(replace(request, clock_ms=now_ms + sign * limit_ms))


async def test_a_token_joins_one_host(door):
    request = await door.fresh_request()
    await door.keeper.admit(request)
    digest = door.store.digest()
    again = replace(request, host_id=THIRD_ID, host_name="h3", address="192.0.2.3")
    with pytest.raises(UnauthenticatedError, match="used already"):
        await door.keeper.admit(again)
    assert door.store.digest() == digest


async def test_a_token_expires_to_the_millisecond(door):
    request = await door.fresh_request()
    token = door.store.need(JoinToken, request.token_id)
    door.clock.wall = token.expires_ms
    digest = door.store.digest()
    with pytest.raises(UnauthenticatedError, match="expired"):
        await door.keeper.admit(replace(request, clock_ms=door.clock.wall))
    assert door.store.digest() == digest
    door.clock.wall = token.expires_ms - 1
    await door.keeper.admit(replace(request, clock_ms=door.clock.wall))


async def test_a_revoked_token_is_unknown(door):
    request = await door.fresh_request()
    await door.store.apply(deletes=(door.store.need(JoinToken, request.token_id),))
    with pytest.raises(UnauthenticatedError, match="revoked"):
        await door.keeper.admit(request)
    assert door.store.get(Host, OTHER_ID) is None


async def test_a_large_mesh_names_only_some_of_its_members_and_voters_first(door):
    for number in range(MEMBERS_TOLD_MAX + 20):
        name = f"a{number}"
        await door.member.add_host(new_id(door.member.rng), name, f"198.51.100.{number}")
    request = await door.fresh_request()
    addresses = parse_join_token((await door.keeper.make_tokens(1, 60))[0][0]).addresses
    answer = await door.keeper.admit(request)
    assert door.store.need(Host, OTHER_ID)
    assert MEMBERS_TOLD_MAX <= len(answer.members) <= MEMBERS_TOLD_MAX + 1
    assert answer.members[0].id == HOST_ID, "the only voter, by name the last"
    assert addresses[0] == "192.0.2.1:7443"
    assert len(addresses) == ADDRESSES_IN_TOKEN_MAX


async def test_a_witness_is_recorded_as_one(door):
    await door.keeper.admit(await door.fresh_request(witness=True))
    assert door.store.need(Host, OTHER_ID).witness


async def test_without_quorum_nobody_is_let_in(door):
    request = await door.fresh_request()
    digest = door.store.digest()
    door.member.engine.available = False
    with pytest.raises(UnavailableError):
        await door.keeper.admit(request)
    door.member.engine.available = True
    assert door.store.digest() == digest


async def race(door: Door, *requests: JoinRequest) -> list[object]:
    """Let all of them pass the checks before the first is committed."""
    gate, commit = asyncio.Event(), door.member.engine.propose
    waiting = 0

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        nonlocal waiting
        waiting += 1
        if waiting == len(requests):
            gate.set()
        await gate.wait()
        return await commit(payload, timeout_s=timeout_s)

    door.member.engine.propose = propose
    async with asyncio.timeout(5):
        return await asyncio.gather(
            *(door.keeper.admit(request) for request in requests), return_exceptions=True
        )


async def test_of_two_hosts_racing_with_one_token_one_wins(door):
    first = await door.fresh_request()
    second = replace(first, host_id=THIRD_ID, host_name="h3", address="192.0.2.3")
    outcomes = await race(door, first, second)
    refused = [o for o in outcomes if isinstance(o, PlatformError)]
    assert len(refused) == 1 and isinstance(refused[0], ConflictError)
    assert len(door.store.all(Host)) == 2
    winner = door.store.need(JoinToken, first.token_id).used_by_host_id
    assert door.store.need(Host, winner)


@pytest.mark.parametrize("same", [{"host_name": "h2"}, {"address": "192.0.2.2"}])
async def test_of_two_hosts_racing_for_one_name_or_address_one_wins(door, same):
    first = await door.fresh_request()
    other = {"host_id": THIRD_ID, "host_name": "h3", "address": "192.0.2.3"} | same
    second = await door.fresh_request(**other)
    outcomes = await race(door, first, second)
    assert sum(isinstance(o, ConflictError) for o in outcomes) == 1
    assert len(door.store.all(Host)) == 2
    free = [t for t in door.store.all(JoinToken) if not t.used_by_host_id]
    assert len(free) == 1, "the loser's token is still good"


async def test_a_host_that_gives_up_frees_name_address_and_token(door):
    request = await door.fresh_request()
    await door.keeper.admit(request)
    await door.member.renew(OTHER_ID)
    await door.keeper.forget(cancel_of(request))
    assert door.store.get(Host, OTHER_ID) is None
    assert door.store.get(Lease, OTHER_ID) is None
    await door.keeper.admit(replace(request, host_id=THIRD_ID))
    assert door.store.need(Host, THIRD_ID).address == "192.0.2.2"


async def test_giving_up_twice_or_for_nothing_changes_nothing(door):
    request = await door.fresh_request()
    digest = door.store.digest()
    await door.keeper.forget(cancel_of(request))
    assert door.store.digest() == digest
    await door.keeper.admit(request)
    await door.keeper.forget(cancel_of(request))
    digest = door.store.digest()
    await door.keeper.forget(cancel_of(request))
    assert door.store.digest() == digest


async def test_a_host_that_was_removed_cannot_make_its_token_good_again(door):
    request = await door.fresh_request()
    await door.keeper.admit(request)
    await door.store.apply(deletes=(door.store.need(Host, OTHER_ID),))
    await door.keeper.forget(cancel_of(request))
    with pytest.raises(UnauthenticatedError, match="used already"):
        await door.keeper.admit(request)
    assert door.store.get(Host, OTHER_ID) is None


async def test_nobody_joins_while_the_secrets_key_is_being_handed_out(door):
    request = await door.fresh_request()
    record = SecretsKey(id="secrets-key", name="secrets-key", key_id="aa", next_key_id="bb")
    await door.store.apply(puts=(record,))
    with pytest.raises(ConflictError, match="join again in a minute"):
        await door.keeper.admit(request)
    present = door.store.need(SecretsKey, "secrets-key")
    await door.store.apply(puts=(replace(present, key_id="bb", next_key_id=""),))
    await door.keeper.admit(request)


async def test_a_new_host_is_given_the_key_that_opens_the_state(door):
    """Whichever of its keys the member still has in use itself."""
    key = door.member.secrets_key
    keeper = Doorkeeper(
        door.store,
        door.member.engine,
        clock=door.clock,
        rng=random.Random(5),
        secrets_key=lambda: (make_key(), key, make_key()),
    )
    answer = await keeper.admit(await door.fresh_request())
    assert answer.secrets_key_hex == key.hex()


async def test_nobody_gives_up_for_another(door):
    request = await door.fresh_request()
    await door.keeper.admit(request)
    digest = door.store.digest()
    with pytest.raises(UnauthenticatedError):
        await door.keeper.forget(cancel_of(request, secret_hex="00" * 32))
    await door.keeper.forget(cancel_of(request, host_id=HOST_ID))
    assert door.store.digest() == digest
    assert door.store.need(Host, HOST_ID)


async def test_a_voter_does_not_give_up(door):
    request = await door.fresh_request()
    await door.keeper.admit(request)
    voters = (*door.member.engine.voters(), Peer(NodeId(OTHER_ID), "192.0.2.2:7444"))
    door.member.engine.voters = lambda: voters
    digest = door.store.digest()
    with pytest.raises(ConflictError, match="member already"):
        await door.keeper.forget(cancel_of(request))
    assert door.store.digest() == digest


async def test_a_host_that_never_came_in_joins_again_with_its_token(door):
    request = await door.fresh_request()
    await door.keeper.admit(request)
    again = replace(request, host_id=THIRD_ID)
    await door.keeper.admit(again)
    assert door.store.get(Host, OTHER_ID) is None
    assert door.store.need(Host, THIRD_ID).name == "h2"


async def test_a_host_that_is_in_can_neither_give_up_nor_be_replaced_by_its_token(door):
    request = await door.fresh_request()
    await door.keeper.admit(request)
    host = door.store.need(Host, OTHER_ID)
    assert host.joining
    await door.store.apply(puts=(replace(host, joining=False),))
    digest = door.store.digest()
    with pytest.raises(ConflictError, match="member already"):
        await door.keeper.forget(cancel_of(request))
    with pytest.raises(UnauthenticatedError, match="used already"):
        await door.keeper.admit(replace(request, host_id=THIRD_ID))
    assert door.store.digest() == digest


async def test_once_the_level_was_raised_older_hosts_stay_out(door):
    mesh = door.member.mesh()
    request = await door.fresh_request()
    await door.store.apply(puts=(replace(mesh, feature_level=FEATURE_LEVEL + 1),))
    with pytest.raises(InvalidError, match="versions do not fit"):
        await door.keeper.admit(request)


def test_an_address_comes_back_in_its_one_form():
    assert checked_address("10.0.0.5") == "10.0.0.5"
    for wrong in ("010.0.0.5", " 10.0.0.5", "10.0.0.5/24", "10.5", "", "::1"):
        with pytest.raises(InvalidError):
            checked_address(wrong)


# -- founding


async def test_a_new_cluster_keeps_its_secrets_sealed_and_only_a_hash_of_its_token(door):
    mesh = door.store.all(Mesh)[0]
    key = door.member.secrets_key
    authority_key = unseal(key, "ca-key", mesh.sealed_ca_key)
    assert authority_key.startswith(b"-----BEGIN PRIVATE KEY")
    assert unseal(key, "gossip-key", mesh.sealed_gossip_key) == bytes(32)
    dump = dump_of(door.member.machine)
    for secret in (authority_key.splitlines()[1], key, ADMIN_TOKEN.encode()):
        assert secret not in dump
    (token,) = door.store.all(AccessToken)
    assert is_secret(ADMIN_TOKEN, token.secret_sha256)


async def test_a_cluster_is_founded_once_in_a_state(door):
    with pytest.raises(ConflictError):
        await door.member.found()
