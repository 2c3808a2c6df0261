"""Passwords, time codes, recovery codes, lock-out and permissions: the pure parts, held against what is published."""

import asyncio
import random

import pytest
from argon2.low_level import Type, core, ffi, lib

from core.errors import InvalidError, UnavailableError
from core.identity.lockout import (
    ADDRESSES_MAX,
    DELAY_MS_MAX,
    FREE_OF_ADDRESS,
    AddressBook,
    delay_ms,
    network_of,
    with_known,
)
from core.identity.passwords import (
    NOBODYS_HASH,
    WAITING_MAX_OF_ONE,
    Passwords,
    check_new_password,
    hash_password,
    is_password,
)
from core.identity.permissions import (
    ADMIN,
    BUILT_IN,
    GUARDED_KINDS,
    OPERATOR,
    VIEWER,
    allows,
    covers,
)
from core.identity.totp import (
    accepted_step,
    code_at,
    new_recovery_codes,
    qr_svg,
    recovery_hash,
    totp_uri,
    without_code,
)
from core.model import COLLECTIONS, Permission, kind_of

RFC_6238_SECRET = b"12345678901234567890"


def test_argon2id_gives_the_tag_of_rfc_9106_section_5_3():
    out = ffi.new("uint8_t[]", 32)
    parts = {"pwd": b"\x01" * 32, "salt": b"\x02" * 16, "secret": b"\x03" * 8, "ad": b"\x04" * 12}
    held = {name: ffi.new("uint8_t[]", value) for name, value in parts.items()}
    context = ffi.new("argon2_context *")
    context.version, context.out, context.outlen = 0x13, out, 32
    context.t_cost, context.m_cost, context.lanes, context.threads = 3, 32, 4, 4
    for name, value in parts.items():
        setattr(context, name, held[name])
        setattr(context, f"{name}len", len(value))
    context.allocate_cbk = context.free_cbk = ffi.NULL
    context.flags = lib.ARGON2_DEFAULT_FLAGS
    assert core(context, Type.ID.value) == lib.ARGON2_OK
    assert bytes(out).hex() == "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"


def test_a_password_is_known_by_its_hash_and_no_other_is():
    stored = hash_password("correct horse battery")
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert "correct" not in stored
    assert is_password("correct horse battery", stored)
    assert not is_password("correct horse batterz", stored)
    assert not is_password("", stored)
    assert hash_password("correct horse battery") != stored, "each hash has a salt of its own"


def test_what_stands_in_for_an_absent_account_costs_the_same_and_opens_nothing():
    assert NOBODYS_HASH.split("$")[1:4] == hash_password("any password").split("$")[1:4]
    for typed in ("", "anything", "no password " + "x" * 20):
        assert not is_password(typed, "")
        assert not is_password(typed, "no hash")


@pytest.mark.parametrize("bad", ["short", "a" * 12, "x" * 1025, "administrator", "rotartsinimda"])
def test_a_password_that_is_easy_to_guess_is_refused(bad):
    with pytest.raises(InvalidError):
        check_new_password(bad, "administrator")


async def test_a_flood_of_checks_is_refused_beyond_a_few_and_leaves_others_their_turn():
    passwords = Passwords()
    asked = [passwords.check("p", "", of="a") for _ in range(WAITING_MAX_OF_ONE + 3)]
    another = passwords.check("p", "", of="b")
    found = await asyncio.gather(*asked, another, return_exceptions=True)
    assert [isinstance(f, UnavailableError) for f in found].count(True) == 3
    assert found[-1] is False
    assert await passwords.check("p", "", of="a") is False, "places are given back"


@pytest.mark.parametrize(
    ("at_s", "code"),
    [(59, "287082"), (1111111109, "081804"), (1111111111, "050471"), (1234567890, "005924"),
     (2000000000, "279037"), (20000000000, "353130")],
)  # fmt: skip
def test_time_codes_are_those_of_rfc_6238_appendix_b(at_s, code):
    assert code_at(RFC_6238_SECRET, at_s // 30) == code
    assert accepted_step(RFC_6238_SECRET, code, now_ms=at_s * 1000, last_step=0) == at_s // 30


def test_a_code_is_good_one_step_around_and_once_only():
    step = 1000
    code = code_at(RFC_6238_SECRET, step)
    for late_s, good in ((-31, False), (-30, True), (0, True), (59, True), (60, False)):
        now_ms = (step * 30 + late_s) * 1000
        found = accepted_step(RFC_6238_SECRET, code, now_ms=now_ms, last_step=0)
        assert (found == step) is good, late_s
    now_ms = step * 30_000
    assert accepted_step(RFC_6238_SECRET, code, now_ms=now_ms, last_step=step) is None
    earlier = code_at(RFC_6238_SECRET, step - 1)
    assert accepted_step(RFC_6238_SECRET, earlier, now_ms=now_ms, last_step=step) is None
    for typed in ("", "0", "é" * 6, code + "0"):
        assert accepted_step(RFC_6238_SECRET, typed, now_ms=now_ms, last_step=0) is None


def test_an_app_gets_what_it_needs_as_an_address_and_a_picture():
    uri = totp_uri(RFC_6238_SECRET, account="alice", cluster="lab 1")
    assert uri.startswith("otpauth://totp/Kvorum%20lab%201:alice?secret=GEZDGNBVGY3TQOJQ")
    assert qr_svg(uri).startswith("<svg")


def test_a_recovery_code_works_once_however_it_is_typed():
    codes = new_recovery_codes()
    assert len(set(codes)) == 10
    stored = tuple(recovery_hash(code) for code in codes)
    left = without_code(stored, codes[3].upper().replace("-", " "))
    assert left is not None and len(left) == 9
    assert without_code(left, codes[3]) is None
    assert without_code(left, "") is None


def test_log_ins_are_held_back_for_longer_and_longer_but_never_for_ever():
    assert [delay_ms(n, 5) // 1000 for n in (0, 4, 5, 6, 7, 20, 10_000)] == [
        0, 0, 30, 60, 120, 900, 900,
    ]  # fmt: skip


def test_an_address_is_held_back_alone_and_forgotten_after_a_while():
    book = AddressBook()
    for _ in range(FREE_OF_ADDRESS):
        assert book.waits_ms("a", 0) == 0
        book.failed("a", 0)
    assert book.waits_ms("a", 0) == 30_000
    assert book.waits_ms("b", 0) == 0
    later_ms = 30_000 + DELAY_MS_MAX + 1
    book.failed("a", later_ms)
    assert book.waits_ms("a", later_ms) == 0


def test_a_flood_of_addresses_is_remembered_in_a_bounded_space():
    book = AddressBook()
    for number in range(ADDRESSES_MAX + 50):
        book.failed(str(number), 0)
    assert len(book._counts) == ADDRESSES_MAX


def test_one_subscriber_is_one_address():
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") == "2001:db8::/64"
    assert network_of("2001:db8:0:1::1") != network_of("2001:db8::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") == "192.0.2.1"
    assert with_known(("a", "b"), "b") == ("b", "a")


def test_every_shown_kind_is_for_viewers_or_guarded():
    viewed = {kind for p in VIEWER.permissions for kind in p.kinds}
    without_list = {"state", "api-certificate", "secrets-key", "callback-key", "workflow"}
    assert {kind_of(t) for t in COLLECTIONS.values()} == viewed | set(GUARDED_KINDS) - without_list
    assert not viewed & set(GUARDED_KINDS)


def test_roles_allow_what_they_say_and_nobody_gives_what_they_lack():
    assert allows(ADMIN.permissions, "state", "read")
    assert allows(OPERATOR.permissions, "vm", "delete")
    assert not allows(OPERATOR.permissions, "host", "change")
    assert not allows(VIEWER.permissions, "vm", "operate")
    assert not allows((), "vm", "read")
    assert covers(ADMIN.permissions, OPERATOR.permissions)
    assert covers(OPERATOR.permissions, VIEWER.permissions)
    assert not covers(VIEWER.permissions, OPERATOR.permissions)
    everything = Permission(kinds=("*",), actions=("read",))
    assert not covers(OPERATOR.permissions, (everything,))
    rng = random.Random(7)
    for _ in range(200):
        kinds = tuple(rng.choices(["vm", "host", "account", "*"], k=2))
        wanted = (Permission(kinds=kinds, actions=(rng.choice(["read", "change", "*"]),)),)
        for role in BUILT_IN.values():
            if covers(role.permissions, wanted):
                for kind in ("vm", "host", "account"):
                    for action in ("read", "change", "delete"):
                        held = allows(role.permissions, kind, action)
                        assert held or not allows(wanted, kind, action)
