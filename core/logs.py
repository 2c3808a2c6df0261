"""Logging of our processes: one line a record on stderr, a fixed sentence and its fields.

`REQUEST_ID` is the request that caused what is being done: set by the API, kept with a task, taken over by whoever works on
it and by calls to other hosts, so that one search finds a request's lines on all of them.

systemd's journal adds the time; the lab's files need one too, so it is always there.
"""

from __future__ import annotations

import contextvars
import logging

REQUEST_ID: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class FieldFormatter(logging.Formatter):
    """Appends what was given by `extra=` as `name=value`, and the request that it is about."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        fields = [f"{k}={v!s}" for k, v in vars(record).items() if k not in _STANDARD]
        if (request_id := REQUEST_ID.get()) and not hasattr(record, "request_id"):
            fields.append(f"request_id={request_id}")
        if not fields:
            return line
        first, newline, rest = line.partition("\n")
        return f"{first} [{' '.join(fields)}]{newline}{rest}"


def set_up_logging(level: str) -> None:
    """Send records of `level` and up to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(FieldFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
