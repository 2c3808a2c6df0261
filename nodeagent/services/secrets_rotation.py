"""Changes the secrets key of the whole cluster: a new one is made, handed to all hosts, and everything sealed anew.

The log names keys by their ids only; a key itself goes from host to host over the mesh, to members. The steps:

1. `rotate`: a host makes a key, keeps it in a file, and commits its id as the next one.
2. Each host that lacks the next key fetches it from a host that has it, and says that it has it.
3. When a majority has it, and everyone within reach, the leader seals every secret anew and puts the new key in use, in
   one transaction: at no log index is a secret sealed by a key that isn't named there.
4. The former key is deleted when every host has the new one. A host that was off meanwhile fetches it when it is back:
   its certificate lets it in, and what it can't open until then it doesn't need for that.

Each step may be repeated, by any host, after a crash anywhere. `run` is a service of every member.

A host whose HSM doesn't open its key says so and is not waited for; when it leads, another one seals in its stead. Its key
is fetched from others as soon as it can be kept here again: in a new HSM, or in a file.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from core.errors import (
    ConflictError,
    FatalError,
    NotFoundError,
    PlatformError,
    UnavailableError,
)
from core.identity.hsm import SecretsLockedError
from core.identity.keyring import KeptKey, Keyring
from core.identity.sealing import KEY_BYTES, Keys, key_id, make_key, seal, sealed_by, unseal
from core.model import RESOURCE_TYPES, Host, HostKey, Mesh, Resource, SecretsKey, Severity
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog
from nodeagent.services.sealing_guard import SECRETS_KEY_ID

log = logging.getLogger(__name__)

ROUND_S = 5.0
RETRY_S = 5.0
LOCKED_RETRY_S_MAX = 60.0
OPEN_TIMEOUT_S = 10.0
CHECK_S = 3600.0
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
        self._told = ""
        self._checked_s = node.clock.monotonic_s()

    def keys(self) -> Keys:
        """Return the secrets keys of this host, first the one that seals."""
        record = self._record()
        return self._keyring.keys(record.key_id if record is not None else "")

    async def run(self) -> None:
        """Do what is next, at every change and every few seconds, until cancelled."""
        watch = self._node.store.watch(SecretsKey, HostKey, Host)
        locked_s = RETRY_S
        try:
            while True:
                try:
                    await self.step()
                    locked_s = RETRY_S
                    async with asyncio.timeout(ROUND_S):
                        await watch.next()
                except TimeoutError:
                    continue
                except SecretsLockedError as error:
                    log.info("the HSM doesn't do its part", extra={"error": error.message})
                    await asyncio.sleep(locked_s)
                    locked_s = min(2 * locked_s, LOCKED_RETRY_S_MAX)
                except (PlatformError, OSError) as error:
                    log.info("the change of the secrets key waits", extra={"error": str(error)})
                    await asyncio.sleep(RETRY_S)
        finally:
            self._node.store.unwatch(watch)

    async def open(self) -> None:
        """Open the keys when the agent starts, if that is done soon; `run` goes on with it otherwise."""
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self._keyring.settle()
        except (PlatformError, OSError, TimeoutError) as error:
            log.warning("the secrets key can't be opened yet", extra={"error": str(error)})

    def kept(self) -> KeptKey:
        """Return how this host keeps its key."""
        return self._keyring.kept()

    async def rotate(self) -> None:
        """Begin: make the next key and commit its id. The rest happens by itself.

        Raises:
            ConflictError: a change is under way.
            UnavailableError: no quorum, or this host's HSM doesn't keep keys now.
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
            await self._keyring.take(key)  # on disk before the log names it
            begun = replace(present, next_key_id=key_id(key))
            await store.apply(puts=(begun, self._own(key_id(key))))
            log.info("the secrets key is being changed", extra={"next": key_id(key)})

    async def step(self) -> None:
        """Do what this host can do now.

        Raises:
            UnavailableError: a key is nowhere to be had now, or there is no quorum.
            SecretsLockedError: this host's HSM doesn't do its part.
            FatalError: this host's key is lost, and nobody has it.
        """
        async with self._busy:
            try:
                await self._settle()
                await self._step()
            except SecretsLockedError as error:
                await self._tell(error.message)
                record = self._record()
                if record is not None and (record.next_key_id or record.former_key_id):
                    await self._say("")
                raise
            if not self._keyring.kept().fault:
                await self._tell("")

    async def _step(self) -> None:
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
        if self._is_to_lead(newest):
            await self._lead(record)

    def give(self, wanted: str) -> bytes:
        """Return a key for another member.

        Raises:
            NotFoundError: the log doesn't name it, or it isn't here yet.
        """
        record = self._record()
        named = (self._named(), record.next_key_id if record is not None else "")
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

    def shown_hosts(self, answers: Mapping[str, KeptKey | None]) -> list[dict[str, Any]]:
        """Return how each host keeps the key, by what they answered; one that is silent has the state `no answer`."""
        shown = []
        for host in sorted(self._node.store.all(Host), key=lambda h: h.name):
            kept = answers.get(host.id)
            fields = msgspec.structs.asdict(kept or KeptKey(place=""))
            state = "no answer" if kept is None else "fault" if kept.fault else "ok"
            shown.append({"name": host.name, "state": state, **fields})
        return shown

    # -- the leader's part

    def _is_to_lead(self, newest: str) -> bool:
        """Tell whether this host leads, or is the first of those that have the key while the leader can't open it."""
        engine, store = self._node.engine, self._node.store
        if engine.is_leader():
            return True
        leader = store.get(HostKey, engine.leader() or "")
        if leader is None or leader.key_id:
            return False
        reach = {*engine.connected(), self._node.host_id}
        able = self._having_ids(store.all(Host), newest) & reach
        return bool(able) and min(able) == self._node.host_id

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
        reach -= self._having_ids(hosts, "")  # they said that they can't
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

    async def _settle(self) -> None:
        """Open this host's keys and keep them as the settings say; what can't be opened any more is fetched."""
        try:
            await self._keyring.settle()
            now_s = self._node.clock.monotonic_s()
            pause_s = LOCKED_RETRY_S_MAX if self._keyring.kept().fault else CHECK_S
            if now_s - self._checked_s >= pause_s:
                self._checked_s = now_s
                await self._keyring.check()
        except (FatalError, SecretsLockedError) as error:
            if self._keyring.is_open():  # it is at work; keeping it as told waits
                await self._tell(error.message)
                return
            if not await self._recovered():
                await self._tell(error.message)
                raise

    async def _recovered(self) -> bool:
        """Fetch the key in use from another host, if it could be kept here."""
        wanted = self._named()
        if not wanted:
            return False
        try:
            await self._keyring.try_out()
            await self._keyring.put(await self._fetch(wanted))
            await self._keyring.settle()
        except PlatformError as error:
            log.info("the secrets key can't be fetched", extra={"error": error.message})
            return False
        log.warning("the secrets key of this host was lost, and fetched from another one")
        return True

    async def _tell(self, fault: str) -> None:
        """Record, once, that this host can't open or keep its key, or can again."""
        if fault == self._told:
            return
        self._told, host = fault, self._node.store.get(Host, self._node.host_id)
        if host is None:
            return
        if fault:
            message = f"host {host.name}: {fault}"
            await self._events.record("secrets-locked", host, message, severity=Severity.ALARM)
        else:
            message = f"host {host.name} can open and keep its secrets key again"
            await self._events.record("secrets-open", host, message)

    def _named(self) -> str:
        """Return the id of the key in use, as the state has it; empty if it doesn't say."""
        record, mesh = self._record(), self._node.store.get(Mesh, MESH_ID)
        if record is not None:
            return record.key_id
        return sealed_by(mesh.sealed_ca_key) if mesh is not None else ""

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
            await self._keyring.take(await self._fetch(wanted))

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
        """Say that this host has a key; an empty id: that it can't open or keep any now."""
        own = self._own(id_)
        said = self._node.store.get(HostKey, self._node.host_id)
        if said is None or said.key_id != id_:
            await self._node.store.apply(puts=(own,))

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
