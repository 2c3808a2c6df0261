"""The lab for integration tests: `lab_factory` makes labs that vanish with the module, `poll` waits.

A lab is made and removed in a thread with a loop of its own, so that fixtures of any scope and tests
of either kind can use it. A failed test shows the ends of the services' logs.
"""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from tools.guests.build import guest_image
from tools.lab import cleanup
from tools.lab.lab import Lab
from tools.lab.services import PRODUCT, Service

POLL_S = 0.05
LOG_TAIL_LINES = 15
LAB_NAME = "t{pid}-{number}"
SWEEP_LOCK = Path("/run/lock/kvorum-tests.lock")
_standing: list[Lab] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that may take longest, as their timeouts say: the short ones at the end come out even.

    So the two that begin together are bad input and disturbed workflows, which load the machine and measure no time.
    """
    may_take_s: dict[Path, float] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        limit_s = float(limit.args[0]) if limit else 0.0
        may_take_s[item.path] = max(limit_s, may_take_s.get(item.path, 0.0))
    items.sort(key=lambda item: may_take_s[item.path], reverse=True)


async def poll(
    predicate: Callable[[], object | Awaitable[object]],
    deadline_s: float,
    *,
    every_s: float = POLL_S,
) -> Any:
    """Wait until `predicate()` (plain or async) is true and return what it returned; fail at the deadline."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + deadline_s
    while True:
        result = predicate()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        if loop.time() >= end_s:
            pytest.fail(f"not within {deadline_s:g} s: {predicate}; last: {result!r}")
        await asyncio.sleep(every_s)


def in_own_loop(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end in a thread, whatever loop may run here."""
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


class LabFactory(Protocol):
    def __call__(
        self,
        hosts: int = 3,
        services: Sequence[Service] | dict[str, Sequence[Service]] = PRODUCT,
        *,
        hollow: bool = False,
    ) -> Lab: ...


def remove_labs_of_dead_tests() -> None:
    """Remove what test runs left that were killed: their labs carry the number of their process.

    One test process at a time: two that remove the same lab get in each other's way.
    """
    SWEEP_LOCK.parent.mkdir(parents=True, exist_ok=True)
    with SWEEP_LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for name in cleanup.known_labs():
            number = name.removeprefix("t").split("-")[0]
            if name.startswith("t") and number.isdigit() and not os.path.exists(f"/proc/{number}"):
                in_own_loop(cleanup.remove(name))


@pytest.fixture(scope="module")
def lab_factory() -> Iterator[LabFactory]:
    """A function that makes a lab of some hosts running some services; all are removed at the end."""
    remove_labs_of_dead_tests()
    made: list[str] = []

    def make(
        hosts: int = 3,
        services: Sequence[Service] | dict[str, Sequence[Service]] = PRODUCT,
        *,
        hollow: bool = False,
    ) -> Lab:
        name = LAB_NAME.format(pid=os.getpid(), number=len(_standing) + 1)
        made.append(name)
        lab = in_own_loop(Lab.up(name, hosts, services=services, hollow=hollow))
        _standing.append(lab)
        return lab

    yield make
    for name in made:
        in_own_loop(cleanup.remove(name))
        _standing[:] = [lab for lab in _standing if lab.layout.lab != name]


@pytest.fixture(scope="module")
def lab(lab_factory: LabFactory) -> Lab:
    """Three hosts with everything the product runs on a host; not yet a cluster."""
    return lab_factory()


@pytest.fixture(scope="session")
def tiny_image() -> str:
    """Path of the tiny guest's qcow2."""
    return str(in_own_loop(guest_image("tiny")))


@pytest.fixture(scope="session")
def full_image() -> str:
    """Path of the full guest's qcow2."""
    return str(in_own_loop(guest_image("full")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    report = yield
    if report.failed:
        for lab in _standing:
            for host in lab.hosts:
                for service in ("init", *(it.name for it in lab.plan.services[host])):
                    lines = lab.log_text(host, service).splitlines()[-LOG_TAIL_LINES:]
                    if lines:
                        report.sections.append((f"{host} {service}", "\n".join(lines)))
    return report
