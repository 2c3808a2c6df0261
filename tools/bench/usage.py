"""What a process uses, as the kernel counts it. Read twice around a window by `tools.bench.idle`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import NotFoundError

PROC = Path("/proc")
KIB_PER_MIB = 1024
# Fields of /proc/PID/stat after the name: own user and system time, and that of ended children that were waited for.
TIME_FIELDS = slice(11, 15)


@dataclass(frozen=True, slots=True)
class Usage:
    """One reading. `cpu_ticks` counts the process, its threads and its ended children since it began.

    `pss_mib` shares memory that several processes map among them, so the sum over processes is true.
    """

    cpu_ticks: int
    rss_mib: float
    pss_mib: float
    threads: int


def read_usage(pid: int, *, proc: Path = PROC) -> Usage:
    """Return what a process uses now.

    Raises:
        NotFoundError: it is gone.
    """
    directory = proc / str(pid)
    try:
        status = (directory / "status").read_text(errors="replace")
        rollup = (directory / "smaps_rollup").read_text(errors="replace")
        # The name is in brackets and may itself hold spaces and brackets.
        fields = (directory / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        raise NotFoundError(f"process {pid} is gone: it ended while it was measured") from None
    return Usage(
        cpu_ticks=sum(int(field) for field in fields[TIME_FIELDS]),
        rss_mib=_number(status, "VmRSS") / KIB_PER_MIB,
        pss_mib=_number(rollup, "Pss") / KIB_PER_MIB,
        threads=_number(status, "Threads"),
    )


class Spent:
    """Counts the processor time that some processes spend from now on."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = tuple(pids)
        self._before = self._ticks()

    def us(self) -> float:
        """Return it in microseconds."""
        return 1e6 * (self._ticks() - self._before) / os.sysconf("SC_CLK_TCK")

    def _ticks(self) -> int:
        return sum(read_usage(pid).cpu_ticks for pid in self._pids)


def cpu_percent(before: Usage, after: Usage, seconds: float) -> float:
    """Return the share of one core used between two readings `seconds` apart."""
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    return 100 * (after.cpu_ticks - before.cpu_ticks) / ticks_per_s / seconds


def _number(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    return 0
