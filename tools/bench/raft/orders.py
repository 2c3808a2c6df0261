"""What the bench tells its processes and what they answer: one JSON value a line, on their standard input and output."""

from __future__ import annotations

import msgspec


class Drive(msgspec.Struct, frozen=True, tag="drive"):
    """Let so many clients write for so long, each one value after the other."""

    clients: int
    seconds: float


class AddVoter(msgspec.Struct, frozen=True, tag="add-voter"):
    """Make a host a voter, which takes time if it has to be sent the state first."""

    id: str
    address: str
    timeout_s: float


class Follow(msgspec.Struct, frozen=True, tag="follow"):
    """Let the process's host `id` take its feed from these (id, address), best first."""

    id: str
    parents: tuple[tuple[str, str], ...]


class Fill(msgspec.Struct, frozen=True, tag="fill"):
    """Write so many resources of so many bytes, many in a transaction."""

    resources: int
    size_bytes: int


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """How are you?"""


class Barrier(msgspec.Struct, frozen=True, tag="barrier"):
    """Answer once all hosts of the process have applied what is committed now."""


Order = Drive | AddVoter | Follow | Fill | Ask | Barrier


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """First answer of a process: the address of each of its hosts."""

    addresses: dict[str, str]


class Load(msgspec.Struct, frozen=True, tag="load"):
    """What came of a `Drive`."""

    writes: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Writes a second."""
        return self.writes / self.seconds


class Status(msgspec.Struct, frozen=True, tag="status"):
    """The state of the process's first host; `cpu_s` is the processor time of the whole process."""

    leader: str
    applied: int
    cpu_s: float
    can_follow: bool


class Done(msgspec.Struct, frozen=True, tag="done"):
    """It is done; it took so long."""

    seconds: float


Answer = Ready | Load | Status | Done

_orders: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


def to_line(value: Order | Answer) -> bytes:
    """Return the line that says `value`."""
    return msgspec.json.encode(value) + b"\n"


def order_in(line: bytes) -> Order:
    """Return the order in a line."""
    return _orders.decode(line)


def answer_in(line: bytes) -> Answer:
    """Return the answer in a line."""
    return _answers.decode(line)
