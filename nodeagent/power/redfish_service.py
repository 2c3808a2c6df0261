"""One Redfish service (DMTF DSP0266), spoken to by HTTPS with HTTP basic authentication.

Boards have certificates of their own making, so one is known by its certificate's SHA-256 alone. That is compared as soon
as TLS stands, before anything is sent: no other service ever gets the log-in. There is no log-in session that could be left
behind. Nothing that the service says leads elsewhere: no redirect is followed, and links must be paths of the same service.
Answers are bounded; what they say reaches people without the password, should the service repeat it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
import msgspec
from yarl import URL

from core.errors import UnavailableError
from nodeagent.power.driver import Board

CALL_S = 10.0
CONNECT_S = 4.0
ANSWER_MAX_BYTES = 1 << 20
DONE = (200, 202, 204)
REDIRECTS = (301, 302, 307, 308)
HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "OData-Version": "4.0"}
_PATH = re.compile(r"/redfish/v1(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)+/?")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")

Answer = TypeVar("Answer")


@asynccontextmanager
async def bounded(board: Board) -> AsyncIterator[None]:
    """Give what is within `CALL_S` seconds.

    Raises:
        UnavailableError: it took longer.
    """
    try:
        async with asyncio.timeout(CALL_S):
            yield
    except TimeoutError as error:
        raise UnavailableError(
            f"the BMC at {board.address} did not answer within {CALL_S:g} s"
        ) from error


async def shown_fingerprint(board: Board) -> str:
    """Return the SHA-256 of the certificate that a service shows; it is told nothing.

    Raises:
        UnavailableError: nothing answers, or not with TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(board.address, board.port, ssl=context)
    except (OSError, TimeoutError, ValueError) as error:
        raise UnavailableError(_silent(board)) from error
    try:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    if not certificate:
        raise UnavailableError(f"the BMC at {board.address} shows no certificate")
    return hashlib.sha256(certificate).hexdigest()


class RedfishService:
    """A service whose certificate is known, for the requests of one call; close it."""

    def __init__(self, board: Board) -> None:
        if not _FINGERPRINT.fullmatch(board.fingerprint):
            raise UnavailableError(
                f"the certificate of the BMC at {board.address} is not known: name it anew with kvorum bmc set"
            )
        self._board = board
        log_in = aiohttp.encode_basic_auth(board.user, board.password)
        self._secrets = (board.password, log_in.removeprefix("Basic ").rstrip("="))
        connector = aiohttp.TCPConnector(
            ssl=aiohttp.Fingerprint(bytes.fromhex(board.fingerprint)), limit=1
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=HEADERS | {"Authorization": log_in},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=CALL_S, connect=CONNECT_S),
            auto_decompress=False,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def get(self, path: str, type_: type[Answer]) -> Answer:
        """Return what is at a path.

        Raises:
            UnavailableError: it can't be had, is too large, or is not of that type.
        """
        status, body = await self._request("GET", path)
        if status in REDIRECTS and not path.endswith("/"):
            path += "/"  # some services want it; wherever else they send us, we don't go
            status, body = await self._request("GET", path)
        if status != 200:
            raise self.fault(self._refusal(status, path))
        try:
            return msgspec.json.decode(body, type=type_)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self.fault(f"its answer at {path} can't be understood") from error

    async def post(self, path: str, body: dict[str, str]) -> None:
        """Have something done.

        Raises:
            UnavailableError: it was refused, or it is not known what became of it.
        """
        status, _ = await self._request("POST", path, body)
        if status not in DONE:
            raise self.fault(self._refusal(status, path))

    def fault(self, what: str) -> UnavailableError:
        """Return the error that says what is wrong with this service, the log-in left out."""
        for secret in self._secrets:
            what = what.replace(secret, "***")
        return UnavailableError(f"the BMC at {self._board.address}: {what}")

    async def _request(
        self, method: str, path: str, body: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        try:
            async with self._session.request(
                method, self._url(path), json=body, allow_redirects=False
            ) as answer:
                return answer.status, await self._read(answer)
        except aiohttp.ServerFingerprintMismatch as error:
            raise UnavailableError(changed_certificate(self._board, error.got.hex())) from error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise UnavailableError(_silent(self._board)) from error

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for part in answer.content.iter_any():
            body += part
            if len(body) > ANSWER_MAX_BYTES:
                answer.close()
                raise self.fault(f"its answer is larger than {ANSWER_MAX_BYTES >> 10} KiB")
        return bytes(body)

    def _url(self, path: str) -> URL:
        if not _PATH.fullmatch(path) or ".." in path:
            raise self.fault("it names what is no path of a Redfish service")
        where = URL.build(scheme="https", host=self._board.address, port=self._board.port)
        return where.with_path(path, encoded=True)

    @staticmethod
    def _refusal(status: int, path: str) -> str:
        if status in (401, 403):
            return f"wrong user or password, or the user may not do this (HTTP {status} at {path})"
        return f"it answered HTTP {status} at {path}"


def changed_certificate(board: Board, shown: str) -> str:
    """Say that a board isn't the one that is known, and what to do."""
    return (
        f"the BMC at {board.address} shows another certificate than the one that is known, and was told nothing: "
        f"{shown} instead of {board.fingerprint}. If its certificate was renewed, name it with --fingerprint"
    )


def _silent(board: Board) -> str:
    return f"the BMC at {board.address} does not answer as a Redfish service at port {board.port}"
