"""Server-sent events (WHATWG HTML, section 9.2), as far as `/v1/events` uses them.

Fed with bytes as they come, gives whole events; the client owns the connection.
"""

from __future__ import annotations

from dataclasses import dataclass

MESSAGE_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """One event; `id` is what to resume after, kept from earlier messages when one has none."""

    id: str
    data: str


class Decoder:
    """Turns pieces of a stream into messages; `last_id` is that of the last whole one."""

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self._id = last_id
        self._rest = b""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> tuple[Message, ...]:
        """Take the next bytes; return the messages they complete.

        Raises:
            ValueError: a line that never ends.
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > MESSAGE_BYTES_MAX:
            raise ValueError("a line of the event stream is too long")
        messages = [
            self._line(line.removesuffix(b"\r").decode("utf-8", "replace")) for line in lines
        ]
        return tuple(message for message in messages if message is not None)

    def _line(self, line: str) -> Message | None:
        if not line:
            self.last_id = self._id
            if not self._data:
                return None
            data, self._data = "\n".join(self._data), []
            return Message(self.last_id, data)
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        return None
