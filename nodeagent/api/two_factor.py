"""Two-factor log-in: time codes are switched on and off, and recovery codes made.

The secret is shown until a first code confirms it, and never again. What a code is worth is decided in
`nodeagent.identity.login`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec.structs import replace

from core.attributes import attribute
from core.errors import ConflictError, ForbiddenError
from core.identity.sealing import seal
from core.identity.totp import (
    accepted_step,
    new_recovery_codes,
    new_totp_secret,
    qr_svg,
    qr_text,
    recovery_hash,
    totp_uri,
)
from core.model import Account, Mesh
from nodeagent.api.access import caller_of, is_own
from nodeagent.api.accounts import account_of
from nodeagent.api.requests import body_of, json_answer, node_of, services_of
from nodeagent.joining.founding import MESH_ID
from nodeagent.services.sealing_guard import sealing_guards


class TotpCode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`.../actions/confirm-totp`, `disable-totp` and `renew-recovery-codes`."""

    code: Annotated[str, attribute("A time code.")] = ""


def add_routes(app: web.Application) -> None:
    """Add the routes of two-factor log-in."""
    app.router.add_post("/v1/accounts/{account}/actions/enable-totp", enable_totp)
    app.router.add_post("/v1/accounts/{account}/actions/confirm-totp", confirm_totp)
    app.router.add_post("/v1/accounts/{account}/actions/disable-totp", disable_totp)
    app.router.add_post("/v1/accounts/{account}/actions/renew-recovery-codes", renew_recovery_codes)


async def enable_totp(request: web.Request) -> web.Response:
    """POST .../actions/enable-totp. 200: address and QR code, until the first code confirms it. 409: it is on already."""
    node, account = node_of(request), account_of(request)
    if account.totp_confirmed:
        raise ConflictError("time codes are on already: switch them off first")
    guards = sealing_guards(node.store)
    opener, name = services_of(request).identity.opener, f"totp/{account.id}"
    if account.sealed_totp:
        secret = opener.open(name, account.sealed_totp)
    else:
        secret = new_totp_secret()
        sealed = replace(account, sealed_totp=seal(opener.keys(), name, secret))
        await node.store.apply(puts=(sealed,), guards=guards)
    cluster = node.store.need(Mesh, MESH_ID).name
    uri = totp_uri(secret, account=account.name, cluster=cluster)
    return json_answer(
        {"uri": uri, "qr_svg": qr_svg(uri), "qr_text": qr_text(uri)},
        headers={"Cache-Control": "no-store"},
    )


async def confirm_totp(request: web.Request) -> web.Response:
    """POST .../actions/confirm-totp. 200: recovery codes, shown this once. 403: a wrong code. 409: nothing to confirm."""
    node, account = node_of(request), account_of(request)
    code = (await body_of(request, TotpCode)).code
    if account.totp_confirmed or not account.sealed_totp:
        raise ConflictError("there is nothing to confirm: begin with enable-totp")
    opener = services_of(request).identity.opener
    secret = opener.open(f"totp/{account.id}", account.sealed_totp)
    step = accepted_step(secret, code, now_ms=node.clock.wall_ms(), last_step=0)
    if step is None:
        raise ForbiddenError("the code is wrong: check the clock of the device, and take a new one")
    codes = new_recovery_codes()
    changed = replace(
        account,
        totp_confirmed=True,
        totp_last_step=step,
        recovery_sha256=tuple(recovery_hash(one) for one in codes),
    )
    await node.store.apply(puts=(changed,))
    return json_answer({"recovery_codes": codes}, headers={"Cache-Control": "no-store"})


async def disable_totp(request: web.Request) -> web.Response:
    """POST .../actions/disable-totp. 204. Whoever switches their own off needs a code; an administrator doesn't."""
    account, body = account_of(request), await body_of(request, TotpCode)
    login = services_of(request).identity.login
    if account.totp_confirmed and is_own(request, caller_of(request)):
        await login.use_code(account, body.code, address=caller_of(request).address)
        account = node_of(request).store.need(Account, account.id)
    plain = replace(account, sealed_totp=b"", totp_confirmed=False, recovery_sha256=())
    await node_of(request).store.apply(puts=(plain,))
    return web.Response(status=204)


async def renew_recovery_codes(request: web.Request) -> web.Response:
    """POST .../actions/renew-recovery-codes. 200: new ones, shown this once; the old ones have ended. 403: not one's own, or a
    wrong time code. 409: time codes are off."""
    account, body = account_of(request), await body_of(request, TotpCode)
    caller = caller_of(request)
    if not is_own(request, caller):
        raise ForbiddenError(
            "only whoever has logged in to an account can renew its recovery codes; "
            "an administrator can switch its time codes off"
        )
    if not account.totp_confirmed:
        raise ConflictError("time codes are off: recovery codes come with them, by enable-totp")
    login = services_of(request).identity.login
    codes = await login.renew_recovery_codes(account, body.code, address=caller.address)
    return json_answer({"recovery_codes": codes}, headers={"Cache-Control": "no-store"})
