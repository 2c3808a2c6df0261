"""The entry point of the `kvorum` command; the only place of it that reads the environment.

Parses, finds the cluster, runs the verb, and turns every error into one line and an exit code:
0 done, 1 refused or failed, 2 wrong usage, 3 cluster unavailable, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from core.errors import InvalidError, PlatformError, UnavailableError
from tools.cli.parser import Root, UsageError

if TYPE_CHECKING:
    from tools.cli.context import Context

DONE, REFUSED, USAGE, UNAVAILABLE, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 3, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with this process's arguments, environment and streams; return the exit code."""
    streams = (sys.stdin, sys.stdout, sys.stderr)
    try:
        code = run(sys.argv[1:] if argv is None else argv, os.environ, *streams)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, e.g. head, has enough. Python must not write its buffer to the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def run(
    argv: Sequence[str],
    environ: Mapping[str, str],
    stdin: TextIO,
    stdout: TextIO,
    stderr: TextIO,
) -> int:
    """Run one command; errors are told on `stderr` in one line each."""
    try:
        args = _parse(argv, stdout, stderr)
        if isinstance(args, int):
            return args
        return _execute(args, environ, stdin, stdout, stderr)
    except UsageError as error:
        return _fail(stderr, str(error), USAGE)
    except UnavailableError as error:
        return _fail(stderr, error.message, UNAVAILABLE)
    except PlatformError as error:
        return _fail(stderr, error.message, REFUSED)


def _fail(stderr: TextIO, message: str, code: int) -> int:
    line = "".join(sign if sign.isprintable() else " " for sign in message)
    stderr.write(f"kvorum: {line}\n")
    return code


def _parse(argv: Sequence[str], stdout: TextIO, stderr: TextIO) -> Namespace | int:
    """Return the arguments, or an exit code when nothing is left to do."""
    root = Root()
    if not argv:
        root.parser.print_help(stdout)
        return DONE
    try:
        args = root.parse(argv)
    except SystemExit:  # argparse has printed a help text
        return DONE
    if args.version:
        stdout.write(f"kvorum {_version()}\n")
        return DONE
    if args.noun is None:
        raise UsageError("no command (see kvorum --help)")
    if not hasattr(args, "run"):
        words = " ".join(word for word in (args.noun, getattr(args, "verb", None)) if word)
        raise UsageError(f"{words} needs a verb (see kvorum {words} --help)")
    if args.noun == "completion" and args.shell != "names":
        from tools.cli.completion import script

        stdout.write(script(args.shell))
        return DONE
    return args


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("kvorum")
    except PackageNotFoundError:
        return "unknown"


def _execute(
    args: Namespace, environ: Mapping[str, str], stdin: TextIO, stdout: TextIO, stderr: TextIO
) -> int:
    import asyncio

    from tools.cli.context import Context
    from tools.sdk.connecting import client_of
    from tools.sdk.settings import SESSION_FILE, home_of, settings_from

    anonymous = args.noun == "login"
    try:
        settings = settings_from(environ, needs_token=not anonymous)
    except InvalidError as error:
        raise UsageError(error.message) from None
    told: list[str] = []

    def on_retry(error: PlatformError) -> None:
        if stderr.isatty() and not args.quiet and not told:
            told.append(error.message)
            stderr.write(f"kvorum: {error.message}; trying again\n")

    async def command() -> int:
        async with client_of(settings, anonymous=anonymous, on_retry=on_retry) as client:
            ctx: Context = Context(
                client=client,
                out=stdout,
                err=stderr,
                stdin=stdin,
                output=args.output,
                quiet=args.quiet,
                session_file=home_of(environ) / SESSION_FILE if settings.remote else None,
            )
            code: int = await args.run(args, ctx)
            return code

    return asyncio.run(command())


if __name__ == "__main__":
    sys.exit(main())
