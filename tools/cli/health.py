"""`kvorum health`: whether the cluster can take a failure right now, what is wrong and what to do, and each host."""

from __future__ import annotations

from argparse import Namespace

from tools.cli.context import Context
from tools.cli.output import Column, printable, text, write_rows, write_value
from tools.cli.parser import Parser, Root, finish
from tools.cli.units import shown_duration
from tools.sdk.items import Item

EXIT_CODES = {"ok": 0, "degraded": 1}
FAILING = 2

NOTE = """\
The first line is the verdict. Then come the findings, the worst first, each with what to do (docs/health.md),
then each host as it sees itself. Works without quorum: what the agent that is asked can't reach is a finding.

Exit codes: 0 ok, 1 degraded (it works, but a failure may not be taken), 2 failing (changes or VMs don't go on).
With these the verdict is on stdout. A command that was refused (1) or is wrong (2) says so on stderr and prints
no verdict; 3 as ever: no agent answers."""


async def health(args: Namespace, ctx: Context) -> int:
    """Show the cluster's health; the exit code is the verdict."""
    del args
    found = await ctx.client.health()
    code = EXIT_CODES.get(found.text("verdict"), FAILING)
    if ctx.output != "table":
        write_value(ctx, dict(found.raw))
        return code
    ctx.write(printable(found.text("line", found.text("verdict", "?"))))
    if findings := found.items("findings"):
        ctx.write("")
    for finding in findings:
        _write_finding(ctx, finding)
    ctx.write("")
    write_rows(ctx, [(title, printable(value)) for title, value in _summary(found)])
    if hosts := found.items("hosts"):
        ctx.write("")
        rows = [tuple(printable(column.value(host)) for column in COLUMNS) for host in hosts]
        write_rows(ctx, [tuple(column.title for column in COLUMNS), *rows])
    return code


def _write_finding(ctx: Context, finding: Item) -> None:
    host = finding.text("host_name")
    where = f"{host}: " if host else ""
    level = finding.text("severity").upper().ljust(8)
    ctx.write(printable(f"{level}  {where}{finding.text('what')} [{finding.text('code')}]"))
    ctx.write(printable(f"          do: {finding.text('advice')}"))


def _summary(found: Item) -> list[tuple[str, str]]:
    left = found.integer("losses_survived")
    rows = [
        ("asked", found.text("host_name", "-")),
        ("quorum", "yes" if found.flag("quorum") else "no"),
        ("leader", found.text("leader_name", "none")),
        *([("VIP", _vip(found))] if found.text("vip") else []),
        ("voters up", f"{found.integer('voters_up')} of {found.integer('voters')}"),
        ("more may fail", f"{left} before writes stop" if left else "none"),
        ("VMs blocked", str(found.integer("vms_blocked"))),
    ]
    for title, key in (("maintenance", "hosts_in_maintenance"), ("fenced", "hosts_fenced")):
        if names := found.texts(key):
            rows.append((title, ", ".join(names)))
    return rows


def _vip(found: Item) -> str:
    return f"{found.text('vip')} ({found.text('vip_holder_name') or 'held by nobody'})"


def _role(item: Item) -> str:
    return item.text("role", "-") + (" (leader)" if item.flag("leader") else "")


def _state(item: Item) -> str:
    state = item.text("state", "-")
    return f"{state}, maintenance" if item.flag("maintenance") else state


def _lease(item: Item) -> str:
    age_s = item.number("lease_age_s")
    if age_s is None:
        return "never"
    shown = f"{age_s:.1f}s" if age_s < 60 else shown_duration(age_s)
    return shown if item.flag("lease_fresh") else f"{shown} OLD"


def _yes(title: str, key: str, yes: str, no: str) -> Column:
    """Return a column of a flag that may be null: nobody could tell."""

    def value(item: Item) -> str:
        said = item.raw.get(key)
        return "-" if said is None else yes if said is True else no

    return Column(title, value)


def _watchdog(item: Item) -> str:
    kind = item.text("watchdog")
    if not kind:
        return "-"
    return f"{kind}, armed" if item.flag("watchdog_armed") else f"{kind}, NOT ARMED"


def _storages(item: Item) -> str:
    storages = item.items("storages")
    bad = [it.text("name") for it in storages if not it.flag("usable")]
    return f"NOT {', '.join(bad)}" if bad else f"{len(storages)} ok" if storages else "-"


def _peers(item: Item) -> str:
    peers = item.items("peers")
    missed = [it.text("host_name") for it in peers if it.number("round_trip_ms") is None]
    if missed:
        return f"NOT {', '.join(missed)}"
    times = [it.number("round_trip_ms") or 0.0 for it in peers]
    return f"{len(peers)} ok, {max(times):.1f} ms" if peers else "-"


def _clock(item: Item) -> str:
    offset_ms = item.number("clock_offset_ms")
    if offset_ms is None:
        return "-"
    return f"{offset_ms:+.0f} ms" if abs(offset_ms) < 1000 else f"{offset_ms / 1000:+.1f} s"


COLUMNS = (
    text("HOST", "name"),
    Column("ROLE", _role),
    Column("STATE", _state),
    _yes("AGENT", "answers", "ok", "SILENT"),
    text("GOSSIP", "gossip"),
    Column("LEASE", _lease),
    _yes("GUARD", "guard_answers", "ok", "SILENT"),
    Column("WATCHDOG", _watchdog),
    _yes("LIBVIRT", "libvirt_answers", "ok", "SILENT"),
    text("LAG", "lag"),
    Column("STORAGES", _storages),
    _yes("SECRETS", "secrets_open", "open", "LOCKED"),
    Column("CLOCK", _clock),
    Column("PEERS", _peers),
)


def _add(root: Root, parser: Parser) -> None:
    del root
    finish(parser, health, example="kvorum health\nkvorum health -o json", note=NOTE)


ADD = {"health": _add}
