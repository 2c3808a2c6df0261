"""The agent's settings: one TOML file, decoded once, passed down. All have defaults; the file may be absent.

Read by `nodeagent.main` only.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from core.errors import InvalidError
from core.identity.hsm import KeySettings
from nodeagent.api.limits import DEFAULT_LIMITS, ApiLimits
from nodeagent.api.plain_http import PlainHttp
from nodeagent.services.callback_targets import CallbackPolicy
from nodeagent.services.work_kinds import Limits


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`/etc/kvorum/agent.toml`.

    `trust_shared_storage`: live migration is allowed on shared directories that libvirt does not recognise as a
    network file system. `disk_cache`: `none`, or `writeback` where the file system lacks O_DIRECT (no live
    migration is safe then). `log_level`: as in the standard library's logging. `limits`: how much work runs at once, by kind.
    `allocator`: which of the hosts that can take a VM gets it, by a plug-in's rule (docs/plugins.md); the same on all hosts.
    `hypervisor`, `network`, `firewall`: drivers of plug-ins instead of the product's own (libvirt, linux, nftables).
    `secrets_key`: whether the secrets key is kept in a file, or wrapped by an HSM.
    `api`: how much one caller may use of the API. `plain_http`: where it is served
    without TLS besides; nowhere unless it is named. `callbacks`: which networks callbacks may and may not go to.
    """

    api_port: int = 7443
    mesh_port: int = 7444
    trust_shared_storage: bool = False
    disk_cache: str = "none"
    log_level: str = "INFO"
    allocator: str = ""
    hypervisor: str = ""
    network: str = ""
    firewall: str = ""
    limits: Limits = Limits()
    secrets_key: KeySettings = KeySettings()
    api: ApiLimits = DEFAULT_LIMITS
    plain_http: PlainHttp | None = None
    callbacks: CallbackPolicy = CallbackPolicy()

    def __post_init__(self) -> None:
        if self.plain_http is not None and self.plain_http.port in (self.api_port, self.mesh_port):
            raise ValueError(f"plain_http needs a port of its own, not {self.plain_http.port}")


def read_config(path: Path) -> Config:
    """Return the settings of a file, or the defaults when there is none.

    Raises:
        InvalidError: not TOML, an unknown setting or a value of the wrong type; names the file.
    """
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Config)
    except FileNotFoundError:
        return Config()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path} can't be used: {error}") from None
