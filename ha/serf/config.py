"""What the Serf agent of a host is started with.

Written by init and join as /etc/kvorum/serf.json (mode 0600) beside the keyring; the supervisor starts
`serf agent -config-file=/etc/kvorum/serf.json` when the file is there. The settings are argued for in docs/network.md.
"""

from __future__ import annotations

import base64

import msgspec

from core.errors import InvalidError

GOSSIP_PORT = 7946
RPC_PORT = 7373
KEY_BYTES = 32
JOIN_SEEDS_MAX = 5


class SerfSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between hosts. `seeds` are addresses of other hosts; `rpc_auth` is a secret of this host alone."""

    host_id: str
    address: str
    version: str
    rpc_auth: str
    seeds: tuple[str, ...] = ()
    role: str = "host"
    gossip_port: int = GOSSIP_PORT
    rpc_port: int = RPC_PORT
    keyring_file: str = "/var/lib/kvorum/serf/keyring.json"
    snapshot_path: str = "/var/lib/kvorum/serf/snapshot"
    retry_interval: str = "5s"


class _Tags(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    role: str
    version: str


class _File(msgspec.Struct, frozen=True, kw_only=True):
    """Serf's own names. Neither the key nor mDNS is in it: keys live in the keyring, which serf rewrites on rotation."""

    node_name: str
    bind: str
    tags: _Tags
    keyring_file: str
    rpc_addr: str
    rpc_auth: str
    retry_join: tuple[str, ...]
    retry_interval: str
    snapshot_path: str
    profile: str = "lan"
    reconnect_interval: str = "5s"
    """Serf tries one lost member each time, and in a small cluster only by chance; until then a host that is back looks lost."""
    reconnect_timeout: str = "72h"
    rejoin_after_leave: bool = True
    leave_on_terminate: bool = False
    skip_leave_on_interrupt: bool = True
    user_event_size_limit: int = 1024
    log_level: str = "warn"


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def serf_json(settings: SerfSettings) -> bytes:
    """Return the content of serf.json."""
    seeds = [seed for seed in settings.seeds if seed != settings.address][:JOIN_SEEDS_MAX]
    file = _File(
        node_name=settings.host_id,
        bind=_with_port(settings.address, settings.gossip_port),
        tags=_Tags(id=settings.host_id, role=settings.role, version=settings.version),
        keyring_file=settings.keyring_file,
        rpc_addr=f"127.0.0.1:{settings.rpc_port}",
        rpc_auth=settings.rpc_auth,
        retry_join=tuple(_with_port(seed, settings.gossip_port) for seed in seeds),
        retry_interval=settings.retry_interval,
        snapshot_path=settings.snapshot_path,
    )
    return msgspec.json.format(msgspec.json.encode(file)) + b"\n"


def keyring_json(keys: tuple[bytes, ...]) -> bytes:
    """Return the content of the keyring file (mode 0600); the first key is the one to send with.

    Raises:
        InvalidError: no key, or one that is not 32 bytes long.
    """
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise InvalidError(f"a gossip key has {KEY_BYTES} bytes, and there is at least one")
    return msgspec.json.encode([base64.b64encode(key).decode() for key in keys]) + b"\n"
