"""What the commands share that work on a host whose agent is stopped: its files, the lock, confirmation by name.

Used by `kvorum recover` and `kvorum state restore`.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import InvalidError
from core.paths import Paths
from raftstate.rescue.lock import only_process
from tools.cli.context import Context
from tools.cli.output import printable
from tools.cli.parser import Parser, UsageError

STATE_DIRECTORY = Path("/var/lib/kvorum")
AGENT_RUNS = "the agent of this host runs: stop it first ('systemctl stop kvorum-agent')"


def add_state_directory(parser: Parser) -> None:
    """Add the option that names the state directory; another than the host's own is for looking at copies."""
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=STATE_DIRECTORY,
        metavar="DIR",
        help="where the state lies (default: /var/lib/kvorum)",
    )


def add_confirm(parser: Parser, what: str) -> None:
    """Add the option that stands for typing a name."""
    parser.add_argument(
        "--confirm", default="", metavar="NAME", help=f"{what}, instead of typing it when asked"
    )


def was_kept(kept: Path | None) -> str:
    """Return where the old files are, as the end of a sentence; empty if there were none."""
    return f". What was here before is in {kept}" if kept is not None else ""


@contextmanager
def stopped_host(args: Namespace) -> Iterator[Paths]:
    """Give the files of a host for the block, and keep its agent from starting.

    Raises:
        ConflictError: the agent runs.
        InvalidError: there is no such directory.
    """
    paths = Paths(state=args.state_dir)
    if not paths.state.is_dir():
        raise InvalidError(f"there is no directory {paths.state}")
    with only_process(paths.lock, AGENT_RUNS):
        yield paths


async def confirm_name(args: Namespace, ctx: Context, what: str, name: str) -> None:
    """Go on only if a person types a name, or has given it with `--confirm`.

    Raises:
        UsageError: not that name.
    """
    given = args.confirm
    if not given and ctx.interactive:
        given = await ctx.ask(f"Type {what} to go on: ")
    if given != name:
        raise UsageError(f"nothing was changed: confirm with --confirm {printable(name)}")
