"""The guard's control socket: one JSON object a line in, one a line out.

Served by the guard's own loop without blocking, for a few clients: the agent, the libvirt hook and people. Requests are
{"op": "status"}, {"op": "grant", "vm_id", "generation", "lease_bound", "applied_index"}, {"op": "revoke", "vm_id"} and
{"op": "check", "vm_id", "generation" (may be absent)}. Answers are {"ok": true, …} or {"ok": false, "code", "error"}.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import socket
from collections.abc import Callable, Mapping
from typing import Any

from ha.guard.lease_clock import Refusal

log = logging.getLogger(__name__)

CLIENTS_MAX = 64
LINE_BYTES_MAX = 65536

Handler = Callable[[Mapping[str, Any]], dict[str, Any]]


def answer(line: bytes, handler: Handler) -> dict[str, Any]:
    """Return the answer to one request line; a malformed one is answered, never raised."""
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise ValueError("a request is a JSON object")
        return {"ok": True, **handler(request)}
    except Refusal as refusal:
        return {"ok": False, "code": refusal.code, "error": refusal.message}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return {"ok": False, "code": "invalid", "error": f"not a valid request: {error!r}"}


class _Client:
    """One connection: bytes not yet read as a line, bytes not yet sent."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.inbox = b""
        self.outbox = b""


class ControlServer:
    """The listening socket and its clients, all in the given selector with a callable as data."""

    def __init__(self, path: str, selector: selectors.BaseSelector, handler: Handler) -> None:
        self._path = path
        self._selector = selector
        self._handler = handler
        self._clients: dict[int, _Client] = {}
        if os.path.lexists(path):
            os.unlink(path)  # the guard's lock file says that no other guard lives
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        former = os.umask(0o177)
        try:
            self._listener.bind(path)
        finally:
            os.umask(former)
        self._listener.listen(CLIENTS_MAX)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _accept(self, mask: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        if len(self._clients) >= CLIENTS_MAX:
            self._close(
                next(iter(self._clients.values()))
            )  # the oldest: a stuck client must not lock others out
        client = _Client(connection)
        self._clients[connection.fileno()] = client
        self._selector.register(
            connection, selectors.EVENT_READ, lambda mask: self._serve(client, mask)
        )

    def _serve(self, client: _Client, mask: int) -> None:
        if client.connection.fileno() < 0:
            return  # closed by an earlier event of the same round
        try:
            if mask & selectors.EVENT_READ and not self._read(client):
                return
            if client.outbox:
                client.outbox = client.outbox[client.connection.send(client.outbox) :]
        except BlockingIOError:
            pass
        except OSError:
            self._close(client)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.outbox else 0)
        self._selector.modify(client.connection, wanted, lambda mask: self._serve(client, mask))

    def _read(self, client: _Client) -> bool:
        data = client.connection.recv(LINE_BYTES_MAX)
        client.inbox += data
        if not data or len(client.inbox) > LINE_BYTES_MAX or len(client.outbox) > LINE_BYTES_MAX:
            self._close(client)
            return False
        *lines, client.inbox = client.inbox.split(b"\n")
        for line in lines:
            client.outbox += json.dumps(answer(line, self._handler)).encode() + b"\n"
        return True

    def _close(self, client: _Client) -> None:
        self._clients.pop(client.connection.fileno(), None)
        self._selector.unregister(client.connection)
        client.connection.close()

    def close(self) -> None:
        """Hang up on everyone and remove the socket."""
        for client in list(self._clients.values()):
            self._close(client)
        self._selector.unregister(self._listener)
        self._listener.close()
        if os.path.lexists(self._path):
            os.unlink(self._path)
