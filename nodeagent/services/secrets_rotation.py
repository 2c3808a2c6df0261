"""Changes the secrets key of the whole cluster: a new one is made, handed to all hosts, and everything sealed anew.

The log names keys by their ids only; a key itself goes from host to host over the mesh, to members. The steps:

1. `rotate`: a host makes a key, keeps it in a file, and commits its id as the next one.
2. Each host that lacks the next key fetches it from a host that has it, and says that it has it.
3. When a majority has it, and everyone within reach, the leader seals every secret anew and puts the new key in use, in
   one transaction: at no log index is a secret sealed by a key that isn't named there.
4. The former key is deleted when every host has the new one. A host that was off meanwhile fetches it when it is back:
   its certificate lets it in, and what it can't open until then it doesn't need for that.

Each step may be repeated, by any host, after a crash anywhere. `run` is a service of every member.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import msgspec
from msgspec.structs import replace

from core.errors import ConflictError, NotFoundError, PlatformError, UnavailableError
from core.identity.keyring import Keyring
from core.identity.sealing import KEY_BYTES, Keys, key_id, make_key, seal, sealed_by, unseal
from core.model import RESOURCE_TYPES, Host, HostKey, Resource, SecretsKey
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog
from nodeagent.services.sealing_guard import SECRETS_KEY_ID

log = logging.getLogger(__name__)

ROUND_S = 5.0
RETRY_S = 5.0
ASKED_MAX = 8
JOINING_MS_MAX = 600_000


class AskKey(msgspec.Struct, frozen=True, kw_only=True):
    """A host asks for a secrets key that the log names."""

    key_id: str


class KeyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The key."""

    key_hex: str

    def __repr__(self) -> str:
        return "KeyAnswer(***)"


class SecretsRotation:
    """This host's part in it."""

    def __init__(self, node: Node, keyring: Keyring) -> None:
        self._node, self._keyring = node, keyring
        self._events = EventLog(node)
        self._busy = asyncio.Lock()

    def keys(self) -> Keys:
        """Return the secrets keys of this host, first the one that seals."""
        record = self._record()
        return self._keyring.keys(record.key_id if record is not None else "")

    async def run(self) -> None:
        """Do what is next, at every change and every few seconds, until cancelled."""
        watch = self._node.store.watch(SecretsKey, HostKey, Host)
        try:
            while True:
                try:
                    await self.step()
                    async with asyncio.timeout(ROUND_S):
                        await watch.next()
                except TimeoutError:
                    continue
                except (PlatformError, OSError) as error:
                    log.info("the change of the secrets key waits", extra={"error": str(error)})
                    await asyncio.sleep(RETRY_S)
        finally:
            self._node.store.unwatch(watch)

    async def rotate(self) -> None:
        """Begin: make the next key and commit its id. The rest happens by itself.

        Raises:
            ConflictError: a change is under way.
            UnavailableError: no quorum.
        """
        async with self._busy:
            store = self._node.store
            await store.barrier()
            record = self._record()
            if record is not None and (record.former_key_id or self._is_held(record.next_key_id)):
                raise ConflictError(
                    "a change of the secrets key is under way already: see 'kvorum secrets status'"
                )
            present = record or SecretsKey(
                id=SECRETS_KEY_ID,
                name=SECRETS_KEY_ID,
                key_id=self._keyring.current_id(),
                created_ms=self._node.clock.wall_ms(),
            )
            await self._put_in_use(present.key_id)  # first, for there is room for one more key only
            key = make_key()
            self._keyring.take(key)  # on disk before the log names it
            begun = replace(present, next_key_id=key_id(key))
            await store.apply(puts=(begun, self._own(key_id(key))))
            log.info("the secrets key is being changed", extra={"next": key_id(key)})

    async def step(self) -> None:
        """Do what this host can do now.

        Raises:
            UnavailableError: a key is nowhere to be had now, or there is no quorum.
        """
        async with self._busy:
            record = self._record()
            if record is None:
                return
            await self._put_in_use(record.key_id)
            if record.next_key_id:
                await self._take_back_untrue(record.next_key_id)
                await self._get(record.next_key_id)
            newest = record.next_key_id or record.key_id
            if not (record.next_key_id or record.former_key_id):
                self._keyring.forget_former()
            elif not self._having_ids([self._node.host()], newest):
                await self._say(newest)
            if self._node.engine.is_leader():
                await self._lead(record)

    def give(self, wanted: str) -> bytes:
        """Return a key for another member.

        Raises:
            NotFoundError: the log doesn't name it, or it isn't here yet.
        """
        record = self._record()
        named = (record.key_id, record.next_key_id) if record is not None else ()
        key = self._keyring.key(wanted) if wanted and wanted in named else None
        if key is None:
            raise NotFoundError("this host doesn't have that secrets key")
        return key

    def shown(self) -> dict[str, Any]:
        """Return how far a change is; keys by their ids only."""
        record, hosts = self._record(), self._node.store.all(Host)
        newest = self._keyring.current_id()
        if record is not None:
            newest = record.next_key_id or record.key_id
        changing = record is not None and bool(record.next_key_id or record.former_key_id)
        having = self._having_ids(hosts, newest)
        by_key = Counter(sealed_by(sealed) or "old format" for sealed in self._sealed())
        return {
            "key_id": record.key_id if record is not None else newest,
            "next_key_id": record.next_key_id if record is not None else "",
            "former_key_id": record.former_key_id if record is not None else "",
            "changing": changing,
            "hosts_without_key": [h.name for h in hosts if changing and h.id not in having],
            "secrets_by_key": dict(by_key),
        }

    # -- the leader's part

    async def _lead(self, record: SecretsKey) -> None:
        hosts = self._node.store.all(Host)
        if record.next_key_id:
            if self._are_enough(hosts, record.next_key_id):
                await self._seal_anew(record, record.next_key_id)
        elif any(sealed_by(sealed) != record.key_id for sealed in self._sealed()):
            await self._seal_anew(record, record.key_id)
        elif record.former_key_id and len(self._having_ids(hosts, record.key_id)) == len(hosts):
            said = self._node.store.all(HostKey)
            message = "every host has the new secrets key, the former one is deleted"
            event = self._events.make("secrets-key-changed", record, message)
            await self._node.store.apply(
                puts=(replace(record, former_key_id=""), event), deletes=said
            )

    def _are_enough(self, hosts: list[Host], wanted: str) -> bool:
        """A majority has the key, so that it can't be lost with a few hosts; everyone in reach has it; nobody is joining."""
        having = self._having_ids(hosts, wanted)
        reach = {*self._node.engine.connected(), self._node.host_id} & {h.id for h in hosts}
        young_ms = self._node.clock.wall_ms() - JOINING_MS_MAX
        joining = any(h.joining and h.created_ms > young_ms for h in hosts)
        return 2 * len(having) > len(hosts) and reach <= having and not joining

    async def _seal_anew(self, record: SecretsKey, wanted: str) -> None:
        """Seal every secret with a key and put it in use, all or nothing."""
        keys = self._keyring.keys(wanted)
        puts: list[Resource] = []
        for resource in self._with_secrets():
            anew = {
                field: _anew(keys, name.format(id=resource.id), getattr(resource, field))
                for field, name in resource.SEALED.items()
                if getattr(resource, field)
            }
            if anew:
                puts.append(replace(resource, **anew))
        former = record.key_id if wanted != record.key_id else record.former_key_id
        puts.append(replace(record, key_id=wanted, next_key_id="", former_key_id=former))
        await self._node.store.apply(puts=puts)
        log.info("all secrets are sealed with another key", extra={"key": wanted})

    def _with_secrets(self) -> list[Resource]:
        return [r for type_ in RESOURCE_TYPES if type_.SEALED for r in self._node.store.all(type_)]

    def _sealed(self) -> list[bytes]:
        values = (getattr(r, field) for r in self._with_secrets() for field in r.SEALED)
        return [value for value in values if value]

    # -- every host's part

    async def _put_in_use(self, wanted: str) -> None:
        await self._get(wanted)
        self._keyring.use(wanted)

    async def _take_back_untrue(self, id_: str) -> None:
        """Don't claim to have a key that isn't here any more, e.g. on a disk that was restored."""
        said = self._node.store.get(HostKey, self._node.host_id)
        if said is not None and said.key_id == id_ and self._keyring.key(id_) is None:
            await self._node.store.apply(deletes=(said,))

    async def _get(self, wanted: str) -> None:
        if self._keyring.key(wanted) is None:
            self._keyring.take(await self._fetch(wanted))

    async def _fetch(self, wanted: str) -> bytes:
        """Ask hosts for a key, those first that said they have it; believe only a key that has that id."""
        hosts = [h for h in self._node.store.all(Host) if h.id != self._node.host_id]
        having, linked = self._having_ids(hosts, wanted), self._node.engine.connected()
        hosts.sort(key=lambda h: (h.id not in having, h.id not in linked))
        for host in hosts[:ASKED_MAX]:
            try:
                answer = await self._node.mesh.call(
                    host, "/mesh/secrets-key", AskKey(key_id=wanted), KeyAnswer
                )
                key = bytes.fromhex(answer.key_hex)
            except (PlatformError, ValueError) as error:
                log.info(
                    "no secrets key from there",
                    extra={"from": host.name, "error": type(error).__name__},
                )
                continue
            if len(key) == KEY_BYTES and key_id(key) == wanted:
                log.info("took the secrets key", extra={"key": wanted, "from": host.name})
                return key
        raise UnavailableError(f"no host that answers has the secrets key {wanted}")

    async def _say(self, id_: str) -> None:
        await self._node.store.apply(puts=(self._own(id_),))

    def _own(self, id_: str) -> HostKey:
        host_id = self._node.host_id
        before = self._node.store.get(HostKey, host_id)
        revision = before.revision if before is not None else 0
        return HostKey(id=host_id, name=host_id, revision=revision, host_id=host_id, key_id=id_)

    def _having_ids(self, hosts: list[Host], id_: str) -> set[str]:
        """Return which of the hosts said that they have a key."""
        said = {s.id for s in self._node.store.all(HostKey) if s.key_id == id_}
        return said & {host.id for host in hosts}

    def _is_held(self, id_: str) -> bool:
        """Tell whether anybody has a key: one whose maker died before it was handed on is nobody's."""
        if not id_:
            return False
        hosts = self._node.store.all(Host)
        return self._keyring.key(id_) is not None or bool(self._having_ids(hosts, id_))

    def _record(self) -> SecretsKey | None:
        return self._node.store.get(SecretsKey, SECRETS_KEY_ID)


def _anew(keys: tuple[bytes, ...], name: str, sealed: bytes) -> bytes:
    return seal(keys, name, unseal(keys, name, sealed))
