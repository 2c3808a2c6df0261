"""The secrets keys in this host's files: the one in use, and while keys are exchanged the next and the former one.

Each file is a key of 32 bytes, readable by root only, and replaced by rename. `secrets.key` is all there is most of
the time. Used by `nodeagent.services.secrets_rotation`, which decides what happens, and by whoever seals or opens.
"""

from __future__ import annotations

from pathlib import Path

from core.errors import FatalError
from core.identity.sealing import KEY_BYTES, key_id
from core.paths import Paths, write_file


class Keyring:
    """Reads the files anew each time: they are small, and another process may look too."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def keys(self, first: str = "") -> tuple[bytes, ...]:
        """Return all keys; the one with the id `first`, if it is here, before the one in use.

        Raises:
            FatalError: the key in use can't be read.
        """
        beside = map(_read, (self._paths.secrets_next, self._paths.secrets_old))
        found = [self._current(), *(key for key in beside if key is not None)]
        return tuple(sorted(found, key=lambda key: key_id(key) != first))

    def current_id(self) -> str:
        """Return the id of the key in use."""
        return key_id(self._current())

    def key(self, id_: str) -> bytes | None:
        """Return the key with an id, None if it isn't here."""
        return next((key for key in self.keys() if key_id(key) == id_), None)

    def take(self, key: bytes) -> None:
        """Keep a key beside the one in use. One that is the present or the former key is here already."""
        if self.key(key_id(key)) is None:
            write_file(self._paths.secrets_next, key)

    def use(self, id_: str) -> None:
        """Put the key with that id, which must be here, in use; the one before stays as the former one. Repeatable."""
        key = self.key(id_)
        assert key is not None, "taken before"
        if self.current_id() != id_:
            write_file(self._paths.secrets_old, self._current())
            write_file(self._paths.secrets_key, key)
        if _read(self._paths.secrets_next) == key:
            self._paths.secrets_next.unlink()

    def forget_former(self) -> None:
        """Delete the former key."""
        self._paths.secrets_old.unlink(missing_ok=True)

    def _current(self) -> bytes:
        key = _read(self._paths.secrets_key)
        if key is None:
            raise FatalError(
                f"the secrets key of this host can't be read: restore {self._paths.secrets_key}"
            )
        return key


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if len(content) == KEY_BYTES else None
