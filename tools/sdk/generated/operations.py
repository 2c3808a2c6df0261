"""The operations of the API as methods to await. Made by `make sdk` from the description of the API: don't edit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from tools.sdk.calls import Api, condition, listed, many, one, request, uploading, word
from tools.sdk.client import path_of
from tools.sdk.collection import Collection
from tools.sdk.files import OnBytes, silent
from tools.sdk.generated import models
from tools.sdk.items import Page
from tools.sdk.started import Started

PREVIEWED = frozenset(
    {
        "clusters",
        "data-centers",
        "data-storages",
        "distributed-switches",
        "hosts",
        "images",
        "members",
        "placement-rules",
        "port-groups",
        "security-groups",
        "snapshots",
        "vms",
    }
)
"""The collections whose deletions can be previewed."""


class AccessKeys(Collection[models.AccessKey]):
    """`/v1/access-keys`."""

    async def create(
        self,
        *,
        name: str,
        account: str | UnsetType = UNSET,
        roles: Sequence[str] | UnsetType = UNSET,
        ttl_s: int | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.AccessKeySecret:
        """Make an access key, with which a program signs its requests.

        Args:
            name: Its name: 1 to 63 of a-z, 0-9, `-` and `.`.
            account: Name or id of the account whose rights it has; empty: none's.
            roles: Names of the roles that say what it may do.
            ttl_s: How long it is good; 0: for ever. 0..315360000. Default: `0`.
            description: A note for people. At most 1000 characters.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("access-keys"),
                body=models.MakeAccessKey(
                    name=name,
                    account=account,
                    roles=listed(roles),
                    ttl_s=ttl_s,
                    description=description,
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.AccessKeySecret,
        )

    async def delete_many(
        self, *, access_keys: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 access keys: delete an access key; it is refused everywhere at once.

        Args:
            access_keys: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("access-keys", "actions", "delete"),
                body=models.DeleteAccessKeys(access_keys=listed(access_keys)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def update(
        self,
        key: str,
        /,
        *,
        disabled: bool | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.AccessKey:
        """Change an access key; a disabled one is refused everywhere at once.

        Args:
            key: Name or id.
            disabled: Whether what it signs is refused.
            description: A note for people. At most 1000 characters.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("access-keys", key),
                body=models.ChangeAccessKey(disabled=disabled, description=description),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.AccessKey,
        )

    async def delete(
        self, key: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Delete an access key; it is refused everywhere at once.

        Args:
            key: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("access-keys", key),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def rotate(
        self, key: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.AccessKeySecret:
        """Give an access key a new secret; the former one ends everywhere at once.

        Args:
            key: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("access-keys", key, "actions", "rotate"),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.AccessKeySecret,
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the access keys.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET",
                path_of("access-keys", ref, "tags"),
                query=(*one("consistency", consistency),),
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the access keys, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("access-keys", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )


class AccessTokens(Collection[models.AccessToken]):
    """`/v1/access-tokens`."""

    async def create(
        self,
        *,
        name: str,
        ttl_s: int | UnsetType = UNSET,
        account: str | UnsetType = UNSET,
        roles: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.NewAccessToken:
        """Make an access token.

        Args:
            name: Its name: 1 to 63 of a-z, 0-9, `-` and `.`.
            ttl_s: How long it is good; 0: for ever. 0..315360000. Default: `0`.
            account: Name or id of the account that it acts for; empty: none.
            roles: Names of the roles that say what it may do; with neither roles nor account it may do everything.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("access-tokens"),
                body=models.MakeAccessToken(
                    name=name, ttl_s=ttl_s, account=account, roles=listed(roles)
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.NewAccessToken,
        )

    async def delete_many(
        self, *, access_tokens: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 access tokens: revoke an access token, everywhere at once.

        Args:
            access_tokens: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("access-tokens", "actions", "delete"),
                body=models.DeleteAccessTokens(access_tokens=listed(access_tokens)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the access tokens.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET",
                path_of("access-tokens", ref, "tags"),
                query=(*one("consistency", consistency),),
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the access tokens, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("access-tokens", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )

    async def delete(
        self, token: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Revoke an access token, everywhere at once.

        Args:
            token: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("access-tokens", token),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )


class Accounts(Collection[models.Account]):
    """`/v1/accounts`."""

    async def create(
        self,
        *,
        name: str,
        roles: Sequence[str] | UnsetType = UNSET,
        password: str | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.Account:
        """Make an account.

        Args:
            name: Its name: 1 to 63 of a-z, 0-9, `-` and `.`.
            roles: Names of its roles.
            password: Its password, of 12 characters at least; empty: nobody can log in to it yet.
            description: A note for people. At most 1000 characters.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("accounts"),
                body=models.CreateAccount(
                    name=name, roles=listed(roles), password=password, description=description
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Account,
        )

    async def delete_many(
        self, *, accounts: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 accounts: delete an account with its sessions, access tokens and access keys.

        Args:
            accounts: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("accounts", "actions", "delete"),
                body=models.DeleteAccounts(accounts=listed(accounts)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def update(
        self,
        account: str,
        /,
        *,
        roles: Sequence[str] | UnsetType = UNSET,
        disabled: bool | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Account:
        """Change an account; what is absent stays.

        Args:
            account: Name or id.
            roles: Names of its roles, all of them.
            disabled: Whether it is kept out.
            description: A note for people. At most 1000 characters.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("accounts", account),
                body=models.ChangeAccount(
                    roles=listed(roles), disabled=disabled, description=description
                ),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Account,
        )

    async def delete(
        self, account: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Delete an account with its sessions, access tokens and access keys.

        Args:
            account: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("accounts", account),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def confirm_totp(
        self,
        account: str,
        /,
        *,
        code: str | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.RecoveryCodes:
        """Switch time codes on with a first code.

        Args:
            account: Name or id.
            code: A time code.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("accounts", account, "actions", "confirm-totp"),
                body=models.TotpCode(code=code),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.RecoveryCodes,
        )

    async def disable_totp(
        self,
        account: str,
        /,
        *,
        code: str | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> None:
        """Switch time codes off; one's own need a code.

        Args:
            account: Name or id.
            code: A time code.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "POST",
                path_of("accounts", account, "actions", "disable-totp"),
                body=models.TotpCode(code=code),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def enable_totp(
        self, account: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.NewTotp:
        """Show the secret of time codes as an address and a QR code, until a code confirms it.

        Args:
            account: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("accounts", account, "actions", "enable-totp"),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.NewTotp,
        )

    async def renew_recovery_codes(
        self,
        account: str,
        /,
        *,
        code: str | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.RecoveryCodes:
        """Make new recovery codes of one's own, for a time code; the old ones end.

        Args:
            account: Name or id.
            code: A time code.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("accounts", account, "actions", "renew-recovery-codes"),
                body=models.TotpCode(code=code),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.RecoveryCodes,
        )

    async def set_password(
        self,
        account: str,
        /,
        *,
        password: str,
        old_password: str | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> None:
        """Set a password and end the account's other sessions; one's own needs the old one.

        Args:
            account: Name or id.
            password: The new password, of 12 characters at least.
            old_password: The present one; needed for one's own.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "POST",
                path_of("accounts", account, "actions", "set-password"),
                body=models.SetPassword(password=password, old_password=old_password),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the accounts.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET", path_of("accounts", ref, "tags"), query=(*one("consistency", consistency),)
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the accounts, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("accounts", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )


class Audits(Collection[models.Audit]):
    """`/v1/audits`."""


class Bmcs(Collection[models.Bmc]):
    """`/v1/bmcs`."""

    async def create(
        self,
        *,
        host: str,
        address: str,
        user: str,
        password: str,
        port: int | UnsetType = UNSET,
        cipher_suite: int | UnsetType = UNSET,
        protocol: models.BmcProtocol | UnsetType | str = UNSET,
        fingerprint: str | UnsetType = UNSET,
        system: str | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.Bmc:
        """Name the management board of a host, in place of one before; it is asked first.

        Args:
            host: Name or id of the host whose power it switches.
            address: IP address or name of the board. At most 253 characters.
            user: Who logs in. At most 64 characters.
            password: The password; it is never shown again. With `ipmi` of 20 characters at most. At most 128 characters.
            port: Port: UDP with `ipmi`, TCP with `redfish`; 0: the usual one, 623 or 443. 0..65535. Default: `0`.
            cipher_suite: Cipher suite of RMCP+: 17 (SHA-256) or 3 (SHA-1). 1..17. Default: `17`.
            protocol: What the board speaks. Default: `ipmi`.
            fingerprint: SHA-256 of the certificate that the board must show, in hexadecimal, with or without colons. Empty: the one that is known of it, or if none is, the one that it shows now. `redfish` only. At most 95 characters.
            system: Id of the host's machine in its Redfish service, needed where it has several. `redfish` only. At most 128 characters.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("bmcs"),
                body=models.PutBmc(
                    host=host,
                    address=address,
                    user=user,
                    password=password,
                    port=port,
                    cipher_suite=cipher_suite,
                    protocol=word(models.BmcProtocol, protocol),
                    fingerprint=fingerprint,
                    system=system,
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Bmc,
        )

    async def delete_many(
        self, *, bmcs: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 bmcs: forget the management board of a host.

        Args:
            bmcs: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("bmcs", "actions", "delete"),
                body=models.DeleteBmcs(bmcs=listed(bmcs)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def power_on_many(
        self,
        *,
        bmcs: Sequence[str] | UnsetType = UNSET,
        q: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> Page[models.Outcome]:
        """For each of up to 200 bmcs: switch a host on by its management board.

        Args:
            bmcs: Names or ids of them.
            q: Conditions as lists take them, instead of `bmcs`; all must hold.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("bmcs", "actions", "power-on"),
                body=models.PowerOnBmcs(bmcs=listed(bmcs), q=listed(q)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def delete(
        self, bmc: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Forget the management board of a host.

        Args:
            bmc: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("bmcs", bmc),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def power_off(
        self, bmc: str, /, *, confirm: str, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Take the power from a host by its management board, whatever runs on it.

        Args:
            bmc: Name or id.
            confirm: The host's name, once more: its guests lose their power too.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "POST",
                path_of("bmcs", bmc, "actions", "power-off"),
                body=models.ConfirmPowerOff(confirm=confirm),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def power_on(
        self, bmc: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Switch a host on by its management board.

        Args:
            bmc: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "POST",
                path_of("bmcs", bmc, "actions", "power-on"),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def get_power(self, bmc: str, /) -> models.Power:
        """Ask a host's management board whether the host has power.

        Args:
            bmc: Name or id.
        """
        return await self._api.answer(request("GET", path_of("bmcs", bmc, "power")), models.Power)

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the bmcs.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request("GET", path_of("bmcs", ref, "tags"), query=(*one("consistency", consistency),)),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the bmcs, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("bmcs", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )


class CallbackKey:
    """`/v1/callback-key`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def get(self) -> models.CallbackKey:
        """The public key that receivers of callbacks check signatures with."""
        return await self._api.answer(request("GET", path_of("callback-key")), models.CallbackKey)

    async def rotate(self, *, idempotency_key: str = "") -> models.CallbackKey:
        """Sign callbacks with a new key from now on.

        Args:
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("callback-key", "actions", "rotate"),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.CallbackKey,
        )


class Certificates:
    """`/v1/certificates`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def list(self) -> Page[models.Certificate]:
        """The imported certificates, this host's own and the authority's."""
        return await self._api.page(request("GET", path_of("certificates")), models.Certificate)

    async def create(
        self,
        *,
        content: bytes,
        passphrase: str | UnsetType = UNSET,
        host: str | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.Certificate:
        """Serve the API with a certificate of PEM, PKCS#12 or JKS; new connections get it at once.

        Args:
            content: The file (PEM, PKCS#12 or JKS), in base64.
            passphrase: What opens it; empty: nothing is needed. At most 1024 characters.
            host: Name or id of the host that shall serve it; empty: all.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("certificates"),
                body=models.ImportCertificate(content=content, passphrase=passphrase, host=host),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Certificate,
        )

    async def delete(
        self, scope: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Delete the certificate imported for `all` hosts or for one.

        Args:
            scope: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("certificates", scope),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )


class Clusters(Collection[models.Cluster]):
    """`/v1/clusters`."""

    async def create(
        self,
        *,
        name: str,
        data_center: str,
        tags: Sequence[str] | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        admission: models.Admission | UnsetType | str = UNSET,
        host_failures: int | UnsetType = UNSET,
        shutdown_policy: models.ShutdownPolicy | UnsetType | str = UNSET,
        freeze_s_max: int | UnsetType = UNSET,
        cpu_overcommit: int | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.Cluster:
        """Make one of the clusters.

        Args:
            name: Its name: 1 to 63 of a-z, 0-9, `-` and `.`.
            data_center: The data center that it lies in. Name or id, of data-centers.
            tags: Names and `key=value` pairs, to find it by, to limit rights, to change what it does.
            description: A note for people. At most 1000 characters.
            admission: What is done about a start that leaves too little room for the VMs of lost hosts. Default: `warn`.
            host_failures: The loss of how many hosts at a time is to be borne. 1..4. Default: `1`.
            shutdown_policy: What becomes of the VMs of a host that is shut down in order; not `cluster`. Default: `conditional`.
            freeze_s_max: For how long VMs wait for a host that was shut down with `freeze`; then they are started elsewhere. 60..86400. Default: `900`.
            cpu_overcommit: How many virtual CPUs are placed on each processor thread of a host at most. 1..64. Default: `8`.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("clusters"),
                body=models.CreateCluster(
                    name=name,
                    data_center=data_center,
                    tags=listed(tags),
                    description=description,
                    admission=word(models.Admission, admission),
                    host_failures=host_failures,
                    shutdown_policy=word(models.ShutdownPolicy, shutdown_policy),
                    freeze_s_max=freeze_s_max,
                    cpu_overcommit=cpu_overcommit,
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Cluster,
        )

    async def delete_many(
        self, *, clusters: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """Delete up to 200 clusters, each with what goes along.

        Args:
            clusters: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("clusters", "actions", "delete"),
                body=models.DeleteClusters(clusters=listed(clusters)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def get_room(self, cluster: str, /) -> models.Room:
        """What would become of the highly available VMs if hosts were lost, the worst losses first.

        Args:
            cluster: Name or id.
        """
        return await self._api.answer(
            request("GET", path_of("clusters", cluster, "room")), models.Room
        )

    async def update(
        self,
        ref: str,
        /,
        *,
        name: str | UnsetType = UNSET,
        data_center: str | UnsetType = UNSET,
        tags: Sequence[str] | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        admission: models.Admission | UnsetType | str = UNSET,
        host_failures: int | UnsetType = UNSET,
        shutdown_policy: models.ShutdownPolicy | UnsetType | str = UNSET,
        freeze_s_max: int | UnsetType = UNSET,
        cpu_overcommit: int | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Cluster:
        """Change one of the clusters; what is absent stays.

        Args:
            ref: Name or id.
            name: Its name: 1 to 63 of a-z, 0-9, `-` and `.`.
            data_center: The data center that it lies in. Name or id, of data-centers.
            tags: Names and `key=value` pairs, to find it by, to limit rights, to change what it does.
            description: A note for people. At most 1000 characters.
            admission: What is done about a start that leaves too little room for the VMs of lost hosts.
            host_failures: The loss of how many hosts at a time is to be borne. 1..4.
            shutdown_policy: What becomes of the VMs of a host that is shut down in order; not `cluster`.
            freeze_s_max: For how long VMs wait for a host that was shut down with `freeze`; then they are started elsewhere. 60..86400.
            cpu_overcommit: How many virtual CPUs are placed on each processor thread of a host at most. 1..64.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("clusters", ref),
                body=models.ChangeCluster(
                    name=name,
                    data_center=data_center,
                    tags=listed(tags),
                    description=description,
                    admission=word(models.Admission, admission),
                    host_failures=host_failures,
                    shutdown_policy=word(models.ShutdownPolicy, shutdown_policy),
                    freeze_s_max=freeze_s_max,
                    cpu_overcommit=cpu_overcommit,
                ),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Cluster,
        )

    async def delete(
        self, ref: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Delete one of the clusters, with what goes along.

        Args:
            ref: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("clusters", ref),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def plan_delete(self, ref: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            ref: Name or id.
        """
        return await self._api.answer(
            request("DELETE", path_of("clusters", ref), query=(("dry_run", "1"),)),
            models.DeletionPlan,
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the clusters.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET", path_of("clusters", ref, "tags"), query=(*one("consistency", consistency),)
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the clusters, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("clusters", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )


class DataCenters(Collection[models.DataCenter]):
    """`/v1/data-centers`."""

    async def create(
        self,
        *,
        name: str,
        tags: Sequence[str] | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.DataCenter:
        """Make one of the data centers.

        Args:
            name: Its name: 1 to 63 of a-z, 0-9, `-` and `.`.
            tags: Names and `key=value` pairs, to find it by, to limit rights, to change what it does.
            description: A note for people. At most 1000 characters.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("data-centers"),
                body=models.CreateDataCenter(name=name, tags=listed(tags), description=description),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.DataCenter,
        )

    async def delete_many(
        self, *, data_centers: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """Delete up to 200 data centers, each with what goes along.

        Args:
            data_centers: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("data-centers", "actions", "delete"),
                body=models.DeleteDataCenters(data_centers=listed(data_centers)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def update(
        self,
        ref: str,
        /,
        *,
        name: str | UnsetType = UNSET,
        tags: Sequence[str] | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.DataCenter:
        """Change one of the data centers; what is absent stays.

        Args:
            ref: Name or id.
            name: Its name: 1 to 63 of a-z, 0-9, `-` and `.`.
            tags: Names and `key=value` pairs, to find it by, to limit rights, to change what it does.
            description: A note for people. At most 1000 characters.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("data-centers", ref),
                body=models.ChangeDataCenter(name=name, tags=listed(tags), description=description),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.DataCenter,
        )

    async def delete(
        self, ref: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Delete one of the data centers, with what goes along.

        Args:
            ref: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("data-centers", ref),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def plan_delete(self, ref: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            ref: Name or id.
        """
        return await self._api.answer(
            request("DELETE", path_of("data-centers", ref), query=(("dry_run", "1"),)),
            models.DeletionPlan,
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the data centers.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET",
                path_of("data-centers", ref, "tags"),
                query=(*one("consistency", consistency),),
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the data centers, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("data-centers", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )


class DataStorages(Collection[models.DataStorage]):
    """`/v1/data-storages`."""

    async def create(
        self,
        *,
        name: str,
        kind: models.DataStorageKind | str,
        path: str,
        driver: str | UnsetType = UNSET,
        data_center: str | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.DataStorage:
        """Add a data storage.

        Args:
            name: Its name: 1 to 63 of a-z, 0-9, `-` and `.`.
            kind: Whether each host has a directory of its own, or all mount the same.
            path: Absolute path, the same on every host.
            driver: The plug-in's driver that it is used by; empty: the product's own.
            data_center: Name or id of its data center; empty: the first.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("data-storages"),
                body=models.CreateDataStorage(
                    name=name,
                    kind=word(models.DataStorageKind, kind),
                    path=path,
                    driver=driver,
                    data_center=data_center,
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.DataStorage,
        )

    async def delete_many(
        self, *, data_storages: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 data storages: forget a data storage; its files stay.

        Args:
            data_storages: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("data-storages", "actions", "delete"),
                body=models.DeleteDataStorages(data_storages=listed(data_storages)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the data storages.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET",
                path_of("data-storages", ref, "tags"),
                query=(*one("consistency", consistency),),
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the data storages, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("data-storages", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )

    async def delete(
        self, storage: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Forget a data storage; its files stay.

        Args:
            storage: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("data-storages", storage),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def plan_delete(self, storage: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            storage: Name or id.
        """
        return await self._api.answer(
            request("DELETE", path_of("data-storages", storage), query=(("dry_run", "1"),)),
            models.DeletionPlan,
        )


class Disks(Collection[models.Disk]):
    """`/v1/disks`."""

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the disks.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET", path_of("disks", ref, "tags"), query=(*one("consistency", consistency),)
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the disks, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("disks", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )


class DistributedSwitches(Collection[models.DistributedSwitch]):
    """`/v1/distributed-switches`."""

    async def create(
        self,
        *,
        name: str,
        clusters: Sequence[str] | UnsetType = UNSET,
        tags: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.DistributedSwitch:
        """Make one of the distributed switches.

        Args:
            name: Its name: 1 to 63 of a-z, 0-9, `-` and `.`.
            clusters: The clusters whose hosts it spans. Names or ids, of clusters.
            tags: Names and `key=value` pairs, to find it by, to limit rights, to change what it does.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("distributed-switches"),
                body=models.CreateDistributedSwitch(
                    name=name, clusters=listed(clusters), tags=listed(tags)
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.DistributedSwitch,
        )

    async def attach_many(
        self,
        *,
        cluster: str,
        distributed_switches: Sequence[str] | UnsetType = UNSET,
        q: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> Page[models.Outcome]:
        """For each of up to 200 distributed switches: let a switch span the hosts of a cluster too.

        Args:
            cluster: Name or id of the cluster.
            distributed_switches: Names or ids of them.
            q: Conditions as lists take them, instead of `distributed_switches`; all must hold.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("distributed-switches", "actions", "attach"),
                body=models.AttachDistributedSwitches(
                    cluster=cluster, distributed_switches=listed(distributed_switches), q=listed(q)
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def delete_many(
        self, *, distributed_switches: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """Delete up to 200 distributed switches, each with what goes along.

        Args:
            distributed_switches: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("distributed-switches", "actions", "delete"),
                body=models.DeleteDistributedSwitches(
                    distributed_switches=listed(distributed_switches)
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def detach_many(
        self,
        *,
        cluster: str,
        distributed_switches: Sequence[str] | UnsetType = UNSET,
        q: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> Page[models.Outcome]:
        """For each of up to 200 distributed switches: take a switch away from a cluster that has no VM on it.

        Args:
            cluster: Name or id of the cluster.
            distributed_switches: Names or ids of them.
            q: Conditions as lists take them, instead of `distributed_switches`; all must hold.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("distributed-switches", "actions", "detach"),
                body=models.DetachDistributedSwitches(
                    cluster=cluster, distributed_switches=listed(distributed_switches), q=listed(q)
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def update(
        self,
        ref: str,
        /,
        *,
        name: str | UnsetType = UNSET,
        clusters: Sequence[str] | UnsetType = UNSET,
        tags: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.DistributedSwitch:
        """Change one of the distributed switches; what is absent stays.

        Args:
            ref: Name or id.
            name: Its name: 1 to 63 of a-z, 0-9, `-` and `.`.
            clusters: The clusters whose hosts it spans. Names or ids, of clusters.
            tags: Names and `key=value` pairs, to find it by, to limit rights, to change what it does.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("distributed-switches", ref),
                body=models.ChangeDistributedSwitch(
                    name=name, clusters=listed(clusters), tags=listed(tags)
                ),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.DistributedSwitch,
        )

    async def delete(
        self, ref: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Delete one of the distributed switches, with what goes along.

        Args:
            ref: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("distributed-switches", ref),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def plan_delete(self, ref: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            ref: Name or id.
        """
        return await self._api.answer(
            request("DELETE", path_of("distributed-switches", ref), query=(("dry_run", "1"),)),
            models.DeletionPlan,
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the distributed switches.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET",
                path_of("distributed-switches", ref, "tags"),
                query=(*one("consistency", consistency),),
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the distributed switches, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("distributed-switches", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )

    async def attach(
        self, switch: str, /, *, cluster: str, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.DistributedSwitch:
        """Let a switch span the hosts of a cluster too.

        Args:
            switch: Name or id.
            cluster: Name or id of the cluster.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("distributed-switches", switch, "actions", "attach"),
                body=models.AttachCluster(cluster=cluster),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.DistributedSwitch,
        )

    async def detach(
        self, switch: str, /, *, cluster: str, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.DistributedSwitch:
        """Take a switch away from a cluster that has no VM on it.

        Args:
            switch: Name or id.
            cluster: Name or id of the cluster.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("distributed-switches", switch, "actions", "detach"),
                body=models.AttachCluster(cluster=cluster),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.DistributedSwitch,
        )


class Drills(Collection[models.Drill]):
    """`/v1/drills`."""

    async def create(
        self,
        *,
        kind: models.DrillKind | str,
        host: str | UnsetType = UNSET,
        duration_s: int | UnsetType = UNSET,
        data_storage: str | UnsetType = UNSET,
        confirm: str | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.Drill:
        """Rehearse a failure, for real: it begins at once.

        Args:
            kind: Which failure is rehearsed.
            host: Name or id of the host that fails; empty for a full power loss only.
            duration_s: How long a cut lasts; 0: as long as is usual. Of kinds that end by themselves only. 0..120. Default: `0`.
            data_storage: Name or id of the data storage that is lost; empty: none.
            confirm: The host's name, once more, or the cluster's for a full power loss: it is done for real.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("drills"),
                body=models.RunDrill(
                    kind=word(models.DrillKind, kind),
                    host=host,
                    duration_s=duration_s,
                    data_storage=data_storage,
                    confirm=confirm,
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Drill,
        )

    async def abort_many(
        self,
        *,
        drills: Sequence[str] | UnsetType = UNSET,
        q: Sequence[str] | UnsetType = UNSET,
        reason: str | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> Page[models.Outcome]:
        """For each of up to 200 drills: end a drill early: what it broke is put right first.

        Args:
            drills: Names or ids of them.
            q: Conditions as lists take them, instead of `drills`; all must hold.
            reason: Why, for the report. At most 200 characters.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("drills", "actions", "abort"),
                body=models.AbortDrills(drills=listed(drills), q=listed(q), reason=reason),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def check(
        self,
        *,
        kind: models.DrillKind | str,
        host: str | UnsetType = UNSET,
        duration_s: int | UnsetType = UNSET,
        data_storage: str | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.DrillPlan:
        """What a drill would be, and what stands in its way; nothing is done.

        Args:
            kind: Which failure is rehearsed.
            host: Name or id of the host that fails; empty for a full power loss only.
            duration_s: How long a cut lasts; 0: as long as is usual. Of kinds that end by themselves only. 0..120. Default: `0`.
            data_storage: Name or id of the data storage that is lost; empty: none.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("drills", "actions", "check"),
                body=models.CheckDrill(
                    kind=word(models.DrillKind, kind),
                    host=host,
                    duration_s=duration_s,
                    data_storage=data_storage,
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.DrillPlan,
        )

    async def abort(
        self,
        drill: str,
        /,
        *,
        reason: str | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Drill:
        """End a drill early: what it broke is put right first.

        Args:
            drill: Name or id.
            reason: Why, for the report. At most 200 characters.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("drills", drill, "actions", "abort"),
                body=models.AbortDrill(reason=reason),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Drill,
        )

    async def get_report(self, drill: str, /) -> models.Report:
        """The report of a drill, as text, as Markdown and in parts.

        Args:
            drill: Name or id.
        """
        return await self._api.answer(
            request("GET", path_of("drills", drill, "report")), models.Report
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the drills.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET", path_of("drills", ref, "tags"), query=(*one("consistency", consistency),)
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the drills, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("drills", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )


class Events(Collection[models.Event]):
    """`/v1/events`."""


class Ha:
    """`/v1/ha`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def arm(self, *, idempotency_key: str = "") -> models.HaStatus:
        """Have failover act again.

        Args:
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("ha", "actions", "arm"),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.HaStatus,
        )

    async def disarm(
        self, *, reason: str, rearm_after_s: int | UnsetType = UNSET, idempotency_key: str = ""
    ) -> models.HaStatus:
        """Have failover act no more, as soon as nothing is under way.

        Args:
            reason: Why; shown to whoever wonders. At most 200 characters.
            rearm_after_s: When to arm it again by itself, 60 s to 7 days; 0: when someone does so. Default: `0`.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("ha", "actions", "disarm"),
                body=models.Disarm(reason=reason, rearm_after_s=rearm_after_s),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.HaStatus,
        )

    async def get_profile(self) -> models.HaProfile:
        """The lease and watchdog times that failover goes by."""
        return await self._api.answer(request("GET", path_of("ha", "profile")), models.HaProfile)

    async def update_profile(
        self, *, name: str, force: bool | UnsetType = UNSET, idempotency_key: str = ""
    ) -> models.HaProfile:
        """Go by another profile; guards follow within seconds.

        Args:
            name: The profile to go by: `wide`, `default` or `moonshot`.
            force: Also if a host's network was seen not to hold it lately. Default: `False`.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("ha", "profile"),
                body=models.ChangeProfile(name=name, force=force),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.HaProfile,
        )

    async def get_status(self) -> models.HaStatus:
        """Whether failover acts, who disarmed it and why, and what is not done yet."""
        return await self._api.answer(request("GET", path_of("ha", "status")), models.HaStatus)


class Hosts(Collection[models.Host]):
    """`/v1/hosts`."""

    async def delete_many(
        self, *, hosts: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 hosts: remove a host from the cluster.

        Args:
            hosts: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("hosts", "actions", "delete"),
                body=models.DeleteHosts(hosts=listed(hosts)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def leave_maintenance_many(
        self,
        *,
        hosts: Sequence[str] | UnsetType = UNSET,
        q: Sequence[str] | UnsetType = UNSET,
        move_back: bool | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> Page[models.Outcome]:
        """For each of up to 200 hosts: end the maintenance of a host, complete or not; its VMs come back.

        Args:
            hosts: Names or ids of them.
            q: Conditions as lists take them, instead of `hosts`; all must hold.
            move_back: Whether the VMs that left it for the maintenance come back. Default: `True`.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("hosts", "actions", "leave-maintenance"),
                body=models.LeaveMaintenanceHosts(
                    hosts=listed(hosts), q=listed(q), move_back=move_back
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def update(
        self,
        host: str,
        /,
        *,
        failure_domain: str | UnsetType | None = UNSET,
        shutdown_policy: models.ShutdownPolicy | UnsetType | None = UNSET,
        cluster: str | UnsetType | None = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Host:
        """Change a host.

        Args:
            host: Name or id.
            failure_domain: Hosts of one domain fail together; empty: it shares its fate with no other.
            shutdown_policy: What becomes of its VMs when it is shut down in order.
            cluster: Name or id of another cluster; only for a host without VMs.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("hosts", host),
                body=models.ChangeHost(
                    failure_domain=failure_domain, shutdown_policy=shutdown_policy, cluster=cluster
                ),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Host,
        )

    async def delete(
        self, host: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Remove a host from the cluster.

        Args:
            host: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("hosts", host),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def plan_delete(self, host: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            host: Name or id.
        """
        return await self._api.answer(
            request("DELETE", path_of("hosts", host), query=(("dry_run", "1"),)),
            models.DeletionPlan,
        )

    async def confirm_off(
        self, host: str, /, *, confirm: str, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.ReleasedHost:
        """Say that a lost host is powered off, so that its VMs may run elsewhere.

        Args:
            host: Name or id.
            confirm: The host's name, once more: whoever asks has looked at the machine.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("hosts", host, "actions", "confirm-off"),
                body=models.ConfirmOff(confirm=confirm),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.ReleasedHost,
        )

    async def enter_maintenance(
        self,
        host: str,
        /,
        *,
        unmovable: models.Unmovable | UnsetType | str = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.HostMaintenance:
        """Let a host get no new VMs and have those on it moved away, live; asked again, it goes on.

        Args:
            host: Name or id.
            unmovable: VMs that can't be moved: `refuse` to begin, `stop` them until it is over, or `keep` them there. Default: `refuse`.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("hosts", host, "actions", "enter-maintenance"),
                body=models.EnterMaintenance(unmovable=word(models.Unmovable, unmovable)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.HostMaintenance,
        )

    async def leave_maintenance(
        self,
        host: str,
        /,
        *,
        move_back: bool | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.HostMaintenance:
        """End the maintenance of a host, complete or not; its VMs come back.

        Args:
            host: Name or id.
            move_back: Whether the VMs that left it for the maintenance come back. Default: `True`.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("hosts", host, "actions", "leave-maintenance"),
                body=models.LeaveMaintenance(move_back=move_back),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.HostMaintenance,
        )

    async def get_maintenance(self, host: str, /) -> models.HostMaintenance:
        """How far the maintenance of a host is: what is still on it, and why.

        Args:
            host: Name or id.
        """
        return await self._api.answer(
            request("GET", path_of("hosts", host, "maintenance")), models.HostMaintenance
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the hosts.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET", path_of("hosts", ref, "tags"), query=(*one("consistency", consistency),)
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the hosts, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("hosts", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )


class ImageStorages(Collection[models.ImageStorage]):
    """`/v1/image-storages`."""

    async def attach_many(
        self,
        *,
        data_center: str,
        image_storages: Sequence[str] | UnsetType = UNSET,
        q: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> Page[models.Outcome]:
        """For each of up to 200 image storages: let VMs of a data center be made of its images.

        Args:
            data_center: Name or id of the data center.
            image_storages: Names or ids of them.
            q: Conditions as lists take them, instead of `image_storages`; all must hold.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("image-storages", "actions", "attach"),
                body=models.AttachImageStorages(
                    data_center=data_center, image_storages=listed(image_storages), q=listed(q)
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def detach_many(
        self,
        *,
        data_center: str,
        image_storages: Sequence[str] | UnsetType = UNSET,
        q: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> Page[models.Outcome]:
        """For each of up to 200 image storages: take an image storage away from a data center that has no VM of its images.

        Args:
            data_center: Name or id of the data center.
            image_storages: Names or ids of them.
            q: Conditions as lists take them, instead of `image_storages`; all must hold.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("image-storages", "actions", "detach"),
                body=models.DetachImageStorages(
                    data_center=data_center, image_storages=listed(image_storages), q=listed(q)
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the image storages.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET",
                path_of("image-storages", ref, "tags"),
                query=(*one("consistency", consistency),),
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the image storages, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("image-storages", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )

    async def attach(
        self,
        storage: str,
        /,
        *,
        data_center: str,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.ImageStorage:
        """Let VMs of a data center be made of its images.

        Args:
            storage: Name or id.
            data_center: Name or id of the data center.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("image-storages", storage, "actions", "attach"),
                body=models.AttachDataCenter(data_center=data_center),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.ImageStorage,
        )

    async def detach(
        self,
        storage: str,
        /,
        *,
        data_center: str,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.ImageStorage:
        """Take an image storage away from a data center that has no VM of its images.

        Args:
            storage: Name or id.
            data_center: Name or id of the data center.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("image-storages", storage, "actions", "detach"),
                body=models.AttachDataCenter(data_center=data_center),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.ImageStorage,
        )


class Images(Collection[models.Image]):
    """`/v1/images`."""

    async def create(
        self,
        *,
        file: Path,
        name: str,
        on_bytes: OnBytes = silent,
        format: str | UnsetType = UNSET,
        sha256: str | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.Image:
        """Upload an image.

        Args:
            file: The file to send.
            name: Its name.
            on_bytes: Hears of the bytes sent so far, and of all.
            format: What the file must be, e.g. `qcow2`; else it is found out.
            sha256: What the file's hash must be, 64 hex digits.
            idempotency_key: A repetition with the same key gives the first result.
        """
        asked = request(
            "POST",
            path_of("images"),
            query=(
                *one("name", name),
                *one("format", format),
                *one("sha256", sha256),
            ),
            headers={"Idempotency-Key": idempotency_key},
        )
        async with uploading(asked, file, sha256, on_bytes) as ready:
            return await self._api.answer(ready, models.Image)

    async def delete_many(
        self, *, images: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 images: delete an image.

        Args:
            images: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("images", "actions", "delete"),
                body=models.DeleteImages(images=listed(images)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def delete(
        self, image: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Delete an image.

        Args:
            image: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("images", image),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def plan_delete(self, image: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            image: Name or id.
        """
        return await self._api.answer(
            request("DELETE", path_of("images", image), query=(("dry_run", "1"),)),
            models.DeletionPlan,
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the images.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET", path_of("images", ref, "tags"), query=(*one("consistency", consistency),)
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the images, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("images", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )


class JoinTokens(Collection[models.JoinToken]):
    """`/v1/join-tokens`."""

    async def create(
        self,
        *,
        count: int | UnsetType = UNSET,
        ttl_s: int | UnsetType = UNSET,
        cluster: str | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.NewJoinTokens:
        """Make single-use join tokens.

        Args:
            count: How many. 1..100. Default: `1`.
            ttl_s: How long they are good. 1..604800. Default: `10800`.
            cluster: Name or id of the cluster that hosts join into; empty: the first.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("join-tokens"),
                body=models.MakeJoinTokens(count=count, ttl_s=ttl_s, cluster=cluster),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.NewJoinTokens,
        )

    async def delete_many(
        self, *, join_tokens: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 join tokens: revoke a join token.

        Args:
            join_tokens: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("join-tokens", "actions", "delete"),
                body=models.DeleteJoinTokens(join_tokens=listed(join_tokens)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the join tokens.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET",
                path_of("join-tokens", ref, "tags"),
                query=(*one("consistency", consistency),),
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the join tokens, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("join-tokens", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )

    async def delete(
        self, token: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Revoke a join token.

        Args:
            token: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("join-tokens", token),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )


class Local:
    """`/v1/local`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def init(
        self,
        *,
        cluster_name: str | UnsetType = UNSET,
        host_name: str | UnsetType = UNSET,
        address: str | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.NewCluster:
        """Make this host the first of a new cluster.

        Only on the host itself, through its unix socket, by root.

        Args:
            cluster_name: Name of the cluster; empty: `kvorum`.
            host_name: Name of this host; empty: that of the machine.
            address: IP address of this host; empty: that of the default route.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("local", "init"),
                body=models.InitCluster(
                    cluster_name=cluster_name, host_name=host_name, address=address
                ),
                headers={"Idempotency-Key": idempotency_key},
                timeout_s=120.0,
            ),
            models.NewCluster,
        )

    async def join(
        self,
        *,
        token: str,
        host_name: str | UnsetType = UNSET,
        address: str | UnsetType = UNSET,
        witness: bool | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.NewMember:
        """Make this host a member.

        Only on the host itself, through its unix socket, by root.

        Args:
            token: A join token, made by a member.
            host_name: Name of this host; empty: that of the machine.
            address: IP address of this host; empty: the one that reaches the cluster.
            witness: Vote and hold the state, but run no VMs. Default: `False`.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("local", "join"),
                body=models.JoinCluster(
                    token=token, host_name=host_name, address=address, witness=witness
                ),
                headers={"Idempotency-Key": idempotency_key},
                timeout_s=120.0,
            ),
            models.NewMember,
        )

    async def leave(
        self,
        *,
        force: bool | UnsetType = UNSET,
        confirm: str | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.FormerMember:
        """Take this host out of its cluster.

        Only on the host itself, through its unix socket, by root.

        Args:
            force: Leave a cluster that has no place for this host any more. Default: `False`.
            confirm: This host's name, once more; needed with `force`.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("local", "leave"),
                body=models.LeaveCluster(force=force, confirm=confirm),
                headers={"Idempotency-Key": idempotency_key},
                timeout_s=120.0,
            ),
            models.FormerMember,
        )

    async def shutdown(
        self, *, going: models.Going | str, idempotency_key: str = ""
    ) -> models.ShutDownHost:
        """End the guests of this host, which goes down, as its policy says; for what systemd runs then.

        Only on the host itself, through its unix socket, by root.

        Args:
            going: Whether the host is back soon: `reboot` or `power-off`.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("local", "shutdown"),
                body=models.ShutDown(going=word(models.Going, going)),
                headers={"Idempotency-Key": idempotency_key},
                timeout_s=120.0,
            ),
            models.ShutDownHost,
        )

    async def get_status(self) -> models.LocalStatus:
        """What this host is.

        Only on the host itself, through its unix socket, by root.
        """
        return await self._api.answer(
            request("GET", path_of("local", "status")), models.LocalStatus
        )


class Members:
    """`/v1/members`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def list(
        self,
        *,
        q: Sequence[str] = (),
        sort: str | UnsetType = UNSET,
        limit: int | UnsetType = UNSET,
        consistency: Literal["local", "strong"] | UnsetType = UNSET,
    ) -> Page[models.Member]:
        """Each host's role, progress and health. Takes a second at most.

        Args:
            q: A condition: attribute, operator, value; all given must hold. Operators are `=`, `!=`, `>`, `>=`, `<`, `<=`, `~=` (pattern), `?=` (in), `!?=` (not in), `is:null`, `!is:null`.
            sort: The attribute to sort by; with `-` in front, descending.
            limit: How many at most. 1..10000.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.page(
            request(
                "GET",
                path_of("members"),
                query=(
                    *many("q", q),
                    *one("sort", sort),
                    *one("limit", limit),
                    *one("consistency", consistency),
                ),
            ),
            models.Member,
        )

    async def auto_many(
        self,
        *,
        members: Sequence[str] | UnsetType = UNSET,
        q: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> Page[models.Outcome]:
        """For each of up to 200 members: let the cluster choose whether a host votes.

        Args:
            members: Names or ids of them.
            q: Conditions as lists take them, instead of `members`; all must hold.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("members", "actions", "auto"),
                body=models.AutoMembers(members=listed(members), q=listed(q)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def demote_many(
        self,
        *,
        members: Sequence[str] | UnsetType = UNSET,
        q: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> Page[models.Outcome]:
        """For each of up to 200 members: let a host never vote.

        Args:
            members: Names or ids of them.
            q: Conditions as lists take them, instead of `members`; all must hold.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("members", "actions", "demote"),
                body=models.DemoteMembers(members=listed(members), q=listed(q)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def promote_many(
        self,
        *,
        members: Sequence[str] | UnsetType = UNSET,
        q: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> Page[models.Outcome]:
        """For each of up to 200 members: let a host always vote.

        Args:
            members: Names or ids of them.
            q: Conditions as lists take them, instead of `members`; all must hold.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("members", "actions", "promote"),
                body=models.PromoteMembers(members=listed(members), q=listed(q)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def get_arbitration(self) -> models.ArbitrationAddresses:
        """The arbitration addresses, and which host reaches them. Takes two seconds at most."""
        return await self._api.answer(
            request("GET", path_of("members", "arbitration")), models.ArbitrationAddresses
        )

    async def update_arbitration(
        self, *, addresses: Sequence[str], idempotency_key: str = ""
    ) -> models.ArbitrationAddresses:
        """Set, change or clear the arbitration addresses; hosts ping them from the next second on.

        Args:
            addresses: IPv4 or IPv6 addresses that are not of the cluster, such as the router's; empty: none.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("members", "arbitration"),
                body=models.ChangeArbitration(addresses=listed(addresses)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.ArbitrationAddresses,
        )

    async def get_policy(self) -> models.VoterPolicy:
        """How many hosts vote."""
        return await self._api.answer(
            request("GET", path_of("members", "policy")), models.VoterPolicy
        )

    async def update_policy(
        self,
        *,
        voters_max: int | UnsetType | None = UNSET,
        voter_replace_after_s: int | UnsetType | None = UNSET,
        idempotency_key: str = "",
    ) -> models.VoterPolicy:
        """Change how many hosts vote; the leader acts on it within seconds.

        Args:
            voters_max: How many hosts vote at most: 1, 3, 5 or 7; `null`: as it is.
            voter_replace_after_s: Silence after which a voter gives its place to another host, 10 s to 7 days; `null`: as it is.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("members", "policy"),
                body=models.ChangePolicy(
                    voters_max=voters_max, voter_replace_after_s=voter_replace_after_s
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.VoterPolicy,
        )

    async def get_vip(self) -> models.Vip:
        """The management address (VIP), who holds it, and what is wrong with it. Takes two seconds at most."""
        return await self._api.answer(request("GET", path_of("members", "vip")), models.Vip)

    async def update_vip(self, *, address: str, idempotency_key: str = "") -> models.Vip:
        """Set, change or clear the management address (VIP); the leader takes it within seconds.

        Args:
            address: A free address of the hosts' network, `10.0.0.9` or `10.0.0.9/24`; empty: no VIP. At most 64 characters.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("members", "vip"),
                body=models.ChangeVip(address=address),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Vip,
        )

    async def get(self, host: str, /) -> models.Member:
        """One host's role, progress and health.

        Args:
            host: Name or id.
        """
        return await self._api.answer(request("GET", path_of("members", host)), models.Member)

    async def delete(
        self, host: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Remove a host from the cluster.

        Args:
            host: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("members", host),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def plan_delete(self, host: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            host: Name or id.
        """
        return await self._api.answer(
            request("DELETE", path_of("members", host), query=(("dry_run", "1"),)),
            models.DeletionPlan,
        )

    async def auto(
        self, host: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.MemberVote:
        """Let the cluster choose whether a host votes.

        Args:
            host: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("members", host, "actions", "auto"),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.MemberVote,
        )

    async def demote(
        self, host: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.MemberVote:
        """Let a host never vote.

        Args:
            host: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("members", host, "actions", "demote"),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.MemberVote,
        )

    async def promote(
        self, host: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.MemberVote:
        """Let a host always vote.

        Args:
            host: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("members", host, "actions", "promote"),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.MemberVote,
        )


class Nics(Collection[models.Nic]):
    """`/v1/nics`."""

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the nics.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request("GET", path_of("nics", ref, "tags"), query=(*one("consistency", consistency),)),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the nics, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("nics", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )


class PlacementRules(Collection[models.PlacementRule]):
    """`/v1/placement-rules`."""

    async def create(
        self,
        *,
        name: str,
        cluster: str,
        policy: models.PlacementPolicy | str,
        vms: Sequence[str] | UnsetType = UNSET,
        hosts: Sequence[str] | UnsetType = UNSET,
        tags: Sequence[str] | UnsetType = UNSET,
        strength: models.RuleStrength | UnsetType | str = UNSET,
        description: str | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.PlacementRule:
        """Make one of the placement rules.

        Args:
            name: Its name: 1 to 63 of a-z, 0-9, `-` and `.`.
            cluster: The cluster whose VMs it is about. Name or id, of clusters.
            policy: What it asks.
            vms: The VMs that it is about. Names or ids, of vms.
            hosts: The hosts that they may or must not run on; only of the host policies. Names or ids, of hosts.
            tags: Names and `key=value` pairs, to find it by, to limit rights, to change what it does.
            strength: Whether a VM rather waits than breaks it, or it only comes first. Default: `mandatory`.
            description: A note for people. At most 1000 characters.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("placement-rules"),
                body=models.CreatePlacementRule(
                    name=name,
                    cluster=cluster,
                    policy=word(models.PlacementPolicy, policy),
                    vms=listed(vms),
                    hosts=listed(hosts),
                    tags=listed(tags),
                    strength=word(models.RuleStrength, strength),
                    description=description,
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.PlacementRule,
        )

    async def delete_many(
        self, *, placement_rules: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """Delete up to 200 placement rules, each with what goes along.

        Args:
            placement_rules: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("placement-rules", "actions", "delete"),
                body=models.DeletePlacementRules(placement_rules=listed(placement_rules)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def update(
        self,
        ref: str,
        /,
        *,
        name: str | UnsetType = UNSET,
        cluster: str | UnsetType = UNSET,
        vms: Sequence[str] | UnsetType = UNSET,
        hosts: Sequence[str] | UnsetType = UNSET,
        tags: Sequence[str] | UnsetType = UNSET,
        policy: models.PlacementPolicy | UnsetType | str = UNSET,
        strength: models.RuleStrength | UnsetType | str = UNSET,
        description: str | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.PlacementRule:
        """Change one of the placement rules; what is absent stays.

        Args:
            ref: Name or id.
            name: Its name: 1 to 63 of a-z, 0-9, `-` and `.`.
            cluster: The cluster whose VMs it is about. Name or id, of clusters.
            vms: The VMs that it is about. Names or ids, of vms.
            hosts: The hosts that they may or must not run on; only of the host policies. Names or ids, of hosts.
            tags: Names and `key=value` pairs, to find it by, to limit rights, to change what it does.
            policy: What it asks.
            strength: Whether a VM rather waits than breaks it, or it only comes first.
            description: A note for people. At most 1000 characters.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("placement-rules", ref),
                body=models.ChangePlacementRule(
                    name=name,
                    cluster=cluster,
                    vms=listed(vms),
                    hosts=listed(hosts),
                    tags=listed(tags),
                    policy=word(models.PlacementPolicy, policy),
                    strength=word(models.RuleStrength, strength),
                    description=description,
                ),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.PlacementRule,
        )

    async def delete(
        self, ref: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Delete one of the placement rules, with what goes along.

        Args:
            ref: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("placement-rules", ref),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def plan_delete(self, ref: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            ref: Name or id.
        """
        return await self._api.answer(
            request("DELETE", path_of("placement-rules", ref), query=(("dry_run", "1"),)),
            models.DeletionPlan,
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the placement rules.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET",
                path_of("placement-rules", ref, "tags"),
                query=(*one("consistency", consistency),),
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the placement rules, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("placement-rules", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )

    async def get_check(self, rule: str, /) -> models.RuleCheck:
        """Whether a placement rule holds now, and whether it can.

        Args:
            rule: Name or id.
        """
        return await self._api.answer(
            request("GET", path_of("placement-rules", rule, "check")), models.RuleCheck
        )


class Plugins:
    """`/v1/plugins`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def list(
        self,
        *,
        q: Sequence[str] = (),
        sort: str | UnsetType = UNSET,
        limit: int | UnsetType = UNSET,
        consistency: Literal["local", "strong"] | UnsetType = UNSET,
    ) -> Page[models.HostPlugin]:
        """What plug-ins each host has, and whether they work.

        Args:
            q: A condition: attribute, operator, value; all given must hold. Operators are `=`, `!=`, `>`, `>=`, `<`, `<=`, `~=` (pattern), `?=` (in), `!?=` (not in), `is:null`, `!is:null`.
            sort: The attribute to sort by; with `-` in front, descending.
            limit: How many at most. 1..10000.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.page(
            request(
                "GET",
                path_of("plugins"),
                query=(
                    *many("q", q),
                    *one("sort", sort),
                    *one("limit", limit),
                    *one("consistency", consistency),
                ),
            ),
            models.HostPlugin,
        )


class PortGroups(Collection[models.PortGroup]):
    """`/v1/port-groups`."""

    async def create(
        self,
        *,
        name: str,
        cidr: str,
        vni: int | UnsetType = UNSET,
        gateway: str | UnsetType = UNSET,
        dns: Sequence[str] | UnsetType = UNSET,
        mtu: int | UnsetType = UNSET,
        service_ip: str | UnsetType = UNSET,
        pool_first: str | UnsetType = UNSET,
        pool_last: str | UnsetType = UNSET,
        domain: str | UnsetType = UNSET,
        switch: str | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.PortGroup:
        """Make a port group.

        Args:
            name: Its name: 1 to 63 of a-z, 0-9, `-` and `.`.
            cidr: Its IPv4 network, e.g. `10.20.0.0/24`.
            vni: VXLAN network identifier; 0: a free one. 0..16777215. Default: `0`.
            gateway: Default route that DHCP hands out; empty: none.
            dns: Name servers that DHCP hands out.
            mtu: MTU of the guests. 576..65535. Default: `1450`.
            service_ip: Address that answers DHCP and DNS; empty: the second of the network.
            pool_first: First address that NICs get; empty: the one after those left free.
            pool_last: Last address that NICs get; empty: the last of the network.
            domain: Domain of the guests' names. Default: `internal`.
            switch: Name or id of the switch that it is on. Default: `default`.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("port-groups"),
                body=models.CreatePortGroup(
                    name=name,
                    cidr=cidr,
                    vni=vni,
                    gateway=gateway,
                    dns=listed(dns),
                    mtu=mtu,
                    service_ip=service_ip,
                    pool_first=pool_first,
                    pool_last=pool_last,
                    domain=domain,
                    switch=switch,
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.PortGroup,
        )

    async def delete_many(
        self, *, port_groups: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 port groups: delete a port group.

        Args:
            port_groups: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("port-groups", "actions", "delete"),
                body=models.DeletePortGroups(port_groups=listed(port_groups)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def delete(
        self, group: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Delete a port group.

        Args:
            group: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("port-groups", group),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def plan_delete(self, group: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            group: Name or id.
        """
        return await self._api.answer(
            request("DELETE", path_of("port-groups", group), query=(("dry_run", "1"),)),
            models.DeletionPlan,
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the port groups.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET",
                path_of("port-groups", ref, "tags"),
                query=(*one("consistency", consistency),),
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the port groups, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("port-groups", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )


class Roles:
    """`/v1/roles`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def list(
        self,
        *,
        q: Sequence[str] = (),
        sort: str | UnsetType = UNSET,
        limit: int | UnsetType = UNSET,
        consistency: Literal["local", "strong"] | UnsetType = UNSET,
    ) -> Page[models.Role]:
        """The roles, built-in ones too.

        Args:
            q: A condition: attribute, operator, value; all given must hold. Operators are `=`, `!=`, `>`, `>=`, `<`, `<=`, `~=` (pattern), `?=` (in), `!?=` (not in), `is:null`, `!is:null`.
            sort: The attribute to sort by; with `-` in front, descending.
            limit: How many at most. 1..10000.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.page(
            request(
                "GET",
                path_of("roles"),
                query=(
                    *many("q", q),
                    *one("sort", sort),
                    *one("limit", limit),
                    *one("consistency", consistency),
                ),
            ),
            models.Role,
        )

    async def create(
        self,
        *,
        permissions: Sequence[models.Permission],
        name: str | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> models.Role:
        """Make a role.

        Args:
            permissions: What it allows.
            name: Its name; only when it is made.
            description: A note for people. At most 1000 characters.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("roles"),
                body=models.WriteRole(
                    permissions=listed(permissions), name=name, description=description
                ),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Role,
        )

    async def delete_many(
        self, *, roles: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 roles: delete a role that nobody holds.

        Args:
            roles: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("roles", "actions", "delete"),
                body=models.DeleteRoles(roles=listed(roles)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the roles.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET", path_of("roles", ref, "tags"), query=(*one("consistency", consistency),)
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the roles, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("roles", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )

    async def get(
        self, role: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Role:
        """Show one of the roles, by name or id.

        Args:
            role: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request("GET", path_of("roles", role), query=(*one("consistency", consistency),)),
            models.Role,
        )

    async def update(
        self,
        role: str,
        /,
        *,
        permissions: Sequence[models.Permission],
        name: str | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Role:
        """Replace a role's permissions.

        Args:
            role: Name or id.
            permissions: What it allows.
            name: Its name; only when it is made.
            description: A note for people. At most 1000 characters.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("roles", role),
                body=models.WriteRole(
                    permissions=listed(permissions), name=name, description=description
                ),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Role,
        )

    async def delete(
        self, role: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Delete a role that nobody holds.

        Args:
            role: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("roles", role),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )


class Secrets:
    """`/v1/secrets`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def get(self) -> models.SecretsKeyStatus:
        """Which secrets key is in use, and how far a change of it is."""
        return await self._api.answer(request("GET", path_of("secrets")), models.SecretsKeyStatus)

    async def rotate(self, *, idempotency_key: str = "") -> models.SecretsKeyStatus:
        """Make a new secrets key; hosts get it and secrets are sealed anew by themselves.

        Args:
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("secrets", "actions", "rotate"),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.SecretsKeyStatus,
        )


class SecurityGroups(Collection[models.SecurityGroup]):
    """`/v1/security-groups`."""

    async def create(
        self, *, name: str, data_center: str | UnsetType = UNSET, idempotency_key: str = ""
    ) -> models.SecurityGroup:
        """Make a security group with its default rules.

        Args:
            name: Its name: 1 to 63 of a-z, 0-9, `-` and `.`.
            data_center: Name or id of its data center; empty: the first.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("security-groups"),
                body=models.CreateSecurityGroup(name=name, data_center=data_center),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.SecurityGroup,
        )

    async def delete_many(
        self, *, security_groups: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 security groups: delete a security group.

        Args:
            security_groups: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("security-groups", "actions", "delete"),
                body=models.DeleteSecurityGroups(security_groups=listed(security_groups)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def delete(
        self, group: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Delete a security group.

        Args:
            group: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("security-groups", group),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def plan_delete(self, group: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            group: Name or id.
        """
        return await self._api.answer(
            request("DELETE", path_of("security-groups", group), query=(("dry_run", "1"),)),
            models.DeletionPlan,
        )

    async def add_rule(
        self,
        group: str,
        /,
        *,
        direction: models.Direction | UnsetType | str = UNSET,
        protocol: models.Protocol | UnsetType | str = UNSET,
        port_first: int | UnsetType = UNSET,
        port_last: int | UnsetType = UNSET,
        cidr: str | UnsetType = UNSET,
        remote_group: str | UnsetType = UNSET,
        family: int | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Rule:
        """Add a rule; hosts have it within a second.

        Args:
            group: Name or id.
            direction: Seen from the VM: in to it, or out of it. Default: `ingress`.
            protocol: What it matches above IP. Default: `all`.
            port_first: First port of TCP or UDP; 0: all. 0..65535. Default: `0`.
            port_last: Last port; 0: all. 0..65535. Default: `0`.
            cidr: Network of the other side; empty: any.
            remote_group: Name or id of the other side's security group; excludes `cidr`.
            family: 4 or 6, the version of IP. 4..6. Default: `4`.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("security-groups", group, "rules"),
                body=models.CreateRule(
                    direction=word(models.Direction, direction),
                    protocol=word(models.Protocol, protocol),
                    port_first=port_first,
                    port_last=port_last,
                    cidr=cidr,
                    remote_group=remote_group,
                    family=family,
                ),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Rule,
        )

    async def update_rule(
        self,
        group: str,
        rule: str,
        /,
        *,
        enabled: bool,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Rule:
        """Switch a rule on or off.

        Args:
            group: Name or id.
            rule: Name or id.
            enabled: Whether it is in force.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("security-groups", group, "rules", rule),
                body=models.ChangeRule(enabled=enabled),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Rule,
        )

    async def delete_rule(
        self, group: str, rule: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Remove a rule that isn't a default one.

        Args:
            group: Name or id.
            rule: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("security-groups", group, "rules", rule),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the security groups.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET",
                path_of("security-groups", ref, "tags"),
                query=(*one("consistency", consistency),),
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the security groups, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("security-groups", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )


class Sessions(Collection[models.Session]):
    """`/v1/sessions`."""

    async def delete_many(
        self, *, sessions: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 sessions: end a session, everywhere at once.

        Args:
            sessions: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("sessions", "actions", "delete"),
                body=models.DeleteSessions(sessions=listed(sessions)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the sessions.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET", path_of("sessions", ref, "tags"), query=(*one("consistency", consistency),)
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the sessions, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("sessions", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )

    async def delete(
        self, session: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """End a session, everywhere at once.

        Args:
            session: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        await self._api.nothing(
            request(
                "DELETE",
                path_of("sessions", session),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            )
        )


class Snapshots(Collection[models.Snapshot]):
    """`/v1/snapshots`."""

    async def create(
        self,
        *,
        vm: str,
        name: str | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        idempotency_key: str = "",
        callback_url: str = "",
    ) -> Started[models.Snapshot]:
        """Keep what the disk of a stopped VM holds now.

        Args:
            vm: Name or id of the VM, which is stopped.
            name: Its name: 1 to 63 of a-z, 0-9, `-` and `.`; empty: that of the VM and the moment in UTC.
            description: A note for people. At most 1000 characters.
            idempotency_key: A repetition with the same key gives the first result.
            callback_url: Post the task here when it has ended, signed.
        """
        return await self._api.started(
            request(
                "POST",
                path_of("snapshots"),
                body=models.TakeSnapshot(vm=vm, name=name, description=description),
                headers={"Idempotency-Key": idempotency_key, "Callback-URL": callback_url},
            ),
            models.Snapshot,
            "snapshot",
        )

    async def delete_many(
        self, *, snapshots: Sequence[str], idempotency_key: str = "", callback_url: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 snapshots: forget a snapshot of a stopped VM; what its disk holds, and other snapshots, stay.

        Args:
            snapshots: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
            callback_url: Post the task here when it has ended, signed.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("snapshots", "actions", "delete"),
                body=models.DeleteSnapshots(snapshots=listed(snapshots)),
                headers={"Idempotency-Key": idempotency_key, "Callback-URL": callback_url},
            ),
            models.Outcome,
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the snapshots.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET", path_of("snapshots", ref, "tags"), query=(*one("consistency", consistency),)
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the snapshots, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("snapshots", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )

    async def delete(
        self,
        snapshot: str,
        /,
        *,
        idempotency_key: str = "",
        if_match: int | str = "",
        callback_url: str = "",
    ) -> Started[models.Snapshot]:
        """Forget a snapshot of a stopped VM; what its disk holds, and other snapshots, stay.

        Args:
            snapshot: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
            callback_url: Post the task here when it has ended, signed.
        """
        return await self._api.started(
            request(
                "DELETE",
                path_of("snapshots", snapshot),
                headers={
                    "Idempotency-Key": idempotency_key,
                    "If-Match": condition(if_match),
                    "Callback-URL": callback_url,
                },
            ),
            models.Snapshot,
            "snapshot",
        )

    async def plan_delete(self, snapshot: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            snapshot: Name or id.
        """
        return await self._api.answer(
            request("DELETE", path_of("snapshots", snapshot), query=(("dry_run", "1"),)),
            models.DeletionPlan,
        )

    async def revert(
        self,
        snapshot: str,
        /,
        *,
        idempotency_key: str = "",
        if_match: int | str = "",
        callback_url: str = "",
    ) -> Started[models.Snapshot]:
        """Have the disk of a stopped VM hold again what it held then; what was written since its last snapshot is lost.

        Args:
            snapshot: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
            callback_url: Post the task here when it has ended, signed.
        """
        return await self._api.started(
            request(
                "POST",
                path_of("snapshots", snapshot, "actions", "revert"),
                headers={
                    "Idempotency-Key": idempotency_key,
                    "If-Match": condition(if_match),
                    "Callback-URL": callback_url,
                },
            ),
            models.Snapshot,
            "snapshot",
        )


class State:
    """`/v1/state`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def get_backup(
        self, *, of: str | UnsetType = UNSET
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A backup of the whole replicated state, as of one moment.

        Args:
            of: `host`: of what this host has, for when there is no quorum.
        """
        return self._api.stream(request("GET", path_of("state", "backup"), query=(*one("of", of),)))


class SystemTags:
    """`/v1/system-tags`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def list(
        self,
        *,
        q: Sequence[str] = (),
        sort: str | UnsetType = UNSET,
        limit: int | UnsetType = UNSET,
    ) -> Page[models.SystemTag]:
        """The patterns of system tags that this agent knows.

        Args:
            q: A condition: attribute, operator, value; all given must hold. Operators are `=`, `!=`, `>`, `>=`, `<`, `<=`, `~=` (pattern), `?=` (in), `!?=` (not in), `is:null`, `!is:null`.
            sort: The attribute to sort by; with `-` in front, descending.
            limit: How many at most. 1..10000.
        """
        return await self._api.page(
            request(
                "GET",
                path_of("system-tags"),
                query=(
                    *many("q", q),
                    *one("sort", sort),
                    *one("limit", limit),
                ),
            ),
            models.SystemTag,
        )


class Tasks(Collection[models.Task]):
    """`/v1/tasks`."""

    async def cancel(
        self, *, tasks: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 tasks: ask a task to stop at its next safe point.

        Args:
            tasks: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("tasks", "actions", "cancel"),
                body=models.CancelTasks(tasks=listed(tasks)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def retry_many(
        self,
        *,
        tasks: Sequence[str] | UnsetType = UNSET,
        q: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
    ) -> Page[models.Outcome]:
        """For each of up to 200 tasks: have what failed and waits for its next try be tried at once.

        Args:
            tasks: Names or ids of them.
            q: Conditions as lists take them, instead of `tasks`; all must hold.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("tasks", "actions", "retry"),
                body=models.RetryTasks(tasks=listed(tasks), q=listed(q)),
                headers={"Idempotency-Key": idempotency_key},
            ),
            models.Outcome,
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the tasks.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request(
                "GET", path_of("tasks", ref, "tags"), query=(*one("consistency", consistency),)
            ),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the tasks, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("tasks", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )

    async def delete(
        self, task: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.Task:
        """Ask a task to stop at its next safe point.

        Args:
            task: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "DELETE",
                path_of("tasks", task),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Task,
        )

    async def give_up(
        self,
        task: str,
        /,
        *,
        reason: str,
        confirm: str,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Task:
        """End a stuck task as it is, and record what it leaves behind.

        Args:
            task: Name or id.
            reason: Why; it is kept with the task. At most 200 characters.
            confirm: The name of what the task works on, once more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("tasks", task, "actions", "give-up"),
                body=models.GiveUpTask(reason=reason, confirm=confirm),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Task,
        )

    async def retry(
        self, task: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.Task:
        """Have what failed and waits for its next try be tried at once.

        Args:
            task: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "POST",
                path_of("tasks", task, "actions", "retry"),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Task,
        )


class Vms(Collection[models.VM]):
    """`/v1/vms`."""

    async def create(
        self,
        *,
        name: str,
        image: str,
        cpus: int | UnsetType = UNSET,
        memory_mib: int | UnsetType = UNSET,
        disk_size_bytes: int | UnsetType = UNSET,
        data_storage: str | UnsetType = UNSET,
        port_group: str | UnsetType = UNSET,
        security_groups: Sequence[str] | UnsetType = UNSET,
        cluster: str | UnsetType = UNSET,
        host: str | UnsetType = UNSET,
        placement_rules: Sequence[str] | UnsetType = UNSET,
        ha: bool | UnsetType = UNSET,
        priority: models.VMPriority | UnsetType | str = UNSET,
        start_after: Sequence[str] | UnsetType = UNSET,
        start_delay_s: int | UnsetType = UNSET,
        hostname: str | UnsetType = UNSET,
        ssh_keys: Sequence[str] | UnsetType = UNSET,
        user_data: str | UnsetType = UNSET,
        start: bool | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        idempotency_key: str = "",
        callback_url: str = "",
    ) -> Started[models.VM]:
        """Make a VM from an image.

        Args:
            name: Its name: 1 to 63 of a-z, 0-9, `-` and `.`.
            image: Name or id of the image that its disk is made of.
            cpus: Virtual CPUs. 1..255. Default: `1`.
            memory_mib: Memory that the guest sees. 64..16777216. Default: `1024`.
            disk_size_bytes: Size of its disk, a multiple of 512; 0: that of the image. 0..70368744177664. Default: `0`.
            data_storage: Name or id of where its disk lies; empty: the only shared one, else the local one.
            port_group: Name or id of the network of its NIC. Default: `default`.
            security_groups: Names or ids of the firewalls of its NIC. Default: `['default']`.
            cluster: Name or id of its cluster; empty: that of `host`, else the first.
            host: Name or id of the host that it starts on; empty: the one with most room.
            placement_rules: Names or ids of placement rules of its cluster that it is put into; needs the right to change them.
            ha: Whether it is started elsewhere when its host is lost. Default: `True`.
            priority: Which VMs come first when many are to be started, or room is short. Default: `medium`.
            start_after: Names or ids of VMs that it waits for when many are started.
            start_delay_s: How many seconds after the last of these VMs it is started. 0..3600. Default: `0`.
            hostname: Host name of the guest; empty: its name. At most 253 characters.
            ssh_keys: Public keys that may log in, one each.
            user_data: A whole #cloud-config text, of 64 KiB at most.
            start: Whether to start it at once. Default: `True`.
            description: A note for people. At most 1000 characters.
            idempotency_key: A repetition with the same key gives the first result.
            callback_url: Post the task here when it has ended, signed.
        """
        return await self._api.started(
            request(
                "POST",
                path_of("vms"),
                body=models.CreateVM(
                    name=name,
                    image=image,
                    cpus=cpus,
                    memory_mib=memory_mib,
                    disk_size_bytes=disk_size_bytes,
                    data_storage=data_storage,
                    port_group=port_group,
                    security_groups=listed(security_groups),
                    cluster=cluster,
                    host=host,
                    placement_rules=listed(placement_rules),
                    ha=ha,
                    priority=word(models.VMPriority, priority),
                    start_after=listed(start_after),
                    start_delay_s=start_delay_s,
                    hostname=hostname,
                    ssh_keys=listed(ssh_keys),
                    user_data=user_data,
                    start=start,
                    description=description,
                ),
                headers={"Idempotency-Key": idempotency_key, "Callback-URL": callback_url},
            ),
            models.VM,
            "vm",
        )

    async def delete_many(
        self, *, vms: Sequence[str], idempotency_key: str = "", callback_url: str = ""
    ) -> Page[models.Outcome]:
        """Stop up to 200 VMs by force and remove them with their disks and NICs.

        Args:
            vms: Names or ids of the VMs.
            idempotency_key: A repetition with the same key gives the first result.
            callback_url: Post the task here when it has ended, signed.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("vms", "actions", "delete"),
                body=models.DeleteVMs(vms=listed(vms)),
                headers={"Idempotency-Key": idempotency_key, "Callback-URL": callback_url},
            ),
            models.Outcome,
        )

    async def migrate_many(
        self,
        *,
        vms: Sequence[str] | UnsetType = UNSET,
        q: Sequence[str] | UnsetType = UNSET,
        host: str | UnsetType = UNSET,
        idempotency_key: str = "",
        callback_url: str = "",
    ) -> Page[models.Outcome]:
        """Move up to 200 running VMs to other hosts.

        Args:
            vms: Names or ids of the VMs.
            q: Conditions as lists take them, instead of `vms`; all must hold.
            host: Name or id of where they shall go; empty: where most room is, each.
            idempotency_key: A repetition with the same key gives the first result.
            callback_url: Post the task here when it has ended, signed.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("vms", "actions", "migrate"),
                body=models.MigrateVMs(vms=listed(vms), q=listed(q), host=host),
                headers={"Idempotency-Key": idempotency_key, "Callback-URL": callback_url},
            ),
            models.Outcome,
        )

    async def reboot_many(
        self,
        *,
        vms: Sequence[str] | UnsetType = UNSET,
        q: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        callback_url: str = "",
    ) -> Page[models.Outcome]:
        """Restart the guests of up to 200 VMs.

        Args:
            vms: Names or ids of the VMs.
            q: Conditions as lists take them, instead of `vms`; all must hold.
            idempotency_key: A repetition with the same key gives the first result.
            callback_url: Post the task here when it has ended, signed.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("vms", "actions", "reboot"),
                body=models.SomeVMs(vms=listed(vms), q=listed(q)),
                headers={"Idempotency-Key": idempotency_key, "Callback-URL": callback_url},
            ),
            models.Outcome,
        )

    async def start_many(
        self,
        *,
        vms: Sequence[str] | UnsetType = UNSET,
        q: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        callback_url: str = "",
    ) -> Page[models.Outcome]:
        """Start up to 200 VMs.

        Args:
            vms: Names or ids of the VMs.
            q: Conditions as lists take them, instead of `vms`; all must hold.
            idempotency_key: A repetition with the same key gives the first result.
            callback_url: Post the task here when it has ended, signed.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("vms", "actions", "start"),
                body=models.SomeVMs(vms=listed(vms), q=listed(q)),
                headers={"Idempotency-Key": idempotency_key, "Callback-URL": callback_url},
            ),
            models.Outcome,
        )

    async def stop_many(
        self,
        *,
        vms: Sequence[str] | UnsetType = UNSET,
        q: Sequence[str] | UnsetType = UNSET,
        force: bool | UnsetType = UNSET,
        timeout_s: int | UnsetType = UNSET,
        idempotency_key: str = "",
        callback_url: str = "",
    ) -> Page[models.Outcome]:
        """Shut up to 200 VMs down, or cut their power.

        Args:
            vms: Names or ids of the VMs.
            q: Conditions as lists take them, instead of `vms`; all must hold.
            force: Cut the power instead of asking the guests. Default: `False`.
            timeout_s: How long each guest may take to shut down. 1..3600. Default: `90`.
            idempotency_key: A repetition with the same key gives the first result.
            callback_url: Post the task here when it has ended, signed.
        """
        return await self._api.page(
            request(
                "POST",
                path_of("vms", "actions", "stop"),
                body=models.StopVMs(vms=listed(vms), q=listed(q), force=force, timeout_s=timeout_s),
                headers={"Idempotency-Key": idempotency_key, "Callback-URL": callback_url},
            ),
            models.Outcome,
        )

    async def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the vms.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return await self._api.answer(
            request("GET", path_of("vms", ref, "tags"), query=(*one("consistency", consistency),)),
            models.Tags,
        )

    async def update_tags(
        self,
        ref: str,
        /,
        *,
        add: Sequence[str] | UnsetType = UNSET,
        remove: Sequence[str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.Tags:
        """Add tags to one of the vms, and remove others.

        Args:
            ref: Name or id.
            add: Tags that it shall have.
            remove: Tags that it shall not have any more.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("vms", ref, "tags"),
                body=models.ChangeTags(add=listed(add), remove=listed(remove)),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.Tags,
        )

    async def update(
        self,
        vm: str,
        /,
        *,
        description: str | UnsetType = UNSET,
        ha: bool | UnsetType = UNSET,
        priority: models.VMPriority | UnsetType | str = UNSET,
        start_after: Sequence[str] | UnsetType = UNSET,
        start_delay_s: int | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
    ) -> models.VM:
        """Change a VM; what is absent stays.

        Args:
            vm: Name or id.
            description: A note for people. At most 1000 characters.
            ha: Whether it is started elsewhere when its host is lost.
            priority: Which VMs come first when many are to be started, or room is short.
            start_after: Names or ids of VMs that it waits for when many are started.
            start_delay_s: How many seconds after the last of these VMs it is started. 0..3600.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return await self._api.answer(
            request(
                "PATCH",
                path_of("vms", vm),
                body=models.ChangeVM(
                    description=description,
                    ha=ha,
                    priority=word(models.VMPriority, priority),
                    start_after=listed(start_after),
                    start_delay_s=start_delay_s,
                ),
                headers={"Idempotency-Key": idempotency_key, "If-Match": condition(if_match)},
            ),
            models.VM,
        )

    async def delete(
        self,
        vm: str,
        /,
        *,
        idempotency_key: str = "",
        if_match: int | str = "",
        callback_url: str = "",
    ) -> Started[models.VM]:
        """Stop a VM by force and remove it with its disks and NICs.

        Args:
            vm: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
            callback_url: Post the task here when it has ended, signed.
        """
        return await self._api.started(
            request(
                "DELETE",
                path_of("vms", vm),
                headers={
                    "Idempotency-Key": idempotency_key,
                    "If-Match": condition(if_match),
                    "Callback-URL": callback_url,
                },
            ),
            models.VM,
            "vm",
        )

    async def plan_delete(self, vm: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            vm: Name or id.
        """
        return await self._api.answer(
            request("DELETE", path_of("vms", vm), query=(("dry_run", "1"),)), models.DeletionPlan
        )

    async def migrate(
        self,
        vm: str,
        /,
        *,
        host: str | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
        callback_url: str = "",
    ) -> Started[models.VM]:
        """Move a running VM to another host.

        Args:
            vm: Name or id.
            host: Name or id of where it shall go; empty: the host with most room.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
            callback_url: Post the task here when it has ended, signed.
        """
        return await self._api.started(
            request(
                "POST",
                path_of("vms", vm, "actions", "migrate"),
                body=models.MigrateVM(host=host),
                headers={
                    "Idempotency-Key": idempotency_key,
                    "If-Match": condition(if_match),
                    "Callback-URL": callback_url,
                },
            ),
            models.VM,
            "vm",
        )

    async def reboot(
        self,
        vm: str,
        /,
        *,
        idempotency_key: str = "",
        if_match: int | str = "",
        callback_url: str = "",
    ) -> Started[models.VM]:
        """Restart a VM's guest.

        Args:
            vm: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
            callback_url: Post the task here when it has ended, signed.
        """
        return await self._api.started(
            request(
                "POST",
                path_of("vms", vm, "actions", "reboot"),
                headers={
                    "Idempotency-Key": idempotency_key,
                    "If-Match": condition(if_match),
                    "Callback-URL": callback_url,
                },
            ),
            models.VM,
            "vm",
        )

    async def start(
        self,
        vm: str,
        /,
        *,
        idempotency_key: str = "",
        if_match: int | str = "",
        callback_url: str = "",
    ) -> Started[models.VM]:
        """Start a VM.

        Args:
            vm: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
            callback_url: Post the task here when it has ended, signed.
        """
        return await self._api.started(
            request(
                "POST",
                path_of("vms", vm, "actions", "start"),
                headers={
                    "Idempotency-Key": idempotency_key,
                    "If-Match": condition(if_match),
                    "Callback-URL": callback_url,
                },
            ),
            models.VM,
            "vm",
        )

    async def stop(
        self,
        vm: str,
        /,
        *,
        force: bool | UnsetType = UNSET,
        timeout_s: int | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
        callback_url: str = "",
    ) -> Started[models.VM]:
        """Shut a VM down, or cut its power.

        Args:
            vm: Name or id.
            force: Cut the power instead of asking the guest. Default: `False`.
            timeout_s: How long the guest may take to shut down. 1..3600. Default: `90`.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
            callback_url: Post the task here when it has ended, signed.
        """
        return await self._api.started(
            request(
                "POST",
                path_of("vms", vm, "actions", "stop"),
                body=models.StopVM(force=force, timeout_s=timeout_s),
                headers={
                    "Idempotency-Key": idempotency_key,
                    "If-Match": condition(if_match),
                    "Callback-URL": callback_url,
                },
            ),
            models.VM,
            "vm",
        )


class Workflows:
    """`/v1/workflows`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def list(
        self,
        *,
        q: Sequence[str] = (),
        sort: str | UnsetType = UNSET,
        limit: int | UnsetType = UNSET,
    ) -> Page[models.RunnableWorkflow]:
        """Workflows of plug-ins that people may run, as this agent knows them.

        Args:
            q: A condition: attribute, operator, value; all given must hold. Operators are `=`, `!=`, `>`, `>=`, `<`, `<=`, `~=` (pattern), `?=` (in), `!?=` (not in), `is:null`, `!is:null`.
            sort: The attribute to sort by; with `-` in front, descending.
            limit: How many at most. 1..10000.
        """
        return await self._api.page(
            request(
                "GET",
                path_of("workflows"),
                query=(
                    *many("q", q),
                    *one("sort", sort),
                    *one("limit", limit),
                ),
            ),
            models.RunnableWorkflow,
        )

    async def run(
        self,
        workflow: str,
        /,
        *,
        vm: str,
        arguments: dict[str, str] | UnsetType = UNSET,
        idempotency_key: str = "",
        if_match: int | str = "",
        callback_url: str = "",
    ) -> Started[models.VM]:
        """Run a workflow on a VM.

        Args:
            workflow: Name or id.
            vm: Name or id of the VM that it is run on.
            arguments: The workflow's inputs by name, as `GET /v1/workflows` lists them.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
            callback_url: Post the task here when it has ended, signed.
        """
        return await self._api.started(
            request(
                "POST",
                path_of("workflows", workflow, "actions", "run"),
                body=models.RunWorkflow(vm=vm, arguments=arguments),
                headers={
                    "Idempotency-Key": idempotency_key,
                    "If-Match": condition(if_match),
                    "Callback-URL": callback_url,
                },
            ),
            models.VM,
            "vm",
        )


class Operations:
    """Everything that the API offers, by what it is about."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.access_keys = AccessKeys(api, "access-keys", models.AccessKey)
        self.access_tokens = AccessTokens(api, "access-tokens", models.AccessToken)
        self.accounts = Accounts(api, "accounts", models.Account)
        self.audits = Audits(api, "audits", models.Audit)
        self.bmcs = Bmcs(api, "bmcs", models.Bmc)
        self.callback_key = CallbackKey(api)
        self.certificates = Certificates(api)
        self.clusters = Clusters(api, "clusters", models.Cluster)
        self.data_centers = DataCenters(api, "data-centers", models.DataCenter)
        self.data_storages = DataStorages(api, "data-storages", models.DataStorage)
        self.disks = Disks(api, "disks", models.Disk)
        self.distributed_switches = DistributedSwitches(
            api, "distributed-switches", models.DistributedSwitch
        )
        self.drills = Drills(api, "drills", models.Drill)
        self.events = Events(api, "events", models.Event)
        self.ha = Ha(api)
        self.hosts = Hosts(api, "hosts", models.Host)
        self.image_storages = ImageStorages(api, "image-storages", models.ImageStorage)
        self.images = Images(api, "images", models.Image)
        self.join_tokens = JoinTokens(api, "join-tokens", models.JoinToken)
        self.local = Local(api)
        self.members = Members(api)
        self.nics = Nics(api, "nics", models.Nic)
        self.placement_rules = PlacementRules(api, "placement-rules", models.PlacementRule)
        self.plugins = Plugins(api)
        self.port_groups = PortGroups(api, "port-groups", models.PortGroup)
        self.roles = Roles(api)
        self.secrets = Secrets(api)
        self.security_groups = SecurityGroups(api, "security-groups", models.SecurityGroup)
        self.sessions = Sessions(api, "sessions", models.Session)
        self.snapshots = Snapshots(api, "snapshots", models.Snapshot)
        self.state = State(api)
        self.system_tags = SystemTags(api)
        self.tasks = Tasks(api, "tasks", models.Task)
        self.vms = Vms(api, "vms", models.VM)
        self.workflows = Workflows(api)

    async def health(self) -> models.ClusterHealth:
        """Whether the cluster can take a failure now, what is wrong, and what to do. Takes about two seconds at most, and needs no quorum."""
        return await self._api.answer(request("GET", path_of("health")), models.ClusterHealth)

    async def login(
        self, *, name: str, password: str, code: str | UnsetType = UNSET
    ) -> models.NewSession:
        """Log in with name, password and perhaps a time code.

        Args:
            name: Name of the account.
            password: Its password.
            code: A time code or a recovery code; empty without two-factor log-in.
        """
        return await self._api.answer(
            request(
                "POST", path_of("login"), body=models.LogIn(name=name, password=password, code=code)
            ),
            models.NewSession,
        )

    async def logout(self, *, idempotency_key: str = "") -> None:
        """End the session that the request came with.

        Args:
            idempotency_key: A repetition with the same key gives the first result.
        """
        await self._api.nothing(
            request("POST", path_of("logout"), headers={"Idempotency-Key": idempotency_key})
        )

    async def openapi(self) -> dict[str, Any]:
        """This description."""
        return await self._api.answer(request("GET", path_of("openapi.json")), dict[str, Any])

    async def status(self) -> models.ClusterStatus:
        """The cluster at a glance."""
        return await self._api.answer(request("GET", path_of("status")), models.ClusterStatus)

    async def whoami(self) -> models.Caller:
        """Who the credentials are, and what they allow."""
        return await self._api.answer(request("GET", path_of("whoami")), models.Caller)
