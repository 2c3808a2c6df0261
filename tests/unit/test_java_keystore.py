"""Java keystores: what is in them comes out, and nothing that isn't one is taken for one, however it lies about lengths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidError
from core.identity.java_keystore import StoredKey, read_java_keystore
from tests.java_keystore import Keystore, sha1

KEY = b"\x30\x82key" * 30
CHAIN = [b"own certificate", b"issuer" * 100]


def keystore(**fields) -> Keystore:
    store = Keystore(**fields)
    store.add_trusted(b"somebody else's")
    store.add_key(KEY, CHAIN)
    return store


def sealed(body: bytes, passphrase: str = "changeit") -> bytes:
    """Any body with a right digest, as somebody who knows the passphrase can make."""
    return body + sha1(passphrase.encode("utf-16-be") + b"Mighty Aphrodite" + body)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("passphrase", ["changeit", "", "pässwörd \U0001f511"])
def test_the_key_and_its_chain_come_out(version, passphrase):
    content = keystore(version=version, passphrase=passphrase).bytes()
    assert read_java_keystore(content, passphrase) == StoredKey(KEY, tuple(CHAIN))


@pytest.mark.parametrize("passphrase", ["", "changeIt", "changeit ", "changei"])
def test_another_passphrase_opens_nothing(passphrase):
    with pytest.raises(InvalidError, match="passphrase is wrong"):
        read_java_keystore(keystore().bytes(), passphrase)


def test_any_changed_byte_is_noticed():
    content = keystore().bytes()
    for at in range(0, len(content), 7):
        changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        with pytest.raises(InvalidError):
            read_java_keystore(changed, "changeit")


def test_a_key_with_a_passphrase_of_its_own_says_so():
    store = Keystore()
    store.add_key(KEY, CHAIN, passphrase="another")
    with pytest.raises(InvalidError, match="-keypasswd"):
        read_java_keystore(store.bytes(), "changeit")


def test_no_key_or_two_are_refused():
    store = Keystore()
    store.add_trusted(b"ca")
    with pytest.raises(InvalidError, match="holds 0 private keys"):
        read_java_keystore(store.bytes(), "changeit")
    store.add_key(KEY, CHAIN)
    store.add_key(KEY, CHAIN)
    with pytest.raises(InvalidError, match="holds 2 private keys"):
        read_java_keystore(store.bytes(), "changeit")


WRONG = {
    "jceks": (keystore(magic=b"\xce\xce\xce\xce").bytes(), "JCEKS"),
    "a version to come": (keystore(version=3).bytes(), "damaged"),
    "another kind of certificate": (keystore(kind="PGP").bytes(), "not X.509"),
    "more entries than there are": (Keystore(count=3).bytes(), "damaged"),
    "a million entries": (Keystore(count=1 << 20).bytes(), "damaged"),
    "bytes behind the last entry": (Keystore(entries=b"more").bytes(), "damaged"),
    "a tag of no entry": (Keystore(count=1, entries=(9).to_bytes(4)).bytes(), "damaged"),
    "too large": (b"\xfe\xed\xfe\xed" + bytes(1 << 20), "damaged"),
    "empty": (b"\xfe\xed\xfe\xed", "damaged"),
    "a key of 4 GiB": (
        Keystore(count=1, entries=b"\0\0\0\1\0\0" + bytes(8) + b"\xff" * 4).bytes(),
        "damaged",
    ),
}


@pytest.mark.parametrize(("content", "why"), WRONG.values(), ids=WRONG)
def test_what_is_not_right_is_refused(content, why):
    with pytest.raises(InvalidError, match=why):
        read_java_keystore(content, "changeit")


@given(st.binary(max_size=400))
def test_sealed_garbage_is_refused_and_nothing_worse(entries):
    with pytest.raises(InvalidError):
        read_java_keystore(sealed(b"\xfe\xed\xfe\xed\0\0\0\2\0\0\0\1" + entries), "changeit")


@given(data=st.data())
def test_a_keystore_sealed_anew_after_any_change_is_read_or_refused(data):
    """The digest proves nothing to somebody who knows the passphrase: every length has to be checked on its own."""
    body = bytearray(keystore().bytes()[:-20])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(4, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    try:
        found = read_java_keystore(sealed(bytes(body)), "changeit")
    except InvalidError:
        return
    assert found.key_der == KEY, "what its own digest covers can't have changed"
