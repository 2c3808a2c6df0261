"""What an operator types: `kvorum` commands on a lab host, their answers as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from tools.lab.lab import Lab

COMMAND_TIMEOUT_S = 300.0


class Operator:
    """Someone at the keyboard of a host."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.typed: list[str] = []

    async def types(self, host: str, *words: str) -> str:
        """Run `kvorum WORDS` on a host and return what it printed.

        Raises:
            CommandError: it failed; the message is the command's own.
        """
        self.typed.append(" ".join(("kvorum", *words)))
        return await self._lab.text(host, "kvorum", *words, timeout_s=COMMAND_TIMEOUT_S)

    async def asks(self, host: str, *words: str) -> Any:
        """Run `kvorum WORDS -o json` and return the decoded answer."""
        text = await self._lab.text(
            host, "kvorum", *words, "-o", "json", timeout_s=COMMAND_TIMEOUT_S
        )
        return msgspec.json.decode(text)
