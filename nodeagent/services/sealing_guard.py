"""What whoever seals a secret must guard: that the secrets key in use is still the one that this host knows to be.

Without it a value sealed with a former key could be stored just after everything was sealed anew, and be lost with that key.
"""

from __future__ import annotations

from core.model import SecretsKey
from raftstate.store import Store

SECRETS_KEY_ID = "secrets-key"


def sealing_guards(store: Store) -> tuple[SecretsKey, ...]:
    """Return the guards of a transaction that stores a sealed value. Read them before the key."""
    absent = SecretsKey(id=SECRETS_KEY_ID, name=SECRETS_KEY_ID, key_id="")
    return tuple(store.all(SecretsKey)) or (absent,)
