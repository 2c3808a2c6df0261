"""A PKCS#11 module (SoftHSM) behind the secrets key: what the agent makes of keys, PINs and modules that don't fit."""

import logging
import os
import shutil
import sys

import msgspec
import pytest

from core.errors import InvalidError
from core.identity.hsm import HsmSettings, KeySettings, Mechanism, Pkcs11Hsm, SecretsLockedError
from core.identity.keyring import Keyring
from core.identity.sealing import make_key
from core.logs import FieldFormatter
from core.paths import Paths, write_file
from nodeagent.config import read_config
from tests.canaries import Canaries
from tests.hsm import PIN, SoftTokens

STARTED: list[str] = []


def _hook(event: str, args: tuple) -> None:
    if event == "subprocess.Popen":
        STARTED.append(f"{args[0]} {args[1]} {args[3]}")


sys.addaudithook(_hook)


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> SoftTokens:
    soft = SoftTokens(tmp_path_factory.mktemp("soft"))
    soft.add_token("t")
    soft.add_key("t", "k")
    soft.add_key("t", "wraps", may=["WRAP", "UNWRAP"])
    soft.add_key("t", "signs", may=["SIGN", "VERIFY"])
    soft.add_key("t", "soft", extractable=True)
    soft.add_key("t", "twice")
    soft.add_key("t", "twice")
    return soft


@pytest.fixture
def soft(shared, monkeypatch) -> SoftTokens:
    monkeypatch.setenv("SOFTHSM2_CONF", shared.environment["SOFTHSM2_CONF"])
    shared.write_pin(PIN)
    return shared


async def test_a_key_that_can_only_wrap_is_used_so(soft):
    key, settings = make_key(), soft.settings("t", "wraps")
    (wrapped,) = await Pkcs11Hsm().wrap(settings, (key,))
    assert wrapped.mechanism is Mechanism.AES_KEY_WRAP
    assert key not in wrapped.wrapped
    assert await Pkcs11Hsm().unwrap(settings, (wrapped,)) == [key]


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("signs", "neither encrypt by AES_GCM nor wrap"),
        ("soft", "can be read out of the token"),
        ("twice", "2 keys in the token"),
    ],
)
async def test_a_key_that_does_not_fit_is_refused_with_the_reason(soft, label, why):
    with pytest.raises(SecretsLockedError, match=why):
        await Pkcs11Hsm().wrap(soft.settings("t", label), (make_key(),))


async def test_a_wrong_pin_is_tried_once_and_again_only_when_its_file_is_new(soft):
    """Tokens lock themselves after a few wrong PINs, for good."""
    hsm, settings = Pkcs11Hsm(), soft.settings("t", "k")
    soft.write_pin("a-wrong-pin")
    with pytest.raises(SecretsLockedError, match="refuses the PIN"):
        await hsm.wrap(settings, ())
    STARTED.clear()
    for _ in range(5):
        with pytest.raises(SecretsLockedError, match="isn't tried again"):
            await hsm.wrap(settings, ())
    assert not STARTED
    soft.write_pin(PIN)
    assert await hsm.wrap(settings, ()) == ()


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (PIN, 0o640, "others can read the PIN"),
        ("", 0o600, "must hold the PIN"),
        ("x" * 2000, 0o600, "must hold the PIN"),
        (None, 0o600, "can't be read"),
    ],
)
async def test_a_file_of_the_pin_that_cannot_be_used_is_refused(soft, content, mode, why):
    if content is None:
        soft.pin_file.unlink()
    else:
        soft.write_pin(content, mode)
    with pytest.raises(SecretsLockedError, match=why):
        await Pkcs11Hsm().wrap(soft.settings("t", "k"), ())


@pytest.mark.parametrize(
    "module", ["/nowhere.so", "/etc/hostname", "/lib/x86_64-linux-gnu/libc.so.6"]
)
async def test_a_module_that_is_none_is_refused(soft, module):
    settings = HsmSettings(module=module, token="t", key="k", pin_file=str(soft.pin_file))
    with pytest.raises(SecretsLockedError, match="can't be used for key k in token t"):
        await Pkcs11Hsm().wrap(settings, (make_key(),))


async def test_a_module_that_hangs_is_given_up(soft):
    settings = soft.settings("t", "k")
    with pytest.raises(SecretsLockedError, match="did not answer within"):
        await Pkcs11Hsm(timeout_s=0.01).wrap(settings, (make_key(),))


async def test_a_slot_may_be_named_instead_of_a_token(soft):
    settings = HsmSettings(
        module=soft.settings("t", "k").module, slot=10**9 + 7, key="k", pin_file=str(soft.pin_file)
    )
    with pytest.raises(SecretsLockedError, match=r"slot 1000000007: no tokens"):
        await Pkcs11Hsm().wrap(settings, ())


async def test_neither_pin_nor_key_get_out(soft, tmp_path, caplog):
    """Used rightly and wrongly: not into logs, errors, arguments or environments of processes, nor onto the disk."""
    caplog.set_level(logging.DEBUG)
    STARTED.clear()
    key, next_key, paths = make_key(), make_key(), Paths(state=tmp_path)
    canaries = Canaries({"the PIN": [PIN.encode()], "the key": [key], "the next key": [next_key]})
    write_file(paths.secrets_key, key)
    kept = KeySettings(keep="hsm", hsm=soft.settings("t", "k"))
    hsm = Pkcs11Hsm()
    keyring = Keyring(paths, kept, hsm)
    await keyring.settle()
    await keyring.take(next_key)
    assert keyring.keys() == (key, next_key)
    assert Keyring(paths, kept, hsm).kept().key_id == keyring.current_id()
    for settings in (soft.settings("t", "soft"), soft.settings("x", "k"), soft.settings("t", "z")):
        with pytest.raises(SecretsLockedError) as refused:
            await hsm.wrap(settings, (key,))
        canaries.hear("an error", repr(refused.value) + str(refused.value.__context__))
    soft.write_pin(f"{PIN}x")
    with pytest.raises(SecretsLockedError) as refused:
        await Keyring(paths, kept, hsm).settle()
    canaries.hear("an error", repr(refused.value))
    for file in (*paths.identity.iterdir(), *filter(os.path.isfile, soft.tokens.rglob("*"))):
        canaries.hear(f"the file {file.name}", file.read_bytes())
    for record in caplog.records:
        canaries.hear("the log", FieldFormatter("%(message)s").format(record))
    assert len(STARTED) >= 6
    for argv in STARTED:
        canaries.hear("a process", argv)
    assert canaries.found() == []


async def test_a_disk_without_its_hsm_opens_nothing(soft, tmp_path):
    """The reason for it all: the disk is stolen, the token is not."""
    paths, key = Paths(state=tmp_path / "host"), make_key()
    kept = KeySettings(keep="hsm", hsm=soft.settings("t", "k"))
    await Keyring(paths, kept).put(key)
    stolen = Paths(state=tmp_path / "thief")
    shutil.copytree(paths.state, stolen.state)
    soft.pin_file.unlink()
    thief = Keyring(stolen)
    with pytest.raises(SecretsLockedError):
        await thief.settle()
    with pytest.raises(SecretsLockedError, match="locked"):
        thief.keys()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('keep = "hsm"', "needs the table"),
        ('keep = "tpm"', "Invalid enum"),
        (
            'keep = "hsm"\n[secrets_key.hsm]\nmodule = "x.so"\nkey = "k"\npin_file = "/p"\ntoken = "t"',
            "regex",
        ),
        ('[secrets_key.hsm]\nmodule = "/x.so"\nkey = "k"\npin_file = "/p"', "either `token`"),
        (
            '[secrets_key.hsm]\nmodule = "/x.so"\nkey = "k"\npin_file = "/p"\ntoken = "t"\nslot = 1',
            "either `token`",
        ),
        (
            '[secrets_key.hsm]\nmodule = "/x.so"\nkey = "k"\npin = "1234"\npin_file = "/p"\ntoken = "t"',
            "unknown field `pin`",
        ),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_name(tmp_path, content, why):
    (tmp_path / "agent.toml").write_text(f"[secrets_key]\n{content}\n")
    with pytest.raises(InvalidError, match=why) as refused:
        read_config(tmp_path / "agent.toml")
    assert "1234" not in refused.value.message


def test_settings_are_taken(tmp_path):
    (tmp_path / "agent.toml").write_text(
        '[secrets_key]\nkeep = "hsm"\n[secrets_key.hsm]\nmodule = "/x.so"\ntoken = "t"\nkey = "k"\npin_file = "/p"\n'
    )
    hsm = HsmSettings(module="/x.so", token="t", key="k", pin_file="/p")
    assert read_config(tmp_path / "agent.toml").secrets_key == KeySettings(keep="hsm", hsm=hsm)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(hsm), type=HsmSettings) == hsm
