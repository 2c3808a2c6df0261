"""Calls from this host to another's agent: JSON over HTTP on the mesh, both sides known by certificate.

Used by the agent's services that need a certain host (a migration's target, the leader's lease batch, an image's
holder), and by a host that wants to rejoin. The called side is `nodeagent.mesh_rpc`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol, TypeVar

import aiohttp
import msgspec

from core.errors import NotFoundError, PlatformError, UnavailableError
from core.logs import REQUEST_ID
from core.mesh.dialer import MeshDialer
from core.mesh.tls import HTTP

T = TypeVar("T")

CALL_TIMEOUT_S = 5.0
STREAM_IDLE_TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 20
GENERATION = "Kvorum-Generation"
REQUEST_HEADER = "X-Request-Id"


class Callee(Protocol):
    """What it takes to call a host."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def mesh_port(self) -> int: ...


class Nothing(msgspec.Struct, frozen=True):
    """An empty body."""


class MeshProblem(msgspec.Struct, frozen=True, kw_only=True):
    """How a refused call comes back."""

    code: str = "error"
    detail: str = "the other agent refused"
    status: int = 500


class MeshClient:
    """One connection pool to all peers. Open with `async with`.

    `generation` is what this host says with each call, so that hosts of different generations don't work together.
    """

    def __init__(self, dialer: MeshDialer, *, generation: Callable[[], int] = lambda: 0) -> None:
        self._dialer, self._generation = dialer, generation
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> MeshClient:
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit_per_host=16))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()

    async def call(
        self,
        host: Callee,
        path: str,
        body: msgspec.Struct,
        answer: type[T],
        *,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> T:
        """POST `body` to `path` (`/mesh/...`) of a host and return its decoded answer.

        Raises:
            UnavailableError: no answer in time; whether it took effect is unknown.
            PlatformError: refused, with the other agent's code and message.
        """
        assert self._http is not None, "used inside async with"
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._http.post(
                    _url(host, path),
                    data=msgspec.json.encode(body),
                    headers=self._headers(),
                    ssl=self._dialer.ssl_context(host.id, HTTP),
                ) as response,
            ):
                content = await response.read()
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnavailableError(f"host {host.name} does not answer: {why(error)}") from None
        if status >= 400:
            raise _refused(content)
        return msgspec.json.decode(content, type=answer)

    async def download(self, host: Callee, path: str) -> AsyncIterator[bytes]:
        """Yield the bytes of `GET path` of a host.

        Raises:
            NotFoundError: it does not have them.
            UnavailableError: the connection failed; what came so far is incomplete.
        """
        assert self._http is not None, "used inside async with"
        timeout = aiohttp.ClientTimeout(total=None, sock_read=STREAM_IDLE_TIMEOUT_S, connect=5.0)
        try:
            async with self._http.get(
                _url(host, path),
                headers=self._headers(),
                ssl=self._dialer.ssl_context(host.id, HTTP),
                timeout=timeout,
            ) as response:
                if response.status == NotFoundError.http_status:
                    raise NotFoundError(f"host {host.name} does not have {path}")
                if response.status >= 400:
                    raise _refused(await response.read())
                async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                    yield chunk
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnavailableError(
                f"host {host.name}: the transfer broke off: {why(error)}"
            ) from None

    def _headers(self) -> dict[str, str]:
        request_id = REQUEST_ID.get()
        about = {REQUEST_HEADER: request_id} if request_id else {}
        return {GENERATION: str(self._generation()), **about}


def why(error: BaseException) -> str:
    """Return what went wrong with a connection, without the library's own words around it."""
    match error:
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ClientConnectorError(os_error=cause):
            return cause.strerror or str(cause)
        case _:
            return str(error) or type(error).__name__


def _url(host: Callee, path: str) -> str:
    address = f"[{host.address}]" if ":" in host.address else host.address
    return f"https://{address}:{host.mesh_port}{path}"


def _refused(content: bytes) -> PlatformError:
    try:
        problem = msgspec.json.decode(content, type=MeshProblem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = MeshProblem()
    if problem.status == UnavailableError.http_status:
        return UnavailableError(problem.detail)
    error = PlatformError(problem.detail, code=problem.code)
    error.http_status = problem.status
    return error
