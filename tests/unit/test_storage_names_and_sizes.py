"""Sizes as people write them, and the names that may become paths."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidError
from storage.errors import NoSpaceError, translate
from storage.ids import check_id, check_sha256, check_storage_path, is_id, is_sha256
from storage.sizes import capacity_of, format_size, parse_size, require_free
from storage.whole_files import (
    publish,
    publish_new,
    sweep_unfinished,
    unfinished_name,
    write_whole,
)

HOST = "11111111-2222-4333-8444-555555555555"
OTHER = "99999999-2222-4333-8444-555555555555"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("20GiB", 20 << 30),
        ("20 GiB", 20 << 30),
        ("20g", 20 << 30),
        ("1.5T", 3 << 39),
        ("0.5KiB", 512),
        ("10GB", 10**10),
        ("64 mb", 64 * 10**6),
    ],
)
def test_sizes_are_read_as_people_mean_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GiB",
        "-1",
        "1e3",
        "1.1",
        "0.3KiB",
        "20 G iB",
        "5XB",
        "1_000",
        "٣GiB",
        "2000000TiB",
        "1,5G",
    ],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_size(text)


@given(st.text())
def test_any_text_is_a_size_or_refused(text: str) -> None:
    try:
        assert parse_size(text) >= 0
    except InvalidError:
        return


def test_sizes_are_shown_in_the_largest_unit_that_fits() -> None:
    assert [format_size(n) for n in (0, 1023, 1536, 20 << 30, 3 << 40)] == [
        "0 bytes",
        "1023 bytes",
        "1.5 KiB",
        "20 GiB",
        "3 TiB",
    ]


def test_too_little_space_is_refused_with_both_numbers(tmp_path: Path) -> None:
    free = capacity_of(tmp_path).free_bytes
    require_free(tmp_path, 1)
    with pytest.raises(NoSpaceError, match="are needed"):
        require_free(tmp_path, free + 1, reserve_bytes=0)


def test_only_canonical_ids_become_names() -> None:
    assert check_id(HOST, "host") == HOST
    assert check_sha256("ab" * 32) == "ab" * 32
    for bad in (
        "",
        "../x",
        HOST.upper().replace("1", "A"),
        HOST + "\n",
        HOST[:-1],
        "{" + HOST + "}",
    ):
        assert not is_id(bad)
        with pytest.raises(InvalidError):
            check_id(bad, "disk")
    for bad in ("", "AB" * 32, "ab" * 31, "ab" * 32 + "\n", "../" + "a" * 61):
        assert not is_sha256(bad)
        with pytest.raises(InvalidError):
            check_sha256(bad)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "data",
        "./data",
        "/",
        "/etc",
        "/etc/kvorum",
        "/usr/share",
        "/srv",
        "/srv/../etc",
        "/srv/a/",
        "//srv/a",
        "/srv/a,b",
        "/srv/a:b",
        "/srv/a'b",
        "/srv/a\nb",
        "/srv/<a>",
        "/" + "a" * 1000,
    ],
)
def test_a_storage_cannot_be_a_directory_of_the_system_or_an_odd_path(path: str) -> None:
    with pytest.raises(InvalidError):
        check_storage_path(path)


def test_a_storage_can_be_a_directory_of_its_own() -> None:
    for path in ("/srv/kvorum", "/var/lib/kvorum/local", "/mnt/nfs 1", "/data"):
        assert str(check_storage_path(path)) == path


def test_a_published_file_is_whole_and_replaces_only_when_told(tmp_path: Path) -> None:
    final = tmp_path / "final"
    write_whole(final, b"first", host_id=HOST, mode=0o444)
    assert final.read_bytes() == b"first"
    assert final.stat().st_mode & 0o777 == 0o444
    for content, step in ((b"second", publish), (b"third", publish_new)):
        unfinished = tmp_path / unfinished_name(HOST)
        unfinished.write_bytes(content)
        if step is publish_new:
            with pytest.raises(FileExistsError):
                step(unfinished, final, 0o600)
        else:
            step(unfinished, final, 0o600)
    assert final.read_bytes() == b"second"


def test_a_host_sweeps_its_own_leftovers_and_no_others(tmp_path: Path) -> None:
    mine, other, kept = (
        tmp_path / name for name in (unfinished_name(HOST), unfinished_name(OTHER), "kept")
    )
    directory = tmp_path / unfinished_name(HOST)
    directory.mkdir()
    for path in (mine, other, kept, directory / "inside"):
        path.write_bytes(b"x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x")
    (tmp_path / unfinished_name(HOST)).symlink_to(outside)
    assert sweep_unfinished(tmp_path, HOST) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([other.name, "kept", "outside"])
    assert (outside / "precious").exists()
    assert sweep_unfinished(tmp_path / "nowhere", HOST) == 0


def test_errors_of_the_file_system_say_what_to_do() -> None:
    assert isinstance(translate(OSError(28, "No space left on device"), "write"), NoSpaceError)
    assert translate(OSError(116, "Stale file handle", "/x"), "write").code == "temporary"
    assert translate(OSError(30, "Read-only file system"), "write").code == "permanent"
