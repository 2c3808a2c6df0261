"""One connection to libvirtd and the threads that speak through it, every call with a deadline.

`LibvirtHypervisor` opens a link, and another one after a link was lost. The link exists because libvirt's client
blocks for as long as libvirtd does not answer: a call that misses its deadline costs the link, not the agent.
A link that is given up is closed by a thread of its own, since even closing asks libvirtd.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
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
CALL_THREADS = 6

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


class Link:
    """A connection. `lost` is set once it is of no use any more; events arrive on the event loop."""

    def __init__(
        self,
        uri: str,
        *,
        on_event: Callable[[DomainEvent], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._uri = uri
        self._on_event = on_event
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._threads = CallThreads(CALL_THREADS, "libvirt-call")
        self._connection: libvirt.virConnect | None = None
        self._callback_ids: list[int] = []
        self._given_up = False
        self.lost = asyncio.Event()

    async def open(self, *, timeout_s: float) -> None:
        """Connect and subscribe to events. Raises TemporaryError or PermanentError; then give the link up."""
        start_event_loop()
        await self._deadline(
            self._loop.run_in_executor(self._threads, self._open), "connecting", timeout_s
        )

    async def call(
        self, what: str, work: Callable[[libvirt.virConnect], T], *, timeout_s: float
    ) -> T:
        """Run `work` in a thread; `what` names it for people. Raises what the errors of libvirt become.

        After a missed deadline the link is lost and whether the call took effect is unknown.
        """
        return await self._deadline(self.start(what, work), what, timeout_s)

    def start(
        self, what: str, work: Callable[[libvirt.virConnect], T], *, own_thread: bool = False
    ) -> asyncio.Future[T]:
        """Run `work` without a deadline. `own_thread`: it may take minutes, so it gets a thread of its own."""
        connection = self._connection
        if connection is None or self.lost.is_set():
            raise TemporaryError(f"libvirt is away, so {what} was not tried")
        threads = CallThreads(1, "libvirt-long-call") if own_thread else self._threads
        future = self._loop.run_in_executor(threads, call_translated, what, work, connection)
        if own_thread:
            threads.shutdown()
        return future

    def give_up(self) -> None:
        """Close without waiting. Calls under way go on until libvirt ends them."""
        self._lose()
        if self._given_up:
            return
        self._given_up = True
        closer = CallThreads(1, "libvirt-close")
        closer.submit(self._close)
        closer.shutdown()
        self._threads.shutdown()

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

    def _open(self) -> None:
        call_translated("connecting", self._open_untranslated, None)

    def _open_untranslated(self, _nothing: None) -> None:
        connection = libvirt.open(self._uri)
        self._connection = connection
        try:
            connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
            connection.registerCloseCallback(self._closed, None)
        except libvirt.libvirtError as error:
            # The test driver lives in this process and has neither.
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                raise
        for event_id, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._reboot),
            (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, self._io_error),
        ):
            self._callback_ids.append(
                connection.domainEventRegisterAny(None, event_id, callback, None)
            )

    def _close(self) -> None:
        connection = self._connection
        if connection is None:
            return
        for callback_id in self._callback_ids:
            _quietly(connection.domainEventDeregisterAny, callback_id)
        _quietly(connection.unregisterCloseCallback)
        _quietly(connection.close)

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
            self._tell(self._on_event, event)

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


def _quietly(work: Callable[..., object], *args: object) -> None:
    try:
        work(*args)
    except libvirt.libvirtError as error:
        log.debug("closing a libvirt connection", extra={"error": str(error)})
