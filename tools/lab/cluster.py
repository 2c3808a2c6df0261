"""Make a standing lab's hosts one cluster, with the product's own command line.

Called by `kvorum-lab up --cluster`; it does what an operator would type.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from core.errors import UnavailableError
from tools.lab.boards import CIPHER_SUITE, PASSWORD, USER
from tools.lab.lab import Lab

COMMAND_TIMEOUT_S = 90.0
BOARDS_OK_S, LOOK_S = 30.0, 0.5


async def form_cluster(lab: Lab, *, say: Callable[[str], object] = lambda line: None) -> None:
    """Run `kvorum init` on the first host, and `kvorum join TOKEN` on each other, one by one.

    Raises:
        CommandError: a command failed; the message is its own.
    """
    first, *others = lab.hosts
    say(f"{first}: kvorum init")
    await lab.run(first, "kvorum", "init", timeout_s=COMMAND_TIMEOUT_S)
    if not others:
        return
    say(f"{first}: kvorum token create --count {len(others)}")
    argv = ("kvorum", "token", "create", "--count", str(len(others)))
    tokens = (await lab.text(first, *argv, timeout_s=COMMAND_TIMEOUT_S)).split()
    for host, token in zip(others, tokens, strict=True):
        say(f"{host}: kvorum join TOKEN")
        await lab.run(host, "kvorum", "join", token, timeout_s=COMMAND_TIMEOUT_S)


async def give_boards(lab: Lab, *, say: Callable[[str], object] = lambda line: None) -> None:
    """Start a management board for each host and run `kvorum bmc set`, so that lost hosts are fenced and drills can use them.

    Raises:
        CommandError: a command failed; the message is its own.
        UnavailableError: a board is not relied on in time.
    """
    first = lab.hosts[0]
    for host, board in (await lab.start_boards()).items():
        words = f"kvorum bmc set {host} --address {board.address} --port {board.port}"
        words += f" --user {USER} --cipher-suite {CIPHER_SUITE}"
        say(f"{first}: {words}")
        await lab.run(first, "sh", "-c", f"echo {PASSWORD} | {words}", timeout_s=COMMAND_TIMEOUT_S)
        await _until_relied_on(lab, host)


async def _until_relied_on(lab: Lab, host: str) -> None:
    """Ask the board until its word is relied on: a host that only just joined may not have renewed its lease yet."""
    try:
        async with asyncio.timeout(BOARDS_OK_S):
            while True:
                await lab.run(lab.hosts[0], "kvorum", "bmc", "power", host)
                shown = await lab.text(lab.hosts[0], "kvorum", "bmc", "show", host, "-o", "json")
                if json.loads(shown)["state"] == "ok":
                    return
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise UnavailableError(f"the BMC of {host} is not relied on: kvorum bmc list") from None
