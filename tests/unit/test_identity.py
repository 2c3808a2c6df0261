"""Certificates that only our authority gives, secrets that only our key opens, tokens that survive copying."""

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from core.errors import FatalError, InvalidError
from core.identity.certificates import (
    KeyPair,
    fingerprint,
    make_authority,
    make_request,
    sign_request,
)
from core.identity.sealing import make_key, seal, unseal
from nodeagent.identity.tokens import (
    JOIN_PREFIX,
    JoinTicket,
    format_join_token,
    is_secret,
    new_access_token,
    new_secret,
    parse_join_token,
    secret_hash,
)
from nodeagent.joining.messages import JoinAnswer, JoinCancel, JoinRequest
from tests.one_member import HOST_ID, OTHER_ID, authority

REAL_NOW_MS = int(dt.datetime.now(dt.UTC).timestamp() * 1000)


def signed(by: KeyPair, request_pem: str, **fields) -> str:
    about = {"host_id": HOST_ID, "host_name": "h1", "address": "192.0.2.1", "now_ms": REAL_NOW_MS}
    return sign_request(by, request_pem, **(about | fields))


@pytest.fixture(scope="module")
def real_authority() -> KeyPair:
    return make_authority("test", now_ms=REAL_NOW_MS)


def context_of(
    folder: Path, side: int, ca: KeyPair, host_id: str, signer: KeyPair | None = None
) -> ssl.SSLContext:
    request_pem, key_pem = make_request(host_id)
    certificate = signed(signer or ca, request_pem, host_id=host_id)
    (folder / "cert").write_text(certificate)
    (folder / "key").write_text(key_pem)
    context = ssl.SSLContext(side)
    context.load_verify_locations(cadata=ca.certificate_pem)
    context.load_cert_chain(folder / "cert", folder / "key")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """Run a handshake in memory and return the client's side."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    a = client.wrap_bio(to_client, to_server, server_hostname=name)
    b = server.wrap_bio(to_server, to_client, server_side=True)
    open_sides = [a, b]
    for _ in range(10):
        for side in tuple(open_sides):
            try:
                side.do_handshake()
                open_sides.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert not open_sides, "the handshake ended"
    a.write(b"hello")
    assert b.read(5) == b"hello", "TLS 1.3 tells a client of its refused certificate only now"
    return a


@pytest.mark.parametrize("name", ["192.0.2.1", "h1", "localhost", "127.0.0.1"])
def test_two_hosts_of_one_authority_trust_each_other_by_address_and_name(
    tmp_path, real_authority, name
):
    server = context_of(tmp_path, ssl.PROTOCOL_TLS_SERVER, real_authority, HOST_ID)
    client = context_of(tmp_path, ssl.PROTOCOL_TLS_CLIENT, real_authority, OTHER_ID)
    peer = shake_hands(client, server, name).getpeercert()
    assert peer is not None
    assert peer["subject"] == ((("commonName", HOST_ID),),)


def test_a_certificate_does_not_serve_another_address(tmp_path, real_authority):
    server = context_of(tmp_path, ssl.PROTOCOL_TLS_SERVER, real_authority, HOST_ID)
    client = context_of(tmp_path, ssl.PROTOCOL_TLS_CLIENT, real_authority, OTHER_ID)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(client, server, "192.0.2.9")


@pytest.mark.parametrize("stranger", ["server", "client"])
def test_a_host_of_another_authority_of_the_same_name_is_refused(
    tmp_path, real_authority, stranger
):
    wrong = make_authority("test", now_ms=REAL_NOW_MS)
    server_signer = wrong if stranger == "server" else None
    client_signer = wrong if stranger == "client" else None
    server = context_of(
        tmp_path, ssl.PROTOCOL_TLS_SERVER, real_authority, HOST_ID, signer=server_signer
    )
    client = context_of(
        tmp_path, ssl.PROTOCOL_TLS_CLIENT, real_authority, OTHER_ID, signer=client_signer
    )
    with pytest.raises(ssl.SSLError):
        shake_hands(client, server, "h1")


def test_a_host_certificate_cannot_sign_another(tmp_path, real_authority):
    request_pem, key_pem = make_request(HOST_ID)
    host = KeyPair(signed(real_authority, request_pem), key_pem)
    server = context_of(tmp_path, ssl.PROTOCOL_TLS_SERVER, real_authority, OTHER_ID, signer=host)
    (tmp_path / "chain").write_text((tmp_path / "cert").read_text() + host.certificate_pem)
    server.load_cert_chain(tmp_path / "chain", tmp_path / "key")
    client = context_of(tmp_path, ssl.PROTOCOL_TLS_CLIENT, real_authority, HOST_ID)
    with pytest.raises(ssl.SSLError):
        shake_hands(client, server, "h1")


def test_a_certificate_is_valid_a_day_back_and_two_years_on():
    request_pem, _ = make_request(HOST_ID)
    loaded = x509.load_pem_x509_certificate(signed(authority(), request_pem).encode())
    now = dt.datetime.fromtimestamp(REAL_NOW_MS / 1000, dt.UTC)
    assert loaded.not_valid_before_utc <= now - dt.timedelta(hours=24)
    assert loaded.not_valid_after_utc >= now + dt.timedelta(days=729)


def test_names_come_from_us_whatever_the_request_says():
    key = ec.generate_private_key(ec.SECP256R1())
    wish = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another-host")]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("bank.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = wish.public_bytes(serialization.Encoding.PEM).decode()
    loaded = x509.load_pem_x509_certificate(signed(authority(), pem).encode())
    (name,) = loaded.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == HOST_ID
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["h1", "localhost"]
    assert ipaddress.ip_address("192.0.2.1") in names.get_values_for_type(x509.IPAddress)
    assert not loaded.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def _rsa_request() -> str:
    key = rsa.generate_private_key(65537, 2048)
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _forged_request() -> str:
    """Return a request whose signature is not of its own key."""
    der = bytearray(x509.load_pem_x509_csr(make_request("x")[0].encode()).public_bytes(
        serialization.Encoding.DER))  # fmt: skip
    der[-1] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    "make",
    [
        lambda: "",
        lambda: "hello",
        lambda: "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        lambda: make_request("x")[0][:-60],
        lambda: make_request("x")[1],
        _rsa_request,
        _forged_request,
    ],
    ids=["empty", "text", "garbage", "cut", "a private key", "RSA", "forged"],
)
def test_a_request_that_is_damaged_or_not_its_owners_is_refused(make):
    with pytest.raises(InvalidError, match="signing request"):
        signed(authority(), make())


def test_a_fingerprint_is_of_the_certificate_not_of_its_text():
    pem = authority().certificate_pem
    assert fingerprint(pem) == fingerprint("\n\n" + pem.replace("\n", "\r\n"))
    assert fingerprint(pem) != fingerprint(
        make_authority("test", now_ms=REAL_NOW_MS).certificate_pem
    )


# -- sealing


def test_what_is_sealed_comes_back_and_looks_different_each_time():
    key = make_key()
    sealed = seal(key, "ca-key", b"secret")
    assert unseal(key, "ca-key", sealed) == b"secret"
    assert seal(key, "ca-key", b"secret") != sealed
    assert b"secret" not in sealed


def test_every_changed_byte_is_noticed():
    key = make_key()
    sealed = seal(key, "ca-key", b"secret")
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(FatalError):
            unseal(key, "ca-key", bytes(changed))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 11, 12, 13, 27, 33])
def test_a_cut_value_is_noticed(length):
    key = make_key()
    with pytest.raises(FatalError, match="secrets key"):
        unseal(key, "ca-key", seal(key, "ca-key", b"secret")[:length])


@pytest.mark.parametrize("key", [b"", b"short", bytes(31), bytes(32), bytes(33)])
def test_the_wrong_key_opens_nothing(key):
    with pytest.raises(FatalError, match="secrets key"):
        unseal(key, "ca-key", seal(make_key(), "ca-key", b"secret"))


def test_a_sealed_value_cannot_stand_in_for_another():
    key = make_key()
    with pytest.raises(FatalError, match="gossip-key"):
        unseal(key, "gossip-key", seal(key, "ca-key", b"secret"))


# -- tokens

TICKETS = st.builds(
    JoinTicket,
    token_id=st.text(max_size=40),
    secret=st.binary(max_size=40),
    ca_fingerprint=st.text(max_size=64),
    cluster_name=st.text(max_size=63),
    addresses=st.lists(st.text(max_size=30), max_size=7).map(tuple),
)
TICKET = JoinTicket(
    token_id="t1",
    secret=b"canary-canary-canary",
    ca_fingerprint="ab" * 32,
    cluster_name="test",
    addresses=("192.0.2.1:7443",),
)


@given(TICKETS)
def test_a_join_token_says_what_was_put_in(ticket):
    text = format_join_token(ticket)
    assert parse_join_token(text) == ticket
    assert parse_join_token(f"  {text}\n") == ticket
    assert text.isascii() and not any(c in text for c in " \n+/=")


@given(TICKETS, st.data())
def test_a_join_token_that_was_cut_is_refused(ticket, data):
    text = format_join_token(ticket)
    kept = data.draw(st.integers(len(JOIN_PREFIX), len(text) - 1))
    with pytest.raises(InvalidError, match="damaged or cut"):
        parse_join_token(text[:kept])


@given(st.text(), st.booleans())
def test_garbage_is_no_join_token(text, with_prefix):
    with pytest.raises(InvalidError):
        parse_join_token(JOIN_PREFIX + text if with_prefix else text)


@given(st.integers(len(JOIN_PREFIX), 80), st.sampled_from("AZaz09-_"))
def test_a_mistyped_character_is_noticed(position, character):
    text = format_join_token(TICKET)
    changed = text[:position] + character + text[position + 1 :]
    if changed != text:
        with pytest.raises(InvalidError, match="damaged"):
            parse_join_token(changed)


def test_an_access_token_is_no_join_token_and_the_refusal_says_what_to_do():
    with pytest.raises(InvalidError, match="kvorum token create") as caught:
        parse_join_token(new_access_token())
    assert "kvt_" not in caught.value.message


def test_access_tokens_are_known_by_their_hash_alone():
    first, second = new_access_token(), new_access_token()
    assert first != second
    assert first.startswith("kvt_") and len(first) >= 47
    assert is_secret(first, secret_hash(first))
    assert not is_secret(second, secret_hash(first))
    assert not is_secret(secret_hash(first), secret_hash(first)), "the hash is not the secret"
    assert not is_secret(first, "")
    assert first not in secret_hash(first)


def test_a_secret_is_the_same_as_text_and_as_bytes():
    assert secret_hash("abc") == secret_hash(b"abc")
    assert len(new_secret()) == 32


def test_secrets_are_in_no_repr():
    canary = "canary-canary-canary"
    request = JoinRequest(
        token_id="t1",
        secret_hex=canary,
        host_id=HOST_ID,
        host_name="h1",
        address="192.0.2.1",
        request_pem="pem",
        version="1",
        feature_level=1,
        clock_ms=0,
        cpus=1,
        memory_mib=1,
        arch="x86_64",
    )
    answer = JoinAnswer(
        cluster_name="test", certificate_pem="", ca_pem="", secrets_key_hex=canary, members=()
    )
    cancel = JoinCancel(token_id="t1", secret_hex=canary, host_id=HOST_ID)
    for holder in (TICKET, KeyPair("pem", canary), request, answer, cancel):
        for text in (repr(holder), str(holder), f"{holder}", repr([holder])):
            assert "canary" not in text
