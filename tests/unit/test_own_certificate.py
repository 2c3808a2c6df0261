"""Own certificates: the same comes out of every format, in order, and what clients would refuse is refused first."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidError
from core.identity.own_certificate import chain_of, check_usable, covers, names_of, read_bundle
from tests.one_member import NOW_MS
from tests.own_certificates import DAY, MIDDLE, NOW, ROOT, RSA_KEY, Issued, for_names

OWN = for_names("h1.example.org", "192.0.2.1")
WORD = "a pass phrase"


@pytest.mark.parametrize("passphrase", ["", WORD])
@pytest.mark.parametrize("form", ["as_pem", "as_pkcs12", "as_jks"])
@pytest.mark.parametrize("own", [OWN, for_names("h1", key=RSA_KEY)], ids=["ec", "rsa"])
def test_every_format_gives_the_same_key_and_ordered_chain(own, form, passphrase):
    pair = read_bundle(getattr(own, form)(passphrase), passphrase)
    assert pair.certificate_pem.encode() == b"".join(c.pem for c in own.chain)
    assert pair.key_pem.encode() == own.key_pem()
    check_usable(pair, now_ms=NOW_MS)


def test_a_pem_in_any_order_is_put_in_order():
    content = OWN.key_pem() + ROOT.pem + MIDDLE.pem + OWN.pem + OWN.pem
    assert chain_of(read_bundle(content, "").certificate_pem) == [c.certificate for c in OWN.chain]


OTHER = for_names("h2")
WRONG = {
    "a key of another certificate": (OWN.pem + OTHER.key_pem(), "fits none"),
    "no certificate": (OWN.key_pem(), "no certificate"),
    "no key": (OWN.pem, "0 private keys"),
    "two keys": (OWN.pem + OWN.key_pem() + OTHER.key_pem(), "2 private keys"),
    "a certificate that has nothing to do with it": (OWN.as_pem() + OTHER.pem, "leave it out"),
    "a gap in the chain": (OWN.pem + ROOT.pem + OWN.key_pem(), "no part of the chain"),
    "nothing": (b"", "PKCS#12"),
    "text": (b"hello", "PKCS#12"),
    "half a PKCS#12": (OWN.as_pkcs12()[:200], "PKCS#12"),
    "an encrypted key without its passphrase": (OWN.as_pem(WORD), "give its passphrase"),
    "a key that is none": (b"-----BEGIN PRIVATE KEY-----\nxx\n-----END PRIVATE KEY-----", "read"),
}


@pytest.mark.parametrize(("content", "why"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_together_is_refused(content, why):
    with pytest.raises(InvalidError, match=why):
        read_bundle(content, "")


@pytest.mark.parametrize("form", ["as_pem", "as_pkcs12", "as_jks"])
def test_a_wrong_passphrase_is_said_and_not_repeated(form):
    with pytest.raises(InvalidError, match="passphrase") as refused:
        read_bundle(getattr(OWN, form)(WORD), "not the one")
    assert "not the one" not in refused.value.message


def test_keys_that_browsers_do_not_know_are_refused():
    own = for_names("h1", key=ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(InvalidError, match="RSA or ECDSA"):
        read_bundle(own.as_pem(), "")


NOT_USABLE = {
    "expired": (for_names("h1", ends=NOW), "expired"),
    "issuer expired": (
        for_names("h1", by=Issued("old", by=ROOT, ends=NOW - DAY)),
        "'CN=old' expired",
    ),
    "not yet": (for_names("h1", begins=NOW + DAY), "valid only from"),
    "short": (for_names("h1", key=rsa.generate_private_key(65537, 1024)), "1024 bits"),
    "curve": (for_names("h1", key=ec.generate_private_key(ec.SECP256K1())), "curve"),
    "for clients": (
        for_names("h1", usage=x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])),
        "meant for servers",
    ),
}


@pytest.mark.parametrize(("own", "why"), NOT_USABLE.values(), ids=NOT_USABLE)
def test_what_clients_would_refuse_is_refused(own, why):
    with pytest.raises(InvalidError, match=why):
        check_usable(read_bundle(own.as_pem(), ""), now_ms=NOW_MS)


def test_it_is_usable_until_the_last_moment():
    own = for_names("h1", ends=NOW + DAY)
    check_usable(read_bundle(own.as_pem(), ""), now_ms=NOW_MS + 86_399_000)
    with pytest.raises(InvalidError, match="expired"):
        check_usable(read_bundle(own.as_pem(), ""), now_ms=NOW_MS + 86_400_000)


@pytest.mark.parametrize(
    ("name", "host", "covered"),
    [
        ("h1", "h1", True),
        ("H1.Example.org", "h1", True),
        ("h1.example.org", "h1.example.org", True),
        ("*.example.org", "h1", True),
        ("*.example.org", "h1.example.org", True),
        ("192.0.2.1", "h1", True),
        ("h11.example.org", "h1", False),
        ("*.example.org", "h1.other.org", False),
        ("h1.other.org", "h1.example.org", False),
        ("192.0.2.11", "h1", False),
    ],
)
def test_whether_names_cover_a_host(name, host, covered):
    assert covers([name], host, "192.0.2.1") is covered


def test_names_are_those_that_clients_look_at():
    assert names_of(OWN.certificate) == ["h1.example.org", "192.0.2.1"]
    assert names_of(ROOT.certificate) == []


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"-----BEGIN ", b"\xfe\xed\xfe\xed", b"0\x82"])
)
def test_garbage_is_refused_and_nothing_worse(garbage, beginning):
    with pytest.raises(InvalidError):
        read_bundle(beginning + garbage, "x")
