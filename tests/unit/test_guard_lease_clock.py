"""The holder's side of a lease: when it begins, ends, and what may start under it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ha.guard.lease_clock import LeaseClock, Phase, Refusal
from ha.guard.settings import Settings, SettingsFile, parse_settings, read_state, write_state

L = 12.0


def held(sent_s: float = 100.0, index: int = 50) -> LeaseClock:
    clock = LeaseClock(epoch_s=90.0)
    assert clock.renewed(sent_s=sent_s, lease_s=L, index=index, now_s=sent_s + 0.3)
    return clock


def refused(
    clock: LeaseClock, now_s: float, *, generation: int = 1, applied_index: int = 99
) -> str:
    with pytest.raises(Refusal) as caught:
        clock.grant(
            "vm", generation=generation, lease_bound=True, applied_index=applied_index, now_s=now_s
        )
    return caught.value.code


def test_lease_is_counted_from_the_sending_of_the_renewal() -> None:
    clock = held(sent_s=100.0)
    assert clock.remaining_s(100.3) == pytest.approx(11.7)
    assert not clock.is_over(111.9)
    assert clock.is_over(112.0)


def test_answers_that_come_out_of_order_never_shorten_the_lease() -> None:
    clock = held(sent_s=100.0)
    assert clock.renewed(sent_s=99.0, lease_s=L, index=49, now_s=101.0)
    assert (clock.deadline_s, clock.renewed_index) == (112.0, 50)


def test_answer_that_comes_after_the_deadline_saves_nobody() -> None:
    clock = held(sent_s=100.0)
    assert not clock.renewed(sent_s=111.0, lease_s=L, index=60, now_s=112.5)
    assert clock.is_over(112.5)


def test_renewal_whose_own_time_is_over_does_not_begin_a_lease() -> None:
    clock = LeaseClock(epoch_s=90.0)
    assert not clock.renewed(sent_s=95.0, lease_s=L, index=1, now_s=107.0)
    assert clock.phase is Phase.IDLE


def test_renewal_sent_before_the_kill_does_not_count_after_it() -> None:
    clock = held(sent_s=100.0)
    clock.end()
    assert not clock.renewed(sent_s=112.1, lease_s=L, index=61, now_s=112.2)
    clock.guests_gone(112.3)
    assert not clock.renewed(sent_s=112.2, lease_s=L, index=62, now_s=112.4)
    assert clock.renewed(sent_s=112.4, lease_s=L, index=63, now_s=112.6)
    assert clock.first_index == 63


def test_end_voids_bound_grants_and_keeps_local_ones() -> None:
    clock = held()
    clock.grant("bound", generation=1, lease_bound=True, applied_index=50, now_s=101.0)
    clock.grant("local", generation=1, lease_bound=False, applied_index=50, now_s=101.0)
    clock.end()
    assert list(clock.grants) == ["local"]
    assert clock.check("local", 1, 113.0).generation == 1
    assert clock.is_bound("bound") and clock.is_bound("unknown") and not clock.is_bound("local")


def test_watchdog_is_not_fed_between_the_end_and_the_proof_that_guests_are_gone() -> None:
    clock = held()
    assert clock.may_feed(101.0)
    assert not clock.may_feed(112.0)
    clock.end()
    assert not clock.may_feed(112.1)
    clock.guests_gone(112.2)
    assert clock.may_feed(112.3)


def test_grant_needs_more_than_half_of_the_lease() -> None:
    clock = held(sent_s=100.0)
    clock.grant("vm", generation=1, lease_bound=True, applied_index=50, now_s=105.9)
    assert refused(clock, 106.0) == "lease-old"
    with pytest.raises(Refusal, match="half"):
        clock.check("vm", 1, 106.0)
    assert refused(clock, 112.0) == "no-lease"
    assert refused(LeaseClock(epoch_s=0.0), 1.0) == "no-lease"


def test_grant_needs_an_agent_that_knows_the_log_up_to_the_first_renewal() -> None:
    clock = held(index=50)
    assert refused(clock, 101.0, applied_index=49) == "behind"


def test_grant_of_an_older_generation_is_refused_even_after_a_revoke() -> None:
    clock = held()
    clock.grant("vm", generation=5, lease_bound=True, applied_index=50, now_s=101.0)
    clock.revoke("vm")
    assert refused(clock, 101.0, generation=4) == "stale"
    clock.grant("vm", generation=5, lease_bound=True, applied_index=50, now_s=101.0)


def test_check_tells_another_generation_and_a_missing_grant() -> None:
    clock = held()
    clock.grant("vm", generation=5, lease_bound=True, applied_index=50, now_s=101.0)
    for vm_id, generation, code in (("vm", 6, "stale"), ("other", None, "not-granted")):
        with pytest.raises(Refusal) as caught:
            clock.check(vm_id, generation, 101.0)
        assert caught.value.code == code


def test_state_of_this_boot_is_taken_up_and_that_of_another_is_not(tmp_path: Path) -> None:
    clock = held()
    clock.grant("vm", generation=5, lease_bound=True, applied_index=50, now_s=101.0)
    path = str(tmp_path / "state.json")
    write_state(path, "boot-a", clock)
    assert read_state(path, "boot-a", 200.0) == clock
    assert read_state(path, "boot-b", 200.0) == LeaseClock(epoch_s=200.0)
    Path(path).write_text("{")
    assert read_state(path, "boot-a", 200.0) == LeaseClock(epoch_s=200.0)


def test_settings_are_reread_and_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "guard.json"
    file = SettingsFile(str(path))
    assert not file.reload() and file.settings is None
    path.write_text(
        '{"host_id": "h", "lease_s": 12, "watchdog_s": 6, "peers": [{"id": "p", "address": "10.0.0.2"}]}'
    )
    assert file.reload()
    settings: Settings | None = file.settings
    assert settings is not None and settings.peers[0].port == 7444 and settings.renew_s == 1.0
    assert not file.reload()
    path.write_text('{"host_id": "h"}')
    assert not file.reload() and file.settings == settings
    path.unlink()
    assert file.reload() and file.settings is None


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", '{"host_id": "", "lease_s": 12}', '{"host_id": "h", "lease_s": 0.5}', '{"host_id": "h", "lease_s": NaN}',
     '{"host_id": "h", "lease_s": 12, "watchdog_s": -1}', '{"host_id": "h", "lease_s": 12, "peers": [1]}'],
)  # fmt: skip
def test_unusable_settings_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"missing|within"):
        parse_settings(text)
