"""A host is removed while its own agent changes its record: that is no reason to refuse, unless the caller said so."""

import pytest
from msgspec.structs import replace

from core.errors import ConflictError
from core.model import Host
from nodeagent.services.host_service import remove_host
from tests.one_member import OTHER_ID, OneMember, founded


@pytest.fixture
async def member() -> OneMember:
    made = await founded()
    await made.add_host(OTHER_ID, "h2", "192.0.2.2")
    return made


def changes_first(member: OneMember, times: int) -> None:
    """Have the host's record changed right before each of the next transactions."""
    commit = member.engine.propose
    left = times

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        nonlocal left
        if left and (host := member.store.get(Host, OTHER_ID)) is not None:
            left -= 1
            member.engine.propose = commit
            await member.store.apply(puts=(replace(host, failure_domain=f"rack{left}"),))
            member.engine.propose = propose
        return await commit(payload, timeout_s=timeout_s)

    member.engine.propose = propose


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_a_host_is_removed_though_its_record_changes_meanwhile(member, times):
    changes_first(member, times)
    await remove_host(member.node, member.store.need(Host, OTHER_ID))
    assert member.store.get(Host, OTHER_ID) is None


async def test_a_host_that_shall_go_as_it_was_read_is_not_removed_when_it_has_changed(member):
    changes_first(member, 1)
    with pytest.raises(ConflictError, match="was changed by someone else"):
        await remove_host(member.node, member.store.need(Host, OTHER_ID), exactly=True)
    assert member.store.get(Host, OTHER_ID) is not None


async def test_a_host_that_never_stops_changing_is_told_of_after_a_number_of_tries(member):
    changes_first(member, 100)
    with pytest.raises(ConflictError, match="was changed by someone else"):
        await remove_host(member.node, member.store.need(Host, OTHER_ID))
