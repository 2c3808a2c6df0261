"""Changes since an index: for consumers that come back, as far as the hub remembers."""

import pytest

from raftstate.state.machine import Change
from raftstate.watch import EVERYTHING, Since, WatchHub


def change(index: int, *, puts: str = "", deletes: str = "") -> Change:
    return Change(index, frozenset(f"vm/{c}" for c in puts), frozenset(f"vm/{c}" for c in deletes))


def since(hub: WatchHub, index: int) -> tuple[int, str, str] | None:
    found = hub.since(index)
    if found is None:
        return None
    puts, deletes = (
        "".join(sorted(key.partition("/")[2] for key in keys))
        for keys in (found.puts, found.deletes)
    )
    return found.index, puts, deletes


@pytest.fixture
def hub() -> WatchHub:
    hub = WatchHub(10)
    hub.record(change(11, puts="ab"))
    hub.record(change(12))
    hub.record(change(13, puts="c", deletes="a"))
    hub.record(change(15, puts="a", deletes="b"))
    return hub


def test_changes_since_an_index_are_gathered_with_what_became_of_each_key(hub):
    assert since(hub, 10) == (15, "ac", "b")
    assert since(hub, 11) == (15, "ac", "b")
    assert since(hub, 12) == (15, "ac", "b")
    assert since(hub, 13) == (15, "a", "b")
    assert since(hub, 14) == (15, "a", "b")
    assert since(hub, 15) == (15, "", "")


def test_what_came_and_went_is_gone(hub):
    hub.record(change(16, deletes="a"))
    assert since(hub, 10) == (16, "c", "ab")
    assert since(hub, 15) == (16, "", "a")


def test_before_the_hub_began_nothing_is_known(hub):
    assert since(hub, 9) is None
    assert since(hub, 0) is None


def test_an_index_from_an_agent_that_is_ahead_is_kept(hub):
    assert since(hub, 99) == (99, "", "")


def test_an_entry_without_changes_moves_the_index_on(hub):
    hub.record(change(20))
    assert hub.since(15) == Since(20, frozenset(), frozenset())


def test_a_new_state_means_beginning_anew(hub):
    hub.record(Change(14, frozenset(), frozenset(), everything=True))
    assert hub.index == 14
    assert since(hub, 13) is None
    assert since(hub, 14) == (14, "", "")


def test_no_more_entries_are_kept_than_the_bound():
    hub = WatchHub(0, entries_kept=3)
    for index in range(1, 7):
        hub.record(change(index, puts=str(index)))
    assert since(hub, 2) is None
    assert since(hub, 3) == (6, "456", "")


def test_no_more_keys_are_kept_than_the_bound():
    hub = WatchHub(0, keys_kept=5)
    hub.record(change(1, puts="abc"))
    hub.record(change(2, puts="d", deletes="e"))
    assert since(hub, 0) == (2, "abcd", "e")
    hub.record(change(3, puts="f"))
    assert since(hub, 0) is None
    assert since(hub, 1) == (3, "df", "e")
    hub.record(change(4, puts="ghijklmn"))
    assert since(hub, 3) is None, "one entry larger than the bound isn't kept at all"
    assert since(hub, 4) == (4, "", "")


async def test_a_watch_of_all_kinds_hears_all(hub):
    every, some = hub.watch(None), hub.watch(frozenset({"disk"}))
    assert (await every.next(), await some.next()) == ({EVERYTHING}, {EVERYTHING})
    hub.record(Change(16, frozenset({"vm/a", "disk/b"}), frozenset({"plug-in/c"})))
    assert await every.next() == {"vm/a", "disk/b", "plug-in/c"}
    assert await some.next() == {"disk/b"}
