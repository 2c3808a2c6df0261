"""`kvorum secrets`: the key by which the cluster's secrets are sealed."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from core.errors import ConflictError, InvalidError
from core.identity.certificates import fingerprint
from core.identity.keyring import Keyring
from core.identity.sealing import key_id
from core.paths import Paths, write_file
from raftstate.rescue.backup_file import verify
from tools.cli.context import Context
from tools.cli.offline import add_state_directory
from tools.cli.output import Column, text, texts, write_done, write_item, write_list
from tools.cli.parser import Parser, Root, add_yes
from tools.cli.passphrase import add_passphrase_file, passphrase
from tools.cli.state import key_of_backup
from tools.sdk.items import Item
from tools.sdk.model import plain


def _state(item: Item) -> str:
    if item.text("next_key_id"):
        return "a new key is being handed out"
    return "in use; some hosts lack the new key" if item.flag("changing") else "in use"


def _keeping(item: Item) -> str:
    """Return where a host keeps the key."""
    place = item.text("place")
    return f"HSM: {item.text('hsm')}" if place == "hsm" else place or "-"


HOSTS = (
    text("HOST", "name"),
    text("STATE", "state"),
    Column("KEPT IN", _keeping),
    text("KEY", "key_id"),
    text("FAULT", "fault"),
)
FIELDS = (
    text("KEY", "key_id"),
    Column("STATE", _state),
    text("NEXT KEY", "next_key_id"),
    text("FORMER KEY", "former_key_id"),
    texts("HOSTS WITHOUT NEW KEY", "hosts_without_key"),
)


async def status(args: Namespace, ctx: Context) -> int:
    """Show how a change goes, and how each host keeps the key."""
    del args
    item = plain(await ctx.kvorum.secrets.get())
    write_item(ctx, item, FIELDS)
    if ctx.output == "table" and (hosts := item.items("hosts")):
        ctx.write("")
        write_list(ctx, hosts, HOSTS, "no hosts")
    return 0


async def rotate(args: Namespace, ctx: Context) -> int:
    """Begin a change."""
    await ctx.confirm(
        "All secrets will be sealed with a new key. Backups of the state that were made before need the key of then.",
        yes=args.yes,
    )
    item = plain(await ctx.kvorum.secrets.rotate())
    write_done(ctx, item, f"new key {item.text('next_key_id')}: see kvorum secrets status")
    return 0


async def restore(args: Namespace, ctx: Context) -> int:
    """Put the key out of a backup back on this host, which can't open its own."""
    file, paths = Path(args.file), Paths(state=args.state_dir)
    header = verify(file, on_bytes=lambda *_: None)
    try:
        own = fingerprint(paths.ca_pem.read_text())
    except (OSError, ValueError):
        raise InvalidError(
            f"this host is no member, it has no {paths.ca_pem}: see 'kvorum state restore'"
        ) from None
    if own != header.ca_sha256:
        raise ConflictError(f"the backup is of another cluster, {header.cluster_name!r}")
    key = key_of_backup(header, await passphrase(args.passphrase_file, ctx, twice=False))
    keyring = Keyring(paths)
    kept = keyring.kept()
    if kept.place == "file" and kept.key_id:
        raise ConflictError("this host has its secrets key, in a file: there is nothing to restore")
    if kept.key_id and kept.key_id != key_id(key):
        raise ConflictError(
            f"the backup has the key {key_id(key)}, and this host had {kept.key_id}: "
            "take a backup that was made after the key was last changed"
        )
    await ctx.confirm(
        "The key will be in a file of this host, until its agent keeps it as agent.toml says.",
        yes=args.yes,
    )
    write_file(paths.secrets_key, key)
    item = Item({"key_id": key_id(key)})
    write_done(ctx, item, f"key {key_id(key)} is back: this host's agent takes it within a minute")
    return 0


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("secrets")
    verbs.add("status", status, "show which secrets key is in use, how hosts keep it, who lacks it")
    begun = verbs.add(
        "rotate",
        rotate,
        "change the secrets key",
        note="Hosts get the new key over the mesh; one that is off gets it when it is back. Make a backup with keys after it.",
    )
    add_yes(begun)
    back = verbs.add(
        "restore",
        restore,
        "put the secrets key out of a backup back on this host",
        example="kvorum secrets restore prod.kvb",
        note="Needed only when no host can open the key any more, because all HSMs are lost, and no agent runs that still "
        "has it. The backup must have been made --with-keys after the key was last changed.",
    )
    back.add_argument("file", metavar="FILE", help="the backup")
    add_passphrase_file(back)
    add_state_directory(back)
    add_yes(back)


ADD = {"secrets": _add}
