"""The passphrase that locks the secrets key in a backup: typed, or the first line of a file."""

from __future__ import annotations

from pathlib import Path

from core.errors import InvalidError
from tools.cli.context import Context
from tools.cli.parser import Parser, UsageError


def add_passphrase_file(parser: Parser) -> None:
    """Add the option."""
    parser.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="take the passphrase from the first line of a file instead of asking",
    )


async def passphrase(file: Path | None, ctx: Context, *, twice: bool) -> str:
    """Return it.

    Raises:
        InvalidError: the file can't be read.
        UsageError: there is nobody to ask, or what was typed differs.
    """
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").partition("\n")[0]
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidError(f"can't read {file}: {error}") from None
    if not ctx.interactive:
        raise UsageError("there is nobody to ask for the passphrase: use --passphrase-file FILE")
    typed = await ctx.ask_secret("Passphrase of the backup: ")
    if twice and await ctx.ask_secret("Once more: ") != typed:
        raise UsageError("the two were not equal: nothing was written")
    return typed
