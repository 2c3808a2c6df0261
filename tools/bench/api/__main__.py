"""`make bench-api`: one agent of three next to LXD, under the same load on the same machine.

Prints a table and writes `build/bench-api.json`. Exit code 0 when everything could be measured, whatever came out.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from core.errors import PlatformError, UnavailableError
from tools.bench.api.creates import WRITERS, Order, creates_per_second
from tools.bench.api.delays import Delays, measure_delays
from tools.bench.api.load import Load, get
from tools.bench.api.lxd import PROFILES, client, lxd, pid_behind
from tools.bench.api.subscribers import SUBSCRIBERS, idle_percent
from tools.bench.figures import Figure, make_report, table
from tools.bench.measure import API_SOCKET, SHARED
from tools.bench.usage import Spent
from tools.demo.operator import Operator
from tools.guests.build import guest_image
from tools.lab.cluster import form_cluster
from tools.lab.lab import Lab

BUILD = Path(__file__).resolve().parents[3] / "build"
LAB = "benchapi"
LISTED, PROFILES_LISTED = 100, 60
GROUP_LIST = f"/v1/security-groups?q=name~=listed-*&q=data_center.name=default&limit={LISTED}"
PROFILE_LIST = f"{PROFILES}?recursion=1"


@dataclass(slots=True)
class Rounds:
    """What was measured, by name, a value a round."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Keep a value."""
        self.values.setdefault(name, []).append(value)

    def add_load(self, name: str, load: Load) -> None:
        """Keep what a load measured."""
        self.add(f"{name}, per second", load.per_second)
        self.add(f"{name}, p99 ms", load.p99_ms)

    def of(self, name: str) -> float:
        """Return the median."""
        return statistics.median(self.values[name])


@dataclass(frozen=True, slots=True)
class Ours:
    """The agent that is measured: not the leader's host, and a token that it checks with each request over HTTPS.
    `sockets`: of all agents, by their hosts' ids."""

    host_id: str
    sockets: dict[str, Path]
    https: str
    token: str
    pid: int
    pids: tuple[int, ...]

    @property
    def socket(self) -> Path:
        """Where root asks it."""
        return self.sockets[self.host_id]

    @property
    def network(self) -> tuple[str, ...]:
        """What starts a program in the network of the agent's host: from outside it can't be reached."""
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net")

    @property
    def headers(self) -> dict[str, str]:
        """What lets a request in."""
        return {"Authorization": f"Bearer {self.token}"}


def say(text: str) -> None:
    """Print at once, so that a pipe shows progress too."""
    print(text, flush=True)


async def prepared(lab: Lab, image: str) -> Ours:
    """Return an agent whose cluster has a VM and `LISTED` security groups."""
    operator, first = Operator(lab), lab.hosts[0]
    await operator.types(
        first, "data-storage", "create", SHARED, "--kind", "shared", "--path", "/srv/shared"
    )
    await operator.types(first, "image", "upload", "tiny", "--file", image)
    vm = ("--image", "tiny", "--memory", "128MiB", "--data-storage", SHARED, "--no-start")
    await operator.types(first, "vm", "create", "web1", *vm)
    for number in range(LISTED):
        await operator.asks(
            first,
            *("api", "POST", "security-groups", "--data", f'{{"name": "listed-{number}"}}'),
        )
    members = await operator.asks(first, "members")
    follower = next(m["name"] for m in members if not m["leader"])
    address = next(m["address"] for m in members if m["name"] == follower)
    made = await operator.asks(first, "api", "POST", "access-tokens", "--data", '{"name": "bench"}')
    pids = {m["name"]: lab.service_pid(m["name"], "agent") or 0 for m in members}
    assert all(pids.values()), "a lab's host has an agent"
    sockets = {m["id"]: lab.inside(m["name"], API_SOCKET) for m in members}
    host_id = next(m["id"] for m in members if m["name"] == follower)
    return Ours(
        host_id=host_id,
        sockets=sockets,
        https=f"https://{address}:7443",
        token=made["token"],
        pid=pids[follower],
        pids=tuple(pids.values()),
    )


async def measure_reads(
    ours: Ours, peer: Path, rounds: Rounds, *, seconds: float, directory: Path
) -> None:
    """Measure all reads once, ours and the peer's in turn."""
    unix, theirs = f"unix:{ours.socket}", f"unix:{peer}"
    for name, base, path, headers in (
        ("get", unix, "/v1/vms/web1", {}),
        ("LXD get", theirs, f"{PROFILES}/default", {}),
        ("get over HTTPS", ours.https, "/v1/vms/web1", ours.headers),
        ("list", unix, GROUP_LIST, {}),
        ("LXD list", theirs, PROFILE_LIST, {}),
    ):
        spent = Spent((pid_behind(peer),) if base == theirs else (ours.pid,))
        try:
            load = await get(
                base,
                path,
                headers=headers,
                seconds=seconds,
                directory=directory,
                inside=ours.network if base == ours.https else (),
            )
        except PlatformError as error:
            raise UnavailableError(f"{name} ({path}): {error.message}") from None
        rounds.add_load(name, load)
        rounds.add(f"{name}, us", spent.us() / (load.per_second * seconds))


async def measure_creates(
    ours: Ours, peer: Path, rounds: Rounds, *, number: int, seconds: float
) -> None:
    """Measure creates once, ours and the peer's in turn. After all reads: both lists would grow by what is made."""
    made = f"made-{number}"
    order = Order(
        base=ours.https,
        path="/v1/security-groups",
        prefix=made,
        seconds=seconds,
        headers=ours.headers,
    )
    spent = Spent(ours.pids)
    rounds.add("creates", rate := await creates_per_second(order, inside=ours.network))
    rounds.add("creates, us", spent.us() / (rate * seconds))
    order = Order(base="http://host", path=PROFILES, prefix=made, seconds=seconds, socket=str(peer))
    spent = Spent((pid_behind(peer),))
    rounds.add("LXD creates", rate := await creates_per_second(order))
    rounds.add("LXD creates, us", spent.us() / (rate * seconds))


def figures(rounds: Rounds, idle: tuple[float, float], delays: Delays) -> tuple[Figure, ...]:
    """Return the figures with their targets."""
    return (
        figure("GET of one by root, unix socket", "1/s",
               rounds.of("get, per second"), rounds.of("LXD get, per second"), at_least=5),
        figure("p99 of it", "ms", rounds.of("get, p99 ms"), rounds.of("LXD get, p99 ms"), at_most=1),
        cost("processor time of it", rounds, "get", "LXD get", at_most=0.2),
        figure("GET of one, access token checked, HTTPS; LXD: unix socket", "1/s",
               rounds.of("get over HTTPS, per second"), rounds.of("LXD get, per second"), at_least=5),
        figure("p99 of it", "ms", rounds.of("get over HTTPS, p99 ms"), rounds.of("LXD get, p99 ms"), at_most=1),
        cost("processor time of it", rounds, "get over HTTPS", "LXD get", at_most=0.2),
        figure(f"list of {LISTED} with two filters, LXD: {PROFILES_LISTED}, unix socket", "1/s",
               rounds.of("list, per second"), rounds.of("LXD list, per second"), at_least=5),
        figure("p99 of it", "ms", rounds.of("list, p99 ms"), rounds.of("LXD list, p99 ms")),
        cost("processor time of it", rounds, "list", "LXD list", at_most=0.2),
        figure(f"creates by quorum over HTTPS, {WRITERS} clients; LXD: one member, unix socket", "1/s",
               rounds.of("creates"), rounds.of("LXD creates"), at_least=3),
        cost("processor time of it, on all three hosts", rounds, "creates", "LXD creates"),
        figure("one create by quorum, one client", "ms", delays.commit_ms),
        figure("an event at other agents' subscribers, from before its commit", "ms", delays.event_ms),
        figure("the same", "x create", delays.event_ms / delays.commit_ms, at_most=2),
        figure("idle agent", "% of a core", idle[0]),
        figure(f"idle agent with {SUBSCRIBERS} subscribers of events", "% of a core", idle[1], at_most=5),
    )  # fmt: skip


def cost(
    name: str, rounds: Rounds, ours: str, peers: str, *, at_most: float | None = None
) -> Figure:
    """Return what one answer costs. Unlike rates it is nearly the same on a machine that others use too."""
    return figure(name, "us", rounds.of(f"{ours}, us"), rounds.of(f"{peers}, us"), at_most=at_most)


def figure(
    name: str,
    unit: str,
    ours: float,
    peer: float | None = None,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Figure:
    """Return a figure."""
    return Figure(name=name, unit=unit, ours=ours, peer=peer, at_least=at_least, at_most=at_most)


async def bench(*, rounds: int, seconds: float, out: Path) -> int:
    """Measure, print and write; return the exit code."""
    began_s, found = time.monotonic(), Rounds()
    image = str(await guest_image("tiny", say=say))
    lab: Lab | None = None
    try:
        with tempfile.TemporaryDirectory(prefix="kvbench-") as name:
            directory = Path(name)
            say("three hosts form a cluster")
            lab = await Lab.up(LAB, 3)
            await form_cluster(lab)
            ours = await prepared(lab, image)
            async with lxd(directory / "lxd") as peer:
                async with client(peer) as http:
                    for number in range(PROFILES_LISTED - 1):
                        await http.post(PROFILES, json={"name": f"listed{number}"})
                for number in range(rounds):
                    say(f"reads, round {number + 1} of {rounds}")
                    await measure_reads(ours, peer, found, seconds=seconds, directory=directory)
                for number in range(rounds):
                    say(f"creates, round {number + 1} of {rounds}")
                    await measure_creates(ours, peer, found, number=number, seconds=seconds)
            say("events at other agents")
            delays = await measure_delays(ours.sockets, ours.host_id)
            say(f"{SUBSCRIBERS} subscribers")
            idle = await idle_percent(ours.socket, ours.pid, seconds=4 * seconds)
    except PlatformError as error:
        say(f"the bench failed: {error.message}")
        return 1
    finally:
        if lab is not None:
            await lab.down()
    report = make_report(
        figures(found, idle, delays),
        peer="LXD",
        seconds=round(time.monotonic() - began_s, 1),
        load_average=os.getloadavg()[0],
        rounds=found.values,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    say(f"\n{table(report)}\n(written to {out})")
    return 0


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.api", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each figure is")
    parser.add_argument("--out", type=Path, default=BUILD / "bench-api.json")
    given = parser.parse_args()
    sys.exit(asyncio.run(bench(rounds=given.rounds, seconds=given.seconds, out=given.out)))


if __name__ == "__main__":
    main()
