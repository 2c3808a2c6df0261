"""The connections to libvirtd and the threads that speak through them, every call with a deadline.

`LibvirtHypervisor` opens a link, and another one after a link was lost. The link exists because libvirt's client
blocks for as long as libvirtd does not answer: a call that misses its deadline costs the link, not the agent.
A link that is given up is closed by a thread of its own, since even closing asks libvirtd.

There is a connection per lane, because libvirtd serves only five calls of a connection at a time (and then stops
reading from it, keep-alives too): a batch of starting VMs must not hold up reads, and neither of them a destroy.
Calls beyond a lane's width wait here, and their deadline begins when it is their turn.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

import libvirt

from core.errors import TemporaryError
from nodeagent.compute.call_threads import CallThreads
from nodeagent.compute.hypervisor import DomainEvent
from nodeagent.compute.libvirt_errors import call_translated
from nodeagent.compute.libvirt_events import event_of_io_error, event_of_lifecycle, event_of_reboot

log = logging.getLogger(__name__)

T = TypeVar("T")

KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 5
LANE_WIDTH = 4

_event_loop_lock = threading.Lock()
_event_loop_started = False


def _ignore_error(_context: None, _error: object) -> None:
    """Errors are raised too; libvirt would otherwise print each of them to standard error."""


def _run_event_loop() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def start_event_loop() -> None:
    """Start libvirt's event loop once in this process; it must exist before the first connection."""
    global _event_loop_started
    with _event_loop_lock:
        if _event_loop_started:
            return
        libvirt.registerErrorHandler(_ignore_error, None)
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True).start()
        _event_loop_started = True


class Lane(StrEnum):
    """Calls of one lane may hold up each other, never those of another."""

    READ = "read"
    CHANGE = "change"
    START = "start"


class _Track:
    """What one lane has of its own."""

    def __init__(self, lane: Lane) -> None:
        self.threads = CallThreads(LANE_WIDTH, f"libvirt-{lane}")
        self.turn = asyncio.Semaphore(LANE_WIDTH)
        self.connection: libvirt.virConnect | None = None


class Link:
    """Connections that live and die together. `lost` is set once they are of no use any more."""

    def __init__(
        self,
        uri: str,
        *,
        on_event: Callable[[DomainEvent], None],
        on_lost: Callable[[], None],
    ) -> None:
        """Both callbacks come on the event loop; no event comes after `on_lost`."""
        self._uri = uri
        self._on_event = on_event
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._tracks = {lane: _Track(lane) for lane in Lane}
        self._opened: list[libvirt.virConnect] = []
        self._opened_lock = threading.Lock()
        self._given_up = False
        self.lost = asyncio.Event()

    async def open(self, *, timeout_s: float) -> None:
        """Connect and subscribe to events. Raises TemporaryError or PermanentError; then give the link up."""
        start_event_loop()
        threads = self._tracks[Lane.READ].threads
        await self._deadline(
            self._loop.run_in_executor(threads, self._open_all), "connecting", timeout_s
        )

    async def call(
        self, lane: Lane, what: str, work: Callable[[libvirt.virConnect], T], *, timeout_s: float
    ) -> T:
        """Run `work` in a thread; `what` names it for people. Raises what the errors of libvirt become.

        After a missed deadline the link is lost and whether the call took effect is unknown.
        """
        track = self._tracks[lane]
        async with track.turn:
            connection = track.connection
            if connection is None or self.lost.is_set():
                raise TemporaryError(f"libvirt is away, so {what} was not tried")
            future = self._loop.run_in_executor(
                track.threads, call_translated, what, work, connection
            )
            return await self._deadline(future, what, timeout_s)

    def call_for_long(
        self, what: str, work: Callable[[libvirt.virConnect], T]
    ) -> asyncio.Future[T]:
        """Run `work` without a deadline, in a thread and with a connection of its own. It outlives the link."""
        threads = CallThreads(1, "libvirt-long")
        try:
            return self._loop.run_in_executor(
                threads, call_translated, what, self._work_apart, work
            )
        finally:
            threads.shutdown()

    def give_up(self) -> None:
        """Close without waiting. Calls under way go on until libvirt ends them."""
        self._lose()
        if self._given_up:
            return
        self._given_up = True
        closer = CallThreads(1, "libvirt-close")
        closer.submit(self._close_all)
        closer.shutdown()
        for track in self._tracks.values():
            track.threads.shutdown()

    def _lose(self) -> None:
        if not self.lost.is_set():
            self.lost.set()
            self._on_lost()

    async def _deadline(self, future: asyncio.Future[T], what: str, timeout_s: float) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            self._lose()
            raise TemporaryError(
                f"libvirt did not finish {what} within {timeout_s:g} s: the outcome is unknown, read the state again"
            ) from None

    # Below: in other threads.

    def _open_all(self) -> None:
        for lane, track in self._tracks.items():
            track.connection = call_translated("connecting", self._open, lane)

    def _open(self, lane: Lane) -> libvirt.virConnect:
        connection = _connect(self._uri)
        try:
            connection.registerCloseCallback(self._closed, None)
        except libvirt.libvirtError as error:
            _pass_unsupported(error)
        if lane is Lane.READ:
            for event_id, callback in (
                (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle),
                (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._reboot),
                (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, self._io_error),
            ):
                connection.domainEventRegisterAny(None, event_id, callback, None)
        with self._opened_lock:
            self._opened.append(connection)
        if self._given_up:
            # It answered after all, long after its deadline.
            self._close_all()
            raise TemporaryError("libvirt answered too late")
        return connection

    def _close_all(self) -> None:
        with self._opened_lock:
            connections, self._opened = self._opened, []
        for connection in connections:
            _close(connection)

    def _work_apart(self, work: Callable[[libvirt.virConnect], T]) -> T:
        connection = _connect(self._uri)
        try:
            return work(connection)
        finally:
            _close(connection)

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            log.debug("libvirt event after the end of the agent's loop")

    def _closed(self, _connection: libvirt.virConnect, reason: int, _opaque: None) -> None:
        log.warning("libvirt connection closed", extra={"reason": reason})
        self._tell(self._lose)

    def _publish(self, event: DomainEvent | None) -> None:
        if event is not None:
            self._tell(self._deliver, event)

    def _deliver(self, event: DomainEvent) -> None:
        if not self.lost.is_set():
            self._on_event(event)

    def _lifecycle(
        self,
        _connection: libvirt.virConnect,
        domain: libvirt.virDomain,
        event: int,
        detail: int,
        _opaque: None,
    ) -> None:
        self._publish(event_of_lifecycle(domain.name(), event, detail))

    def _reboot(
        self, _connection: libvirt.virConnect, domain: libvirt.virDomain, _opaque: None
    ) -> None:
        self._publish(event_of_reboot(domain.name()))

    def _io_error(
        self,
        _connection: libvirt.virConnect,
        domain: libvirt.virDomain,
        source: str,
        device: str,
        action: int,
        reason: str,
        _opaque: None,
    ) -> None:
        self._publish(event_of_io_error(domain.name(), device, reason))


def _connect(uri: str) -> libvirt.virConnect:
    connection = libvirt.open(uri)
    try:
        connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
    except libvirt.libvirtError as error:
        _pass_unsupported(error)
    return connection


def _pass_unsupported(error: libvirt.libvirtError) -> None:
    """Raise the error, unless it says that libvirt's test driver, which lives in this process, lacks something."""
    if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
        raise error


def _close(connection: libvirt.virConnect) -> None:
    """Close for good: the callbacks hold the connection as well."""
    for callback_id in tuple(getattr(connection, "domainEventCallbackID", ())):
        _quietly(connection.domainEventDeregisterAny, callback_id)
    _quietly(connection.unregisterCloseCallback)
    _quietly(connection.close)


def _quietly(work: Callable[..., object], *args: object) -> None:
    try:
        work(*args)
    except libvirt.libvirtError as error:
        log.debug("closing a libvirt connection", extra={"error": str(error)})
