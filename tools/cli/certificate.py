"""`kvorum certificate`: the certificate that callers of the HTTPS API see."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from core.errors import InvalidError
from tools.cli.context import Context
from tools.cli.output import Column, moment, printable, text, texts, write_done, write_list
from tools.cli.parser import Parser, Root, add_yes
from tools.cli.passphrase import add_passphrase_file
from tools.sdk.bodies import CertificateBody
from tools.sdk.items import Item

FILE_BYTES_MAX = 512 << 10
ALL_HOSTS = "all"

COLUMNS = (
    text("NAME", "name"),
    text("KIND", "kind"),
    texts("FOR", "names"),
    text("ISSUER", "issuer"),
    moment("EXPIRES", "not_after_ms"),
    Column("SHA-256", lambda item: item.text("sha256")[:16]),
)


async def import_(args: Namespace, ctx: Context) -> int:
    """Send a file with its passphrase; warnings go to stderr."""
    content = _read(args.file)
    body = CertificateBody(
        content=content, passphrase=await _passphrase(args, ctx, content), host=args.host
    )
    made = await ctx.client.create("certificates", body)
    scope = f"host {args.host}" if args.host else "all hosts"
    write_done(ctx, made, f"{scope}: {', '.join(made.texts('names')) or made.text('subject')}")
    for warning in made.texts("warnings"):
        ctx.say(f"warning: {printable(warning)}")
    return 0


async def show(args: Namespace, ctx: Context) -> int:
    """Print all certificates."""
    del args
    page = await ctx.client.list("certificates")
    write_list(ctx, page.items, COLUMNS, "no certificates")
    if ctx.output == "table":
        for item in page.items:
            for warning in item.texts("warnings"):
                ctx.say(
                    f"warning: certificate {printable(item.text('name'))}: {printable(warning)}"
                )
    return 0


async def reset(args: Namespace, ctx: Context) -> int:
    """Go back to the cluster's certificate."""
    scope = f"host {args.host}" if args.host else "all hosts"
    await ctx.confirm(
        f"The imported certificate of {scope} and its key will be deleted; clients will see another.",
        yes=args.yes,
    )
    await ctx.client.delete("certificates", args.host or ALL_HOSTS)
    write_done(
        ctx, Item({"name": args.host or ALL_HOSTS}), f"{scope}: imported certificate deleted"
    )
    return 0


def _read(file: Path) -> bytes:
    try:
        with file.expanduser().open("rb") as stream:
            content = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidError(f"can't read {file}: {error.strerror}") from None
    if len(content) > FILE_BYTES_MAX:
        raise InvalidError(
            f"{file} is larger than {FILE_BYTES_MAX >> 10} KiB: is it a certificate?"
        )
    return content


async def _passphrase(args: Namespace, ctx: Context, content: bytes) -> str:
    """Return the container's passphrase: from a file, from a pipe, or typed; empty for a plain PEM."""
    file: Path | None = args.passphrase_file
    if file is not None:
        try:
            return file.expanduser().read_text(encoding="utf-8").partition("\n")[0]
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidError(f"can't read {file}: {error}") from None
    if b"-----BEGIN " in content and b"ENCRYPTED" not in content:
        return ""
    if ctx.interactive:
        return await ctx.ask_secret("Passphrase of the certificate file: ")
    return ctx.stdin.readline().rstrip("\r\n")


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("certificate")
    imported = verbs.add(
        "import",
        import_,
        "serve the HTTPS API with a certificate of your own",
        example="kvorum certificate import kvorum.p12\n"
        "kvorum certificate import h1.pem --host h1\n"
        "pass show kvorum | kvorum certificate import kvorum.jks",
        note="PEM (certificates and key in one file), PKCS#12 or JKS. New connections get it at once, on all\n"
        "hosts; open ones go on. The passphrase is asked for, or read as the first line of stdin.",
    )
    imported.add_argument("file", metavar="FILE", type=Path, help="certificate, issuers and key")
    _add_host(imported)
    add_passphrase_file(imported)
    verbs.add("show", show, "show imported certificates, this host's and the authority's")
    removed = verbs.add("reset", reset, "go back to the certificate of the cluster's authority")
    _add_host(removed)
    add_yes(removed)


def _add_host(parser: Parser) -> None:
    parser.add_argument(
        "--host", default="", metavar="NAME", names_of="hosts", help="this host only (default: all)"
    )


ADD = {"certificate": _add}
