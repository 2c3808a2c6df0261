"""The backup file: whole or refused, at any damage; and the secrets key inside it."""

import io
import random
import struct

import msgspec
import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ForbiddenError, InvalidError
from raftstate.rescue.backup_file import (
    HEADER_BYTES_MAX,
    MAGIC,
    BackupHeader,
    Copier,
    Reader,
    pieces,
    verify,
)
from raftstate.rescue.keys import LockedKey, check_passphrase, lock_key, unlock_key

DUMP = random.Random(1).randbytes(5000)
KEY = bytes(range(32))
PASSPHRASE = "correct horse battery"


def header(**fields) -> BackupHeader:
    return BackupHeader(
        **{
            "cluster_name": "prod",
            "ca_sha256": "ab" * 32,
            "host_name": "h1",
            "version": "0.1.0",
            "created_ms": 1_790_000_000_000,
            "generation": 1,
            "level": 1,
            "index": 42,
            "term": 3,
            "machine_applied": 41,
            "voters": [("id1", "h1", "10.0.0.1:7444")],
            "counts": {"host": 3, "vm": 1},
            "dump_bytes": len(DUMP),
            "dump_crc": crc32c(DUMP),
            **fields,
        }
    )


FILE = b"".join(pieces(header(), io.BytesIO(DUMP)))


def read(content: bytes, size: int = 1000) -> tuple[BackupHeader, bytes]:
    reader, dump = Reader(), b""
    for at in range(0, len(content), size):
        dump += reader.feed(content[at : at + size])
    return reader.finish(), dump


@pytest.mark.parametrize("size", [1, 3, 7, 100, 4096, 1 << 20])
def test_it_comes_back_whole_in_pieces_of_any_size(size):
    assert read(FILE, size) == (header(), DUMP)
    assert header().file_bytes == len(FILE)


def test_no_flipped_bit_is_overlooked():
    rng = random.Random(2)
    for at in range(len(FILE)):
        content = bytearray(FILE)
        content[at] ^= 1 << rng.randrange(8)
        with pytest.raises(InvalidError):
            read(bytes(content), 2000)


def test_no_missing_or_additional_byte_is_overlooked():
    for end in range(0, len(FILE), 13):
        with pytest.raises(InvalidError):
            read(FILE[:end], 2000)
    with pytest.raises(InvalidError, match="cut off"):
        read(FILE[:-1])
    with pytest.raises(InvalidError, match="behind its end"):
        read(FILE + b"x" * 8)


def test_a_header_of_impossible_length_is_refused_before_it_is_waited_for():
    with pytest.raises(InvalidError, match="can't be that long"):
        Reader().feed(MAGIC + struct.pack("<I", HEADER_BYTES_MAX + 1))


def test_a_wrong_checksum_of_the_dump_is_found_even_if_that_of_the_file_is_right():
    wrong = b"".join(pieces(header(dump_crc=1), io.BytesIO(DUMP)))
    with pytest.raises(InvalidError, match="checksum"):
        read(wrong)
    with pytest.raises(InvalidError, match="ends 1 bytes early"):
        list(pieces(header(dump_bytes=len(DUMP) + 1), io.BytesIO(DUMP)))


def test_fields_of_a_later_version_are_skipped():
    fields = {**msgspec.to_builtins(header(), builtin_types=(bytes,)), "colour": "green"}
    body = msgspec.msgpack.encode(fields)
    content = MAGIC + struct.pack("<I", len(body)) + body + DUMP
    assert read(content + struct.pack("<I", crc32c(content))) == (header(), DUMP)


@given(st.binary(max_size=300), st.booleans())
def test_rubbish_is_refused_and_nothing_else_happens(rubbish, with_magic):
    with pytest.raises(InvalidError):
        read(MAGIC + rubbish if with_magic else rubbish)


def test_a_file_is_verified_and_its_dump_copied(tmp_path):
    file, dump, shown = tmp_path / "b.kvb", tmp_path / "dump", []
    file.write_bytes(FILE)
    found = verify(file, on_bytes=lambda done, size: shown.append((done, size)), dump=dump)
    assert found == header()
    assert dump.read_bytes() == DUMP
    assert shown[-1] == (len(FILE), len(FILE))
    with pytest.raises(InvalidError, match="can't read"):
        verify(tmp_path / "none", on_bytes=lambda *_: None)


def test_a_key_is_added_on_the_way_and_only_its_passphrase_gives_it_back():
    copier, written = Copier(lambda h: lock_key(KEY, PASSPHRASE, h.ca_sha256)), b""
    for at in range(0, len(FILE), 11):
        written += copier.feed(FILE[at : at + 11])
    written += copier.finish()
    found, dump = read(written)
    assert dump == DUMP
    assert found.key is not None
    assert msgspec.structs.replace(found, key=None) == header()
    assert KEY not in written
    assert unlock_key(found.key, PASSPHRASE, found.ca_sha256) == KEY
    with pytest.raises(ForbiddenError, match="doesn't open"):
        unlock_key(found.key, PASSPHRASE + " ", found.ca_sha256)
    with pytest.raises(ForbiddenError, match="doesn't open"):
        unlock_key(found.key, PASSPHRASE, "another cluster")


def test_a_copier_passes_a_backup_on_as_it_is_and_refuses_half_of_one():
    copier = Copier(None)
    assert copier.feed(FILE) + copier.finish() == FILE
    half = Copier(None)
    half.feed(FILE[:3000])
    with pytest.raises(InvalidError, match="cut off"):
        half.finish()


def test_two_locks_of_a_key_have_nothing_in_common():
    one, two = (lock_key(KEY, PASSPHRASE, "c") for _ in range(2))
    assert one.salt != two.salt
    assert one.locked != two.locked


def test_a_locked_key_can_not_cost_a_host_dear():
    dear = msgspec.to_builtins(lock_key(KEY, PASSPHRASE, "c"), builtin_types=(bytes,))
    dear["cost"] = 1 << 40
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(dear, LockedKey)


def test_short_passphrases_are_refused():
    with pytest.raises(InvalidError, match="at least 10 characters"):
        check_passphrase("too short")
    check_passphrase(PASSPHRASE)
