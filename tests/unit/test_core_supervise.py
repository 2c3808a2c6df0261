"""One service's failure is its own: it is started again, ever slower; only a fatal error ends the process."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from core.errors import FatalError, UnavailableError
from core.logs import FieldFormatter
from core.supervise import keep_running
from tests.sim.loop import SimLoop


def in_virtual_time(main: Callable[[], object]) -> None:
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(main())


class Service:
    """Fails in the ways it is told, one a start, then serves for ever."""

    def __init__(self, *ends: BaseException | float | None) -> None:
        self.ends = list(ends)
        self.starts_s: list[float] = []

    async def run(self) -> None:
        self.starts_s.append(asyncio.get_running_loop().time())
        if not self.ends:
            await asyncio.Event().wait()
        end = self.ends.pop(0)
        if isinstance(end, float):
            await asyncio.sleep(end)
            raise RuntimeError("failed after a while")
        if end is not None:
            raise end

    @property
    def pauses_s(self) -> list[float]:
        return [round(b - a, 3) for a, b in zip(self.starts_s, self.starts_s[1:], strict=False)]


async def run_for(service: Service, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await keep_running("test", service.run)
    except TimeoutError:
        pass


def test_a_failing_service_is_started_again_ever_slower():
    service = Service(*[RuntimeError("x") for _ in range(9)])
    in_virtual_time(lambda: run_for(service, 300))
    assert service.pauses_s == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_service_that_ends_or_meets_a_known_error_is_started_again():
    service = Service(None, UnavailableError("no quorum"), ExceptionGroup("g", [ValueError()]))
    in_virtual_time(lambda: run_for(service, 60))
    assert len(service.starts_s) == 4


def test_a_service_that_ran_well_for_a_minute_is_started_again_at_once():
    service = Service(*[RuntimeError("x") for _ in range(6)], 100.0, RuntimeError("y"))
    in_virtual_time(lambda: run_for(service, 600))
    assert service.pauses_s == [0.5, 1, 2, 4, 8, 16, 100.5, 1]


@pytest.mark.parametrize(
    "error",
    [
        FatalError("disk full"),
        ExceptionGroup("g", [ValueError(), ExceptionGroup("h", [FatalError("disk full")])]),
    ],
    ids=["bare", "in nested groups"],
)
def test_a_fatal_error_ends_the_process(error):
    service = Service(error)

    async def main() -> None:
        with pytest.raises(FatalError, match="disk full"):
            await keep_running("test", service.run)

    in_virtual_time(main)
    assert len(service.starts_s) == 1


def test_cancelling_stops_a_service_during_its_pause_too():
    service = Service(*[RuntimeError("x") for _ in range(4)])
    in_virtual_time(lambda: run_for(service, 2))
    assert len(service.starts_s) == 3


def test_a_log_line_has_its_fields_and_a_traceback_below():
    record = logging.makeLogRecord({"msg": "a VM was started", "vm": "web1", "index": 7})
    assert FieldFormatter("%(message)s").format(record) == "a VM was started [vm=web1 index=7]"
    try:
        raise ValueError("boom")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.makeLogRecord({"msg": "failed", "vm": "web1", "exc_info": info})
    first, *rest = FieldFormatter("%(message)s").format(record).split("\n")
    assert first == "failed [vm=web1]"
    assert rest[-1] == "ValueError: boom"
