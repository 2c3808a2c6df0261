"""Signatures: equal to the examples that the manual gives, and of one request only."""

import hashlib
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidError
from core.identity.signing import (
    SIGNED_HEADERS,
    Signature,
    Signed,
    authorization,
    canonical,
    is_signed,
    new_secret,
    parse,
)
from tests.tidy import ROOT

MANUAL = (ROOT / "docs/identity.md").read_text()
KEY, SECRET = (
    "kvk_3f2a9c5d1b7e4860a9d2c4f6e8b01357",
    "kvks_ZXhhbXBsZS1vbmx5LXNlY3JldC1vZi10aGUtbWFudWF",
)
BODY = b'{"name": "web1", "image": "debian-12"}'
CREATE = Signed(
    "POST",
    "/v1/vms",
    {"content-type": "application/json", "idempotency-key": "order-4711", "prefer": "wait=30"},
    hashlib.sha256(BODY).hexdigest(),
)
LIST = Signed("GET", "/v1/vms?q=name%3Dweb1&limit=10", {})
VECTORS = [
    (
        CREATE,
        1795449660,
        "0b9d8c7e6f5a4b3c2d1e0f9a8b7c6d5e",
        "2dd510fb87be03ff0878be3fc14e38b74ff5250fb6ead59462a222d0b7a83db8",
    ),
    (
        LIST,
        1795449600,
        "4f1c0f7e9a2b4d6c8e0a1b2c3d4e5f60",
        "f74b7038f2ab91ab3b87230f48cda356b40b4e47f116c726fa0d721897ae774a",
    ),
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", MANUAL, re.DOTALL)


@pytest.mark.parametrize(("signed", "time_s", "nonce", "mac"), VECTORS)
def test_the_manual_s_examples_are_what_is_computed(signed, time_s, nonce, mac):
    header = authorization(SECRET, KEY, signed, time_s=time_s, nonce=nonce)
    assert parse(header) == Signature(KEY, time_s, nonce, signed.sha256, mac)
    assert is_signed(SECRET.encode(), parse(header), signed)
    for told in (KEY, SECRET, str(time_s), nonce, mac):
        assert told in MANUAL


def test_the_manual_shows_the_text_that_is_signed_and_the_headers_in_their_order():
    text = canonical(CREATE, key_id=KEY, time_s=VECTORS[0][1], nonce=VECTORS[0][2])
    assert f"```text\n{text.decode()}\n```" in MANUAL
    assert BODY.decode() in MANUAL
    named = re.search(r"no blank after the colon: (.*?)\n\n", MANUAL, re.DOTALL)[1]
    assert tuple(re.findall(r"`([a-z-]+)`", named)) == SIGNED_HEADERS


@pytest.mark.parametrize(("signed", "time_s", "nonce", "mac"), VECTORS)
def test_the_manual_s_python_signs_the_same(signed, time_s, nonce, mac):
    space = {}
    exec(blocks("python")[0], space)  # noqa: S102 - it is our own manual
    body = BODY if signed is CREATE else b""
    header = space["authorization"](
        KEY, SECRET, signed.method, signed.target, signed.headers, body, now=time_s, nonce=nonce
    )
    assert parse(header).mac == mac


def test_the_manual_s_shell_signs_the_same():
    assert shutil.which("openssl")
    _, time_s, nonce, mac = VECTORS[1]
    script = blocks("bash")[0] + 'authorization GET "$1"'
    environ = {"PATH": "/usr/bin:/bin", "KEY": KEY, "SECRET": SECRET, "TIME": str(time_s)}
    done = subprocess.run(
        ["bash", "-c", script, "-", LIST.target],
        env=environ | {"NONCE": nonce},
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    assert parse(done.stdout.strip().removeprefix("Authorization: ")).mac == mac


# -- laws

line = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=20)
requests = st.builds(
    Signed,
    method=st.sampled_from(["GET", "POST", "PATCH", "DELETE"]),
    target=line.map(lambda text: f"/v1/{text}"),
    headers=st.dictionaries(st.sampled_from(SIGNED_HEADERS), line),
    sha256=st.binary(max_size=5).map(lambda body: hashlib.sha256(body).hexdigest()),
)
times = st.integers(1, 10**12 - 1)
nonces = st.from_regex(r"[A-Za-z0-9_-]{16,64}", fullmatch=True)
keys = st.from_regex(r"kvk_[0-9a-f]{32}", fullmatch=True)


@given(requests, requests, times, times, nonces, nonces, keys, keys)
def test_a_signature_is_good_for_one_request_only(a, b, time_a, time_b, nonce_a, nonce_b, ka, kb):
    secret = new_secret()
    said = parse(authorization(secret, ka, a, time_s=time_a, nonce=nonce_a))
    assert is_signed(secret.encode(), said, a)
    assert is_signed(secret.encode(), said, b) is (a == b)
    for other in (
        replace(said, time_s=time_b),
        replace(said, nonce=nonce_b),
        replace(said, key_id=kb),
        replace(said, sha256=b.sha256),
    ):
        assert is_signed(secret.encode(), other, replace(a, sha256=other.sha256)) is (other == said)
    assert not is_signed(new_secret().encode(), said, a)


@given(requests, st.data())
def test_a_change_of_any_signed_part_is_refused(signed, data):
    secret = new_secret()
    said = parse(authorization(secret, KEY, signed, time_s=1795449600, nonce="n" * 16))
    name = data.draw(st.sampled_from(SIGNED_HEADERS))
    headers = dict(signed.headers)
    value = data.draw(line.filter(lambda text: text != headers.get(name)))
    changes = [{**headers, name: value}]
    if name in headers:
        changes.append({n: v for n, v in headers.items() if n != name})
    for changed in (
        *(replace(signed, headers=other) for other in changes),
        replace(signed, method="PUT"),
        replace(signed, target=signed.target + data.draw(line.filter(bool))),
        replace(signed, target=signed.target[:-1]),
    ):
        assert not is_signed(secret.encode(), said, changed)
    flipped = format(int(said.mac, 16) ^ (1 << data.draw(st.integers(0, 255))), "064x")
    assert not is_signed(secret.encode(), replace(said, mac=flipped), signed)


def test_a_line_feed_can_t_move_a_part_into_another():
    for bad in (
        Signed("GET", "/v1/vms\nx", {}),
        Signed("GET", "/v1/vms", {"prefer": "a\nif-match:b"}),
        Signed("GET\n", "/v1/vms", {}),
    ):
        assert canonical(bad, key_id=KEY, time_s=1, nonce="n" * 16) is None
        with pytest.raises(InvalidError):
            authorization(SECRET, KEY, bad, time_s=1, nonce="n" * 16)
        said = Signature(KEY, 1, "n" * 16, bad.sha256, "0" * 64)
        assert not is_signed(SECRET.encode(), said, bad)


GOOD = authorization(SECRET, KEY, LIST, time_s=1795449600, nonce="n" * 16)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda h: h.replace("KVORUM-HMAC-SHA256", "KVORUM-HMAC-SHA512"),
        lambda h: h.replace("KVORUM-HMAC-SHA256 ", "KVORUM-HMAC-SHA256"),
        lambda h: h + ",",
        lambda h: h + ", extra=1",
        lambda h: h + ", nonce=" + "m" * 16,
        lambda h: h.replace(", sha256=", ", SHA256="),
        lambda h: h.replace("time=1795449600", "time=01795449600"),
        lambda h: h.replace("time=1795449600", "time=+1795449600"),
        lambda h: h.replace("time=1795449600", "time=\u0661795449600"),
        lambda h: h.replace("time=1795449600", "time=1e9"),
        lambda h: h.replace("time=1795449600", "time=" + "9" * 13),
        lambda h: h.replace("n" * 16, "n" * 15),
        lambda h: h.replace("n" * 16, "n" * 65),
        lambda h: h.replace("n" * 16, "n" * 15 + "."),
        lambda h: h.replace("kvk_3", "kvk_G"),
        lambda h: h[:-1],
        lambda h: h + "0",
        lambda h: re.sub("signature=.*", lambda m: m[0].upper(), h),
        lambda h: h.replace("key=", 'key="') + '"',
        lambda h: h + " " * 400,
        lambda h: "",
        lambda h: "KVORUM-HMAC-SHA256",
    ],
)
def test_a_header_that_is_not_exactly_of_its_form_says_nothing(spoil):
    assert parse(GOOD) is not None
    assert parse(spoil(GOOD)) is None


def test_the_parts_may_come_in_any_order_and_with_blanks():
    scheme, _, parts = GOOD.partition(" ")
    turned = ",   ".join(reversed(parts.split(", ")))
    assert parse(f"{scheme} {turned}") == parse(GOOD)
    assert parse(f"{scheme.lower()} {parts}") == parse(GOOD)


@given(st.text(max_size=500))
def test_no_text_makes_the_reader_fail(text):
    for header in (text, f"KVORUM-HMAC-SHA256 {text}"):
        said = parse(header)
        assert said is None or len(said.nonce) <= 64


def test_secrets_differ_and_are_long():
    made = {new_secret() for _ in range(20)}
    assert len(made) == 20
    assert {len(one) for one in made} == {len(SECRET)} == {48}
