"""The process that loads a PKCS#11 module, does one job and ends: `python -m core.identity.hsm_process`.

Started by `core.identity.hsm`; job and answer are msgpack on standard input and output. The only module that knows the
binding. The module's own output goes nowhere, the PIN is read from its file here and is never in arguments, environment
or messages, and no core dump is made. Of the binding's errors only the names are told.

AES-GCM is taken where the key can do it: it treats the secrets key as data, which modules in FIPS mode allow, and the id of
the key is authenticated. Else AES key wrap (RFC 3394). What was wrapped counts only after it was opened again.
"""

from __future__ import annotations

import os
import resource
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pkcs11
from pkcs11 import Attribute, KeyType, ObjectClass, TokenFlag
from pkcs11.exceptions import (
    AttributeSensitive,
    AttributeTypeInvalid,
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    PKCS11Error,
    UserPinNotInitialized,
)
from pkcs11.mechanisms import GCMParams
from pkcs11.mechanisms import Mechanism as Cryptoki

from core.identity.hsm import HsmDone, HsmFault, HsmJob, HsmSettings, Mechanism, WrappedKey
from core.identity.sealing import KEY_BYTES, NONCE_BYTES, TAG_BYTES, key_id

PIN_BYTES_MAX = 1024
OTHERS_BITS = stat.S_IRWXG | stat.S_IRWXO
PIN_ERRORS = (
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    UserPinNotInitialized,
)


class _Refused(Exception):
    def __init__(self, fault: HsmFault, why: str) -> None:
        super().__init__(why)
        self.done = HsmDone(fault=fault, why=why)


def main() -> None:
    """Do the job on standard input."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # modules write to the terminal
    os.dup2(nowhere, 2)
    job = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=HsmJob)
    try:
        done = _do(job)
    except _Refused as refused:
        done = refused.done
    except (PKCS11Error, RuntimeError, OSError) as error:
        done = HsmDone(fault=HsmFault.UNREACHABLE, why=f"it answers {_name(error)}")
    with os.fdopen(answer, "wb") as out:
        out.write(msgspec.msgpack.encode(done))


def _do(job: HsmJob) -> HsmDone:
    pin = _pin(Path(job.hsm.pin_file))
    token = _token(job.hsm)
    if token.flags & (TokenFlag.USER_PIN_LOCKED | TokenFlag.USER_PIN_FINAL_TRY):
        why = "the token is locked, or would be after one more wrong PIN: log in to it once with its own tool"
        raise _Refused(HsmFault.PIN, why)
    try:
        session = token.open(user_pin=pin)
    except PIN_ERRORS as error:
        why = f"it refuses the PIN in {job.hsm.pin_file} ({_name(error)})"
        raise _Refused(HsmFault.PIN, why) from None
    with session:
        key = _key(session, job.hsm)
        wrapped = tuple(_wrap(session, token, key, job.hsm, secret) for secret in job.keys)
        return HsmDone(wrapped=wrapped, keys=tuple(_opened(session, key, w) for w in job.wrapped))


def _pin(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            found = os.fstat(opened.fileno())
            pin = opened.read(PIN_BYTES_MAX + 1).removesuffix(b"\n").removesuffix(b"\r")
    except OSError as error:
        raise _Refused(
            HsmFault.PIN, f"the file of the PIN, {file}, can't be read ({error.strerror})"
        ) from None
    if found.st_mode & OTHERS_BITS or found.st_uid != os.geteuid():
        raise _Refused(
            HsmFault.PIN, f"others can read the PIN: 'chown root {file}; chmod 600 {file}'"
        )
    if not 0 < len(pin) <= PIN_BYTES_MAX:
        raise _Refused(
            HsmFault.PIN, f"{file} must hold the PIN, 1 to {PIN_BYTES_MAX} bytes in one line"
        )
    try:
        return pin.decode()
    except UnicodeDecodeError:
        raise _Refused(HsmFault.PIN, f"what {file} holds is no UTF-8") from None


def _token(hsm: HsmSettings) -> pkcs11.Token:
    if not Path(hsm.module).is_file():
        raise _Refused(HsmFault.UNREACHABLE, f"there is no PKCS#11 module {hsm.module}")
    slots = pkcs11.lib(hsm.module).get_slots(token_present=True)
    if hsm.slot is not None:
        slots = [slot for slot in slots if slot.slot_id == hsm.slot]
    found = [slot.get_token() for slot in slots]
    if hsm.slot is None:
        found = [token for token in found if token.label == hsm.token]
    if len(found) != 1:
        why = f"{len(found) or 'no'} tokens there have that name; exactly one must"
        raise _Refused(HsmFault.UNREACHABLE, why)
    return found[0]


def _key(session: pkcs11.Session, hsm: HsmSettings) -> pkcs11.SecretKey:
    wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: hsm.key}
    found = [key for key in session.get_objects(wanted) if isinstance(key, pkcs11.SecretKey)]
    if len(found) != 1:
        why = f"{len(found) or 'no'} keys in the token have that label; exactly one AES key must"
        raise _Refused(HsmFault.KEY, why)
    key = found[0]
    if key.key_type is not KeyType.AES:
        raise _Refused(HsmFault.KEY, "it is no AES key")
    try:
        kept = key[Attribute.SENSITIVE] and not key[Attribute.EXTRACTABLE]
    except (AttributeTypeInvalid, AttributeSensitive):
        kept = False
    if not kept:
        raise _Refused(
            HsmFault.KEY,
            "it can be read out of the token: make one that is sensitive and not extractable",
        )
    return key


def _wrap(
    session: pkcs11.Session,
    token: pkcs11.Token,
    key: pkcs11.SecretKey,
    hsm: HsmSettings,
    secret: bytes,
) -> WrappedKey:
    """Wrap by the first mechanism whose result opens again."""
    id_, tried = key_id(secret), []
    known = token.slot.get_mechanisms()
    for mechanism, cryptoki, wrap in WAYS:
        if cryptoki not in known:
            continue
        try:
            content = wrap(session, key, id_, secret)
        except (PKCS11Error, AttributeError) as error:  # the latter: the key isn't allowed to
            tried.append(f"{cryptoki.name}: {_name(error)}")
            continue
        wrapped = WrappedKey(key_id=id_, hsm=hsm, mechanism=mechanism, wrapped=content)
        if _opened(session, key, wrapped) == secret:
            return wrapped
        tried.append(f"{cryptoki.name}: it doesn't open what it wrapped")
    why = f"the key can neither encrypt by AES_GCM nor wrap by AES_KEY_WRAP ({'; '.join(tried) or 'unknown to the token'})"
    raise _Refused(HsmFault.KEY, why)


def _opened(session: pkcs11.Session, key: pkcs11.SecretKey, wrapped: WrappedKey) -> bytes:
    """Return the key, empty if this one doesn't open it."""
    try:
        if wrapped.mechanism is Mechanism.AES_GCM:
            content = _open_gcm(key, wrapped)
        else:
            content = _open_key_wrap(session, key, wrapped.wrapped)
    except (PKCS11Error, AttributeError):
        return b""
    return content if len(content) == KEY_BYTES and key_id(content) == wrapped.key_id else b""


def _gcm(session: pkcs11.Session, key: pkcs11.SecretKey, id_: str, secret: bytes) -> bytes:
    del session
    nonce = os.urandom(NONCE_BYTES)
    params = GCMParams(nonce, _about(id_), TAG_BYTES * 8)
    return nonce + bytes(
        key.encrypt(secret, mechanism=Cryptoki.AES_GCM, mechanism_param=params)  # type: ignore[attr-defined]  # the binding gives a key the methods that it may use
    )


def _open_gcm(key: pkcs11.SecretKey, wrapped: WrappedKey) -> bytes:
    nonce, content = wrapped.wrapped[:NONCE_BYTES], wrapped.wrapped[NONCE_BYTES:]
    params = GCMParams(nonce, _about(wrapped.key_id), TAG_BYTES * 8)
    return bytes(
        key.decrypt(content, mechanism=Cryptoki.AES_GCM, mechanism_param=params)  # type: ignore[attr-defined]  # as above
    )


def _key_wrap(session: pkcs11.Session, key: pkcs11.SecretKey, id_: str, secret: bytes) -> bytes:
    del id_
    passing = session.create_object(_PASSING | {Attribute.VALUE: secret})
    return bytes(key.wrap_key(passing, mechanism=Cryptoki.AES_KEY_WRAP))  # type: ignore[attr-defined]  # as above


def _open_key_wrap(session: pkcs11.Session, key: pkcs11.SecretKey, content: bytes) -> bytes:
    del session
    passing = key.unwrap_key(  # type: ignore[attr-defined]  # as above
        ObjectClass.SECRET_KEY,
        KeyType.GENERIC_SECRET,
        content,
        mechanism=Cryptoki.AES_KEY_WRAP,
        template=_PASSING,
    )
    return bytes(passing[Attribute.VALUE])


_PASSING = {
    Attribute.CLASS: ObjectClass.SECRET_KEY,
    Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
    Attribute.TOKEN: False,
    Attribute.SENSITIVE: False,
    Attribute.EXTRACTABLE: True,
}
Wrap = Callable[[pkcs11.Session, pkcs11.SecretKey, str, bytes], bytes]
WAYS: tuple[tuple[Mechanism, Cryptoki, Wrap], ...] = (
    (Mechanism.AES_GCM, Cryptoki.AES_GCM, _gcm),
    (Mechanism.AES_KEY_WRAP, Cryptoki.AES_KEY_WRAP, _key_wrap),
)


def _about(id_: str) -> bytes:
    return b"kvorum secrets key " + id_.encode()


def _name(error: Exception) -> str:
    return type(error).__name__


if __name__ == "__main__":
    main()
