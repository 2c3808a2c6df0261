"""Log-in, access keys and audits of one member, and what they share. Made by `nodeagent.member`, reached through `Services`."""

from __future__ import annotations

import random
from collections.abc import Callable

from core.clock import Clock
from core.identity.sealing import Keys
from nodeagent.identity.access_keys import AccessKeys
from nodeagent.identity.audits import Audits
from nodeagent.identity.known_callers import KnownCallers
from nodeagent.identity.login import FAILURE_TAKES_S, Login
from nodeagent.identity.opening import Opener
from raftstate.store import Store


class Identity:
    """What the API needs to know people and to record what they do."""

    def __init__(
        self,
        store: Store,
        host_id: str,
        *,
        clock: Clock,
        rng: random.Random,
        secrets_key: Callable[[], Keys],
        failure_takes_s: float = FAILURE_TAKES_S,
    ) -> None:
        self.secrets_key = secrets_key
        self.callers = KnownCallers(store)
        self.audits = Audits(store, host_id, clock=clock, rng=rng)
        self.keys = AccessKeys(store, self.audits, clock=clock, secrets_key=secrets_key)
        self.opener = Opener(store, secrets_key)
        self.login = Login(
            store,
            self.audits,
            clock=clock,
            rng=rng,
            secrets_key=secrets_key,
            failure_takes_s=failure_takes_s,
        )
