"""The secrets keys in this host's files: the one in use, and while keys are exchanged the next and the former one.

Each file is readable by root only, and replaced by rename. It holds a key of 32 bytes, or one wrapped by a key in an HSM,
with all that is needed to open it there but the PIN. So what a file says is enough to open it, and the settings say how it
is to be kept: where they differ, `settle` opens it and keeps it anew, file by file, and may be broken off anywhere.
`secrets.key` is all there is most of the time. Used by `nodeagent.services.secrets_rotation`, which decides what
happens, and by whoever seals or opens.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from core.errors import FatalError
from core.identity.hsm import (
    Hsm,
    HsmSettings,
    KeySettings,
    Pkcs11Hsm,
    SecretsLockedError,
    WrappedKey,
)
from core.identity.sealing import KEY_BYTES, key_id, make_key
from core.paths import Paths, write_file

log = logging.getLogger(__name__)

WRAPPED_MARK = b"KVH\x01"

Held = bytes | WrappedKey
"""What a file holds."""


class KeptKey(msgspec.Struct, frozen=True, kw_only=True):
    """How a host keeps its secrets key, for people. `place`: `file` or `hsm`; `fault`: why it can't be used."""

    place: str
    key_id: str = ""
    hsm: str = ""
    fault: str = ""


class Keyring:
    """Reads the files anew each time: they are small, and another process may look too. Opened keys stay in memory."""

    def __init__(
        self, paths: Paths, settings: KeySettings | None = None, hsm: Hsm | None = None
    ) -> None:
        self._paths, self._settings = paths, settings or KeySettings()
        self._hsm: Hsm = hsm or Pkcs11Hsm()
        self._opened: dict[bytes, bytes] = {}
        self._fault = ""
        self._check_fault = ""

    def keys(self, first: str = "") -> tuple[bytes, ...]:
        """Return all keys; the one with the id `first`, if it is here, before the one in use.

        Raises:
            FatalError: the key in use can't be read.
            SecretsLockedError: the HSM has not opened it.
        """
        beside = map(self._key_in, (self._paths.secrets_next, self._paths.secrets_old))
        found = [self._current(), *(key for key in beside if key is not None)]
        return tuple(sorted(found, key=lambda key: key_id(key) != first))

    def current_id(self) -> str:
        """Return the id of the key in use, opened or not; raises FatalError if it can't be read."""
        held = _read(self._paths.secrets_key)
        if held is None:
            raise self._lost()
        return held.key_id if isinstance(held, WrappedKey) else key_id(held)

    def key(self, id_: str) -> bytes | None:
        """Return the key with an id, None if it isn't here."""
        return next((key for key in self.keys() if key_id(key) == id_), None)

    def kept(self) -> KeptKey:
        """Return how this host keeps the key in use."""
        held, why = _read(self._paths.secrets_key), self._fault or self._check_fault
        match held:
            case None:
                return KeptKey(place="file", fault=why or self._lost().message)
            case WrappedKey():
                locked = self._key_in(self._paths.secrets_key) is None
                fault = why or ("the HSM has not opened it yet" if locked else "")
                return KeptKey(place="hsm", key_id=held.key_id, hsm=held.hsm.shown(), fault=fault)
            case _:
                return KeptKey(place="file", key_id=key_id(held), fault=why)

    async def settle(self) -> None:
        """Open what is wrapped, and keep each file as the settings say; cheap when nothing is to be done. Repeatable.

        Raises:
            FatalError: the key in use can't be read.
            SecretsLockedError: an HSM doesn't do its part. The files are as they were, or kept anew.
        """
        try:
            self.current_id()
            await self._settle(self._paths.secrets_key)
        except (FatalError, SecretsLockedError) as error:
            self._fault = error.message
            raise
        self._fault = ""
        for file in (self._paths.secrets_next, self._paths.secrets_old):
            try:
                await self._settle(file)
            except SecretsLockedError as error:  # it is fetched again if it is needed
                log.info(
                    "a secrets key stays closed", extra={"file": str(file), "error": str(error)}
                )
        files = (self._paths.secrets_key, self._paths.secrets_next, self._paths.secrets_old)
        there = {held.wrapped for held in map(_read, files) if isinstance(held, WrappedKey)}
        self._opened = {wrapped: key for wrapped, key in self._opened.items() if wrapped in there}

    def is_open(self) -> bool:
        """Tell whether the key in use is at hand."""
        return self._key_in(self._paths.secrets_key) is not None

    async def check(self) -> None:
        """Have the HSM open the key in use once more, so that one that is lost is noticed before the agent starts again.

        Raises:
            SecretsLockedError: it doesn't.
        """
        held = _read(self._paths.secrets_key)
        if not isinstance(held, WrappedKey):
            self._check_fault = ""
            return
        try:
            await self._open(held)
        except SecretsLockedError as error:
            self._check_fault = error.message
            raise
        self._check_fault = ""

    async def try_out(self) -> None:
        """Find out whether a key could be kept here now; raises SecretsLockedError if not."""
        if (hsm := self._keeper()) is not None:
            await self._hsm.wrap(hsm, (make_key(),))

    async def put(self, key: bytes) -> None:
        """Keep a key as the one in use, in place of what is there."""
        write_file(self._paths.secrets_key, await self._content(key))

    async def take(self, key: bytes) -> None:
        """Keep a key beside the one in use. One that is the present or the former key is here already."""
        if self.key(key_id(key)) is None:
            write_file(self._paths.secrets_next, await self._content(key))

    def use(self, id_: str) -> None:
        """Put the key with that id, which must be here, in use; the one before stays as the former one. Repeatable."""
        paths, key = self._paths, self.key(id_)
        assert key is not None, "taken before"
        if self.current_id() != id_:
            files = (paths.secrets_next, paths.secrets_old)
            content = next(file.read_bytes() for file in files if self._key_in(file) == key)
            write_file(paths.secrets_next, content)  # it may be the former one that is written over
            write_file(paths.secrets_old, paths.secrets_key.read_bytes())
            write_file(paths.secrets_key, content)
        if self._key_in(paths.secrets_next) == key:
            paths.secrets_next.unlink()

    def forget_former(self) -> None:
        """Delete the former key."""
        self._paths.secrets_old.unlink(missing_ok=True)

    def _current(self) -> bytes:
        held = _read(self._paths.secrets_key)
        if held is None:
            raise self._lost()
        key = self._key_in(self._paths.secrets_key)
        if key is None:
            raise SecretsLockedError(
                f"this host's secrets key is locked: {self._fault or 'the HSM has not opened it yet'}; "
                "ask another host, see 'kvorum secrets status'"
            )
        return key

    def _key_in(self, file: Path) -> bytes | None:
        """Return the key of a file, None if there is none or it isn't opened."""
        held = _read(file)
        return self._opened.get(held.wrapped) if isinstance(held, WrappedKey) else held

    def _keeper(self) -> HsmSettings | None:
        """Return the HSM that keys are to be wrapped by, None for keys in files."""
        if self._settings.keep == "as-it-is":
            held = _read(self._paths.secrets_key)
            return held.hsm if isinstance(held, WrappedKey) else None
        return self._settings.hsm if self._settings.keep == "hsm" else None

    async def _settle(self, file: Path) -> None:
        held = _read(file)
        if held is None:
            return
        key = held if isinstance(held, bytes) else self._opened.get(held.wrapped)
        if isinstance(held, WrappedKey) and key is None:
            key = self._opened[held.wrapped] = await self._open(held)
        kept_by = held.hsm if isinstance(held, WrappedKey) else None
        wanted = kept_by if self._settings.keep == "as-it-is" else self._keeper()
        if kept_by != wanted:
            assert key is not None, "opened above"
            write_file(file, await self._content(key))
            log.info(
                "the secrets key is kept anew", extra={"file": file.name, "hsm": wanted is not None}
            )

    async def _open(self, held: WrappedKey) -> bytes:
        (key,) = await self._hsm.unwrap(held.hsm, (held,))
        if not key:
            raise SecretsLockedError(
                f"the {held.hsm.shown()} of the HSM isn't the one that wrapped this host's secrets key"
            )
        return key

    async def _content(self, key: bytes) -> bytes:
        """Return what a file holds for a key, wrapped where it is to be."""
        hsm = self._keeper()
        if hsm is None:
            return key
        (held,) = await self._hsm.wrap(hsm, (key,))
        self._opened[held.wrapped] = key
        return WRAPPED_MARK + msgspec.msgpack.encode(held)

    def _lost(self) -> FatalError:
        return FatalError(
            f"the secrets key of this host can't be read: restore {self._paths.secrets_key}"
        )


def _read(path: Path) -> Held | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if len(content) == KEY_BYTES:
        return content
    if not content.startswith(WRAPPED_MARK):
        return None
    try:
        return msgspec.msgpack.decode(content[len(WRAPPED_MARK) :], type=WrappedKey)
    except msgspec.DecodeError:
        return None
