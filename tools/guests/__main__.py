"""`python -m tools.guests tiny|full [--print-path]`: build a guest image, or find it in the cache."""

from __future__ import annotations

import argparse
import asyncio
import sys

from core.errors import PlatformError
from tools.guests.build import RECIPES, guest_image


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Build and print the path. Exit codes: 0 ok, 1 could not be built, 2 usage."""
    parser = argparse.ArgumentParser(prog="python -m tools.guests", description=__doc__)
    parser.add_argument("kind", choices=sorted(RECIPES))
    parser.add_argument("--print-path", action="store_true", help="print the path and nothing else")
    args = parser.parse_args()
    try:
        path = asyncio.run(guest_image(args.kind, say=_tell))
    except PlatformError as error:
        _tell(f"python -m tools.guests: {error.message}")
        return 1
    print(path if args.print_path else f"{args.kind} guest image: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
