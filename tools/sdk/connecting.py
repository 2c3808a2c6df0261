"""Makes the client of JSON objects from settings; for the `kvorum` command and for the typed client."""

from __future__ import annotations

from collections.abc import Callable

from core.clock import SystemClock, system_random
from core.errors import PlatformError
from tools.sdk.addresses import address_file
from tools.sdk.client import Client
from tools.sdk.settings import Settings
from tools.sdk.transport import DEADLINE_S

OnRetry = Callable[[PlatformError], None]


def silent(error: PlatformError) -> None:
    """Say nothing of retries."""
    del error


def client_of(
    settings: Settings,
    *,
    anonymous: bool = False,
    deadline_s: float = DEADLINE_S,
    on_retry: OnRetry = silent,
) -> Client:
    """Return the client of JSON objects for these settings; it learns all agents' addresses and remembers them."""
    remember = None
    if settings.cache is not None and (settings.token or settings.access_key[0]):
        named = settings.endpoints
        remember = address_file(settings.cache, named, settings.ca_file, SystemClock())
    return Client(
        settings.endpoints,
        token=settings.token,
        access_key=settings.access_key,
        anonymous=anonymous,
        ca_file=settings.ca_file,
        rng=system_random(),
        on_retry=on_retry,
        deadline_s=deadline_s,
        learning=True,
        remember=remember,
    )
