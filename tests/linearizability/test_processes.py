"""Agents' consensus as real processes, with real TLS, files and kills: what their clients saw is one register at a time."""

import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.linearizability.checker import Kind, check
from tests.linearizability.history import read_history
from tests.mesh_identity import Authority

DECK = ("kill", "kill", "cut", "isolate", "isolate", "mute", "heal", "heal", "heal")


class Agents:
    """The processes, and what a driver does to them."""

    def __init__(self, directory: Path, names: str, network: int) -> None:
        self._directory = directory
        authority = Authority(directory)
        for name in names:
            authority.issue(name)
        self.addresses = {
            name: _free_address(f"127.0.{network}.{number + 1}")
            for number, name in enumerate(names)
        }
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._starts = dict.fromkeys(names, 0)
        self._deck: list[str] = []
        self.done: dict[str, int] = {"kill": 0, "cut": 0, "isolate": 0, "mute": 0, "heal": 0}

    def start(self, name: str) -> None:
        """Start or restart a process."""
        self._starts[name] += 1
        pairs = [f"{name}={address}" for name, address in self.addresses.items()]
        command = [sys.executable, "-m", "tests.linearizability.child", str(self._directory), name]
        with (self._directory / f"stderr-{name}").open("a") as stderr:
            self._processes[name] = subprocess.Popen(
                [*command, str(self._starts[name]), *pairs],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    def wait_ready(self) -> None:
        """Wait until every process knows all voters."""
        for process in self._processes.values():
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

    def kill(self, name: str) -> None:
        self.done["kill"] += 1
        process = self._processes.pop(name)
        process.kill()
        self._reap(process)

    def order(self, name: str, what: str) -> None:
        process = self._processes.get(name)
        if process is not None and process.stdin is not None:
            assert process.poll() is None, (self._directory / f"stderr-{name}").read_text()[-2000:]
            process.stdin.write(what + "\n")
            process.stdin.flush()

    def stop(self) -> None:
        for name in list(self._processes):
            process = self._processes.pop(name)
            process.kill()
            self._reap(process)

    @staticmethod
    def _reap(process: subprocess.Popen[str]) -> None:
        process.communicate(timeout=10)

    def trouble(self, rng: random.Random) -> None:
        """Do one random thing."""
        names = sorted(self.addresses)
        a, b = rng.sample(names, 2)
        if not self._deck:
            self._deck = list(DECK)
            rng.shuffle(self._deck)
        for name in names:
            if name not in self._processes:
                self.start(name)
        match self._deck.pop():
            case "kill":
                self.kill(a)
            case "cut":
                self.done["cut"] += 1
                self.order(a, f"cut {b}")
                self.order(b, f"cut {a}")
            case "isolate":
                self.done["isolate"] += 1
                for other in names:
                    if other != a:
                        self.order(a, f"cut {other}")
                        self.order(other, f"cut {a}")
            case "mute":
                self.done["mute"] += 1
                self.order(a, f"mute {b}")
            case "heal":
                self.done["heal"] += 1
                for name in names:
                    self.order(name, "heal")


def _free_address(ip: str) -> str:
    with socket.socket() as probe:
        probe.bind((ip, 0))
        return f"{ip}:{probe.getsockname()[1]}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("names", "network"), [("abc", 41), ("abcde", 42)])
def test_what_clients_saw_is_linearizable(tmp_path, names, network, request):
    seconds = request.config.getoption("--linear-s")
    rng = random.Random(len(names))
    agents = Agents(tmp_path, names, network)
    try:
        for name in names:
            agents.start(name)
        agents.wait_ready()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(rng.uniform(0.1, 0.9))
            agents.trouble(rng)
    finally:
        agents.stop()
    history = read_history(sorted(tmp_path.glob("history-*.jsonl")))
    known = [operation for operation in history if operation.known]
    kinds = {kind: sum(op.kind is kind for op in known) for kind in Kind}
    print(f"{len(history)} operations, {len(known)} of known outcome: {kinds}; {agents.done}")
    assert min(kinds.values()) >= 10 * seconds / 10, "the run proves nothing"
    assert all(agents.done.values()), agents.done
    verdict = check(history, budget_s=20 + seconds)
    assert verdict.linearizable, str(verdict)
