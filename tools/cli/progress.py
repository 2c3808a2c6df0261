"""How far long work is: a bar on a terminal, lines elsewhere, nothing when quiet. Always on stderr.

Used by the commands that wait for tasks or move large files.
"""

from __future__ import annotations

from tools.cli.context import Context
from tools.cli.output import printable

BAR_WIDTH = 24
LINE_EVERY_PERCENT = 10


class Progress:
    """One piece of work, e.g. `uploading debian`. Use as a context manager, so that the bar goes away."""

    def __init__(self, ctx: Context, title: str, *, minor: bool = False) -> None:
        """Show the progress of `title`; `minor` work is worth a bar, but no lines."""
        self._ctx = ctx
        self._minor = minor
        self._title = printable(title)
        self._terminal = ctx.err.isatty()
        self._shown: tuple[int, str] | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal and self._shown is not None:
            self._ctx.err.write("\r\x1b[K")
            self._ctx.err.flush()

    def show(self, percent: int, step: str = "") -> None:
        """Show 0..100 and what is being done; calls that change nothing cost nothing."""
        if not self._terminal:
            percent -= percent % LINE_EVERY_PERCENT
        now = (percent, printable(step))
        if self._ctx.quiet or now == self._shown:
            return
        self._shown = now
        if self._terminal:
            filled = BAR_WIDTH * percent // 100
            bar = "#" * filled + "-" * (BAR_WIDTH - filled)
            self._ctx.err.write(f"\r\x1b[K{self._title} [{bar}] {percent:3d}% {now[1]}".rstrip())
            self._ctx.err.flush()
        elif not self._minor:
            self._ctx.say(f"{self._title}: {percent}% {now[1]}".rstrip())

    def show_bytes(self, done_bytes: int, size_bytes: int) -> None:
        """Show a part of a file."""
        self.show(100 * done_bytes // max(1, size_bytes))
