"""The new host's side of joining, as far as the cluster is asked: find it, trust it, be admitted.

Called by `nodeagent.lifecycle`. The token names the authority's fingerprint: the first, unverified, request fetches
only the authority's certificate; everything secret goes over connections verified by it (like a pinned SSH key).
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

import aiohttp
import msgspec

from core.errors import InvalidError, PlatformError, UnauthenticatedError, UnavailableError
from core.identity.certificates import fingerprint
from core.mesh.client import why
from nodeagent.identity.tokens import JoinTicket
from nodeagent.joining.messages import (
    CLUSTER_NAME,
    AboutStanding,
    JoinAnswer,
    JoinCancel,
    JoinRequest,
    Standing,
)

REQUEST_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Door:
    """A member that answered, and the context that verifies it."""

    address: str
    context: ssl.SSLContext
    ca_pem: str


async def find_door(ticket: JoinTicket) -> Door:
    """Return the first member of the token's cluster that answers.

    Raises:
        UnavailableError: none answers.
        UnauthenticatedError: what answers is not the token's cluster.
    """
    failures: list[str] = []
    for address in ticket.addresses:
        unverified = ssl.create_default_context()
        unverified.check_hostname = False
        unverified.verify_mode = ssl.CERT_NONE
        try:
            body = await _request("GET", f"https://{address}/v1/join/authority", unverified, b"")
        except UnavailableError as error:
            failures.append(error.message)
            continue
        ca_pem = body.decode("utf-8", "replace")
        try:
            seen = fingerprint(ca_pem)
        except ValueError:
            seen = ""
        if seen != ticket.ca_fingerprint:
            raise UnauthenticatedError(
                f"{address} is not the cluster {ticket.cluster_name!r} of this token: "
                "its certificate authority differs; was the cluster made anew, or the address reused?"
            )
        return Door(address, _trusting(ca_pem, address), ca_pem)
    raise UnavailableError(
        "no member of the cluster can be reached: "
        + "; ".join(failures or ["the token names none"])
    )


async def ask(door: Door, request: JoinRequest) -> JoinAnswer:
    """Ask to be admitted.

    Raises:
        PlatformError: refused; the message is the member's, nothing was changed.
        UnavailableError: no answer; it may have been admitted, so `give_up`.
    """
    body = await _request(
        "POST", f"https://{door.address}/v1/join", door.context, msgspec.json.encode(request)
    )
    try:
        return msgspec.json.decode(body, type=JoinAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidError("the member's answer can't be read: are the versions equal?") from None


async def give_up(door: Door, cancel: JoinCancel) -> None:
    """Take an admission back, so that name, address and token are free again."""
    await _request(
        "POST", f"https://{door.address}/v1/join/cancel", door.context, msgspec.json.encode(cancel)
    )


async def ask_standing(address: str, ca_pem: str, host_id: str) -> Standing:
    """Ask a member (`host:port` of its API) whether a host still belongs to the cluster.

    Raises:
        UnavailableError: no answer that could be understood.
    """
    body = msgspec.json.encode(AboutStanding(host_id=host_id))
    answer = await _request(
        "POST", f"https://{address}/v1/join/standing", _trusting(ca_pem, address), body
    )
    try:
        return msgspec.json.decode(answer, type=Standing)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UnavailableError(f"the answer of {address} can't be read") from None


def _trusting(ca_pem: str, address: str) -> ssl.SSLContext:
    """Return a context that accepts only the host at `address` (`ip:port`), with a certificate of this authority.

    The server name that is sent is `CLUSTER_NAME`, so the address is compared here, in the handshake.
    """
    wanted = address.rpartition(":")[0].strip("[]")

    class AtAddress(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            names = (self.getpeercert() or {}).get("subjectAltName", ())
            if not any(name[1] == wanted for name in names):
                raise ssl.SSLCertVerificationError(f"its certificate is not for {wanted}")

    context = ssl.create_default_context(cadata=ca_pem)
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.sslobject_class = AtAddress
    return context


async def _request(method: str, url: str, context: ssl.SSLContext, body: bytes) -> bytes:
    where = url.split("/")[2]
    try:
        async with (
            asyncio.timeout(REQUEST_TIMEOUT_S),
            aiohttp.ClientSession() as http,
            http.request(
                method, url, data=body, ssl=context, server_hostname=CLUSTER_NAME
            ) as response,
        ):
            answer = await response.read()
            status = response.status
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise UnavailableError(f"{where} does not answer ({why(error)})") from None
    if status >= 400:
        raise _refusal(where, status, answer)
    return answer


class _Problem(msgspec.Struct):
    detail: str = ""
    code: str = "error"


def _refusal(where: str, status: int, answer: bytes) -> PlatformError:
    try:
        problem = msgspec.json.decode(answer, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = _Problem(detail=f"{where} refused with HTTP status {status}")
    if status == UnavailableError.http_status:
        return UnavailableError(problem.detail)
    error = PlatformError(problem.detail, code=problem.code)
    error.http_status = status
    return error
