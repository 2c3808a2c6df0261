"""A machine of its own on a port group: a namespace plugged into a host's bridge, for looking at VMs from outside.

It stands for any other machine of the network: it pings, and logs in by SSH. Used by the demo and the tests of the
main job. It lives on one lab host, so it sees VMs of other hosts only through the tunnels.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from core.command import CommandError, CommandTimeoutError
from tools.lab.lab import Lab

NAMESPACE = "probe"
MTU = 1450
SSH_TIMEOUT_S = 20.0
SEQUENCE = re.compile(rb"icmp_seq=(\d+) ttl")


@dataclass(slots=True)
class Pinging:
    """A ping that runs, ten a second."""

    process: asyncio.subprocess.Process
    output: Path

    async def lost(self) -> int:
        """Stop it and return how many between the first and the last answer had none."""
        os.killpg(self.process.pid, signal.SIGINT)
        await self.process.wait()
        answered = {int(number) for number in SEQUENCE.findall(self.output.read_bytes())}
        if not answered:
            return -1
        return max(answered) - min(answered) + 1 - len(answered)


class Probe:
    """The namespace on one host of the lab."""

    def __init__(self, lab: Lab, host: str, scratch: Path) -> None:
        self.lab, self.host, self.scratch = lab, host, scratch

    async def plug(self, bridge: str, address: str) -> None:
        """Make the namespace and plug it into the bridge with this address (`10.100.0.250/16`)."""
        for line in (
            f"ip netns add {NAMESPACE}",
            f"ip link add kprobe0 mtu {MTU} type veth peer name eth0 netns {NAMESPACE} mtu {MTU}",
            f"ip link set kprobe0 master {bridge} up",
            f"ip -n {NAMESPACE} address add {address} dev eth0",
            f"ip -n {NAMESPACE} link set lo up",
            f"ip -n {NAMESPACE} link set eth0 up",
        ):
            await self.lab.run(self.host, *line.split())

    async def answers_ping(self, address: str) -> bool:
        """Tell whether one ping is answered within a second."""
        try:
            await self._run("ping", "-n", "-c", "1", "-W", "1", address, timeout_s=5.0)
        except CommandError:
            return False
        return True

    async def ssh(self, key: Path, address: str, command: str) -> str | None:
        """Log in as the image's user and return what the command printed; None when it could not."""
        options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
        flags = [
            word
            for option in (*options, "ConnectTimeout=3", "LogLevel=ERROR")
            for word in ("-o", option)
        ]
        argv = ["ssh", "-F", "none", "-i", str(key), *flags, f"debian@{address}", command]
        try:
            return (await self._run(*argv, timeout_s=SSH_TIMEOUT_S)).strip()
        except (CommandError, CommandTimeoutError):
            return None

    async def start_pinging(self, address: str) -> Pinging:
        """Begin to ping ten times a second."""
        output = self.scratch / "pings.txt"
        argv = self.lab.enter(
            self.host, ["ip", "netns", "exec", NAMESPACE, "ping", "-n", "-i", "0.1", address]
        )
        with output.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.DEVNULL, stdout=file, start_new_session=True
            )
        return Pinging(process, output)

    async def _run(self, *argv: str, timeout_s: float) -> str:
        return await self.lab.text(
            self.host, "ip", "netns", "exec", NAMESPACE, *argv, timeout_s=timeout_s
        )
