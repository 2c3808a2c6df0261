"""Looking at storages that may hang, and one look for all who ask."""

import asyncio
import errno
import os
import threading

import pytest

from core.errors import PermanentError, TemporaryError, UnavailableError
from core.model import DataStorage, DataStorageKind, Host
from nodeagent.services.self_look import PEERS_MAX, PING_PATH, SelfLook
from nodeagent.services.shared_look import SharedLook
from nodeagent.services.storage_checks import StorageChecks
from raftstate.consensus.engine import NodeId, Peer
from storage.directory_driver import LocalDriver, SharedDriver
from storage.memory_driver import MemoryDriver
from tests.many_hosts import ManyHosts, id_of
from tests.one_member import HOST_ID, NOW_MS, until

IDS = {name: f"{n}" * 8 + "-4444-4444-8444-444444444444" for n, name in enumerate("abc", 5)}


def storage(name: str = "a") -> DataStorage:
    return DataStorage(
        id=IDS[name], name=name, data_center_id="dc", kind=DataStorageKind.LOCAL, path="/unused"
    )


class Hanging(LocalDriver):
    """A directory whose server is gone until `back` is set."""

    def __init__(self, path) -> None:
        super().__init__(IDS["a"], path, host_id=HOST_ID)
        self.back = threading.Event()
        self.touched = 0

    def check(self) -> None:
        self.touched += 1
        self.back.wait(20)
        super().check()


async def test_a_storage_that_hangs_is_told_in_time_and_has_one_thread_until_it_is_back(tmp_path):
    driver = Hanging(tmp_path)
    checks = StorageChecks(lambda _: driver, timeout_s=0.05)
    for _ in range(3):
        async with asyncio.timeout(5):
            (seen,) = await checks.look([storage()])
        assert (seen.name, seen.usable) == ("a", False)
        assert "has not answered for" in seen.why
    assert driver.touched == 1
    driver.back.set()

    async def usable() -> bool:
        return (await checks.look([storage()]))[0].usable

    async with asyncio.timeout(10):
        while not await usable():
            await asyncio.sleep(0.01)
    assert list(tmp_path.glob("*.*")) == []  # what was written is gone


async def test_one_that_hangs_holds_up_no_other(tmp_path):
    drivers = {"a": Hanging(tmp_path / "a"), "b": MemoryDriver(IDS["b"])}
    checks = StorageChecks(lambda it: drivers[it.name], timeout_s=0.2)
    seen = await checks.look([storage("a"), storage("b")])
    assert [(it.name, it.usable) for it in seen] == [("a", False), ("b", True)]
    drivers["a"].back.set()


async def test_what_is_wrong_with_a_storage_is_said_in_words(tmp_path):
    async def why(driver) -> str:
        def driver_of(_: DataStorage):
            if isinstance(driver, Exception):
                raise driver
            return driver

        (seen,) = await StorageChecks(driver_of).look([storage()])
        assert seen.usable == (not seen.why)
        return seen.why

    assert await why(LocalDriver(IDS["a"], tmp_path / "new", host_id=HOST_ID)) == ""
    assert "not mounted" in await why(SharedDriver(IDS["a"], tmp_path, host_id=HOST_ID))
    (tmp_path / "file").write_text("")
    assert await why(LocalDriver(IDS["a"], tmp_path / "file" / "x", host_id=HOST_ID))
    assert await why(PermanentError("no such driver")) == "no such driver"
    gone = MemoryDriver(IDS["a"])
    gone.mounted = False
    assert await why(gone)


async def test_a_full_storage_is_told_from_one_that_is_away(tmp_path):
    class Failing(LocalDriver):
        def check(self) -> None:
            raise OSError(self.number, os.strerror(self.number))

    driver = Failing(IDS["a"], tmp_path, host_id=HOST_ID)
    checks = StorageChecks(lambda _: driver)
    for driver.number, full in ((errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)):
        (seen,) = await checks.look_at([storage()], timeout_s=1)
        assert (seen.usable, seen.full) == (False, full)


async def test_a_marked_shared_storage_is_usable_and_that_of_another_is_not(tmp_path):
    await SharedDriver(IDS["a"], tmp_path, host_id=HOST_ID).create_storage()
    SharedDriver(IDS["a"], tmp_path, host_id=HOST_ID).check()
    with pytest.raises(PermanentError, match="instead of"):
        SharedDriver(IDS["b"], tmp_path, host_id=HOST_ID).check()


async def test_the_thread_of_a_deleted_storage_ends(tmp_path):
    checks = StorageChecks(lambda it: LocalDriver(it.id, tmp_path / it.name, host_id=HOST_ID))

    def threads() -> set[str]:
        return {t.name for t in threading.enumerate() if t.name.startswith("check-")}

    before = threads()
    await checks.look([storage("b"), storage("c")])
    assert len(threads() - before) == 2
    await checks.look([storage("c")])
    await until(lambda: len(threads() - before) == 1)
    await checks.look([])
    await until(lambda: threads() == before)


# -- whom a host pings


class Pinged:
    """A mesh on which h2 is silent and all others answer."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def call(self, host, path, body, answer, *, timeout_s):
        del body, timeout_s
        assert path == PING_PATH
        self.names.append(host.name)
        if host.name == "h2":
            raise UnavailableError("host h2 does not answer: no route")
        return answer(wall_ms=NOW_MS)


async def test_in_a_large_cluster_a_host_pings_the_voters_and_some_others_and_not_itself():
    many = ManyHosts()
    await many.found()
    for number in range(2, 40):
        await many.add_host(
            f"{number:08}-1111-4111-8111-111111111111", f"h{number}", f"10.0.0.{number}"
        )
    voter = NodeId(many.store.find(Host, "h30").id)
    many.engine.peers[voter] = Peer(voter, "10.0.0.30:7444")
    mesh = many.mesh_client = Pinged()
    report = await SelfLook(many.node_of(HOST_ID, "h1"), StorageChecks(no_driver)).report()
    assert len(report.peers) == len(set(mesh.names)) == PEERS_MAX
    assert report.peers[0].host_id == voter and "h1" not in mesh.names


async def test_a_silent_peer_is_told_with_its_reason_and_a_joining_one_is_not_asked():
    many = ManyHosts()
    await many.found()
    await many.join(2, 3)
    await many.join(4, joining=True)
    many.mesh_client = Pinged()
    report = await SelfLook(many.node_of(HOST_ID, "h1"), StorageChecks(no_driver)).report()
    seen = {peer.host_id: (peer.round_trip_ms is None, peer.why) for peer in report.peers}
    assert seen == {id_of(2): (True, "no route"), id_of(3): (False, "")}
    assert report.storages[0].why == "no driver of a test"


def no_driver(storage: DataStorage):
    raise PermanentError("no driver of a test")


# -- one look for all


async def test_all_who_ask_meanwhile_get_one_look_and_its_result_is_good_for_a_moment():
    looks = []
    go = asyncio.Event()

    async def look() -> int:
        looks.append(1)
        await go.wait()
        return len(looks)

    shared = SharedLook(look, kept_s=0.2)
    async with asyncio.TaskGroup() as group:
        askers = [group.create_task(shared.get(), name="asks") for _ in range(5)]
        await asyncio.sleep(0.01)
        go.set()
    assert [asker.result() for asker in askers] == [1] * 5
    assert await shared.get() == 1
    await asyncio.sleep(0.25)
    assert await shared.get() == 2


async def test_a_look_that_is_broken_off_is_told_to_those_who_wait_and_the_next_looks_anew():
    go = asyncio.Event()

    async def look() -> str:
        await go.wait()
        return "seen"

    shared = SharedLook(look, kept_s=1.0)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(shared.get(), name="first")
        await asyncio.sleep(0.01)
        waiting = group.create_task(_outcome(shared), name="waits")
        await asyncio.sleep(0.01)
        first.cancel()
    assert isinstance(waiting.result(), UnavailableError)
    go.set()
    assert await shared.get() == "seen"


async def _outcome(shared):
    try:
        return await shared.get()
    except (UnavailableError, TemporaryError) as error:
        return error
