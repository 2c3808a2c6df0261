"""The operations of the API as methods that block. Made by `make sdk` from the description of the API: don't edit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from tools.sdk.blocking import BlockingCollection, Runner
from tools.sdk.files import OnBytes, silent
from tools.sdk.generated import models, operations
from tools.sdk.items import Page
from tools.sdk.started import Started


class AccessKeys(BlockingCollection[models.AccessKey]):
    """`/v1/access-keys`."""

    def __init__(self, calls: operations.AccessKeys, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def create(
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
        return self._runner.run(
            self._calls.create(
                name=name,
                account=account,
                roles=roles,
                ttl_s=ttl_s,
                description=description,
                idempotency_key=idempotency_key,
            )
        )

    def delete_many(
        self, *, access_keys: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 access keys: delete an access key; it is refused everywhere at once.

        Args:
            access_keys: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.delete_many(access_keys=access_keys, idempotency_key=idempotency_key)
        )

    def update(
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
        return self._runner.run(
            self._calls.update(
                key,
                disabled=disabled,
                description=description,
                idempotency_key=idempotency_key,
                if_match=if_match,
            )
        )

    def delete(self, key: str, /, *, idempotency_key: str = "", if_match: int | str = "") -> None:
        """Delete an access key; it is refused everywhere at once.

        Args:
            key: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(key, idempotency_key=idempotency_key, if_match=if_match)
        )

    def rotate(
        self, key: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.AccessKeySecret:
        """Give an access key a new secret; the former one ends everywhere at once.

        Args:
            key: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return self._runner.run(
            self._calls.rotate(key, idempotency_key=idempotency_key, if_match=if_match)
        )

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the access keys.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )


class AccessTokens(BlockingCollection[models.AccessToken]):
    """`/v1/access-tokens`."""

    def __init__(self, calls: operations.AccessTokens, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def create(
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
        return self._runner.run(
            self._calls.create(
                name=name,
                ttl_s=ttl_s,
                account=account,
                roles=roles,
                idempotency_key=idempotency_key,
            )
        )

    def delete_many(
        self, *, access_tokens: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 access tokens: revoke an access token, everywhere at once.

        Args:
            access_tokens: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.delete_many(access_tokens=access_tokens, idempotency_key=idempotency_key)
        )

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the access tokens.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def delete(self, token: str, /, *, idempotency_key: str = "", if_match: int | str = "") -> None:
        """Revoke an access token, everywhere at once.

        Args:
            token: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(token, idempotency_key=idempotency_key, if_match=if_match)
        )


class Accounts(BlockingCollection[models.Account]):
    """`/v1/accounts`."""

    def __init__(self, calls: operations.Accounts, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def create(
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
        return self._runner.run(
            self._calls.create(
                name=name,
                roles=roles,
                password=password,
                description=description,
                idempotency_key=idempotency_key,
            )
        )

    def delete_many(
        self, *, accounts: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 accounts: delete an account with its sessions, access tokens and access keys.

        Args:
            accounts: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.delete_many(accounts=accounts, idempotency_key=idempotency_key)
        )

    def update(
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
        return self._runner.run(
            self._calls.update(
                account,
                roles=roles,
                disabled=disabled,
                description=description,
                idempotency_key=idempotency_key,
                if_match=if_match,
            )
        )

    def delete(
        self, account: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Delete an account with its sessions, access tokens and access keys.

        Args:
            account: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(account, idempotency_key=idempotency_key, if_match=if_match)
        )

    def confirm_totp(
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
        return self._runner.run(
            self._calls.confirm_totp(
                account, code=code, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def disable_totp(
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
        self._runner.run(
            self._calls.disable_totp(
                account, code=code, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def enable_totp(
        self, account: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.NewTotp:
        """Show the secret of time codes as an address and a QR code, until a code confirms it.

        Args:
            account: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return self._runner.run(
            self._calls.enable_totp(account, idempotency_key=idempotency_key, if_match=if_match)
        )

    def renew_recovery_codes(
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
        return self._runner.run(
            self._calls.renew_recovery_codes(
                account, code=code, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def set_password(
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
        self._runner.run(
            self._calls.set_password(
                account,
                password=password,
                old_password=old_password,
                idempotency_key=idempotency_key,
                if_match=if_match,
            )
        )

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the accounts.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )


class Audits(BlockingCollection[models.Audit]):
    """`/v1/audits`."""

    def __init__(self, calls: operations.Audits, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner


class Bmcs(BlockingCollection[models.Bmc]):
    """`/v1/bmcs`."""

    def __init__(self, calls: operations.Bmcs, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def create(
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
        return self._runner.run(
            self._calls.create(
                host=host,
                address=address,
                user=user,
                password=password,
                port=port,
                cipher_suite=cipher_suite,
                protocol=protocol,
                fingerprint=fingerprint,
                system=system,
                idempotency_key=idempotency_key,
            )
        )

    def delete_many(
        self, *, bmcs: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 bmcs: forget the management board of a host.

        Args:
            bmcs: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(self._calls.delete_many(bmcs=bmcs, idempotency_key=idempotency_key))

    def power_on_many(
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
        return self._runner.run(
            self._calls.power_on_many(bmcs=bmcs, q=q, idempotency_key=idempotency_key)
        )

    def delete(self, bmc: str, /, *, idempotency_key: str = "", if_match: int | str = "") -> None:
        """Forget the management board of a host.

        Args:
            bmc: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(bmc, idempotency_key=idempotency_key, if_match=if_match)
        )

    def power_off(
        self, bmc: str, /, *, confirm: str, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Take the power from a host by its management board, whatever runs on it.

        Args:
            bmc: Name or id.
            confirm: The host's name, once more: its guests lose their power too.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.power_off(
                bmc, confirm=confirm, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def power_on(self, bmc: str, /, *, idempotency_key: str = "", if_match: int | str = "") -> None:
        """Switch a host on by its management board.

        Args:
            bmc: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.power_on(bmc, idempotency_key=idempotency_key, if_match=if_match)
        )

    def get_power(self, bmc: str, /) -> models.Power:
        """Ask a host's management board whether the host has power.

        Args:
            bmc: Name or id.
        """
        return self._runner.run(self._calls.get_power(bmc))

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the bmcs.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )


class CallbackKey:
    """`/v1/callback-key`."""

    def __init__(self, calls: operations.CallbackKey, runner: Runner) -> None:
        self._calls = calls
        self._runner = runner

    def get(self) -> models.CallbackKey:
        """The public key that receivers of callbacks check signatures with."""
        return self._runner.run(self._calls.get())

    def rotate(self, *, idempotency_key: str = "") -> models.CallbackKey:
        """Sign callbacks with a new key from now on.

        Args:
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(self._calls.rotate(idempotency_key=idempotency_key))


class Certificates:
    """`/v1/certificates`."""

    def __init__(self, calls: operations.Certificates, runner: Runner) -> None:
        self._calls = calls
        self._runner = runner

    def list(self) -> Page[models.Certificate]:
        """The imported certificates, this host's own and the authority's."""
        return self._runner.run(self._calls.list())

    def create(
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
        return self._runner.run(
            self._calls.create(
                content=content, passphrase=passphrase, host=host, idempotency_key=idempotency_key
            )
        )

    def delete(self, scope: str, /, *, idempotency_key: str = "", if_match: int | str = "") -> None:
        """Delete the certificate imported for `all` hosts or for one.

        Args:
            scope: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(scope, idempotency_key=idempotency_key, if_match=if_match)
        )


class Clusters(BlockingCollection[models.Cluster]):
    """`/v1/clusters`."""

    def __init__(self, calls: operations.Clusters, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def create(
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
        return self._runner.run(
            self._calls.create(
                name=name,
                data_center=data_center,
                tags=tags,
                description=description,
                admission=admission,
                host_failures=host_failures,
                shutdown_policy=shutdown_policy,
                freeze_s_max=freeze_s_max,
                cpu_overcommit=cpu_overcommit,
                idempotency_key=idempotency_key,
            )
        )

    def delete_many(
        self, *, clusters: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """Delete up to 200 clusters, each with what goes along.

        Args:
            clusters: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.delete_many(clusters=clusters, idempotency_key=idempotency_key)
        )

    def get_room(self, cluster: str, /) -> models.Room:
        """What would become of the highly available VMs if hosts were lost, the worst losses first.

        Args:
            cluster: Name or id.
        """
        return self._runner.run(self._calls.get_room(cluster))

    def update(
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
        return self._runner.run(
            self._calls.update(
                ref,
                name=name,
                data_center=data_center,
                tags=tags,
                description=description,
                admission=admission,
                host_failures=host_failures,
                shutdown_policy=shutdown_policy,
                freeze_s_max=freeze_s_max,
                cpu_overcommit=cpu_overcommit,
                idempotency_key=idempotency_key,
                if_match=if_match,
            )
        )

    def delete(self, ref: str, /, *, idempotency_key: str = "", if_match: int | str = "") -> None:
        """Delete one of the clusters, with what goes along.

        Args:
            ref: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(ref, idempotency_key=idempotency_key, if_match=if_match)
        )

    def plan_delete(self, ref: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            ref: Name or id.
        """
        return self._runner.run(self._calls.plan_delete(ref))

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the clusters.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )


class DataCenters(BlockingCollection[models.DataCenter]):
    """`/v1/data-centers`."""

    def __init__(self, calls: operations.DataCenters, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def create(
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
        return self._runner.run(
            self._calls.create(
                name=name, tags=tags, description=description, idempotency_key=idempotency_key
            )
        )

    def delete_many(
        self, *, data_centers: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """Delete up to 200 data centers, each with what goes along.

        Args:
            data_centers: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.delete_many(data_centers=data_centers, idempotency_key=idempotency_key)
        )

    def update(
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
        return self._runner.run(
            self._calls.update(
                ref,
                name=name,
                tags=tags,
                description=description,
                idempotency_key=idempotency_key,
                if_match=if_match,
            )
        )

    def delete(self, ref: str, /, *, idempotency_key: str = "", if_match: int | str = "") -> None:
        """Delete one of the data centers, with what goes along.

        Args:
            ref: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(ref, idempotency_key=idempotency_key, if_match=if_match)
        )

    def plan_delete(self, ref: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            ref: Name or id.
        """
        return self._runner.run(self._calls.plan_delete(ref))

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the data centers.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )


class DataStorages(BlockingCollection[models.DataStorage]):
    """`/v1/data-storages`."""

    def __init__(self, calls: operations.DataStorages, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def create(
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
        return self._runner.run(
            self._calls.create(
                name=name,
                kind=kind,
                path=path,
                driver=driver,
                data_center=data_center,
                idempotency_key=idempotency_key,
            )
        )

    def delete_many(
        self, *, data_storages: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 data storages: forget a data storage; its files stay.

        Args:
            data_storages: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.delete_many(data_storages=data_storages, idempotency_key=idempotency_key)
        )

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the data storages.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def delete(
        self, storage: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Forget a data storage; its files stay.

        Args:
            storage: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(storage, idempotency_key=idempotency_key, if_match=if_match)
        )

    def plan_delete(self, storage: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            storage: Name or id.
        """
        return self._runner.run(self._calls.plan_delete(storage))


class Disks(BlockingCollection[models.Disk]):
    """`/v1/disks`."""

    def __init__(self, calls: operations.Disks, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the disks.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )


class DistributedSwitches(BlockingCollection[models.DistributedSwitch]):
    """`/v1/distributed-switches`."""

    def __init__(self, calls: operations.DistributedSwitches, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def create(
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
        return self._runner.run(
            self._calls.create(
                name=name, clusters=clusters, tags=tags, idempotency_key=idempotency_key
            )
        )

    def attach_many(
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
        return self._runner.run(
            self._calls.attach_many(
                cluster=cluster,
                distributed_switches=distributed_switches,
                q=q,
                idempotency_key=idempotency_key,
            )
        )

    def delete_many(
        self, *, distributed_switches: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """Delete up to 200 distributed switches, each with what goes along.

        Args:
            distributed_switches: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.delete_many(
                distributed_switches=distributed_switches, idempotency_key=idempotency_key
            )
        )

    def detach_many(
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
        return self._runner.run(
            self._calls.detach_many(
                cluster=cluster,
                distributed_switches=distributed_switches,
                q=q,
                idempotency_key=idempotency_key,
            )
        )

    def update(
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
        return self._runner.run(
            self._calls.update(
                ref,
                name=name,
                clusters=clusters,
                tags=tags,
                idempotency_key=idempotency_key,
                if_match=if_match,
            )
        )

    def delete(self, ref: str, /, *, idempotency_key: str = "", if_match: int | str = "") -> None:
        """Delete one of the distributed switches, with what goes along.

        Args:
            ref: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(ref, idempotency_key=idempotency_key, if_match=if_match)
        )

    def plan_delete(self, ref: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            ref: Name or id.
        """
        return self._runner.run(self._calls.plan_delete(ref))

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the distributed switches.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def attach(
        self, switch: str, /, *, cluster: str, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.DistributedSwitch:
        """Let a switch span the hosts of a cluster too.

        Args:
            switch: Name or id.
            cluster: Name or id of the cluster.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return self._runner.run(
            self._calls.attach(
                switch, cluster=cluster, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def detach(
        self, switch: str, /, *, cluster: str, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.DistributedSwitch:
        """Take a switch away from a cluster that has no VM on it.

        Args:
            switch: Name or id.
            cluster: Name or id of the cluster.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return self._runner.run(
            self._calls.detach(
                switch, cluster=cluster, idempotency_key=idempotency_key, if_match=if_match
            )
        )


class Drills(BlockingCollection[models.Drill]):
    """`/v1/drills`."""

    def __init__(self, calls: operations.Drills, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def create(
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
        return self._runner.run(
            self._calls.create(
                kind=kind,
                host=host,
                duration_s=duration_s,
                data_storage=data_storage,
                confirm=confirm,
                idempotency_key=idempotency_key,
            )
        )

    def abort_many(
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
        return self._runner.run(
            self._calls.abort_many(
                drills=drills, q=q, reason=reason, idempotency_key=idempotency_key
            )
        )

    def check(
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
        return self._runner.run(
            self._calls.check(
                kind=kind,
                host=host,
                duration_s=duration_s,
                data_storage=data_storage,
                idempotency_key=idempotency_key,
            )
        )

    def abort(
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
        return self._runner.run(
            self._calls.abort(
                drill, reason=reason, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def get_report(self, drill: str, /) -> models.Report:
        """The report of a drill, as text, as Markdown and in parts.

        Args:
            drill: Name or id.
        """
        return self._runner.run(self._calls.get_report(drill))

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the drills.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )


class Events(BlockingCollection[models.Event]):
    """`/v1/events`."""

    def __init__(self, calls: operations.Events, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner


class Ha:
    """`/v1/ha`."""

    def __init__(self, calls: operations.Ha, runner: Runner) -> None:
        self._calls = calls
        self._runner = runner

    def arm(self, *, idempotency_key: str = "") -> models.HaStatus:
        """Have failover act again.

        Args:
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(self._calls.arm(idempotency_key=idempotency_key))

    def disarm(
        self, *, reason: str, rearm_after_s: int | UnsetType = UNSET, idempotency_key: str = ""
    ) -> models.HaStatus:
        """Have failover act no more, as soon as nothing is under way.

        Args:
            reason: Why; shown to whoever wonders. At most 200 characters.
            rearm_after_s: When to arm it again by itself, 60 s to 7 days; 0: when someone does so. Default: `0`.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.disarm(
                reason=reason, rearm_after_s=rearm_after_s, idempotency_key=idempotency_key
            )
        )

    def get_profile(self) -> models.HaProfile:
        """The lease and watchdog times that failover goes by."""
        return self._runner.run(self._calls.get_profile())

    def update_profile(
        self, *, name: str, force: bool | UnsetType = UNSET, idempotency_key: str = ""
    ) -> models.HaProfile:
        """Go by another profile; guards follow within seconds.

        Args:
            name: The profile to go by: `wide`, `default` or `moonshot`.
            force: Also if a host's network was seen not to hold it lately. Default: `False`.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.update_profile(name=name, force=force, idempotency_key=idempotency_key)
        )

    def get_status(self) -> models.HaStatus:
        """Whether failover acts, who disarmed it and why, and what is not done yet."""
        return self._runner.run(self._calls.get_status())


class Hosts(BlockingCollection[models.Host]):
    """`/v1/hosts`."""

    def __init__(self, calls: operations.Hosts, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def delete_many(
        self, *, hosts: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 hosts: remove a host from the cluster.

        Args:
            hosts: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.delete_many(hosts=hosts, idempotency_key=idempotency_key)
        )

    def leave_maintenance_many(
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
        return self._runner.run(
            self._calls.leave_maintenance_many(
                hosts=hosts, q=q, move_back=move_back, idempotency_key=idempotency_key
            )
        )

    def update(
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
        return self._runner.run(
            self._calls.update(
                host,
                failure_domain=failure_domain,
                shutdown_policy=shutdown_policy,
                cluster=cluster,
                idempotency_key=idempotency_key,
                if_match=if_match,
            )
        )

    def delete(self, host: str, /, *, idempotency_key: str = "", if_match: int | str = "") -> None:
        """Remove a host from the cluster.

        Args:
            host: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(host, idempotency_key=idempotency_key, if_match=if_match)
        )

    def plan_delete(self, host: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            host: Name or id.
        """
        return self._runner.run(self._calls.plan_delete(host))

    def confirm_off(
        self, host: str, /, *, confirm: str, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.ReleasedHost:
        """Say that a lost host is powered off, so that its VMs may run elsewhere.

        Args:
            host: Name or id.
            confirm: The host's name, once more: whoever asks has looked at the machine.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return self._runner.run(
            self._calls.confirm_off(
                host, confirm=confirm, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def enter_maintenance(
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
        return self._runner.run(
            self._calls.enter_maintenance(
                host, unmovable=unmovable, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def leave_maintenance(
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
        return self._runner.run(
            self._calls.leave_maintenance(
                host, move_back=move_back, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def get_maintenance(self, host: str, /) -> models.HostMaintenance:
        """How far the maintenance of a host is: what is still on it, and why.

        Args:
            host: Name or id.
        """
        return self._runner.run(self._calls.get_maintenance(host))

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the hosts.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )


class ImageStorages(BlockingCollection[models.ImageStorage]):
    """`/v1/image-storages`."""

    def __init__(self, calls: operations.ImageStorages, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def attach_many(
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
        return self._runner.run(
            self._calls.attach_many(
                data_center=data_center,
                image_storages=image_storages,
                q=q,
                idempotency_key=idempotency_key,
            )
        )

    def detach_many(
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
        return self._runner.run(
            self._calls.detach_many(
                data_center=data_center,
                image_storages=image_storages,
                q=q,
                idempotency_key=idempotency_key,
            )
        )

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the image storages.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def attach(
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
        return self._runner.run(
            self._calls.attach(
                storage, data_center=data_center, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def detach(
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
        return self._runner.run(
            self._calls.detach(
                storage, data_center=data_center, idempotency_key=idempotency_key, if_match=if_match
            )
        )


class Images(BlockingCollection[models.Image]):
    """`/v1/images`."""

    def __init__(self, calls: operations.Images, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def create(
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
        return self._runner.run(
            self._calls.create(
                file=file,
                name=name,
                on_bytes=on_bytes,
                format=format,
                sha256=sha256,
                idempotency_key=idempotency_key,
            )
        )

    def delete_many(
        self, *, images: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 images: delete an image.

        Args:
            images: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.delete_many(images=images, idempotency_key=idempotency_key)
        )

    def delete(self, image: str, /, *, idempotency_key: str = "", if_match: int | str = "") -> None:
        """Delete an image.

        Args:
            image: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(image, idempotency_key=idempotency_key, if_match=if_match)
        )

    def plan_delete(self, image: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            image: Name or id.
        """
        return self._runner.run(self._calls.plan_delete(image))

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the images.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )


class JoinTokens(BlockingCollection[models.JoinToken]):
    """`/v1/join-tokens`."""

    def __init__(self, calls: operations.JoinTokens, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def create(
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
        return self._runner.run(
            self._calls.create(
                count=count, ttl_s=ttl_s, cluster=cluster, idempotency_key=idempotency_key
            )
        )

    def delete_many(
        self, *, join_tokens: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 join tokens: revoke a join token.

        Args:
            join_tokens: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.delete_many(join_tokens=join_tokens, idempotency_key=idempotency_key)
        )

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the join tokens.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def delete(self, token: str, /, *, idempotency_key: str = "", if_match: int | str = "") -> None:
        """Revoke a join token.

        Args:
            token: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(token, idempotency_key=idempotency_key, if_match=if_match)
        )


class Local:
    """`/v1/local`."""

    def __init__(self, calls: operations.Local, runner: Runner) -> None:
        self._calls = calls
        self._runner = runner

    def init(
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
        return self._runner.run(
            self._calls.init(
                cluster_name=cluster_name,
                host_name=host_name,
                address=address,
                idempotency_key=idempotency_key,
            )
        )

    def join(
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
        return self._runner.run(
            self._calls.join(
                token=token,
                host_name=host_name,
                address=address,
                witness=witness,
                idempotency_key=idempotency_key,
            )
        )

    def leave(
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
        return self._runner.run(
            self._calls.leave(force=force, confirm=confirm, idempotency_key=idempotency_key)
        )

    def shutdown(
        self, *, going: models.Going | str, idempotency_key: str = ""
    ) -> models.ShutDownHost:
        """End the guests of this host, which goes down, as its policy says; for what systemd runs then.

        Only on the host itself, through its unix socket, by root.

        Args:
            going: Whether the host is back soon: `reboot` or `power-off`.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(self._calls.shutdown(going=going, idempotency_key=idempotency_key))

    def get_status(self) -> models.LocalStatus:
        """What this host is.

        Only on the host itself, through its unix socket, by root.
        """
        return self._runner.run(self._calls.get_status())


class Members:
    """`/v1/members`."""

    def __init__(self, calls: operations.Members, runner: Runner) -> None:
        self._calls = calls
        self._runner = runner

    def list(
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
        return self._runner.run(
            self._calls.list(q=q, sort=sort, limit=limit, consistency=consistency)
        )

    def auto_many(
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
        return self._runner.run(
            self._calls.auto_many(members=members, q=q, idempotency_key=idempotency_key)
        )

    def demote_many(
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
        return self._runner.run(
            self._calls.demote_many(members=members, q=q, idempotency_key=idempotency_key)
        )

    def promote_many(
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
        return self._runner.run(
            self._calls.promote_many(members=members, q=q, idempotency_key=idempotency_key)
        )

    def get_arbitration(self) -> models.ArbitrationAddresses:
        """The arbitration addresses, and which host reaches them. Takes two seconds at most."""
        return self._runner.run(self._calls.get_arbitration())

    def update_arbitration(
        self, *, addresses: Sequence[str], idempotency_key: str = ""
    ) -> models.ArbitrationAddresses:
        """Set, change or clear the arbitration addresses; hosts ping them from the next second on.

        Args:
            addresses: IPv4 or IPv6 addresses that are not of the cluster, such as the router's; empty: none.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.update_arbitration(addresses=addresses, idempotency_key=idempotency_key)
        )

    def get_policy(self) -> models.VoterPolicy:
        """How many hosts vote."""
        return self._runner.run(self._calls.get_policy())

    def update_policy(
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
        return self._runner.run(
            self._calls.update_policy(
                voters_max=voters_max,
                voter_replace_after_s=voter_replace_after_s,
                idempotency_key=idempotency_key,
            )
        )

    def get_vip(self) -> models.Vip:
        """The management address (VIP), who holds it, and what is wrong with it. Takes two seconds at most."""
        return self._runner.run(self._calls.get_vip())

    def update_vip(self, *, address: str, idempotency_key: str = "") -> models.Vip:
        """Set, change or clear the management address (VIP); the leader takes it within seconds.

        Args:
            address: A free address of the hosts' network, `10.0.0.9` or `10.0.0.9/24`; empty: no VIP. At most 64 characters.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.update_vip(address=address, idempotency_key=idempotency_key)
        )

    def get(self, host: str, /) -> models.Member:
        """One host's role, progress and health.

        Args:
            host: Name or id.
        """
        return self._runner.run(self._calls.get(host))

    def delete(self, host: str, /, *, idempotency_key: str = "", if_match: int | str = "") -> None:
        """Remove a host from the cluster.

        Args:
            host: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(host, idempotency_key=idempotency_key, if_match=if_match)
        )

    def plan_delete(self, host: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            host: Name or id.
        """
        return self._runner.run(self._calls.plan_delete(host))

    def auto(
        self, host: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.MemberVote:
        """Let the cluster choose whether a host votes.

        Args:
            host: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return self._runner.run(
            self._calls.auto(host, idempotency_key=idempotency_key, if_match=if_match)
        )

    def demote(
        self, host: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.MemberVote:
        """Let a host never vote.

        Args:
            host: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return self._runner.run(
            self._calls.demote(host, idempotency_key=idempotency_key, if_match=if_match)
        )

    def promote(
        self, host: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.MemberVote:
        """Let a host always vote.

        Args:
            host: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return self._runner.run(
            self._calls.promote(host, idempotency_key=idempotency_key, if_match=if_match)
        )


class Nics(BlockingCollection[models.Nic]):
    """`/v1/nics`."""

    def __init__(self, calls: operations.Nics, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the nics.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )


class PlacementRules(BlockingCollection[models.PlacementRule]):
    """`/v1/placement-rules`."""

    def __init__(self, calls: operations.PlacementRules, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def create(
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
        return self._runner.run(
            self._calls.create(
                name=name,
                cluster=cluster,
                policy=policy,
                vms=vms,
                hosts=hosts,
                tags=tags,
                strength=strength,
                description=description,
                idempotency_key=idempotency_key,
            )
        )

    def delete_many(
        self, *, placement_rules: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """Delete up to 200 placement rules, each with what goes along.

        Args:
            placement_rules: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.delete_many(
                placement_rules=placement_rules, idempotency_key=idempotency_key
            )
        )

    def update(
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
        return self._runner.run(
            self._calls.update(
                ref,
                name=name,
                cluster=cluster,
                vms=vms,
                hosts=hosts,
                tags=tags,
                policy=policy,
                strength=strength,
                description=description,
                idempotency_key=idempotency_key,
                if_match=if_match,
            )
        )

    def delete(self, ref: str, /, *, idempotency_key: str = "", if_match: int | str = "") -> None:
        """Delete one of the placement rules, with what goes along.

        Args:
            ref: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(ref, idempotency_key=idempotency_key, if_match=if_match)
        )

    def plan_delete(self, ref: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            ref: Name or id.
        """
        return self._runner.run(self._calls.plan_delete(ref))

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the placement rules.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def get_check(self, rule: str, /) -> models.RuleCheck:
        """Whether a placement rule holds now, and whether it can.

        Args:
            rule: Name or id.
        """
        return self._runner.run(self._calls.get_check(rule))


class Plugins:
    """`/v1/plugins`."""

    def __init__(self, calls: operations.Plugins, runner: Runner) -> None:
        self._calls = calls
        self._runner = runner

    def list(
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
        return self._runner.run(
            self._calls.list(q=q, sort=sort, limit=limit, consistency=consistency)
        )


class PortGroups(BlockingCollection[models.PortGroup]):
    """`/v1/port-groups`."""

    def __init__(self, calls: operations.PortGroups, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def create(
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
        return self._runner.run(
            self._calls.create(
                name=name,
                cidr=cidr,
                vni=vni,
                gateway=gateway,
                dns=dns,
                mtu=mtu,
                service_ip=service_ip,
                pool_first=pool_first,
                pool_last=pool_last,
                domain=domain,
                switch=switch,
                idempotency_key=idempotency_key,
            )
        )

    def delete_many(
        self, *, port_groups: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 port groups: delete a port group.

        Args:
            port_groups: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.delete_many(port_groups=port_groups, idempotency_key=idempotency_key)
        )

    def delete(self, group: str, /, *, idempotency_key: str = "", if_match: int | str = "") -> None:
        """Delete a port group.

        Args:
            group: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(group, idempotency_key=idempotency_key, if_match=if_match)
        )

    def plan_delete(self, group: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            group: Name or id.
        """
        return self._runner.run(self._calls.plan_delete(group))

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the port groups.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )


class Roles:
    """`/v1/roles`."""

    def __init__(self, calls: operations.Roles, runner: Runner) -> None:
        self._calls = calls
        self._runner = runner

    def list(
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
        return self._runner.run(
            self._calls.list(q=q, sort=sort, limit=limit, consistency=consistency)
        )

    def create(
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
        return self._runner.run(
            self._calls.create(
                permissions=permissions,
                name=name,
                description=description,
                idempotency_key=idempotency_key,
            )
        )

    def delete_many(
        self, *, roles: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 roles: delete a role that nobody holds.

        Args:
            roles: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.delete_many(roles=roles, idempotency_key=idempotency_key)
        )

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the roles.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def get(
        self, role: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Role:
        """Show one of the roles, by name or id.

        Args:
            role: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.get(role, consistency=consistency))

    def update(
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
        return self._runner.run(
            self._calls.update(
                role,
                permissions=permissions,
                name=name,
                description=description,
                idempotency_key=idempotency_key,
                if_match=if_match,
            )
        )

    def delete(self, role: str, /, *, idempotency_key: str = "", if_match: int | str = "") -> None:
        """Delete a role that nobody holds.

        Args:
            role: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(role, idempotency_key=idempotency_key, if_match=if_match)
        )


class Secrets:
    """`/v1/secrets`."""

    def __init__(self, calls: operations.Secrets, runner: Runner) -> None:
        self._calls = calls
        self._runner = runner

    def get(self) -> models.SecretsKeyStatus:
        """Which secrets key is in use, and how far a change of it is."""
        return self._runner.run(self._calls.get())

    def rotate(self, *, idempotency_key: str = "") -> models.SecretsKeyStatus:
        """Make a new secrets key; hosts get it and secrets are sealed anew by themselves.

        Args:
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(self._calls.rotate(idempotency_key=idempotency_key))


class SecurityGroups(BlockingCollection[models.SecurityGroup]):
    """`/v1/security-groups`."""

    def __init__(self, calls: operations.SecurityGroups, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def create(
        self, *, name: str, data_center: str | UnsetType = UNSET, idempotency_key: str = ""
    ) -> models.SecurityGroup:
        """Make a security group with its default rules.

        Args:
            name: Its name: 1 to 63 of a-z, 0-9, `-` and `.`.
            data_center: Name or id of its data center; empty: the first.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.create(name=name, data_center=data_center, idempotency_key=idempotency_key)
        )

    def delete_many(
        self, *, security_groups: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 security groups: delete a security group.

        Args:
            security_groups: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.delete_many(
                security_groups=security_groups, idempotency_key=idempotency_key
            )
        )

    def delete(self, group: str, /, *, idempotency_key: str = "", if_match: int | str = "") -> None:
        """Delete a security group.

        Args:
            group: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(group, idempotency_key=idempotency_key, if_match=if_match)
        )

    def plan_delete(self, group: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            group: Name or id.
        """
        return self._runner.run(self._calls.plan_delete(group))

    def add_rule(
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
        return self._runner.run(
            self._calls.add_rule(
                group,
                direction=direction,
                protocol=protocol,
                port_first=port_first,
                port_last=port_last,
                cidr=cidr,
                remote_group=remote_group,
                family=family,
                idempotency_key=idempotency_key,
                if_match=if_match,
            )
        )

    def update_rule(
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
        return self._runner.run(
            self._calls.update_rule(
                group, rule, enabled=enabled, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def delete_rule(
        self, group: str, rule: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """Remove a rule that isn't a default one.

        Args:
            group: Name or id.
            rule: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete_rule(group, rule, idempotency_key=idempotency_key, if_match=if_match)
        )

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the security groups.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )


class Sessions(BlockingCollection[models.Session]):
    """`/v1/sessions`."""

    def __init__(self, calls: operations.Sessions, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def delete_many(
        self, *, sessions: Sequence[str], idempotency_key: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 sessions: end a session, everywhere at once.

        Args:
            sessions: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(
            self._calls.delete_many(sessions=sessions, idempotency_key=idempotency_key)
        )

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the sessions.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def delete(
        self, session: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> None:
        """End a session, everywhere at once.

        Args:
            session: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        self._runner.run(
            self._calls.delete(session, idempotency_key=idempotency_key, if_match=if_match)
        )


class Snapshots(BlockingCollection[models.Snapshot]):
    """`/v1/snapshots`."""

    def __init__(self, calls: operations.Snapshots, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def create(
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
        return self._runner.run(
            self._calls.create(
                vm=vm,
                name=name,
                description=description,
                idempotency_key=idempotency_key,
                callback_url=callback_url,
            )
        )

    def delete_many(
        self, *, snapshots: Sequence[str], idempotency_key: str = "", callback_url: str = ""
    ) -> Page[models.Outcome]:
        """For each of up to 200 snapshots: forget a snapshot of a stopped VM; what its disk holds, and other snapshots, stay.

        Args:
            snapshots: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
            callback_url: Post the task here when it has ended, signed.
        """
        return self._runner.run(
            self._calls.delete_many(
                snapshots=snapshots, idempotency_key=idempotency_key, callback_url=callback_url
            )
        )

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the snapshots.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def delete(
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
        return self._runner.run(
            self._calls.delete(
                snapshot,
                idempotency_key=idempotency_key,
                if_match=if_match,
                callback_url=callback_url,
            )
        )

    def plan_delete(self, snapshot: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            snapshot: Name or id.
        """
        return self._runner.run(self._calls.plan_delete(snapshot))

    def revert(
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
        return self._runner.run(
            self._calls.revert(
                snapshot,
                idempotency_key=idempotency_key,
                if_match=if_match,
                callback_url=callback_url,
            )
        )


class State:
    """`/v1/state`."""

    def __init__(self, calls: operations.State, runner: Runner) -> None:
        self._calls = calls
        self._runner = runner

    def get_backup(self, *, of: str | UnsetType = UNSET) -> AbstractContextManager[Iterator[bytes]]:
        """A backup of the whole replicated state, as of one moment.

        Args:
            of: `host`: of what this host has, for when there is no quorum.
        """
        return self._runner.stream(self._calls.get_backup(of=of))


class SystemTags:
    """`/v1/system-tags`."""

    def __init__(self, calls: operations.SystemTags, runner: Runner) -> None:
        self._calls = calls
        self._runner = runner

    def list(
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
        return self._runner.run(self._calls.list(q=q, sort=sort, limit=limit))


class Tasks(BlockingCollection[models.Task]):
    """`/v1/tasks`."""

    def __init__(self, calls: operations.Tasks, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def cancel(self, *, tasks: Sequence[str], idempotency_key: str = "") -> Page[models.Outcome]:
        """For each of up to 200 tasks: ask a task to stop at its next safe point.

        Args:
            tasks: Names or ids of them.
            idempotency_key: A repetition with the same key gives the first result.
        """
        return self._runner.run(self._calls.cancel(tasks=tasks, idempotency_key=idempotency_key))

    def retry_many(
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
        return self._runner.run(
            self._calls.retry_many(tasks=tasks, q=q, idempotency_key=idempotency_key)
        )

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the tasks.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def delete(
        self, task: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.Task:
        """Ask a task to stop at its next safe point.

        Args:
            task: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return self._runner.run(
            self._calls.delete(task, idempotency_key=idempotency_key, if_match=if_match)
        )

    def give_up(
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
        return self._runner.run(
            self._calls.give_up(
                task,
                reason=reason,
                confirm=confirm,
                idempotency_key=idempotency_key,
                if_match=if_match,
            )
        )

    def retry(
        self, task: str, /, *, idempotency_key: str = "", if_match: int | str = ""
    ) -> models.Task:
        """Have what failed and waits for its next try be tried at once.

        Args:
            task: Name or id.
            idempotency_key: A repetition with the same key gives the first result.
            if_match: Do it only if the thing still has this revision.
        """
        return self._runner.run(
            self._calls.retry(task, idempotency_key=idempotency_key, if_match=if_match)
        )


class Vms(BlockingCollection[models.VM]):
    """`/v1/vms`."""

    def __init__(self, calls: operations.Vms, runner: Runner) -> None:
        super().__init__(calls, runner)
        self._calls = calls
        self._runner = runner

    def create(
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
        return self._runner.run(
            self._calls.create(
                name=name,
                image=image,
                cpus=cpus,
                memory_mib=memory_mib,
                disk_size_bytes=disk_size_bytes,
                data_storage=data_storage,
                port_group=port_group,
                security_groups=security_groups,
                cluster=cluster,
                host=host,
                placement_rules=placement_rules,
                ha=ha,
                priority=priority,
                start_after=start_after,
                start_delay_s=start_delay_s,
                hostname=hostname,
                ssh_keys=ssh_keys,
                user_data=user_data,
                start=start,
                description=description,
                idempotency_key=idempotency_key,
                callback_url=callback_url,
            )
        )

    def delete_many(
        self, *, vms: Sequence[str], idempotency_key: str = "", callback_url: str = ""
    ) -> Page[models.Outcome]:
        """Stop up to 200 VMs by force and remove them with their disks and NICs.

        Args:
            vms: Names or ids of the VMs.
            idempotency_key: A repetition with the same key gives the first result.
            callback_url: Post the task here when it has ended, signed.
        """
        return self._runner.run(
            self._calls.delete_many(
                vms=vms, idempotency_key=idempotency_key, callback_url=callback_url
            )
        )

    def migrate_many(
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
        return self._runner.run(
            self._calls.migrate_many(
                vms=vms, q=q, host=host, idempotency_key=idempotency_key, callback_url=callback_url
            )
        )

    def reboot_many(
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
        return self._runner.run(
            self._calls.reboot_many(
                vms=vms, q=q, idempotency_key=idempotency_key, callback_url=callback_url
            )
        )

    def start_many(
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
        return self._runner.run(
            self._calls.start_many(
                vms=vms, q=q, idempotency_key=idempotency_key, callback_url=callback_url
            )
        )

    def stop_many(
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
        return self._runner.run(
            self._calls.stop_many(
                vms=vms,
                q=q,
                force=force,
                timeout_s=timeout_s,
                idempotency_key=idempotency_key,
                callback_url=callback_url,
            )
        )

    def list_tags(
        self, ref: str, /, *, consistency: Literal["local", "strong"] | UnsetType = UNSET
    ) -> models.Tags:
        """Show the tags of one of the vms.

        Args:
            ref: Name or id.
            consistency: `local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere. One of `local`, `strong`.
        """
        return self._runner.run(self._calls.list_tags(ref, consistency=consistency))

    def update_tags(
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
        return self._runner.run(
            self._calls.update_tags(
                ref, add=add, remove=remove, idempotency_key=idempotency_key, if_match=if_match
            )
        )

    def update(
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
        return self._runner.run(
            self._calls.update(
                vm,
                description=description,
                ha=ha,
                priority=priority,
                start_after=start_after,
                start_delay_s=start_delay_s,
                idempotency_key=idempotency_key,
                if_match=if_match,
            )
        )

    def delete(
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
        return self._runner.run(
            self._calls.delete(
                vm, idempotency_key=idempotency_key, if_match=if_match, callback_url=callback_url
            )
        )

    def plan_delete(self, vm: str, /) -> models.DeletionPlan:
        """Say what would go along and what stands in the way, and change nothing.

        Args:
            vm: Name or id.
        """
        return self._runner.run(self._calls.plan_delete(vm))

    def migrate(
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
        return self._runner.run(
            self._calls.migrate(
                vm,
                host=host,
                idempotency_key=idempotency_key,
                if_match=if_match,
                callback_url=callback_url,
            )
        )

    def reboot(
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
        return self._runner.run(
            self._calls.reboot(
                vm, idempotency_key=idempotency_key, if_match=if_match, callback_url=callback_url
            )
        )

    def start(
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
        return self._runner.run(
            self._calls.start(
                vm, idempotency_key=idempotency_key, if_match=if_match, callback_url=callback_url
            )
        )

    def stop(
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
        return self._runner.run(
            self._calls.stop(
                vm,
                force=force,
                timeout_s=timeout_s,
                idempotency_key=idempotency_key,
                if_match=if_match,
                callback_url=callback_url,
            )
        )


class Workflows:
    """`/v1/workflows`."""

    def __init__(self, calls: operations.Workflows, runner: Runner) -> None:
        self._calls = calls
        self._runner = runner

    def list(
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
        return self._runner.run(self._calls.list(q=q, sort=sort, limit=limit))

    def run(
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
        return self._runner.run(
            self._calls.run(
                workflow,
                vm=vm,
                arguments=arguments,
                idempotency_key=idempotency_key,
                if_match=if_match,
                callback_url=callback_url,
            )
        )


class Operations:
    """Everything that the API offers, by what it is about."""

    def __init__(self, calls: operations.Operations, runner: Runner) -> None:
        self._calls = calls
        self._runner = runner
        self.access_keys = AccessKeys(calls.access_keys, runner)
        self.access_tokens = AccessTokens(calls.access_tokens, runner)
        self.accounts = Accounts(calls.accounts, runner)
        self.audits = Audits(calls.audits, runner)
        self.bmcs = Bmcs(calls.bmcs, runner)
        self.callback_key = CallbackKey(calls.callback_key, runner)
        self.certificates = Certificates(calls.certificates, runner)
        self.clusters = Clusters(calls.clusters, runner)
        self.data_centers = DataCenters(calls.data_centers, runner)
        self.data_storages = DataStorages(calls.data_storages, runner)
        self.disks = Disks(calls.disks, runner)
        self.distributed_switches = DistributedSwitches(calls.distributed_switches, runner)
        self.drills = Drills(calls.drills, runner)
        self.events = Events(calls.events, runner)
        self.ha = Ha(calls.ha, runner)
        self.hosts = Hosts(calls.hosts, runner)
        self.image_storages = ImageStorages(calls.image_storages, runner)
        self.images = Images(calls.images, runner)
        self.join_tokens = JoinTokens(calls.join_tokens, runner)
        self.local = Local(calls.local, runner)
        self.members = Members(calls.members, runner)
        self.nics = Nics(calls.nics, runner)
        self.placement_rules = PlacementRules(calls.placement_rules, runner)
        self.plugins = Plugins(calls.plugins, runner)
        self.port_groups = PortGroups(calls.port_groups, runner)
        self.roles = Roles(calls.roles, runner)
        self.secrets = Secrets(calls.secrets, runner)
        self.security_groups = SecurityGroups(calls.security_groups, runner)
        self.sessions = Sessions(calls.sessions, runner)
        self.snapshots = Snapshots(calls.snapshots, runner)
        self.state = State(calls.state, runner)
        self.system_tags = SystemTags(calls.system_tags, runner)
        self.tasks = Tasks(calls.tasks, runner)
        self.vms = Vms(calls.vms, runner)
        self.workflows = Workflows(calls.workflows, runner)

    def health(self) -> models.ClusterHealth:
        """Whether the cluster can take a failure now, what is wrong, and what to do. Takes about two seconds at most, and needs no quorum."""
        return self._runner.run(self._calls.health())

    def login(
        self, *, name: str, password: str, code: str | UnsetType = UNSET
    ) -> models.NewSession:
        """Log in with name, password and perhaps a time code.

        Args:
            name: Name of the account.
            password: Its password.
            code: A time code or a recovery code; empty without two-factor log-in.
        """
        return self._runner.run(self._calls.login(name=name, password=password, code=code))

    def logout(self, *, idempotency_key: str = "") -> None:
        """End the session that the request came with.

        Args:
            idempotency_key: A repetition with the same key gives the first result.
        """
        self._runner.run(self._calls.logout(idempotency_key=idempotency_key))

    def openapi(self) -> dict[str, Any]:
        """This description."""
        return self._runner.run(self._calls.openapi())

    def status(self) -> models.ClusterStatus:
        """The cluster at a glance."""
        return self._runner.run(self._calls.status())

    def whoami(self) -> models.Caller:
        """Who the credentials are, and what they allow."""
        return self._runner.run(self._calls.whoami())
