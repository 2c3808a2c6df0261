"""Putting a backup in place of a host's state: it becomes the only voter of a new generation, with the state of the file.

On a host that is a member, its identity stays. A fresh host gets one from the cluster's authority, which is in the state; that
takes the secrets key. Other hosts' records stay: each of them joins again with `kvorum recover rejoin`.
"""

from __future__ import annotations

import ipaddress
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from core.clock import Clock, new_id
from core.errors import ConflictError, FatalError, InvalidError
from core.identity.certificates import KeyPair, fingerprint, make_request, sign_request
from core.identity.keyring import Keyring
from core.identity.sealing import KEY_BYTES, unseal
from core.member_file import MemberRecord, read_member_file
from core.model import Cluster, Host, Mesh, check_name
from core.paths import Paths, write_file
from raftstate.consensus.entries import LEVEL
from raftstate.consensus.generation import following
from raftstate.consensus.single import SingleNodeEngine
from raftstate.rescue.anew import INDEX_LEAP, Beginning, begin_anew
from raftstate.rescue.backup_file import BackupHeader, OnBytes, verify
from raftstate.rescue.known import me, read_log
from raftstate.rescue.room import require_room
from raftstate.rescue.state_files import state_files
from raftstate.rescue.swap import swap, work_directory
from raftstate.state.machine import Machine
from raftstate.store import Store

COPIES = 3  # of the state: the dump, the database that it is checked in, and the new dump
VERB = "state restore"
MESH_ID = "mesh"


@dataclass(frozen=True, slots=True)
class FreshHost:
    """Who a host becomes that is no member. `instead_of`: it takes the place of a host in the state, named so."""

    name: str = ""
    address: str = ""
    instead_of: str = ""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done."""

    host_name: str
    generation: int
    index: int
    kept: Path | None


@dataclass(frozen=True, slots=True)
class Order:
    """What to restore. `unlock` gives the secrets key for a fresh host; a member has its own."""

    file: Path
    fresh: FreshHost
    unlock: Callable[[BackupHeader], bytes]
    when: str


async def restore(
    paths: Paths, order: Order, *, on_bytes: OnBytes, clock: Clock, rng: random.Random
) -> Restored:
    """Begin anew from a backup on this host, whose agent is stopped. All or nothing.

    Raises:
        InvalidError: the file is damaged, or what the fresh host shall be is missing or taken.
        ConflictError: the file is of another cluster, or too new.
        FatalError: the secrets key doesn't open the state's secrets, or no room; nothing was changed.
    """
    record = read_member_file(paths.member_file)
    try:
        size_bytes = order.file.stat().st_size
    except OSError as error:
        raise InvalidError(f"can't read {order.file}: {error.strerror}") from None
    require_room(paths.state, COPIES * size_bytes)
    work = work_directory(paths.state)
    dump = work / "dump.db"
    header = verify(order.file, on_bytes=on_bytes, dump=dump)
    if header.level > LEVEL:
        raise ConflictError(
            f"the backup needs feature level {header.level}, this version knows {LEVEL}: "
            f"install version {header.version} or newer"
        )
    machine = Machine(work / "state.db")
    try:
        machine.stage(dump)()
        os.unlink(dump)
        store = Store(machine, SingleNodeEngine(machine), clock=clock, rng=rng)
        new = ["raft"]
        if record is not None:
            await _stay(paths, record, store)
        else:
            record = await _become(paths, order, header, store, work, clock=clock, rng=rng)
            new += ["identity", "member.json"]
        generation, known = _known(paths)
        at = Beginning(
            index=max(header.index, machine.applied(), known[1]) + INDEX_LEAP,
            term=max(header.term, known[0]) + 1,
            generation=following(max(header.generation, generation), rng),
            level=header.level,
            machine_applied=machine.applied(),
        )
        frozen = machine.freeze()
        try:
            begin_anew(work / "raft", me(record), at, frozen.write)
        finally:
            frozen.close()
    finally:
        machine.close()
    old = (*state_files(paths), *(name for name in new if name != "raft"))
    kept = swap(paths.state, verb=VERB, when=order.when, old=old, new=new)
    return Restored(record.host_name, at.generation, at.index, kept)


def _known(paths: Paths) -> tuple[int, tuple[int, int]]:
    """Return what a log that is here says: generation, (term, index). It may be damaged, and be the reason for all this."""
    try:
        log = read_log(paths)
    except (ConflictError, FatalError):
        return 0, (0, 0)
    return log.generation, (log.term, log.last_index)


async def _stay(paths: Paths, record: MemberRecord, store: Store) -> None:
    """Check that a member's identity fits the state, and that the state knows the host."""
    mesh, keyring = store.need(Mesh, MESH_ID), Keyring(paths)
    try:
        own = fingerprint(paths.ca_pem.read_text())
        await keyring.settle()
        key = keyring.keys()
    except (OSError, ValueError) as error:
        raise FatalError(
            f"the identity of this host, {paths.identity}, can't be read ({error}): move {paths.member_file} away "
            "to restore as a fresh host"
        ) from None
    if own != fingerprint(mesh.ca_pem):
        raise ConflictError(
            f"the backup is of the cluster {mesh.name!r}, this host is a member of another one, "
            f"{record.cluster_name!r}: leave that first with 'kvorum leave --force', or restore on another host"
        )
    unseal(key, "ca-key", mesh.sealed_ca_key)
    if store.get(Host, record.host_id) is None:  # it joined after the backup was taken
        host = Host(
            id=record.host_id,
            name=record.host_name,
            cluster_id=store.all(Cluster)[0].id,
            address=record.address,
            api_port=record.api_port,
            mesh_port=record.mesh_port,
            witness=record.witness,
        )
        await _put(store, host)


async def _become(
    paths: Paths,
    order: Order,
    header: BackupHeader,
    store: Store,
    work: Path,
    *,
    clock: Clock,
    rng: random.Random,
) -> MemberRecord:
    """Write identity and member.json of a host that was no member, and record it in the state."""
    fresh, mesh = order.fresh, store.need(Mesh, MESH_ID)
    if fresh.instead_of:
        host = store.find(Host, fresh.instead_of)
    else:
        if not fresh.name or not fresh.address:
            raise InvalidError(
                "this host is no member yet: say who it shall be, with --host-name NAME --address IP, "
                f"or whose place it takes, with --as HOST (one of {_names(store)})"
            )
        host = Host(
            id=new_id(rng),
            name=check_name(fresh.name, "host"),
            cluster_id=store.all(Cluster)[0].id,
            address=_checked(fresh.address),
            created_ms=clock.wall_ms(),
        )
    key = order.unlock(header)
    if len(key) != KEY_BYTES:
        raise InvalidError(f"a secrets key has {KEY_BYTES} bytes, this one {len(key)}")
    authority = KeyPair(mesh.ca_pem, unseal(key, "ca-key", mesh.sealed_ca_key).decode())
    if not fresh.instead_of:
        await _put(store, host)
    request_pem, key_pem = make_request(host.id)
    certificate = sign_request(
        authority,
        request_pem,
        host_id=host.id,
        host_name=host.name,
        address=host.address,
        now_ms=clock.wall_ms(),
    )
    beside = Paths(etc=paths.etc, state=work, run=paths.run)
    record = MemberRecord(
        host_id=host.id,
        host_name=host.name,
        address=host.address,
        cluster_name=mesh.name,
        api_port=host.api_port,
        mesh_port=host.mesh_port,
        founder=False,
        members=(),
        witness=host.witness,
    )
    write_file(beside.ca_pem, mesh.ca_pem.encode(), mode=0o644)
    write_file(beside.host_pem, certificate.encode(), mode=0o644)
    write_file(beside.host_key, key_pem.encode())
    write_file(beside.secrets_key, key)
    write_file(beside.member_file, msgspec.json.encode(record))
    return record


async def _put(store: Store, host: Host) -> None:
    try:
        await store.apply(puts=(host,))
    except ConflictError:
        raise ConflictError(
            f"the state in the backup has another host with the name {host.name!r} or the address {host.address}: "
            "choose another, or take that host's place with --as HOST"
        ) from None


def _checked(address: str) -> str:
    try:
        return str(ipaddress.IPv4Address(address))
    except ValueError:
        raise InvalidError(f"{address!r} is no IPv4 address") from None


def _names(store: Store) -> str:
    return ", ".join(host.name for host in store.all(Host))
