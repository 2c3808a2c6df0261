"""Options that say in which order VMs are started when many are: after a host, or all power, was lost."""

from __future__ import annotations

from argparse import Namespace

from msgspec import UNSET, UnsetType

from tools.cli.parser import Parser
from tools.cli.units import duration_s


def add_order(parser: Parser) -> None:
    """Add `--priority`, `--start-after` and `--start-delay`."""
    parser.add_argument(
        "--priority",
        choices=("high", "medium", "low"),
        help="which VMs come first when many are started, or room is short (default: medium)",
    )
    parser.add_argument(
        "--start-after",
        action="append",
        metavar="VM",
        help="when many are started, start it after this VM; may be repeated",
    )
    parser.add_argument(
        "--start-delay",
        type=_delay_s,
        metavar="TIME",
        help="and so long after the last of them came up, e.g. 30s (default: 0)",
    )


def awaited(args: Namespace) -> tuple[str, ...] | UnsetType:
    """Return the VMs that were given to be waited for."""
    return tuple(args.start_after) if args.start_after else UNSET


def delay_s(args: Namespace) -> int | UnsetType:
    """Return the seconds that were given."""
    return UNSET if args.start_delay is None else args.start_delay


def _delay_s(text: str) -> int:
    return 0 if text.strip() in ("0", "0s") else duration_s(text)
