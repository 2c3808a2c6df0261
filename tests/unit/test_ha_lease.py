"""Leases at the side that grants them: batching of renewals, refusals, and the judge's stamps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
from msgspec.structs import replace

from core.errors import ConflictError, NotFoundError, PlatformError, UnavailableError
from core.model import Host, HostState, Lease, Mesh
from ha.lease import LeaseBatcher, LeaseJudge, Renewal, check_renewal, lease_of
from ha.profile import profile_in
from ha.proofs import Proof, silence_of


def host(name: str = "h1", state: HostState = HostState.MEMBER) -> Host:
    return Host(id=name, name=name, cluster_id="c", address=name, state=state)


def renewal(name: str = "h1", boot: str = "b1", seq: int = 1, guests: int = -1) -> Renewal:
    return Renewal(host_id=name, boot_id=boot, seq=seq, watchdog_armed=True, guests=guests)


def said(renewal: Renewal, lease_s: float) -> Renewal:
    return replace(renewal, lease_s=lease_s, watchdog_s=6.0)


class Committer:
    """A store that commits renewals, slowly if told so, and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[tuple[Renewal, ...]] = []
        self.leases: dict[str, Lease] = {}
        self.hosts = {name: host(name) for name in ("h1", "h2", "h3")}
        self.ages_s: dict[str, float] = {}
        self.hold = asyncio.Event()
        self.hold.set()
        self.error: UnavailableError | None = None

    async def __call__(self, renewals: tuple[Renewal, ...]) -> int:
        self.batches.append(renewals)
        await self.hold.wait()
        if self.error is not None:
            raise self.error
        self.leases |= {found.host_id: lease_of(found) for found in renewals}
        return 100 + len(self.batches)


@asynccontextmanager
async def running(store: Committer, *, commit_s: float = 5.0) -> AsyncIterator[LeaseBatcher]:
    batcher = LeaseBatcher(
        commit=store,
        host_of=store.hosts.get,
        lease_of_host=store.leases.get,
        age_s_of=store.ages_s.get,
        batch_s=0.05,
        commit_s=commit_s,
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(batcher.run(), name="batcher")
        yield batcher
        task.cancel()


async def gather(*calls: Awaitable[int]) -> list[int]:
    return await asyncio.gather(*calls)


async def test_first_renewal_is_committed_at_once_and_those_that_come_meanwhile_together() -> None:
    store = Committer()
    store.hold.clear()
    async with running(store) as batcher, asyncio.TaskGroup() as group:
        first = group.create_task(batcher.renew(renewal("h1")), name="first")
        while not store.batches:
            await asyncio.sleep(0)
        others = [
            group.create_task(batcher.renew(renewal(name)), name=name) for name in ("h2", "h3")
        ]
        await asyncio.sleep(0.01)
        store.hold.set()
        assert [await first, *[await other for other in others]] == [101, 102, 102]
    assert [len(batch) for batch in store.batches] == [1, 2]


async def test_two_renewals_of_one_host_become_one_with_the_newer_number() -> None:
    store = Committer()
    async with running(store) as batcher:
        assert await gather(batcher.renew(renewal(seq=8)), batcher.renew(renewal(seq=7))) == [
            101,
            101,
        ]
    assert store.batches == [(renewal(seq=8),)]


@pytest.mark.parametrize(
    ("meanwhile", "error", "says"),
    [
        (host("h2", HostState.FENCED), ConflictError, "is fenced"),
        (host("h2", HostState.FENCING), ConflictError, "is fenced"),
        (None, NotFoundError, "not a member"),
    ],
    ids=["fenced", "fencing", "removed"],
)
async def test_host_that_loses_its_place_while_its_renewal_waits_is_refused_and_the_others_go_on(
    meanwhile: Host | None, error: type[PlatformError], says: str
) -> None:
    store = Committer()
    store.hold.clear()

    async def be_refused(batcher: LeaseBatcher) -> None:
        with pytest.raises(error, match=says):
            await batcher.renew(renewal("h2", guests=3))

    async with running(store) as batcher, asyncio.TaskGroup() as group:
        first = group.create_task(batcher.renew(renewal("h1")), name="first")
        while not store.batches:
            await asyncio.sleep(0)
        group.create_task(be_refused(batcher), name="lost")
        other = group.create_task(batcher.renew(renewal("h3")), name="other")
        await asyncio.sleep(0)  # both are let in
        del store.hosts["h2"]
        if meanwhile is not None:
            store.hosts["h2"] = meanwhile
        store.hold.set()
        assert [await first, await other] == [101, 102]
    assert [[one.host_id for one in batch] for batch in store.batches] == [["h1"], ["h3"]]
    assert "h2" not in store.leases


async def test_failed_commit_renews_nobody() -> None:
    store = Committer()
    store.error = UnavailableError("no quorum")
    async with running(store) as batcher:
        with pytest.raises(UnavailableError, match="no quorum"):
            await batcher.renew(renewal())
        store.error = None
        assert await batcher.renew(renewal(seq=2)) == 102


async def test_commit_that_hangs_is_given_up_and_the_next_one_tried() -> None:
    store = Committer()
    store.hold.clear()
    async with running(store, commit_s=0.05) as batcher:
        with pytest.raises(UnavailableError, match="too long"):
            await batcher.renew(renewal())
        store.hold.set()
        assert await batcher.renew(renewal(seq=2)) == 102


async def test_stranger_is_refused() -> None:
    async with running(Committer()) as batcher:
        with pytest.raises(NotFoundError, match="not a member"):
            await batcher.renew(renewal("stranger"))


async def test_reboot_is_accepted_once_the_former_boot_is_silent_and_that_one_never_again() -> None:
    store = Committer()
    store.leases["h1"] = lease_of(renewal(boot="b1"))
    store.ages_s["h1"] = 1.0
    async with running(store) as batcher:
        with pytest.raises(ConflictError) as caught:
            await batcher.renew(renewal(boot="b2"))
        assert caught.value.code == "two-boots"
        store.ages_s["h1"] = 3.5
        assert await batcher.renew(renewal(boot="b2")) == 101
        with pytest.raises(ConflictError) as caught:
            await batcher.renew(renewal(boot="b1"))
        assert caught.value.code == "former-boot"


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        (renewal(guests=1), False),
        (renewal(guests=-1), False),
        (renewal(guests=0), True),
        (renewal(boot="b2", guests=3), True),
    ],
)
@pytest.mark.parametrize("state", [HostState.FENCING, HostState.FENCED])
def test_fenced_host_renews_only_when_its_guests_are_gone(
    asked: Renewal, allowed: bool, state: HostState
) -> None:
    lease, fenced = lease_of(renewal(boot="b1")), host(state=state)
    check_renewal(asked, host(), lease)
    if allowed:
        check_renewal(asked, fenced, lease)
    else:
        with pytest.raises(ConflictError) as caught:
            check_renewal(asked, fenced, lease)
        assert caught.value.code == "fenced"


def test_fenced_host_that_never_renewed_must_show_that_nothing_runs() -> None:
    with pytest.raises(ConflictError):
        check_renewal(renewal(guests=2), host(state=HostState.FENCED), None)
    check_renewal(renewal(guests=0), host(state=HostState.FENCED), None)


class HandClock:
    """A clock that a test moves."""

    now_s = 500.0

    def monotonic_s(self) -> float:
        return self.now_s

    boottime_s: Callable[[HandClock], float] = monotonic_s

    def wall_ms(self) -> int:
        raise AssertionError("wall time decides nothing")


def lease(revision: int) -> Lease:
    return msgspec.structs.replace(lease_of(renewal()), revision=revision)


def test_judge_counts_from_the_moment_a_renewal_was_applied() -> None:
    clock = HandClock()
    judge = LeaseJudge(clock)
    assert judge.age_s("h1") is None
    judge.applied(lease(5))
    clock.now_s += 7
    assert judge.age_s("h1") == 7
    judge.applied(lease(6))
    assert judge.age_s("h1") == 0
    clock.now_s += 1
    judge.applied(lease(6))  # the same one seen again is no renewal
    assert judge.age_s("h1") == 1
    judge.removed("h1")
    assert judge.age_s("h1") is None


def test_judge_that_begins_anew_takes_all_leases_as_renewed_now() -> None:
    clock = HandClock()
    judge = LeaseJudge(clock)
    judge.applied(lease(5))
    clock.now_s += 100
    judge.reset((lease(5),))
    assert judge.age_s("h1") == 0
    assert judge.stamps_s() == {"h1": 600.0}


def test_the_judge_knows_who_came_with_another_boot_and_when() -> None:
    clock = HandClock()
    judge = LeaseJudge(clock)
    leases = [lease_of(renewal(name, "b1")) for name in ("h1", "h2", "h3")]
    judge.reset(leases)
    assert judge.booted_s() == {}, "nobody is known to have booted when the agent starts"
    clock.now_s += 5
    judge.applied(msgspec.structs.replace(leases[0], revision=7))
    judge.applied(msgspec.structs.replace(leases[1], revision=8, boot_id="b2"))
    assert judge.booted_s() == {"h2": clock.monotonic_s()}
    booted_s = judge.booted_s()["h2"]
    clock.now_s += 5
    judge.applied(msgspec.structs.replace(leases[1], revision=9, boot_id="b2"))
    judge.reset([msgspec.structs.replace(leases[2], revision=10, boot_id="b3")])
    assert judge.booted_s() == {"h2": booted_s, "h3": clock.monotonic_s()}
    judge.removed("h2")
    assert judge.booted_s().keys() == {"h3"}


def test_a_renewal_of_older_terms_that_comes_late_is_refused_and_the_count_never_falls() -> None:
    first = said(renewal(seq=5), 12.0)
    longer = said(renewal(seq=6), 30.0)
    again = said(renewal(seq=4), 30.0)
    lease = lease_of(longer, lease_of(first))
    check_renewal(again, host(), lease)
    assert lease_of(again, lease).seq == 6
    with pytest.raises(ConflictError) as refused:
        check_renewal(first, host(), lease_of(again, lease))
    assert refused.value.code == "overtaken"


def test_a_host_is_judged_by_what_its_guard_said() -> None:
    mesh = Mesh(
        id="mesh",
        name="m",
        ca_pem="",
        sealed_ca_key=b"",
        sealed_gossip_key=b"",
        ha_profile="moonshot",
        ha_profiles_before=("wide",),
    )
    profile = profile_in(mesh)
    lease = Lease(id="h1", name="h1", boot_id="b", seq=1, watchdog_armed=True)
    told = replace(lease, lease_s=12.0, watchdog_s=6.0)
    assert profile.safe_s == 12.5
    assert profile.of(told).safe_s == 19.0
    assert profile.of(lease).safe_s == 42.0, "it doesn't say: the longest that it may have learnt"
    assert silence_of(profile, host(), told, 18.9) is None
    assert silence_of(profile, host(), told, 19.0) is Proof.TIME
    assert silence_of(profile, host(), replace(told, disarmed=True), 1000.0) is None


def test_a_disarmed_guards_renewal_that_lost_what_it_said_on_the_way_is_refused() -> None:
    told = replace(said(renewal(seq=5), 12.0), disarmed=True)
    with pytest.raises(ConflictError) as refused:
        check_renewal(renewal(seq=6), host(), lease_of(told))
    assert refused.value.code == "overtaken"
    check_renewal(renewal(seq=6), host(), lease_of(said(renewal(seq=5), 12.0)))
    check_renewal(renewal(boot="b2", seq=1), host(), lease_of(told))
