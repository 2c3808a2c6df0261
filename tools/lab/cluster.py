"""Make a standing lab's hosts one cluster, with the product's own command line.

Called by `kvorum-lab up --cluster`; it does what an operator would type.
"""

from __future__ import annotations

from collections.abc import Callable

from tools.lab.lab import Lab

COMMAND_TIMEOUT_S = 90.0


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
