"""`python -m tools.sdk.generate [DOCUMENT]` writes the modules of `tools.sdk.generated`; without a name it reads stdin."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tools.sdk.generate.modules import TARGET, modules_of


def main(argv: list[str]) -> int:
    """Read the document, write the modules, name those that changed."""
    document = Path(argv[0]).read_bytes() if argv else sys.stdin.buffer.read()
    for name, text in asyncio.run(modules_of(document)).items():
        path = TARGET / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"written: {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
