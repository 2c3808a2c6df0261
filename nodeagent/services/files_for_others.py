"""The files that tell the host's other processes about the cluster: the guard's settings and serf's.

Written when the members change, each by rename, so a reader never sees half. Supervisors start serf when its file
appears; the guard rereads its own.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from pathlib import Path

import msgspec

from core.errors import PlatformError
from core.identity.sealing import KEY_BYTES, Keys, make_key, unseal
from core.model import Arming, Host, Mesh
from core.paths import Paths, write_file
from ha.profile import profile_in
from ha.serf.config import SerfSettings, keyring_json, serf_json
from nodeagent.joining.founding import MESH_ID
from nodeagent.joining.messages import VERSION
from nodeagent.node import Node

PAUSE_S = 5.0


class _Peer(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    address: str
    port: int


class _GuardSettings(msgspec.Struct, frozen=True, kw_only=True):
    """See `ha.guard.settings`, which reads it without our libraries."""

    host_id: str
    lease_s: float
    watchdog_s: float
    peers: tuple[_Peer, ...]
    disarm: bool


class FilesForOthers:
    """Keeps guard.json and serf.json true."""

    def __init__(self, node: Node, secrets_key: Callable[[], Keys]) -> None:
        self._node, self._secrets_key = node, secrets_key
        self._written: dict[Path, bytes] = {}

    async def run(self) -> None:
        """Rewrite on every change of hosts until cancelled."""
        watch = self._node.store.watch(Host, Mesh)
        try:
            while True:
                await watch.next()
                try:
                    self.write()
                except (PlatformError, OSError):
                    await asyncio.sleep(PAUSE_S)
                    raise
        finally:
            self._node.store.unwatch(watch)

    def write(self) -> None:
        """Write both files as the state has it now, where they differ."""
        mesh = self._node.store.get(Mesh, MESH_ID)
        if mesh is None or self._node.store.get(Host, self._node.host_id) is None:
            return  # this copy of the state is still on its way
        hosts = self._node.store.all(Host)
        paths = self._node.paths
        self._put(paths.guard_config, self._guard_settings(mesh, hosts))
        if (
            not paths.serf_keyring.exists()
        ):  # from then on serf keeps it: it rotates the keys itself
            gossip_key = unseal(self._secrets_key(), "gossip-key", mesh.sealed_gossip_key)
            self._put(paths.serf_keyring, keyring_json((gossip_key,)))
        self._put(paths.serf_config, self._serf_settings(hosts))

    def _put(self, path: Path, content: bytes) -> None:
        if self._written.get(path) != content:
            write_file(path, content)
            self._written[path] = content

    def _guard_settings(self, mesh: Mesh, hosts: list[Host]) -> bytes:
        profile = profile_in(mesh)
        peers = tuple(
            _Peer(id=h.id, address=h.address, port=h.mesh_port)
            for h in hosts
            if h.id != self._node.host_id
        )
        settings = _GuardSettings(
            host_id=self._node.host_id,
            lease_s=profile.lease_s,
            watchdog_s=profile.watchdog_s,
            peers=peers,
            disarm=mesh.ha_arming is Arming.DISARMED,
        )
        return msgspec.json.format(msgspec.json.encode(settings), indent=1)

    def _serf_settings(self, hosts: list[Host]) -> bytes:
        me = self._node.host()
        return serf_json(
            SerfSettings(
                host_id=me.id,
                address=me.address,
                version=VERSION,
                rpc_auth=serf_rpc_secret(self._node.paths, me.id),
                seeds=tuple(h.address for h in hosts if h.id != me.id),
                keyring_file=str(self._node.paths.serf_keyring),
                snapshot_path=str(self._node.paths.serf_keyring.with_name("snapshot")),
            )
        )


def serf_rpc_secret(paths: Paths, host_id: str) -> str:
    """Return the password of this host's serf RPC. Once written down it stays the same, whatever key is in use.

    Raises OSError if neither can be read.
    """
    try:
        return paths.serf_secret.read_text()
    except FileNotFoundError:
        key = paths.secrets_key.read_bytes()
        if len(key) != KEY_BYTES:  # it is wrapped by an HSM; any key will do
            key = make_key()
    secret = hmac.digest(key, f"serf-rpc {host_id}".encode(), "sha256").hex()
    write_file(paths.serf_secret, secret.encode())
    return secret
