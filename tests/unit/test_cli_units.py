"""Sizes, durations and ports as people write them: what is understood, and what is refused in clear words."""

from argparse import ArgumentTypeError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.cli import units


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1KiB", 1024),
        ("512MiB", 512 << 20),
        ("1.5GiB", 3 << 29),
        ("20G", 20 << 30),
        ("2gib", 2 << 30),
        ("1T", 1 << 40),
    ],
)
def test_a_size_is_understood(text, size_bytes):
    assert units.size_bytes(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a size"),
        ("-1GiB", "is not a size"),
        ("1 GiB x", "is not a size"),
        ("٣GiB", "is not a size"),
        ("5", "write 5GiB or 5MiB"),
        ("2GB", "write 2GiB"),
        ("2PiB", "unknown unit 'PiB'"),
        ("0GiB", "more than 0"),
        ("0.3KiB", "whole number of bytes"),
    ],
)
def test_a_wrong_size_is_refused_with_a_reason(text, says):
    with pytest.raises(ArgumentTypeError, match=says):
        units.size_bytes(text)


def test_memory_must_be_whole_mebibytes():
    assert units.memory_mib("2GiB") == 2048
    with pytest.raises(ArgumentTypeError, match="whole number of MiB"):
        units.memory_mib("1500KiB")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("3h", 10800), ("1d", 86400), ("1h30m", 5400)]
)
def test_a_duration_is_understood(text, seconds):
    assert units.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "3", "soon", "-1h", "h", "30m1h", "0s", "1.5h", "3 h", "1w"])
def test_a_wrong_duration_is_refused(text):
    with pytest.raises(ArgumentTypeError):
        units.duration_s(text)


@pytest.mark.parametrize(("text", "both"), [("22", (22, 22)), ("8000-8010", (8000, 8010))])
def test_ports_are_understood(text, both):
    assert units.ports(text) == both


@pytest.mark.parametrize("text", ["", "0", "65536", "22-", "-22", "30-22", "1-2-3", "ssh", "²"])
def test_wrong_ports_are_refused(text):
    with pytest.raises(ArgumentTypeError):
        units.ports(text)


@given(st.integers(min_value=1, max_value=100_000))
def test_every_whole_number_of_mebibytes_is_read_back(mib):
    assert units.memory_mib(f"{mib}MiB") == mib


@given(st.integers(min_value=0, max_value=10**9))
def test_a_shown_duration_is_short_and_never_too_long(seconds):
    shown = units.shown_duration(seconds)
    assert len(shown) <= 9
    assert seconds == 0 or units.duration_s(shown) <= seconds


@given(st.text(max_size=12))
def test_nonsense_is_refused_and_never_crashes(text):
    for parse in (units.size_bytes, units.duration_s, units.ports, units.positive):
        try:
            parse(text)
        except ArgumentTypeError:
            pass


def test_sizes_and_times_are_shown_for_people():
    assert [units.shown_size(n) for n in (700, 1536, 2 << 30)] == ["700 B", "1.5 KiB", "2 GiB"]
    assert units.shown_time(0) == "-"
    assert units.shown_time(1_795_449_605_999) == "2026-11-23 16:00:05Z"
