"""`kvorum vm create`: from options and files to a running VM."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from msgspec import UNSET

from tools.cli.context import Context
from tools.cli.output import write_done
from tools.cli.parser import Parser, UsageError, Verbs, add_callback, add_wait
from tools.cli.start_order import add_order, awaited, delay_s
from tools.cli.units import memory_mib, positive, size_bytes
from tools.cli.waiting import finish
from tools.sdk.bodies import VMBody

FILE_BYTES_MAX = 512 * 1024
KEY_KINDS = ("ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-")


async def create(args: Namespace, ctx: Context) -> int:
    """Create a VM and wait until it runs."""
    body = VMBody(
        name=args.name,
        image=args.image,
        cpus=args.cpus,
        memory_mib=args.memory,
        disk_size_bytes=args.disk_size or UNSET,
        data_storage=args.data_storage or UNSET,
        port_group=args.port_group or UNSET,
        security_groups=tuple(args.security_group) or UNSET,
        cluster=args.cluster or UNSET,
        host=args.host or UNSET,
        placement_rules=tuple(args.rule) or UNSET,
        ha=args.ha,
        priority=args.priority or UNSET,
        start_after=awaited(args),
        start_delay_s=delay_s(args),
        hostname=args.hostname or UNSET,
        ssh_keys=tuple(key for file in args.ssh_key for key in ssh_keys(file)),
        user_data=_read(args.user_data, "user data", ctx) if args.user_data else "",
        start=args.start,
        description=args.description,
    )
    started = await ctx.client.create_vm(body, callback_url=args.callback_url)
    if not await finish(ctx, started, f"create {args.name}", wait=args.wait):
        return 0
    vm = await ctx.client.get("vms", args.name)
    addresses = ", ".join(vm.texts("ips"))
    where = vm.text("host_name") or vm.text("host_id", "-")
    sentence = f"{vm.text('name')}: {vm.text('phase')} on {where}"
    write_done(ctx, vm, f"{sentence}, {addresses}" if addresses else sentence)
    return 0


def ssh_keys(file: str) -> tuple[str, ...]:
    """Return the public keys of a file, one a line.

    Raises:
        UsageError: it cannot be read, or holds something else; a private key is never sent.
    """
    content = _read(file, "SSH key")
    if "PRIVATE KEY" in content:
        raise UsageError(f"{file} is a private key: give the public one, {file}.pub")
    lines = [line.strip() for line in content.splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    wrong = [line for line in keys if not line.startswith(KEY_KINDS) or len(line.split()) < 2]
    if wrong or not keys:
        raise UsageError(f"{file} holds no SSH public keys (lines like: ssh-ed25519 AAAA... name)")
    return keys


def _read(file: str, what: str, ctx: Context | None = None) -> str:
    try:
        if file == "-" and ctx is not None:
            content = ctx.stdin.read(FILE_BYTES_MAX + 1)
        else:
            with Path(file).expanduser().open(encoding="utf-8") as opened:
                content = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"cannot read {what} file {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{what} file {file} is not text") from None
    if len(content) > FILE_BYTES_MAX:
        raise UsageError(f"{what} file {file} is larger than {FILE_BYTES_MAX // 1024} KiB")
    return content


def add_create(verbs: Verbs) -> None:
    """Add `create`."""
    made = verbs.add(
        "create",
        create,
        "create a VM and start it",
        example="kvorum vm create web1 --image debian-12 --ssh-key ~/.ssh/id_ed25519.pub\n"
        "kvorum vm create db1 --image debian-12 --cpus 4 --memory 8GiB --disk-size 100GiB "
        "--data-storage nfs1",
        note="Only a name and an image are needed; the rest comes from the defaults made at init.",
    )
    made.add_argument("name", metavar="NAME", help="its name")
    made.add_argument(
        "--image", required=True, metavar="NAME", names_of="images", help="what its disk is made of"
    )
    made.add_argument(
        "--cpus", type=positive, default=1, metavar="N", help="virtual CPUs (default: 1)"
    )
    made.add_argument(
        "--memory", type=memory_mib, default=1024, metavar="SIZE", help="e.g. 2GiB (default: 1GiB)"
    )
    made.add_argument(
        "--disk-size",
        type=size_bytes,
        default=0,
        metavar="SIZE",
        help="e.g. 20GiB (default: the image's)",
    )
    _add_places(made)
    _add_guest(made)
    made.add_argument(
        "--no-ha",
        dest="ha",
        action="store_false",
        help="don't start it elsewhere when its host dies",
    )
    add_order(made)
    made.add_argument("--no-start", dest="start", action="store_false", help="create it stopped")
    made.add_argument("--description", default="", metavar="TEXT", help="a note for people")
    add_wait(made)
    add_callback(made)


def _add_places(parser: Parser) -> None:
    parser.add_argument(
        "--data-storage",
        default="",
        metavar="NAME",
        names_of="data-storages",
        help="where its disk lives",
    )
    parser.add_argument(
        "--port-group",
        default="",
        metavar="NAME",
        names_of="port-groups",
        help="the network of its NIC",
    )
    parser.add_argument(
        "--security-group",
        action="append",
        default=[],
        metavar="NAME",
        names_of="security-groups",
        help="firewall of its NIC; may be given several times",
    )
    parser.add_argument(
        "--cluster",
        default="",
        metavar="NAME",
        names_of="clusters",
        help="among whose hosts it runs (default: that of --host, else the first)",
    )
    parser.add_argument(
        "--host",
        default="",
        metavar="NAME",
        names_of="hosts",
        help="where it starts (default: the best one)",
    )
    parser.add_argument(
        "--rule",
        action="append",
        default=[],
        metavar="NAME",
        names_of="placement-rules",
        help="placement rule that it is put into, by which its host is chosen, too; may be given several times",
    )


def _add_guest(parser: Parser) -> None:
    parser.add_argument(
        "--ssh-key",
        action="append",
        default=[],
        metavar="FILE",
        help="public keys that may log in, by cloud-init; may be given several times",
    )
    parser.add_argument(
        "--user-data", default="", metavar="FILE", help="a whole #cloud-config file; - reads stdin"
    )
    parser.add_argument(
        "--hostname", default="", metavar="NAME", help="the guest's (default: its name)"
    )
