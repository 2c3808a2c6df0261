"""The secrets key behind a hardware module (HSM) by PKCS#11: settings, what is exchanged, and the calls.

A key inside the module, which never leaves it, wraps the secrets key; a host's disk has the wrapped form only. Used by
`core.identity.keyring`. A module is a vendor's library: it may hang, crash or write to the terminal. So it is loaded by a
process of its own for each call (`core.identity.hsm_process`), which is killed when it takes too long; calls are few:
one when the agent starts, one an hour, and some while the secrets key is being changed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Protocol

import msgspec

from core import command
from core.errors import PlatformError, UnavailableError

CALL_TIMEOUT_S = 20.0
PROCESS = (sys.executable, "-m", "core.identity.hsm_process")

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
FilePath = Annotated[str, msgspec.Meta(pattern="^/", max_length=1024)]


class SecretsLockedError(UnavailableError):
    """This host can't open or keep its secrets key, for its HSM doesn't answer as it should."""

    code = "secrets-locked"


class HsmSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a wrapping key is: the vendor's module, the token by its label or slot, the key by its label.

    The PIN is in `pin_file`, which only root may read; it is nowhere else.
    """

    module: FilePath
    key: Text
    pin_file: FilePath
    token: str = ""
    slot: Annotated[int, msgspec.Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        if bool(self.token) == (self.slot is not None):
            raise ValueError("an HSM's token is named by either `token`, its label, or `slot`")

    def shown(self) -> str:
        """Return it for people."""
        token = f"token {self.token}" if self.token else f"slot {self.slot}"
        return f"key {self.key} in {token}"


class KeySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How this host keeps the secrets key: in a file, or in a file wrapped by an HSM; `as-it-is` changes nothing."""

    keep: Literal["as-it-is", "file", "hsm"] = "as-it-is"
    hsm: HsmSettings | None = None

    def __post_init__(self) -> None:
        if self.keep == "hsm" and self.hsm is None:
            raise ValueError('keep = "hsm" needs the table [secrets_key.hsm]')


class Mechanism(StrEnum):
    """How a key was wrapped."""

    AES_GCM = "aes-gcm"
    AES_KEY_WRAP = "aes-key-wrap"


class WrappedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A secrets key as it is on disk, with all that is needed to open it but the PIN."""

    key_id: str
    hsm: HsmSettings
    mechanism: Mechanism
    wrapped: bytes


class HsmFault(StrEnum):
    """Why a call failed. After `PIN` the same PIN isn't tried again: tokens lock themselves after a few tries."""

    NONE = ""
    UNREACHABLE = "unreachable"
    PIN = "pin"
    KEY = "key"


class HsmJob(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is to do: wrap these keys, and unwrap those."""

    hsm: HsmSettings
    keys: tuple[bytes, ...] = ()
    wrapped: tuple[WrappedKey, ...] = ()

    def __repr__(self) -> str:
        return "HsmJob(***)"


class HsmDone(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. A key that the HSM can't open is empty."""

    fault: HsmFault = HsmFault.NONE
    why: str = ""
    wrapped: tuple[WrappedKey, ...] = ()
    keys: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"HsmDone({self.fault}, {self.why}, ***)"


class Hsm(Protocol):
    """Wraps and opens secrets keys. Errors are `SecretsLockedError`, with what to do."""

    async def wrap(self, settings: HsmSettings, keys: Sequence[bytes]) -> tuple[WrappedKey, ...]:
        """Return keys wrapped; each was opened again and compared."""

    async def unwrap(self, settings: HsmSettings, wrapped: Sequence[WrappedKey]) -> list[bytes]:
        """Return keys; empty for those that the HSM's key doesn't open."""


class Pkcs11Hsm:
    """The HSMs of this host, by PKCS#11, one call at a time."""

    def __init__(self, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._busy = asyncio.Lock()
        self._refused_pins: dict[HsmSettings, tuple[int, int]] = {}

    async def wrap(self, settings: HsmSettings, keys: Sequence[bytes]) -> tuple[WrappedKey, ...]:
        done = await self._do(HsmJob(hsm=settings, keys=tuple(keys)))
        return done.wrapped

    async def unwrap(self, settings: HsmSettings, wrapped: Sequence[WrappedKey]) -> list[bytes]:
        done = await self._do(HsmJob(hsm=settings, wrapped=tuple(wrapped)))
        return list(done.keys)

    async def _do(self, job: HsmJob) -> HsmDone:
        about = job.hsm.shown()
        async with self._busy:
            pin = _version_of(Path(job.hsm.pin_file))
            if pin is not None and self._refused_pins.get(job.hsm) == pin:
                raise SecretsLockedError(
                    f"the HSM refused the PIN for {about}, and it isn't tried again, for tokens lock themselves: "
                    f"write the right one to {job.hsm.pin_file}"
                )
            done = await self._run(job)
            if done.fault is HsmFault.PIN and pin is not None:
                self._refused_pins[job.hsm] = pin
            elif not done.fault:
                self._refused_pins.pop(job.hsm, None)
        if done.fault:
            raise SecretsLockedError(f"the HSM can't be used for {about}: {done.why}")
        return done

    async def _run(self, job: HsmJob) -> HsmDone:
        """Run the process; of what it says only its answer is believed, and nothing else repeated: it is a vendor's."""
        try:
            done = await command.run(
                PROCESS, timeout_s=self._timeout_s, input=msgspec.msgpack.encode(job)
            )
            return msgspec.msgpack.decode(done.stdout, type=HsmDone)
        except command.CommandTimeoutError:
            why = f"it did not answer within {self._timeout_s:g} s"
        except command.CommandError as error:
            why = f"the module {job.hsm.module} ended with code {error.code_number}"
        except (PlatformError, msgspec.DecodeError):
            why = f"the module {job.hsm.module} gave no answer"
        return HsmDone(fault=HsmFault.UNREACHABLE, why=why)


def _version_of(file: Path) -> tuple[int, int] | None:
    """Return what changes when a file is written anew."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
