"""Run a tool on an untrusted file where it can reach nothing else.

Called by `storage.image_import` for `qemu-img`, whose parsers of a dozen formats are large and written in C. The
tool runs as an unprivileged user without any capability, in mount, network, process and IPC namespaces of its
own (bubblewrap), where only /usr, the one source file (read-only) and one empty output directory exist, with
limits on memory, processor time and file size. There is no fallback: without the sandbox nothing is converted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core import command
from core.errors import PermanentError

SANDBOX_UID = SANDBOX_GID = 65534  # nobody: owns no file
BWRAP = "/usr/bin/bwrap"
SOURCE_INSIDE = "/source"
OUTPUT_INSIDE = "/out"
# What set-up programs write when they fail themselves, in contrast to the tool inside.
_SETUP_FAILED = re.compile(r"^(bwrap|/?(?:usr/bin/)?(?:setpriv|prlimit|nice)): ", re.MULTILINE)
NO_SUCH_PROGRAM = 127


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What a tool may use. Memory is address space; `output_bytes` is the size of any file it writes."""

    output_bytes: int
    memory_bytes: int = 2 << 30
    cpu_s: int = 3600
    timeout_s: float = 3600.0


def sandbox_argv(
    tool: Sequence[str], *, source: Path, output: Path | None, limits: SandboxLimits
) -> list[str]:
    """Return the command line that runs `tool` with `source` as /source and `output` as /out. Pure."""
    confine = [
        *(
            BWRAP,
            "--die-with-parent",
            "--new-session",
            "--clearenv",
            "--setenv",
            "LC_ALL",
            "C.UTF-8",
        ),
        *(
            "--unshare-ipc",
            "--unshare-pid",
            "--unshare-net",
            "--unshare-uts",
            "--unshare-cgroup-try",
        ),
        *("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"),
        *("--cap-add", "CAP_SETPCAP", "--chdir", "/", "--dev", "/dev", "--ro-bind", "/usr", "/usr"),
        *("--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
        *("--symlink", "usr/lib64", "/lib64"),
    ]
    become_nobody = [
        *("/usr/bin/setpriv", f"--reuid={SANDBOX_UID}", f"--regid={SANDBOX_GID}", "--clear-groups"),
        *("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"),
    ]
    restrict = [
        *("/usr/bin/nice", "-n", "10", "/usr/bin/prlimit"),
        *(f"--as={limits.memory_bytes}", f"--cpu={limits.cpu_s}", f"--fsize={limits.output_bytes}"),
        *("--core=0", "--nofile=64", "--"),
    ]
    places = ["--ro-bind", str(source), SOURCE_INSIDE]
    if output is not None:
        places += ["--bind", str(output), OUTPUT_INSIDE]
    return [*confine, *places, "--", *become_nobody, *restrict, *tool]


async def run_confined(
    tool: Sequence[str], *, source: Path, output: Path | None, limits: SandboxLimits
) -> command.CommandResult:
    """Run `tool` (absolute path first) to its end in the sandbox.

    `source` must be readable by anyone who reaches it, and `output` owned by `SANDBOX_UID`.

    Raises:
        PermanentError: the sandbox cannot be made on this host.
        CommandError: the tool failed; 128 + signal when it was killed, e.g. for a limit.
        CommandTimeoutError: the tool was killed after `limits.timeout_s`.
    """
    if os.geteuid() != 0:
        raise PermanentError(
            "images are converted in a sandbox that only root can make: run the agent as root"
        )
    argv = sandbox_argv(tool, source=source, output=output, limits=limits)
    try:
        return await command.run(argv, timeout_s=limits.timeout_s)
    except command.CommandError as error:
        if error.code_number == NO_SUCH_PROGRAM or _SETUP_FAILED.search(error.stderr_tail):
            raise PermanentError(
                "the sandbox for images cannot be made: install bubblewrap and util-linux on this host "
                f"({one_line(error.stderr_tail)})"
            ) from error
        raise


def one_line(text: str, limit: int = 200) -> str:
    """Return the last line of a tool's message, printable and short: it may quote an attacker's file."""
    lines = [line for line in text.splitlines() if line.strip()] or ["no message"]
    return "".join(c if c.isprintable() else "?" for c in lines[-1])[-limit:]
