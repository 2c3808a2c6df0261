"""Who is waited for after all power was lost, and when so many hosts are lost that it is told."""

from __future__ import annotations

import pytest

from core.model import Host
from ha.cold_start import SETTLE_S, many_are_lost, waited_for
from ha.profile import PROFILES


def hosts(count: int, **changes: object) -> list[Host]:
    return [
        Host(id=f"h{n}", name=f"h{n}", cluster_id="c", address=f"h{n}", **changes)  # type: ignore[arg-type]
        for n in range(1, count + 1)
    ]


def missing(count: int, booted_s: dict[str, float], now_s: float) -> set[str]:
    return set(waited_for(hosts(count), booted_s, now_s))


def test_half_of_the_hosts_back_is_a_cold_start() -> None:
    assert missing(4, {"h1": 10.0}, 11.0) == set()
    assert missing(4, {"h1": 10.0, "h2": 12.0}, 12.0) == {"h3", "h4"}
    assert missing(3, {"h1": 10.0, "h2": 12.0}, 12.0) == {"h3"}
    assert missing(2, {"h1": 10.0}, 12.0) == {"h2"}


def test_the_minute_begins_with_the_first_and_no_later_boot_makes_it_longer() -> None:
    booted_s = {"h1": 10.0, "h2": 40.0, "h3": 69.0}
    assert missing(4, booted_s, 10.0 + SETTLE_S - 0.1) == {"h4"}
    assert missing(4, booted_s, 10.0 + SETTLE_S) == set()


def test_boots_of_long_ago_are_none_of_this_cold_start() -> None:
    booted_s = {"h1": 10.0, "h2": 100.0, "h3": 101.0}
    assert missing(4, booted_s, 105.0) == {"h1", "h4"}
    assert missing(3, {"h1": 10.0, "h2": 100.0}, 105.0) == set()


def test_witnesses_and_hosts_that_join_do_not_count() -> None:
    few = [*hosts(3), *(h for h in hosts(9, witness=True) if h.id > "h3")]
    assert waited_for(few, {"h1": 1.0, "h2": 1.0}, 2.0) == {"h3"}
    few = [*hosts(3), *(h for h in hosts(9, joining=True) if h.id > "h3")]
    assert waited_for(few, {"h1": 1.0, "h2": 1.0}, 2.0) == {"h3"}


@pytest.mark.parametrize(
    ("count", "ages_s", "many"),
    [
        (3, [14.0], False),
        (6, [14.0, 14.0], False),
        (6, [14.0, 14.0, 14.0], True),
        (5, [14.0, 72.0], True),
        (5, [14.0, 73.0], False),  # one was lost long before
        (5, [12.0, 14.0], False),  # one may come back yet
        (2, [14.0], False),
    ],
)
def test_many_are_more_than_a_third_within_a_minute(
    count: int, ages_s: list[float], many: bool
) -> None:
    by_id = {f"h{n}": age_s for n, age_s in enumerate(ages_s, start=1)}
    everybody = {host.id: host for host in hosts(count)}
    assert many_are_lost(everybody, by_id, PROFILES["default"], {}) is many
