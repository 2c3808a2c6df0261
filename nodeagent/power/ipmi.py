"""Management boards by IPMI 2.0 over the network, through Debian's `ipmitool`.

The password goes by the environment, which only root can read, never by an argument. The cipher suite is given, since
asking for it costs ten seconds with boards that don't answer that question.
"""

from __future__ import annotations

from core.command import CommandError, CommandTimeoutError, run
from core.errors import UnavailableError
from nodeagent.power.driver import Board

TRY_S, TRIES = 1, 3
TIMEOUT_S = 8.0
MISSING = 127


class Ipmi:
    """A `PowerDriver`. `program` is where ipmitool is."""

    def __init__(self, program: str = "/usr/bin/ipmitool") -> None:
        self._program = program

    async def recognized(self, board: Board) -> Board:
        return board

    async def is_on(self, board: Board) -> bool:
        said = (await self._ask(board, "status")).strip().lower()
        if said.endswith("is on"):
            return True
        if said.endswith("is off"):
            return False
        raise UnavailableError(f"the BMC at {board.address} said neither on nor off: {said[:80]!r}")

    async def turn_off(self, board: Board) -> None:
        await self._ask(board, "off")

    async def turn_on(self, board: Board) -> None:
        await self._ask(board, "on")

    async def _ask(self, board: Board, verb: str) -> str:
        argv = [self._program, "-I", "lanplus", "-H", board.address, "-p", str(board.port)]
        argv += ["-U", board.user, "-E", "-C", str(board.cipher_suite)]
        argv += ["-N", str(TRY_S), "-R", str(TRIES), "chassis", "power", verb]
        try:
            result = await run(
                argv,
                timeout_s=TIMEOUT_S,
                env={"LC_ALL": "C", "IPMI_PASSWORD": board.password},
                secret_args=(board.password,),
            )
        except CommandError as error:
            if error.code_number == MISSING:
                raise UnavailableError(
                    "ipmitool is not installed on this host: apt install ipmitool"
                ) from error
            raise UnavailableError(f"the BMC at {board.address}: {_reason(error)}") from error
        except CommandTimeoutError as error:
            raise UnavailableError(
                f"the BMC at {board.address} did not answer within {TIMEOUT_S:g} s"
            ) from error
        return result.stdout.decode("ascii", "replace")


def _reason(error: CommandError) -> str:
    lines = [line.strip() for line in error.stderr_tail.splitlines() if line.strip()]
    return "; ".join(lines)[:300] or f"ipmitool ended with code {error.code_number}"
