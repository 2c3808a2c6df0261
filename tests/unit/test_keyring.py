"""How a host keeps its secrets key: moved between file and HSM with a crash anywhere, and never lost by it."""

import itertools

import pytest

import core.identity.keyring as keyring_module
from core.errors import FatalError
from core.identity.hsm import KeySettings, SecretsLockedError
from core.identity.keyring import Keyring
from core.identity.sealing import key_id, make_key
from core.paths import Paths, write_file
from tests.hsm import MemoryHsm


@pytest.fixture
def hsm() -> MemoryHsm:
    return MemoryHsm()


def ring(tmp_path, hsm, keep="as-it-is", settings=None) -> Keyring:
    """A keyring as an agent has it that was just started."""
    return Keyring(Paths(state=tmp_path), KeySettings(keep=keep, hsm=settings), hsm)


def on_disk(tmp_path) -> bytes:
    files = sorted(f for f in tmp_path.rglob("*") if f.is_file())
    assert {f.stat().st_mode & 0o777 for f in files} <= {0o600}
    return b"".join(f.read_bytes() for f in files)


async def test_a_key_moves_into_an_hsm_to_another_key_in_it_to_another_hsm_and_back(tmp_path, hsm):
    key, next_key = make_key(), make_key()
    write_file(Paths(state=tmp_path).secrets_key, key)
    write_file(Paths(state=tmp_path).secrets_next, next_key)
    ways = (hsm.add("one", "a"), hsm.add("one", "b"), hsm.add("two", "b"))
    for settings in ways:
        await ring(tmp_path, hsm, "hsm", settings).settle()
        assert not any(k in on_disk(tmp_path) for k in (key, next_key))
        later = ring(tmp_path, hsm, "hsm", settings)
        with pytest.raises(SecretsLockedError, match="has not opened it yet"):
            later.keys()
        await later.settle()
        assert later.keys() == (key, next_key)
        assert later.kept().hsm == settings.shown()
    await ring(tmp_path, hsm, "file").settle()
    hsm.broken = True
    assert ring(tmp_path, hsm).keys() == (key, next_key)


async def test_settings_that_are_lost_change_nothing(tmp_path, hsm):
    """Else a key would be on disk in clear because somebody lost a file."""
    key, settings = make_key(), hsm.add("one", "a")
    await ring(tmp_path, hsm, "hsm", settings).put(key)
    before = on_disk(tmp_path)
    without = ring(tmp_path, hsm)
    await without.settle()
    assert without.keys() == (key,)
    assert on_disk(tmp_path) == before
    next_key = make_key()
    await without.take(next_key)
    assert next_key not in on_disk(tmp_path)


async def test_nothing_is_asked_of_the_hsm_while_all_is_as_it_should_be(tmp_path, hsm):
    settings = hsm.add("one", "a")
    there = ring(tmp_path, hsm, "hsm", settings)
    await there.put(make_key())
    calls = hsm.calls
    for _ in range(3):
        await there.settle()
        there.keys()
    assert hsm.calls == calls


@pytest.mark.parametrize("moment", ["before the first call", "after the first call"])
async def test_an_hsm_that_fails_leaves_the_key_as_it_was(tmp_path, hsm, moment):
    key, one, two = make_key(), hsm.add("one", "a"), hsm.add("two", "a")
    await ring(tmp_path, hsm, "hsm", one).put(key)
    before = on_disk(tmp_path)
    hsm.dead = {"one" if moment == "before the first call" else "two"}
    moving = ring(tmp_path, hsm, "hsm", two)
    with pytest.raises(SecretsLockedError, match="it is away"):
        await moving.settle()
    assert on_disk(tmp_path) == before
    assert "it is away" in moving.kept().fault
    assert moving.is_open() is (moment == "after the first call")
    hsm.dead = set()
    await moving.settle()
    assert moving.keys() == (key,)
    assert moving.kept().fault == ""


class Crash(BaseException):
    pass


@pytest.mark.parametrize("keep", ["hsm", "file"])
async def test_a_crash_at_any_write_loses_no_key(tmp_path, hsm, monkeypatch, keep):
    """Each write is either done or not; the next start goes on."""
    one, two = hsm.add("one", "a"), hsm.add("two", "a")
    for crash_at in itertools.count():
        state = tmp_path / str(crash_at)
        keys = [make_key() for _ in range(3)]
        first = ring(state, hsm, "hsm", one)
        for file, key in zip(("secrets_key", "secrets_next", "secrets_old"), keys, strict=True):
            write_file(getattr(Paths(state=state), file), await first._content(key))
        written = itertools.count()

        def crashing(path, content, written=written, crash_at=crash_at):
            if next(written) == crash_at:
                raise Crash
            write_file(path, content)

        monkeypatch.setattr(keyring_module, "write_file", crashing)
        moving = ring(state, hsm, keep, two if keep == "hsm" else None)
        crashed = False
        try:
            await moving.settle()
            moving.use(key_id(keys[1]))
        except Crash:
            crashed = True
        monkeypatch.setattr(keyring_module, "write_file", write_file)
        again = ring(state, hsm, keep, two if keep == "hsm" else None)
        await again.settle()
        assert {keys[0], keys[1]} <= set(again.keys()), f"crash at write {crash_at}"
        if not crashed:
            break
    assert crash_at >= 5


async def test_a_former_key_that_is_put_in_use_again_survives_a_crash(tmp_path, hsm, monkeypatch):
    paths, present, former = Paths(state=tmp_path), make_key(), make_key()
    for crash_at in range(3):
        paths.secrets_next.unlink(missing_ok=True)
        write_file(paths.secrets_key, present)
        write_file(paths.secrets_old, former)
        written = itertools.count()

        def crashing(path, content, written=written, crash_at=crash_at):
            if next(written) == crash_at:
                raise Crash
            write_file(path, content)

        monkeypatch.setattr(keyring_module, "write_file", crashing)
        with pytest.raises(Crash):
            ring(tmp_path, hsm).use(key_id(former))
        monkeypatch.setattr(keyring_module, "write_file", write_file)
        assert {present, former} <= set(ring(tmp_path, hsm).keys())
        ring(tmp_path, hsm).use(key_id(former))
        assert ring(tmp_path, hsm).current_id() == key_id(former)


async def test_another_key_of_that_name_is_told_from_one_that_does_not_answer(tmp_path, hsm):
    settings = hsm.add("one", "a")
    await ring(tmp_path, hsm, "hsm", settings).put(make_key())
    hsm.add("one", "a")
    there = ring(tmp_path, hsm, "hsm", settings)
    with pytest.raises(SecretsLockedError, match="isn't the one that wrapped"):
        await there.settle()
    await there.try_out()


async def test_a_check_notices_a_lost_hsm_while_the_key_is_still_at_hand(tmp_path, hsm):
    there = ring(tmp_path, hsm, "hsm", hsm.add("one", "a"))
    await there.put(make_key())
    await there.check()
    hsm.broken = True
    with pytest.raises(SecretsLockedError):
        await there.check()
    await there.settle()
    assert there.is_open()
    assert "away" in there.kept().fault, "until a check succeeds"
    hsm.broken = False
    await there.check()
    assert there.kept().fault == ""


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"KVH\x01", b"KVH\x01\x81\xa1x\x01"])
async def test_a_damaged_file_is_told_as_such(tmp_path, hsm, content):
    write_file(Paths(state=tmp_path).secrets_key, content)
    damaged = ring(tmp_path, hsm)
    with pytest.raises(FatalError, match=r"restore .*secrets\.key"):
        await damaged.settle()
    assert "restore" in damaged.kept().fault
