"""Runs the `kvorum` command in this process with streams of its own; used by the CLI's tests and stories."""

import io
import shlex
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

from tools.cli.main import run


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


class Terminal(io.StringIO):
    """Text streams that say they are a terminal."""

    def isatty(self):
        return True


def kvorum(command, address="unix:/nowhere/api.sock", *, stdin="", terminal=False, environ=None):
    """Run `command`, a line or a list of words, and return what came of it."""
    words = shlex.split(command) if isinstance(command, str) else command
    stream = Terminal if terminal else io.StringIO
    streams = (stream(stdin), stream(), stream())
    with redirect_stdout(streams[1]), redirect_stderr(streams[2]):
        code = run(words, {"KVORUM_ADDRESS": address, **(environ or {})}, *streams)
    return Outcome(code, streams[1].getvalue(), streams[2].getvalue())


def play(story, address):
    """Return a story with the outputs that its commands have now.

    Lines `$ kvorum ...` are commands (`$ kvorum ... < text` gives stdin), lines of `#` are kept, all else is
    output: stderr marked with `! `, exit codes other than 0 in brackets.
    """
    lines = []
    for line in story.splitlines():
        if line.startswith("#") or (not line and lines and lines[-1].startswith("#")):
            lines.append(line)
        elif line.startswith("$ kvorum"):
            command, _, stdin = line.removeprefix("$ kvorum").partition(" < ")
            done = kvorum(command, address, stdin=stdin)
            lines += [line, *(text.rstrip() for text in done.out.splitlines())]
            lines += [f"! {text}".rstrip() for text in done.err.splitlines()]
            lines += [f"[exit {done.code}]"] if done.code else []
    return "\n".join(lines) + "\n"
