"""Opening what is sealed, for requests: a host that lacks the secrets key for a while says so, and isn't broken.

While the key is changed, a host that was off has only the former one until it has fetched the key in use from another.
Used by the log-in, time codes and access keys.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from core.errors import FatalError, UnavailableError
from core.identity.sealing import Keys, key_id, unseal
from core.model import SecretsKey
from nodeagent.services.sealing_guard import SECRETS_KEY_ID
from raftstate.store import Store

log = logging.getLogger(__name__)


class SecretsKeyMissingError(UnavailableError):
    """This host doesn't have the secrets key in use."""

    code = "no-secrets-key"


class Opener:
    """Opens sealed values with the keys of this host."""

    def __init__(self, store: Store, secrets_key: Callable[[], Keys]) -> None:
        self._store = store
        self._secrets_key = secrets_key

    def keys(self) -> Keys:
        """Return this host's secrets keys, the one in use among them.

        Raises:
            SecretsKeyMissingError: it isn't.
        """
        record = self._store.get(SecretsKey, SECRETS_KEY_ID)
        try:
            keys = self._secrets_key()
        except FatalError:
            raise _missing() from None
        several = (keys,) if isinstance(keys, bytes) else keys
        if record is not None and record.key_id not in map(key_id, several):
            raise _missing()
        return keys

    def open(self, name: str, sealed: bytes, keys: Keys | None = None) -> bytes:
        """Return the secret; `keys` if they were read already.

        Raises:
            SecretsKeyMissingError: this host can't open it.
        """
        try:
            return unseal(self.keys() if keys is None else keys, name, sealed)
        except FatalError as error:
            log.warning("a secret can't be opened", extra={"error": error.message})
            raise _missing() from None


def _missing() -> SecretsKeyMissingError:
    return SecretsKeyMissingError(
        "this host doesn't have the secrets key in use: it fetches it from the others by itself; "
        "ask another host meanwhile, and see 'kvorum secrets status'"
    )
