"""`kvorum-lab`: the lab as a command, for people, drills and shell scripts.

It keeps nothing in memory: every command finds the lab by its name, so it may be killed at any time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn

from core.errors import PlatformError
from tools.lab import cleanup
from tools.lab.boards import CIPHER_SUITE, PASSWORD, USER
from tools.lab.cluster import form_cluster, give_boards
from tools.lab.hollow_qemu import HOLLOW_MIB
from tools.lab.lab import Lab
from tools.lab.layout import VENV_BIN

USAGE = """\
The lab {lab!r} stands: {hosts}. What you can do:
  {command} status                    what is on, and why
  {command} exec h1 -- COMMAND…       run something on a host (or `wire`: outside, on their network)
  {command} power-off h2              cut its power; also power-on, shutdown, reset
  {command} cut h2                    pull its cable; also freeze, thaw, heal, one-way, partial
  {command} kill h2 agent             kill a service; also guard, serf, libvirtd
  {command} logs h1 agent             read what a service wrote
  {command} down                      remove every trace
"""
CLUSTER_USAGE = """\
They are one cluster, and each host has a management board (BMC):
  {command} exec h1 -- kvorum status
  {command} exec h1 -- kvorum drill run power-off h2 --dry-run   rehearse a failure: docs/drills.md
  {command} exec h1 -- curl --unix-socket /run/kvorum/api.sock http://localhost/v1/hosts
"""


def _say(text: str) -> None:
    print(text, flush=True)


async def _up(args: argparse.Namespace) -> int:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    lab = await Lab.up(args.lab, args.hosts, hollow=args.hollow)
    command = (
        "kvorum-lab" if shutil.which("kvorum-lab") else os.path.relpath(VENV_BIN / "kvorum-lab")
    )
    if args.lab != "lab":
        command += f" --lab {args.lab}"
    if args.cluster:
        await form_cluster(lab, say=_say)
        await give_boards(lab, say=_say)
    _say(f"{args.hosts} hosts are up after {loop.time() - began_s:.1f} s.")
    _say(USAGE.format(lab=args.lab, hosts=", ".join(lab.hosts), command=command).rstrip())
    if args.cluster:
        _say(CLUSTER_USAGE.format(command=command).rstrip())
    return 0


async def _down(args: argparse.Namespace) -> int:
    names = cleanup.known_labs() if args.all else (args.lab,)
    for name in names:
        found = await cleanup.remove(name)
        _say(f"lab {name!r} is gone" if found else f"there is no lab {name!r}")
    return 0


async def _status(args: argparse.Namespace) -> int:
    lab = Lab.attach(args.lab)
    for host in lab.hosts:
        state = await lab.status(host)
        guests = len(lab.qemus(host))
        dog = state.watchdog
        watchdog = f"watchdog {dog.timeout_s:g} s" if dog.armed else "watchdog off"
        _say(
            f"{host}  {lab.address(host):<11} {state.power:<3}  {guests} guests  {watchdog}  {state.why}"
        )
        if state.power == "on":
            pids = {
                service.name: lab.service_pid(host, service.name)
                for service in lab.plan.services[host]
            }
            _say("    " + "  ".join(f"{name} {pid or 'down'}" for name, pid in pids.items()))
    return 0


def _exec(args: argparse.Namespace) -> NoReturn:
    lab = Lab.attach(args.lab)
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    cwd = (
        os.getcwd() if args.host != "wire" and lab.inside(args.host, os.getcwd()).is_dir() else "/"
    )
    argv = lab.enter(args.host, words or ["bash"], cwd=cwd)
    os.execvp(argv[0], argv)  # noqa: S606 - hands its terminal over; no shell


async def _power_off(args: argparse.Namespace) -> int:
    await Lab.attach(args.lab).power_off(*args.hosts)
    return 0


async def _power_on(args: argparse.Namespace) -> int:
    await Lab.attach(args.lab).power_on(*args.hosts)
    return 0


async def _shutdown(args: argparse.Namespace) -> int:
    for host in args.hosts:
        await Lab.attach(args.lab).shutdown(host)
    return 0


async def _reset(args: argparse.Namespace) -> int:
    lab = Lab.attach(args.lab)
    for host in args.hosts:
        await lab.boot_after_reset(host, True)
        await lab.reset(host)
    return 0


async def _bmc(args: argparse.Namespace) -> int:
    await Lab.attach(args.lab).bmc(args.host, args.mode, delay_s=args.delay)
    return 0


async def _boards(args: argparse.Namespace) -> int:
    for host, board in (await Lab.attach(args.lab).start_boards(*args.hosts)).items():
        print(
            f"{host}: kvorum bmc set {host} --address {board.address} --port {board.port} "
            f"--user {USER} --cipher-suite {CIPHER_SUITE}   (password: {PASSWORD})"
        )
    return 0


async def _cut(args: argparse.Namespace) -> int:
    await Lab.attach(args.lab).cut(*args.hosts)
    return 0


async def _heal(args: argparse.Namespace) -> int:
    await Lab.attach(args.lab).heal(*args.hosts)
    return 0


async def _partial(args: argparse.Namespace) -> int:
    await Lab.attach(args.lab).partial(args.first, args.second)
    return 0


async def _one_way(args: argparse.Namespace) -> int:
    await Lab.attach(args.lab).one_way(args.host, args.direction)
    return 0


async def _glass(args: argparse.Namespace) -> int:
    lab = Lab.attach(args.lab)
    if not lab.is_glazed(args.host):
        await lab.glaze(args.host)
    lab.shade(args.host, args.word)
    return 0


async def _freeze(args: argparse.Namespace) -> int:
    for host in args.hosts:
        await Lab.attach(args.lab).freeze(host)
    return 0


async def _thaw(args: argparse.Namespace) -> int:
    for host in args.hosts:
        Lab.attach(args.lab).thaw(host)
    return 0


async def _kill(args: argparse.Namespace) -> int:
    Lab.attach(args.lab).kill(args.host, args.service, signal.Signals[f"SIG{args.signal}"])
    return 0


async def _logs(args: argparse.Namespace) -> int:
    lab = Lab.attach(args.lab)
    names = [service.name for service in lab.plan.services[args.host]]
    for name in [args.service] if args.service else ["init", *names]:
        for line in lab.log_text(args.host, name).splitlines():
            _say(line if args.service else f"{name}: {line}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kvorum-lab", description="Many hosts on one machine.")
    parser.add_argument("--lab", default="lab", metavar="NAME", help="which lab (default: lab)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, act: Callable[[argparse.Namespace], Awaitable[int] | int], text: str
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(act=act)
        return made

    up = command("up", _up, "make a lab, after removing a leftover of the same name")
    up.add_argument("hosts", type=int, nargs="?", default=3)
    up.add_argument("--cluster", action="store_true", help="also make the hosts one cluster")
    up.add_argument(
        "--hollow",
        action="store_true",
        help=f"guests of {HOLLOW_MIB} MiB only look like guests and run nothing: for very many",
    )
    down = command("down", _down, "remove every trace of a lab")
    down.add_argument("--all", action="store_true", help="of every lab on this machine")
    command("status", _status, "what is on, and why")
    execute = command("exec", _exec, "run a command on a host, or on `wire` as an outsider")
    execute.add_argument("host")
    execute.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    several: tuple[tuple[str, Callable[[argparse.Namespace], Awaitable[int]], str], ...] = (
        ("power-off", _power_off, "cut the power of hosts"),
        ("power-on", _power_on, "boot hosts and wait for their services"),
        ("shutdown", _shutdown, "press the power button"),
        ("reset", _reset, "cut the power and boot again"),
        ("cut", _cut, "pull the network cables of hosts"),
        ("freeze", _freeze, "stop every process of hosts"),
        ("thaw", _thaw, "let frozen hosts go on"),
    )
    for name, act, text in several:
        command(name, act, text).add_argument("hosts", nargs="+", metavar="HOST")
    heal = command("heal", _heal, "take back the network faults of hosts, or of all")
    heal.add_argument("hosts", nargs="*", metavar="HOST")
    partial = command("partial", _partial, "make two hosts invisible to each other")
    partial.add_argument("first")
    partial.add_argument("second")
    one_way = command("one-way", _one_way, "lose all frames that a host receives or sends")
    one_way.add_argument("host")
    one_way.add_argument("direction", choices=("in", "out"))
    glass = command("glass", _glass, "have a host's shared storage fail, hang, or work again")
    glass.add_argument("host")
    glass.add_argument("word", choices=("clear", "dark", "stuck"), help="works, fails, hangs")
    kill = command("kill", _kill, "send a signal to a service of a host")
    kill.add_argument("host")
    kill.add_argument("service")
    kill.add_argument("--signal", default="KILL", choices=("KILL", "STOP", "CONT", "TERM"))
    bmc = command("bmc", _bmc, "choose how a host's management board behaves")
    bmc.add_argument("host")
    bmc.add_argument("mode", choices=("honest", "slow", "dead", "lying"))
    bmc.add_argument("--delay", type=float, default=5.0, metavar="SECONDS", help="for slow")
    boards = command("boards", _boards, "give hosts, or all, management boards that speak IPMI")
    boards.add_argument("hosts", nargs="*", metavar="HOST")
    logs = command("logs", _logs, "read what services of a host wrote")
    logs.add_argument("host")
    logs.add_argument("service", nargs="?")
    return parser


def main() -> int:
    """Run one command. Exit codes: 0 ok, 1 refused, 2 usage."""
    args = _parser().parse_args()
    if not VENV_BIN.exists():
        print(f"kvorum-lab: {VENV_BIN} is missing: run `make setup`", file=sys.stderr)
        return 1
    try:
        outcome = args.act(args)
        return outcome if isinstance(outcome, int) else asyncio.run(_finish(outcome))
    except PlatformError as error:
        refusals = [error.message]
    except BaseExceptionGroup as group:
        expected, other = group.split(PlatformError)
        if expected is None or other is not None:
            raise
        refusals = _messages(expected)
    for line in refusals:
        print(f"kvorum-lab: {line}", file=sys.stderr)
    return 1


async def _finish(outcome: Awaitable[int]) -> int:
    return await outcome


def _messages(group: BaseExceptionGroup[PlatformError]) -> list[str]:
    out: list[str] = []
    for error in group.exceptions:
        out += _messages(error) if isinstance(error, BaseExceptionGroup) else [error.message]
    return out


if __name__ == "__main__":
    sys.exit(main())
