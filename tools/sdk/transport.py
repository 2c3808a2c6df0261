"""One request to whichever agent answers: fail-over between endpoints, retries, deadlines, TLS.

Used by `Client` only. A change carries an Idempotency-Key that stays the same over all tries, so a
request whose answer was lost is not done twice. The protocol library (aiohttp) is known only here.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType

import aiohttp
from yarl import URL

from core.clock import Clock, new_id
from core.errors import PlatformError, UnauthenticatedError, UnavailableError
from core.identity.signing import Signed, authorization
from tools.sdk.addresses import Addresses, AddressFile
from tools.sdk.agents import ASK_TIMEOUT_S, FRESH_S, agents_of, agents_query
from tools.sdk.endpoints import Endpoint
from tools.sdk.problems import NOT_A_MEMBER, RETRIED_STATUSES, error_of

CONNECT_TIMEOUT_S = 4.0
FIRST_DELAY_S = 0.2
DELAY_S_MAX = 2.0
CUT_UPLOAD_LINGER_S = 0.1
TRY_TIMEOUT_S = 30.0
FILE_SILENCE_S = 60.0
DEADLINE_S = 90.0
SYSTEM_CA = "system"


@dataclass(frozen=True, slots=True)
class Request:
    """What to send. `path` is quoted already. `timeout_s` bounds one try, not the sum of them.

    `stream` gives the body anew for each try and has `size_bytes` bytes and the hash `sha256`; without it `body` is sent.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: Callable[[], AsyncIterator[bytes]] | None = None
    size_bytes: int = 0
    sha256: str = ""
    timeout_s: float = TRY_TIMEOUT_S
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer below 400."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Access:
    """How to be let in. `ca_file` is a file of PEM certificates, or `system` for the machine's own set."""

    token: str = field(default="", repr=False)
    access_key: tuple[str, str] = field(default=("", ""), repr=False)  # id and secret
    ca_file: str = ""
    anonymous: bool = False  # to log in, which needs no token but brings one


class Unreachable(UnavailableError):
    """No answer from one endpoint; `hopeless` when trying it again cannot help."""

    def __init__(self, message: str, *, hopeless: bool = False) -> None:
        super().__init__(message)
        self.hopeless = hopeless


class Transport:
    """Sends requests; stays with the endpoint that answered last.

    `patience_s` is how long an agent or a quorum that is away is waited for; a client that has never had
    an answer gives up after `first_patience_s`. `deadline_s` bounds a request with all its tries, whatever happens;
    one that may take long by itself gets that time on top. `on_retry` hears of each error that will be tried again.
    With `learning` the cluster is asked for its agents once a minute of use, and `remember` keeps them.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        access: Access,
        *,
        clock: Clock,
        rng: random.Random,
        patience_s: float,
        first_patience_s: float,
        on_retry: Callable[[PlatformError], None],
        deadline_s: float = DEADLINE_S,
        learning: bool = False,
        remember: AddressFile | None = None,
    ) -> None:
        learned, age_s = remember.load() if remember is not None else ((), float("inf"))
        self._addresses = Addresses(endpoints, learned)
        self._remember = remember
        self._deadline_s = deadline_s
        # The machine's own certificates are for names, and hosts are known by their addresses.
        self._learning = (
            learning and bool(access.token or access.access_key[0]) and access.ca_file != SYSTEM_CA
        )
        self._learn_in_s = 0.0 if age_s > FRESH_S else FRESH_S
        self._learn_at_s: float | None = None
        self._access = access
        self._clock = clock
        self._rng = rng
        self._patience_s = patience_s
        self._first_patience_s = first_patience_s
        self._on_retry = on_retry
        self._answered = False
        self._cut_upload = False
        self._sessions: dict[Endpoint, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Transport:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()
        if self._cut_upload:  # a closing connection still holds what was not sent
            await asyncio.sleep(CUT_UPLOAD_LINGER_S)

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that is asked next."""
        return self._addresses.current

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every agent that may be asked: those named, and those that the cluster told of."""
        return self._addresses.all

    async def send(self, request: Request) -> Reply:
        """Return the answer of the first agent that gives one.

        Raises:
            UnavailableError: none did in time, or there is no quorum.
            PlatformError: the request was refused; the kind says how.
        """
        reply = await self._send_in_time(request)
        await self.learn_if_due()
        return reply

    async def _send_in_time(self, request: Request) -> Reply:
        longest_s = self._deadline_s
        if request.timeout_s > TRY_TIMEOUT_S:
            longest_s += request.timeout_s
        try:
            async with asyncio.timeout(longest_s):
                return await self._send(request)
        except TimeoutError:
            raise UnavailableError(
                f"none of {len(self.endpoints)} agents gave an answer within {longest_s:g} s: see kvorum status"
            ) from None

    async def _send(self, request: Request) -> Reply:
        headers = self._headers(request)
        began_s = asyncio.get_running_loop().time()
        attempt = 0
        refusal: PlatformError | None = None
        not_before_s: dict[Endpoint, float] = {}
        while True:
            endpoint = self.endpoint
            try:
                async with self._exchange(
                    endpoint, request, headers, request.timeout_s
                ) as response:
                    body = await response.read()
            except Unreachable as error:
                failure: PlatformError = error
                self._cut_upload |= request.stream is not None
            else:
                if response.status < 400:
                    return Reply(response.status, response.headers, body)
                failure = error_of(response.status, body)
                self._cut_upload |= request.stream is not None
                if response.status not in RETRIED_STATUSES or failure.code == NOT_A_MEMBER:
                    raise failure
                refusal = failure
                if response.status == 429:
                    now_s = asyncio.get_running_loop().time()
                    not_before_s[endpoint] = now_s + retry_after_s(response.headers)
            if not await self._wait_for_another_try(
                endpoint, failure, attempt, began_s, not_before_s
            ):
                raise refusal or failure
            attempt += 1

    @asynccontextmanager
    async def open_stream(self, request: Request) -> AsyncIterator[aiohttp.StreamReader]:
        """Open an answer without end, once, at the present endpoint; the reader is for the block.

        Raises:
            UnavailableError: nothing came; the next call asks the next endpoint.
            PlatformError: the request was refused.
        """
        endpoint = self.endpoint
        try:
            async with self._exchange(
                endpoint, request, self._headers(request), request.timeout_s, streaming=True
            ) as response:
                if response.status >= 400:
                    async with asyncio.timeout(request.timeout_s):
                        raise error_of(response.status, await response.read())
                yield response.content
        except UnavailableError:
            self._addresses.leave(endpoint)
            raise

    async def learn_if_due(self) -> None:
        """Ask the cluster for its agents, once a minute at most; what can't be learned now is learned later."""
        now_s = asyncio.get_running_loop().time()
        if self._learn_at_s is None:
            self._learn_at_s = now_s + self._learn_in_s
        if not self._learning or now_s < self._learn_at_s:
            return
        self._learn_at_s = now_s + FRESH_S
        request = Request("GET", "/v1/hosts", query=agents_query())
        endpoint = self.endpoint
        try:
            async with self._exchange(
                endpoint, request, self._headers(request), ASK_TIMEOUT_S
            ) as response:
                if response.status != 200:
                    return
                found = list(agents_of(await response.read()))
        except UnavailableError:
            return
        if found:
            self._rng.shuffle(found)  # so that not all clients go to the same one when theirs dies
            self._addresses.learn(found)
            if self._remember is not None:
                self._remember.save(found)

    async def _wait_for_another_try(
        self,
        endpoint: Endpoint,
        failure: PlatformError,
        attempt: int,
        began_s: float,
        not_before_s: Mapping[Endpoint, float],
    ) -> bool:
        """Move to the next endpoint and sleep; False when it is time to give up.

        `not_before_s`: when those may be asked again that had enough of this caller (429). What agents say with 503 is
        about as long as the pauses here grow, and a new leader is often there sooner.
        """
        count = len(self.endpoints)
        hopeless = isinstance(failure, Unreachable) and failure.hopeless
        if hopeless and count == 1:
            return False
        self._addresses.leave(endpoint)
        delay_s = 0.0
        if (attempt + 1) % count == 0:
            longest_s = min(DELAY_S_MAX, FIRST_DELAY_S * 2 ** min(attempt // count, 10))
            delay_s = self._rng.uniform(longest_s / 2, longest_s)
        now_s = asyncio.get_running_loop().time()
        delay_s = max(delay_s, not_before_s.get(self.endpoint, 0.0) - now_s)
        patience_s = self._patience_s if self._answered else self._first_patience_s
        # One agent that is slow to be away must not use up the time for asking the others once.
        all_asked = attempt + 1 >= count
        if all_asked and now_s + delay_s - began_s > patience_s:
            return False
        self._on_retry(failure)
        await asyncio.sleep(delay_s)
        return True

    @asynccontextmanager
    async def _exchange(
        self,
        endpoint: Endpoint,
        request: Request,
        headers: Mapping[str, str],
        timeout_s: float,
        *,
        streaming: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send once; the block reads the answer. Every failure of the line becomes `Unreachable`.

        The time is for the whole answer, or with `streaming` for its beginning.
        """
        url = URL(endpoint.base_url + request.path, encoded=True).update_query(request.query)
        broken: list[Exception] = []
        data = (
            _noting(request.stream(), broken)
            if request.stream is not None
            else request.body or None
        )
        if self._access.access_key[0] and not endpoint.local:
            headers = {**headers, "Authorization": self._signature(request, headers, url)}
        try:
            async with (
                asyncio.timeout(timeout_s) as limit,
                self._session(endpoint).request(
                    request.method,
                    url,
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                    skip_auto_headers=("Content-Type",),  # what is added later isn't signed
                ) as response,
            ):
                self._answered = True
                if streaming:
                    limit.reschedule(None)
                try:
                    yield response
                finally:
                    _hang_up_unless_read(response)
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            if broken:  # what was to be sent failed, not the line
                raise broken[0] from error
            raise self._unreachable(endpoint, error, timeout_s) from error

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {"Accept": "application/json", **request.headers}
        if self._access.token:
            headers["Authorization"] = f"Bearer {self._access.token}"
        if request.method not in {"GET", "HEAD"}:
            headers["Idempotency-Key"] = request.idempotency_key or new_id(self._rng)
        if request.stream is not None:
            headers["Content-Length"] = str(request.size_bytes)
            headers["Content-Type"] = "application/octet-stream"
        elif request.body:
            headers.setdefault("Content-Type", "application/json")
        return headers

    def _signature(self, request: Request, headers: Mapping[str, str], url: URL) -> str:
        """Return what signs one try, with the time of now and a nonce of its own."""
        key_id, secret = self._access.access_key
        sha256 = request.sha256 or hashlib.sha256(request.body).hexdigest()
        assert request.stream is None or request.sha256, "the hash of a stream is known before"
        small = {name.lower(): value for name, value in headers.items()}
        signed = Signed(request.method, url.raw_path_qs, small, sha256)
        time_s, nonce = self._clock.wall_ms() // 1000, new_id(self._rng)
        return authorization(secret, key_id, signed, time_s=time_s, nonce=nonce)

    def _session(self, endpoint: Endpoint) -> aiohttp.ClientSession:
        session = self._sessions.get(endpoint)
        if session is None:
            session = self._sessions[endpoint] = aiohttp.ClientSession(
                connector=self._connector(endpoint),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                trust_env=False,
            )
        return session

    def _connector(self, endpoint: Endpoint) -> aiohttp.BaseConnector:
        if endpoint.local:
            return aiohttp.UnixConnector(path=endpoint.socket_path)
        access = self._access
        if not access.token and not access.access_key[0] and not access.anonymous:
            raise UnauthenticatedError(
                f"{endpoint} needs an access token: log in with kvorum login NAME, set KVORUM_TOKEN, or put one into "
                "~/.config/kvorum/token (make one on a host: kvorum access-token create NAME)"
            )
        return aiohttp.TCPConnector(ssl=tls_context(access.ca_file))

    def _unreachable(self, endpoint: Endpoint, error: Exception, timeout_s: float) -> Unreachable:
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        if isinstance(error, aiohttp.ClientSSLError):
            return Unreachable(
                f"{endpoint} shows a certificate that {self._access.ca_file} did not sign: "
                "take /var/lib/kvorum/identity/ca.pem from a host of the cluster (KVORUM_CA)",
                hopeless=True,
            )
        if endpoint.local and isinstance(cause, PermissionError):
            return Unreachable(
                f"only root may use {endpoint}: run this as root, or set KVORUM_ADDRESS and "
                "KVORUM_TOKEN",
                hopeless=True,
            )
        if endpoint.local and isinstance(cause, FileNotFoundError | ConnectionRefusedError):
            return Unreachable(
                f"no agent answers at {endpoint}: is it running? systemctl status kvorum-agent"
            )
        if isinstance(cause, TimeoutError) and not isinstance(error, aiohttp.ClientConnectorError):
            return Unreachable(
                f"{endpoint} gave no answer within {timeout_s:g} s: see kvorum status at another host"
            )
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        if not isinstance(error, aiohttp.ClientConnectorError):
            self._answered = True  # it was there, so it is worth waiting for
            return Unreachable(f"the connection to {endpoint} broke ({reason}): try again")
        return Unreachable(
            f"cannot reach {endpoint} ({reason}): is its agent running? "
            "systemctl status kvorum-agent there"
        )


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Return the seconds of `Retry-After` (RFC 9110 section 10.2.3); 0 without it, or when it isn't a whole number."""
    text = headers.get("Retry-After", "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0.0


async def pieces_in(reader: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield the pieces of a file that an agent sends.

    Raises:
        TimeoutError: nothing comes for a minute; `open_stream` makes an error of it that says so.
    """
    while True:
        async with asyncio.timeout(FILE_SILENCE_S):
            piece = await reader.readany()
        if not piece:
            return
        yield piece


def _hang_up_unless_read(response: aiohttp.ClientResponse) -> None:
    """End the connection of an answer that nobody reads to its end, without waiting for TLS's farewell."""
    connection = response.connection  # none, once the answer is read
    if connection is not None and connection.transport is not None:
        connection.transport.abort()


async def _noting(pieces: AsyncIterator[bytes], broken: list[Exception]) -> AsyncIterator[bytes]:
    """Yield the pieces, and keep the error that ends them: the sender only says that the connection broke."""
    try:
        async for piece in pieces:
            yield piece
    except (PlatformError, OSError, ValueError) as error:
        broken.append(error)
        raise


def tls_context(ca_file: str) -> ssl.SSLContext:
    """Return what is trusted: the cluster's own CA, or with `system` the machine's certificates.

    The cluster's CA signs hosts only and any host may answer any request, so with it the host's name
    in the certificate is not compared; with `system` it is.

    Raises:
        UnauthenticatedError: the file cannot be read or holds no certificate.
    """
    if ca_file == SYSTEM_CA:
        return ssl.create_default_context()
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise UnauthenticatedError(
            f"CA file {ca_file!r} cannot be used ({error}): copy "
            "/var/lib/kvorum/identity/ca.pem from a host of the cluster and set KVORUM_CA"
        ) from error
    context.check_hostname = False
    return context
