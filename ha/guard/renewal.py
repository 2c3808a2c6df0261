"""Renewing the lease through any agent that answers: first the local one, else peers in turn.

Two kinds of worker threads, started by the guard's loop: they may block, the loop may not. A thread takes the standing
order, makes one attempt at a time with a timeout, and puts every committed answer into a queue with the instant *before*
it was sent. Nothing else counts as renewed: a refusal, a broken answer and a timeout are all the same.
"""

from __future__ import annotations

import http.client
import itertools
import json
import logging
import os
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from ha.guard.settings import Peer, Settings
from ha.guard.terms import Said

log = logging.getLogger(__name__)

LOCAL_PATH = "/v1/local/lease"
PEER_PATH = "/mesh/lease"
PEER_THREADS = 2
ANSWER_BYTES_MAX = 65536
_FAILURES = (OSError, ValueError, KeyError, TypeError, http.client.HTTPException)


@dataclass(frozen=True, slots=True)
class Order:
    """What the threads shall renew with; replaced as a whole by the loop. `number` is that of what is `said`."""

    settings: Settings
    watchdog_armed: bool
    guests: int
    said: Said
    number: int


@dataclass(frozen=True, slots=True)
class Renewed:
    """A renewal that was committed: `sent_s` is the time before it was sent, `lease_s` the length that it said.

    `number` is that of its announcement; `heard` tells whether the answer repeats all that was said.
    """

    sent_s: float
    lease_s: float
    index: int
    via: str
    number: int = 0
    heard: bool = False


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Renewer:
    """The worker threads and what they share with the loop.

    `now_s` is CLOCK_BOOTTIME; `wake` is called after a success, from a thread; `stop` ends the threads.
    """

    def __init__(
        self,
        *,
        boot_id: str,
        api_socket: str,
        identity_dir: str,
        now_s: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self.order: Order | None = None
        self.answers: deque[Renewed] = deque(maxlen=64)
        self._boot_id = boot_id
        self._api_socket = api_socket
        self._identity_dir = identity_dir
        self._now_s = now_s
        self._wake = wake
        self._stop = threading.Event()
        # Larger than any number of a guard that ran earlier in this boot.
        self._seq = itertools.count(int(now_s() * 1000))
        self.seq = 0
        self._numbering = threading.Lock()
        self._success_s = 0.0
        self._turn = itertools.count()
        self._good_peer = ""
        self._tls: tuple[tuple[int, ...], ssl.SSLContext] | None = None
        self._tls_lock = threading.Lock()

    def start(self) -> None:
        """Start the threads."""
        threading.Thread(target=self._renew_by_local_agent, name="renew-local", daemon=True).start()
        for number in range(PEER_THREADS):
            threading.Thread(
                target=self._renew_by_peers, name=f"renew-peer-{number}", daemon=True
            ).start()

    def stop(self) -> None:
        """Ask the threads to end; they are daemons and not waited for."""
        self._stop.set()

    # ---- threads

    def _renew_by_local_agent(self) -> None:
        failing = False
        while not self._stop.is_set():
            began_s = self._now_s()
            order = self.order
            pause_s = 0.5
            if order is not None:
                connection = _UnixConnection(self._api_socket, order.settings.attempt_s)
                failed = self._attempt(connection, LOCAL_PATH, "local")
                if failed and not failing:
                    log.warning("the local agent does not renew the lease: %s", failed)
                failing = bool(failed)
                pause_s = order.settings.renew_s
            self._stop.wait(max(0.05, began_s + pause_s - self._now_s()))

    def _renew_by_peers(self) -> None:
        idle_s = self._now_s()
        while not self._stop.is_set():
            began_s = self._now_s()
            order = self.order
            pause_s = 0.5
            if order is None:
                idle_s = began_s
            else:
                settings = order.settings
                pause_s = settings.renew_s / 2
                silent_s = began_s - max(idle_s, self._success_s)  # the local agent goes first
                if settings.peers and silent_s > 1.2 * settings.attempt_s:
                    pause_s = (
                        settings.renew_s if self._renew_by_one_peer(order) else settings.renew_s / 4
                    )
            self._stop.wait(max(0.05, began_s + pause_s - self._now_s()))

    def _renew_by_one_peer(self, order: Order) -> bool:
        peers = order.settings.peers
        good = [peer for peer in peers if peer.id == self._good_peer]
        peer = good[0] if good else peers[next(self._turn) % len(peers)]
        try:
            context = self._context()
            connection = http.client.HTTPSConnection(
                peer.address, peer.port, timeout=order.settings.attempt_s, context=context
            )
            _connect_to(connection, peer)
        except _FAILURES as error:
            failed = str(error) or type(error).__name__
        else:
            failed = self._attempt(connection, PEER_PATH, peer.id)
        if not failed:
            if self._good_peer != peer.id:
                log.info("the lease is renewed through peer %s", peer.id)
            self._good_peer = peer.id
            return True
        if self._good_peer == peer.id:
            log.warning("peer %s does not renew the lease any more: %s", peer.id, failed)
            self._good_peer = ""
        return False

    # ---- one attempt

    def _attempt(self, connection: http.client.HTTPConnection, path: str, via: str) -> str:
        """Send one renewal; returns the empty string when it was committed, else what failed."""
        with self._numbering:  # what is said later has the higher number
            order = self.order
            self.seq = seq = next(self._seq)
        if order is None:
            connection.close()
            return "not to be renewed any more"
        said = order.said
        body = {
            "host_id": order.settings.host_id,
            "boot_id": self._boot_id,
            "seq": seq,
            "watchdog_armed": order.watchdog_armed,
            "guests": order.guests,
            "lease_s": said.lease_s,
            "watchdog_s": said.watchdog_s,
            "disarmed": said.disarmed,
        }
        sent_s = self._now_s()
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read(ANSWER_BYTES_MAX)
            if response.status != 200:
                return f"status {response.status}: {answer[:200]!r}"
            found = json.loads(answer)
            index = found["index"]
            if type(index) is not int or index < 0:
                return f"not an index: {index!r}"
            heard = (
                found.get("lease_s") == said.lease_s
                and found.get("watchdog_s") == said.watchdog_s
                and found.get("disarmed") is said.disarmed
            )
        except _FAILURES as error:
            return str(error) or type(error).__name__
        finally:
            connection.close()
        self._success_s = max(self._success_s, sent_s)
        self.answers.append(Renewed(sent_s, said.lease_s, index, via, order.number, heard))
        self._wake()
        return ""

    def _context(self) -> ssl.SSLContext:
        """Return the TLS context of this host's identity, made anew when its files changed."""
        names = [f"{self._identity_dir}/{name}" for name in ("ca.pem", "host.pem", "host.key")]
        stamp = tuple(os.stat(name).st_mtime_ns for name in names)
        with self._tls_lock:
            if self._tls is None or self._tls[0] != stamp:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.minimum_version = ssl.TLSVersion.TLSv1_3
                context.check_hostname = False  # certificates name host ids, see _connect_to
                context.load_verify_locations(names[0])
                context.load_cert_chain(names[1], names[2])
                context.set_alpn_protocols(["http/1.1"])
                self._tls = (stamp, context)
            return self._tls[1]


def _connect_to(connection: http.client.HTTPSConnection, peer: Peer) -> None:
    """Connect and make sure that the other end is the host it should be: the common name is the host id."""
    connection.connect()
    assert isinstance(connection.sock, ssl.SSLSocket)
    certificate = connection.sock.getpeercert() or {}
    subject = cast("tuple[tuple[tuple[str, str], ...], ...]", certificate.get("subject", ()))
    names = [value for part in subject for key, value in part if key == "commonName"]
    if names != [peer.id]:
        connection.close()
        raise ValueError(f"{peer.address} shows a certificate of {names}, not of {peer.id}")
