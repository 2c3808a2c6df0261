"""`kvorum state`: a backup of everything replicated, its check, and its restore on a host whose agent is stopped."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from core.clock import SystemClock, system_random
from core.errors import ConflictError, InvalidError
from core.identity.keyring import Keyring
from core.member_file import read_member_file
from core.paths import Paths
from raftstate.consensus.generation import shown
from raftstate.rescue.backup_file import BackupHeader, Copier, verify
from raftstate.rescue.keys import LockedKey, check_passphrase, lock_key, unlock_key
from raftstate.rescue.restore import FreshHost, Order, restore
from raftstate.rescue.swap import compact_time
from tools.cli.context import Context
from tools.cli.offline import add_confirm, add_state_directory, confirm_name, stopped_host, was_kept
from tools.cli.output import printable, write_done, write_rows, write_value
from tools.cli.parser import Parser, Root, UsageError
from tools.cli.passphrase import add_passphrase_file, passphrase
from tools.cli.progress import Progress
from tools.cli.units import shown_size, shown_time
from tools.sdk.items import Item

KEY_NOTE = """\
Secrets are in it only sealed, with the cluster's secrets key, which is NOT in it. A host that is a member has the key;
to restore on a fresh host you need a copy of /var/lib/kvorum/identity/secrets.key (32 bytes, the same on all hosts), or
a backup made with --with-keys. Keep it apart from the backups: with both, the cluster's identity can be taken over."""

RESTORE_NOTE = """\
The agent of this host must be stopped. This host becomes the only voter of a new generation of the cluster, with the
state exactly as it is in the file: what was changed since the backup is lost. The records of the other hosts stay, and
each of them comes back with 'kvorum recover rejoin', on it. All of it happens or nothing; what was here before is kept.

On a fresh host, say who it shall be: a new host (--host-name and --address), or one of the state (--as)."""

AFTER_RESTORE = """\
Next:
  1. systemctl start kvorum-agent       here
  2. kvorum status                      this host leads, the others are disconnected
  3. kvorum recover rejoin              on each other host that still exists, with its agent stopped
  4. kvorum host remove NAME            for each that doesn't
VMs run where the restored state says. Compare with what really runs ('virsh list' on each host) before you start any."""


async def backup(args: Namespace, ctx: Context) -> int:
    """Write a backup, and read it again."""
    lock = await _lock_with(args, ctx) if args.with_keys else None
    if args.file == "-":
        await _to_stdout(args, ctx, lock)
        return 0
    file = Path(args.file)
    if os.path.lexists(file):
        raise InvalidError(f"{file} exists already: choose another name")
    part = file.with_name(f".{file.name}.part")
    try:
        with Progress(ctx, "backing up the state", minor=True) as progress:
            with _create(part) as target:
                await _receive(args, ctx, lock, target, progress)
                target.flush()
                os.fsync(target.fileno())
            header = verify(part, on_bytes=progress.show_bytes)
        os.rename(part, file)
    except OSError as error:
        raise InvalidError(f"can't write {file}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    write_done(ctx, _item(header, file), f"{file}: {_in_short(header)}")
    if header.key is None and not ctx.quiet:
        ctx.say(KEY_NOTE)
    return 0


async def check(args: Namespace, ctx: Context) -> int:
    """Read a backup through and show what it is."""
    file = Path(args.file)
    with Progress(ctx, f"reading {file.name}", minor=True) as progress:
        header = verify(file, on_bytes=progress.show_bytes)
    if args.passphrase_file is not None:
        key_of_backup(header, await passphrase(args.passphrase_file, ctx, twice=False))
    if ctx.output != "table":
        write_value(ctx, dict(_item(header, file).raw))
        return 0
    write_rows(ctx, [(title, printable(value)) for title, value in _rows(header, args)])
    return 0


async def bring_back(args: Namespace, ctx: Context) -> int:
    """Restore a backup on this host."""
    file = Path(args.file)
    clock, rng = SystemClock(), system_random()
    with stopped_host(args) as paths:
        record = read_member_file(paths.member_file)
        fresh = FreshHost(args.host_name, args.address, args.instead_of)
        if record is not None and any((fresh.name, fresh.address, fresh.instead_of)):
            raise UsageError(
                f"this host is a member already, {record.host_name}: leave --host-name, --address and --as out"
            )
        with Progress(ctx, f"reading {file.name}", minor=True) as progress:
            header = verify(file, on_bytes=progress.show_bytes)
        key = await _key(args, ctx, header) if record is None else b""
        if not ctx.quiet:
            _announce(ctx, paths, header)
        await confirm_name(args, ctx, "the cluster's name", header.cluster_name)
        order = Order(file, fresh, lambda _: key, compact_time(clock.wall_ms()))
        with Progress(ctx, "restoring", minor=True) as progress:
            done = await restore(paths, order, on_bytes=progress.show_bytes, clock=clock, rng=rng)
    item = Item(
        {
            "host_name": done.host_name,
            "cluster_name": header.cluster_name,
            "generation": done.generation,
            "index": done.index,
            "kept": str(done.kept or ""),
        }
    )
    write_done(
        ctx,
        item,
        f"{done.host_name} is the only voter of {header.cluster_name}, generation {shown(done.generation)}"
        + was_kept(done.kept),
    )
    if not ctx.quiet:
        ctx.say(AFTER_RESTORE)
    return 0


def _announce(ctx: Context, paths: Paths, header: BackupHeader) -> None:
    ctx.say(
        printable(f"This replaces the state in {paths.state} by the backup: {_in_short(header)},")
    )
    ctx.say(printable(f"taken on {header.host_name} at {shown_time(header.created_ms)}."))
    ctx.say("")
    ctx.say(RESTORE_NOTE)
    ctx.say("")


async def _receive(
    args: Namespace,
    ctx: Context,
    lock: Callable[[BackupHeader], LockedKey] | None,
    target: BinaryIO,
    progress: Progress,
) -> None:
    copier, done = Copier(lock), 0
    async with ctx.client.backup(of_this_host=args.of_this_host) as pieces:
        async for piece in pieces:
            target.write(copier.feed(piece))
            done += len(piece)
            if copier.header is not None:
                progress.show_bytes(min(done, copier.header.file_bytes), copier.header.file_bytes)
    target.write(copier.finish())


async def _to_stdout(
    args: Namespace, ctx: Context, lock: Callable[[BackupHeader], LockedKey] | None
) -> None:
    target = getattr(ctx.out, "buffer", None)
    if target is None or ctx.out.isatty():
        raise UsageError("a backup is no text: give it a file, or pipe it to a program")
    with Progress(ctx, "backing up the state", minor=True) as progress:
        await _receive(args, ctx, lock, target, progress)
    target.flush()


async def _lock_with(args: Namespace, ctx: Context) -> Callable[[BackupHeader], LockedKey]:
    if not ctx.client.endpoint.local:
        raise UsageError("--with-keys works on a host only, without KVORUM_ADDRESS")
    paths = Paths(state=args.state_dir)
    if paths.secrets_next.exists():
        raise ConflictError(
            "the secrets key is being changed: back up when 'kvorum secrets status' says that it is in use"
        )
    keyring = Keyring(paths)
    await keyring.settle()
    key = keyring.keys()[0]
    word = await passphrase(args.passphrase_file, ctx, twice=True)
    check_passphrase(word)
    return lambda header: lock_key(key, word, header.ca_sha256)


async def _key(args: Namespace, ctx: Context, header: BackupHeader) -> bytes:
    """Return the secrets key for a fresh host: from its file, or out of the backup."""
    if args.secrets_key is not None:
        try:
            return bytes(args.secrets_key.read_bytes())
        except OSError as error:
            raise InvalidError(f"can't read {args.secrets_key}: {error.strerror}") from None
    if header.key is None:
        raise ConflictError(
            "the secrets key isn't in this backup, and a fresh host has none: give a copy of "
            "/var/lib/kvorum/identity/secrets.key of any member that keeps it in a file with --secrets-key FILE"
        )
    return key_of_backup(header, await passphrase(args.passphrase_file, ctx, twice=False))


def key_of_backup(header: BackupHeader, word: str) -> bytes:
    """Return the secrets key that is in a backup; raises a PlatformError if there is none or the passphrase is wrong."""
    if header.key is None:
        raise ConflictError("the secrets key isn't in this backup: it was made without --with-keys")
    return unlock_key(header.key, word, header.ca_sha256)


def _create(part: Path) -> BinaryIO:
    return os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _in_short(header: BackupHeader) -> str:
    return (
        f"{shown_size(header.file_bytes)}, cluster {header.cluster_name}, generation {shown(header.generation)}, "
        f"index {header.index}, {_count(header, 'host')}, {_count(header, 'vm')}"
    )


def _count(header: BackupHeader, kind: str) -> str:
    number = header.counts.get(kind, 0)
    word = "VM" if kind == "vm" else kind
    return f"{number} {word}{'' if number == 1 else 's'}"


def _rows(header: BackupHeader, args: Namespace) -> list[tuple[str, str]]:
    key = "not in it" if header.key is None else "in it, locked with a passphrase"
    if args.passphrase_file is not None:
        key += " (which opens it)"
    voters = ", ".join(f"{name or id_} ({address})" for id_, name, address in header.voters)
    counts = ", ".join(f"{number} {kind}" for kind, number in sorted(header.counts.items()))
    return [
        ("cluster", header.cluster_name),
        ("authority", header.ca_sha256[:16]),
        (
            "taken",
            f"{shown_time(header.created_ms)} on {header.host_name}, version {header.version}",
        ),
        ("generation", shown(header.generation)),
        ("index", f"{header.index}, term {header.term}"),
        ("voters then", voters),
        ("holds", counts),
        ("size", shown_size(header.file_bytes)),
        ("secrets key", key),
        ("checksum", "right"),
    ]


def _item(header: BackupHeader, file: Path) -> Item:
    fields = msgspec.to_builtins(msgspec.structs.replace(header, key=None))
    del fields["key"]
    return Item({"file": str(file), **fields, "has_key": header.key is not None})


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("state")
    made = verbs.add(
        "backup",
        backup,
        "write all that is replicated to a file",
        example="kvorum state backup prod-$(date +%F).kvb\n"
        "kvorum state backup prod.kvb --with-keys\n"
        "kvorum state backup - | ssh backup 'cat > prod.kvb'",
        note="Taken while the cluster works, from any member: everything committed before the command is in it.\n\n"
        + KEY_NOTE,
    )
    made.add_argument("file", metavar="FILE", help="a new file (mode 0600), or - for stdout")
    made.add_argument(
        "--of-this-host",
        action="store_true",
        help="take what the host has that answers, even without a quorum; it may be behind",
    )
    made.add_argument(
        "--with-keys",
        action="store_true",
        help="put the secrets key into it, locked with a passphrase",
    )
    add_passphrase_file(made)
    add_state_directory(made)
    checked = verbs.add(
        "verify",
        check,
        "read a backup through and show what it is",
        example="kvorum state verify prod.kvb\nkvorum state verify prod.kvb -o json",
        note="Works anywhere, without a cluster.",
    )
    checked.add_argument("file", metavar="FILE", help="the backup")
    checked.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="check that the first line of this file opens the key in it",
    )
    back = verbs.add(
        "restore",
        bring_back,
        "begin the cluster anew on this host, from a backup",
        example="kvorum state restore prod.kvb\n"
        "kvorum state restore prod.kvb --as h1 --secrets-key secrets.key\n"
        "kvorum state restore prod.kvb --host-name h9 --address 10.0.0.9",
        note=RESTORE_NOTE,
    )
    back.add_argument("file", metavar="FILE", help="the backup")
    back.add_argument("--host-name", default="", metavar="NAME", help="name of a fresh host")
    back.add_argument("--address", default="", metavar="IP", help="IP address of a fresh host")
    back.add_argument(
        "--as",
        default="",
        dest="instead_of",
        metavar="HOST",
        help="a fresh host takes the place of this host of the state, which must never come back",
    )
    back.add_argument(
        "--secrets-key",
        type=Path,
        metavar="FILE",
        help="the cluster's secrets key, for a fresh host",
    )
    add_passphrase_file(back)
    add_confirm(back, "the cluster's name")
    add_state_directory(back)


ADD: dict[str, Callable[[Root, Parser], None]] = {"state": _add}
