"""The result of a bench run: what was measured, what was wanted, a table for people and JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

AGENT = "agent"
RSS_MIB_MAX = 120.0
CPU_PERCENT_MAX = 2.0


class ProcessCost(msgspec.Struct, frozen=True, kw_only=True):
    """One idle process: memory now, and the share of one core over the window."""

    host: str
    service: str
    rss_mib: float
    pss_mib: float
    cpu_percent: float
    threads: int

    @property
    def verdict(self) -> str:
        """`ok` or what is over its target; only agents have targets."""
        if self.service != AGENT:
            return ""
        over = [
            name
            for name, value, most in (
                ("RSS", self.rss_mib, RSS_MIB_MAX),
                ("CPU", self.cpu_percent, CPU_PERCENT_MAX),
            )
            if value > most
        ]
        return f"over: {', '.join(over)}" if over else "ok"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`build/bench.json`. `load_average` tells how quiet the machine was: a busy one makes everything dearer."""

    ok: bool
    settle_seconds: float
    window_seconds: float
    load_average: float
    targets: dict[str, float]
    processes: tuple[ProcessCost, ...]
    vm_create_seconds: float
    vm_delete_seconds: float
    commits_per_second: float


def is_within_targets(costs: Sequence[ProcessCost]) -> bool:
    """Tell whether every agent was measured and is within its targets."""
    agents = [cost for cost in costs if cost.service == AGENT]
    return bool(agents) and all(cost.verdict == "ok" for cost in agents)


def table(report: Report) -> str:
    """Return the report for people."""
    titles = ("HOST", "PROCESS", "RSS MiB", "PSS MiB", "CPU %", "THREADS", "TARGET")
    rows = [titles] + [
        (
            cost.host,
            cost.service,
            f"{cost.rss_mib:.1f}",
            f"{cost.pss_mib:.1f}",
            f"{cost.cpu_percent:.2f}",
            str(cost.threads),
            cost.verdict,
        )
        for cost in report.processes
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
    lines = [
        "  ".join(
            cell.ljust(width) if column in (0, 1, 6) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines += [
        "",
        f"idle over {report.window_seconds:.0f} s; agent's targets: RSS <= {RSS_MIB_MAX:.0f} MiB, "
        f"CPU <= {CPU_PERCENT_MAX:g} % of a core; load of the machine: {report.load_average:.1f}",
        f"kvorum vm create of a tiny VM: {report.vm_create_seconds:.1f} s, "
        f"delete: {report.vm_delete_seconds:.1f} s",
        f"commits through one agent, 16 at a time: {report.commits_per_second:.0f} a second",
    ]
    return "\n".join(lines)
