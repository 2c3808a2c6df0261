"""The Python SDK of Kvorum: `with kvorum_sdk.connect() as kvorum: kvorum.vms.list()`.

`connect` returns a client that blocks, `connect_async` one for asyncio; both have the same methods. `models` are the classes
of what is given and returned. docs/development is the manual.
"""

from core.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    PlatformError,
    PreconditionError,
    UnauthenticatedError,
    UnavailableError,
)
from tools.sdk.endpoints import Endpoint
from tools.sdk.generated import models
from tools.sdk.items import Item, Page
from tools.sdk.kvorum import AsyncKvorum, Kvorum, connect, connect_async
from tools.sdk.problems import ServerError
from tools.sdk.started import Started, TaskFailedError
from tools.sdk.tasks import TaskView

__all__ = [
    "AsyncKvorum",
    "ConflictError",
    "Endpoint",
    "ForbiddenError",
    "InvalidError",
    "Item",
    "Kvorum",
    "NotFoundError",
    "Page",
    "PlatformError",
    "PreconditionError",
    "ServerError",
    "Started",
    "TaskFailedError",
    "TaskView",
    "UnauthenticatedError",
    "UnavailableError",
    "connect",
    "connect_async",
    "models",
]
