"""The failure matrix without a lab: how rows are judged, numbers computed, tables written, sightings read."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from core.errors import InvalidError
from tools.ha_matrix.__main__ import chosen
from tools.ha_matrix.ground import Ground
from tools.ha_matrix.numbers import TARGETS, numbers, percentile
from tools.ha_matrix.probe import longest_gap
from tools.ha_matrix.report import Machine, Report, table, write
from tools.ha_matrix.rows import ROWS
from tools.ha_matrix.rows.room import check_memory, figures_of, overcommit_for, real_of
from tools.ha_matrix.run import in_order
from tools.ha_matrix.shapes import ORDER
from tools.ha_matrix.sightings import gone_at_s, last_began_s, ran_at_s, runs_of
from tools.ha_matrix.verdict import Missed, Result, Row, Seen, Verdict, Watch, judge, not_run
from tools.lab.observer import Holder, Sighting

DESIGNED = set(range(1, 36))
LOOKED = Watch(samples=100, gap_s=0.1)


async def nothing(ground: Ground) -> Seen:
    return Seen("seen")


def row(bound_s: float | None = 21.0, *, trusted: bool = False, number: int = 1) -> Row:
    return Row(number, "a fault", "it runs", bound_s, play=nothing, trusted=trusted)


# ---------------------------------------------------------------- verdicts


def test_a_row_within_its_bound_passes_and_one_beyond_it_fails() -> None:
    assert judge(row(), Seen("seen", 20.99), LOOKED).verdict is Verdict.PASS
    late = judge(row(), Seen("seen", 21.01), LOOKED)
    assert late.verdict is Verdict.FAIL
    assert late.reason.startswith("21.01 s is more than 21 s")


def test_a_double_writer_fails_a_row_whatever_else_was_seen() -> None:
    watch = Watch("d.qcow2 open in two", samples=100)
    result = judge(row(), Seen("seen", 5.0), watch)
    assert result.verdict is Verdict.FAIL
    assert "d.qcow2 open in two" in result.reason


def test_two_writers_are_allowed_only_where_the_fault_breaks_what_is_trusted() -> None:
    watch = Watch("two", samples=9)
    assert judge(row(None, trusted=True), Seen("seen"), watch).verdict is Verdict.PASS
    assert judge(row(None), Seen("seen"), watch).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("outcome", "watch"),
    [("not seen within 60 s", LOOKED), (Seen("seen", 5.0), Watch()), (Seen("seen"), LOOKED)],
    ids=["missed", "the observer never looked", "nothing measured"],
)
def test_what_was_not_seen_is_never_a_pass(outcome: Seen | str, watch: Watch) -> None:
    assert judge(row(), outcome, watch).verdict is Verdict.FAIL


def test_a_row_that_was_not_played_says_why_and_has_no_figures() -> None:
    result = not_run(row(), "no such storage here")
    assert (result.verdict, result.reason) == (Verdict.NOT_RUN, "no such storage here")
    assert result.measured_s is None
    assert result.figures == {}


# ---------------------------------------------------------------- rows


def test_every_row_of_the_design_is_there_and_plays_or_says_why_not() -> None:
    assert {it.number for it in ROWS} == DESIGNED
    assert len({(it.number, it.variant) for it in ROWS}) == len(ROWS)
    for it in ROWS:
        assert it.play is not None or it.why_not, it.title
        assert it.shape in ORDER, it.title


def test_rows_are_chosen_by_number_with_all_their_variants() -> None:
    assert {it.title for it in chosen("7, 2")} == {"2", "7 (in)", "7 (out)"}
    assert chosen("") == ROWS
    with pytest.raises(InvalidError, match="no row 99"):
        chosen("1,99")


def test_rows_that_need_the_same_ground_follow_each_other_and_spoilers_come_last() -> None:
    ordered = in_order(ROWS)
    shapes = [it.shape for it in ordered]
    assert len({*shapes}) == sum(a != b for a, b in zip(shapes, [None, *shapes], strict=False))
    for shape in {*shapes}:
        spoils = [it.spoils for it in ordered if it.shape == shape]
        assert spoils == sorted(spoils)


# ---------------------------------------------------------------- numbers


def result_of(number: int, figures: dict[str, float], variant: str = "") -> Result:
    return Result(
        row=number,
        variant=variant,
        fault="",
        expected="",
        bound_s=None,
        measured_s=None,
        verdict=Verdict.PASS,
        reason="",
        figures=figures,
    )


def test_numbers_are_met_missed_or_unknown_but_never_guessed() -> None:
    found = {
        (it.name.split(",")[-1].strip(), it.row): it
        for it in numbers(
            [
                result_of(1, {"runs_again_s": 20.0}),
                result_of(1, {"runs_again_s": 14.0}, "moonshot profile"),
                not_run(row(number=13), "no power"),
            ]
        )
    }
    assert len(found) == len(TARGETS)
    assert found["default profile", "1"].met is True
    assert found["moonshot profile", "1 (moonshot profile)"].met is False
    cold = next(it for it in found.values() if it.row == "13")
    assert (cold.met, cold.measured, cold.why) == (None, None, "not run: no power")
    p95 = next(it for it in found.values() if it.row == "30")
    assert (p95.met, p95.why) == (None, "its row was not chosen")


def test_every_number_is_measured_by_a_row_that_exists() -> None:
    known = {(it.number, it.variant) for it in ROWS}
    assert {(it.row, it.variant) for it in TARGETS} <= known


def test_only_a_hundred_vms_measure_what_is_promised_of_a_hundred() -> None:
    run_s = [float(n) for n in range(1, 101)]
    found = figures_of(run_s, [40.0, 60.0])
    assert (found["p95_s"], found["first_s"], found["last_s"]) == (95.0, 1.0, 100.0)
    assert (found["vms"], found["real_guests"]) == (100.0, 2.0)
    assert found["real_guests_write_again_s"] == 60.0, "of its own: no part of the p95"
    fewer = figures_of(run_s[:99], [40.0])
    assert "p95_s" not in fewer
    assert fewer["p95_of_fewer_s"] == 95.0
    target = next(it for it in TARGETS if it.row == 30)
    assert (target.figure, target.target) == ("p95_s", 30.0)


def test_one_vm_of_five_of_row_30_has_a_guest_that_boots() -> None:
    assert [real_of(count) for count in (1, 4, 10, 100)] == [1, 1, 2, 20]


def test_row_30_asks_for_the_over_commit_that_it_needs_and_never_for_less_than_usual() -> None:
    assert [overcommit_for(count, 2) for count in (10, 16, 17, 100)] == [8, 8, 9, 50]
    assert overcommit_for(100, 64) == 8
    with pytest.raises(Missed, match="100 virtual CPUs on a thread, 64 may be set"):
        overcommit_for(100, 1)


def test_row_30_says_at_once_when_its_vms_do_not_fit_on_a_host() -> None:
    check_memory(100, 13_632)
    with pytest.raises(Missed, match="100 VMs need a host with 13632 MiB, and it has 10074"):
        check_memory(100, 10_074)
    check_memory(70, 10_074)


def test_percentile_is_the_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert percentile(values, 0.95) == 95.0
    assert percentile([3.0], 0.95) == 3.0
    assert percentile([float(n) for n in range(1, 21)], 0.95) == 19.0


def test_the_longest_gap_counts_only_if_it_ended_after_the_fault() -> None:
    times = [0.0, 5.0, 5.1, 7.5, 7.6]
    assert longest_gap(times, 5.05) == pytest.approx((2.4, 7.5))
    assert longest_gap(times, 4.0) == pytest.approx((5.0, 5.0))
    with pytest.raises(Missed):
        longest_gap(times, 8.0)


# ---------------------------------------------------------------- what the observer saw


def sighting(at_s: float, *holders: tuple[str, int], path: str = "/srv/d.qcow2") -> Sighting:
    return Sighting(at_s, path, tuple(Holder(host, pid, "1", False) for host, pid in holders))


SIGHTINGS = [
    sighting(1.0, ("h1", 10)),
    sighting(2.0, ("h3", 30), path="/srv/other.qcow2"),
    sighting(5.0),
    sighting(8.0, ("h2", 20)),
]


def test_sightings_tell_when_a_disk_lost_and_got_its_writer() -> None:
    assert gone_at_s(SIGHTINGS, "d.qcow2", 3.0, host="h1") == 5.0
    assert ran_at_s(SIGHTINGS, "d.qcow2", 3.0, hosts=("h2", "h3")) == 8.0
    assert ran_at_s(SIGHTINGS, "d.qcow2", 3.0, hosts=("h1",)) is None
    assert runs_of(SIGHTINGS, "d.qcow2") == ["h1", "h2"]
    assert last_began_s(SIGHTINGS, "d.qcow2") == 8.0


# ---------------------------------------------------------------- the report


def report() -> Report:
    results = (
        judge(row(), Seen("runs | on\nh2", 20.0, {"runs_again_s": 20.0}), LOOKED),
        not_run(row(number=20), "no storage"),
    )
    machine = Machine(cores=2, accelerator="TCG", load_at_begin=1.0, load_at_end=2.5)
    return Report(
        began="2026-01-01", commit="abc", machine=machine, rows=results, numbers=numbers(results)
    )


def test_the_table_has_a_line_for_each_row_and_number_and_no_cell_breaks_it() -> None:
    lines = table(report()).splitlines()
    assert "| 1 | a fault | it runs | 21 | 20 | pass | runs \\| on h2 |" in lines
    assert "| 20 | a fault | it runs | 21 | – | not run | no storage |" in lines
    assert any(line.endswith("| ≤ 21 s | 20 | yes | 1 |") for line in lines)
    assert sum(line.startswith("| ") for line in lines) == 2 + 2 + 2 + len(TARGETS)


def test_the_json_says_the_same_to_programs(tmp_path: Path) -> None:
    write(report(), tmp_path / "build" / "m.json")
    read = msgspec.json.decode((tmp_path / "build" / "m.json").read_bytes())
    assert [it["verdict"] for it in read["rows"]] == ["pass", "not run"]
    assert read["numbers"][0]["met"] is True
    assert read["machine"]["load_at_end"] == 2.5
    assert (tmp_path / "build" / "m.md").read_text().startswith("# Failure matrix")
