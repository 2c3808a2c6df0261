"""One contract for the HSM that is only remembered, and for PKCS#11 with SoftHSM."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from core.identity.hsm import Hsm, HsmSettings, Pkcs11Hsm, SecretsLockedError
from core.identity.sealing import key_id, make_key
from tests.hsm import MemoryHsm, SoftTokens


@dataclass(frozen=True, slots=True)
class Subject:
    """An HSM with the tokens `one` and `two`, the former with a key `k`; and the way to make further keys."""

    hsm: Hsm
    settings: HsmSettings
    add_key: Callable[[str, str], HsmSettings]


@pytest.fixture(params=["memory", "softhsm"])
def subject(request, tmp_path, monkeypatch) -> Subject:
    if request.param == "memory":
        memory = MemoryHsm()
        return Subject(memory, memory.add("one", "k"), memory.add)
    soft = SoftTokens(tmp_path)
    monkeypatch.setenv("SOFTHSM2_CONF", soft.environment["SOFTHSM2_CONF"])
    soft.add_token("one")
    soft.add_token("two")
    return Subject(Pkcs11Hsm(), soft.add_key("one", "k"), soft.add_key)


async def test_what_is_wrapped_opens_again_and_hides_the_key(subject):
    keys = (make_key(), make_key())
    wrapped = await subject.hsm.wrap(subject.settings, keys)
    assert [w.key_id for w in wrapped] == [key_id(key) for key in keys]
    assert not any(key in w.wrapped for key in keys for w in wrapped)
    assert await subject.hsm.unwrap(subject.settings, wrapped) == list(keys)


async def test_another_key_opens_nothing_and_hinders_nothing(subject):
    key = make_key()
    (mine,) = await subject.hsm.wrap(subject.settings, (key,))
    other = subject.add_key("two", "k")
    (theirs,) = await subject.hsm.wrap(other, (key,))
    assert await subject.hsm.unwrap(subject.settings, (theirs, mine)) == [b"", key]


async def test_damage_is_noticed(subject):
    (wrapped,) = await subject.hsm.wrap(subject.settings, (make_key(),))
    for at in (0, len(wrapped.wrapped) - 1):
        content = bytearray(wrapped.wrapped)
        content[at] ^= 1
        damaged = type(wrapped)(
            key_id=wrapped.key_id,
            hsm=wrapped.hsm,
            mechanism=wrapped.mechanism,
            wrapped=bytes(content),
        )
        assert await subject.hsm.unwrap(subject.settings, (damaged,)) == [b""]


@pytest.mark.parametrize(("token", "key"), [("one", "absent"), ("nowhere", "k")])
async def test_a_key_or_token_that_is_not_there_is_named(subject, token, key):
    settings = HsmSettings(
        module=subject.settings.module, token=token, key=key, pin_file=subject.settings.pin_file
    )
    with pytest.raises(SecretsLockedError, match=f"key {key} in token {token}"):
        await subject.hsm.wrap(settings, (make_key(),))
