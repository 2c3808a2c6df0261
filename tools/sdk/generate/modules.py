"""The whole of what is generated: the document in, the text of each module out, as the formatter leaves it.

Called by the command line and by the test that holds the committed modules to the description.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from core.command import run
from tools.sdk.generate.calls import groups_of
from tools.sdk.generate.clients import async_text, blocking_text
from tools.sdk.generate.document import document_of
from tools.sdk.generate.models import models_text
from tools.sdk.generate.shapes import Shapes

TARGET = Path(__file__).parents[1] / "generated"
FORMAT_TIMEOUT_S = 60.0


async def modules_of(document: bytes) -> dict[str, str]:
    """Return the modules by file name."""
    return {name: await _tidied(name, text) for name, text in raw_modules_of(document).items()}


def raw_modules_of(document: bytes) -> dict[str, str]:
    """Return the modules as they are before the formatter; good for Python, not for eyes."""
    shapes = Shapes(document_of(msgspec.json.decode(document)))
    groups = groups_of(shapes)
    texts = {"operations.py": async_text(groups), "blocking.py": blocking_text(groups)}
    return {"models.py": models_text(shapes), **texts}


async def _tidied(name: str, text: str) -> str:
    """Return a module without imports that it doesn't need, formatted."""
    for step in (["check", "--select", "F401,I", "--fix", "--quiet"], ["format"]):
        # By its place the formatter knows the rules of this project, wherever it is run.
        argv = [sys.executable, "-m", "ruff", *step, "--stdin-filename", str(TARGET / name), "-"]
        done = await run(argv, timeout_s=FORMAT_TIMEOUT_S, input=text.encode())
        text = done.stdout.decode()
    return text
