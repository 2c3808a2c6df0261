"""An event loop in virtual time: it jumps to the next timer instead of waiting, so a simulated hour takes seconds."""

import asyncio
import selectors


class _JumpSelector(selectors.SelectSelector):
    now_s = 1_000.0

    def select(self, timeout: float | None = None):
        if timeout is None:
            raise RuntimeError("the simulation has come to a stop: no timer is armed")
        if timeout > 0:
            self.now_s += timeout
        return super().select(0)


class SimLoop(asyncio.SelectorEventLoop):
    """Deterministic as long as nothing in it waits for the real world."""

    def __init__(self) -> None:
        self._jump = _JumpSelector()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now_s
