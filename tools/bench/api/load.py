"""Load from h2load (Debian's nghttp2-client), and what it measured: answers a second, and how long they took.

Ours and the peer's get the same load from the same program, over the same kind of socket.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.command import run
from core.errors import NotFoundError, UnavailableError

CLIENTS = 16
MICROSECONDS = 1000.0
_COUNTS = re.compile(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx")
_RATE = re.compile(r"finished in [^,]+, ([\d.]+) req/s")


@dataclass(frozen=True, slots=True)
class Load:
    """What came of one run: answers a second, and quantiles of their times in milliseconds."""

    per_second: float
    p50_ms: float
    p99_ms: float


async def get(
    base: str,
    path: str,
    *,
    headers: Mapping[str, str],
    seconds: float,
    directory: Path,
    inside: Sequence[str] = (),
) -> Load:
    """Ask for one path over and over, `CLIENTS` at a time. `base` is `unix:PATH` or `https://host:port`.

    `inside` is what the program is started through, to be in another network.

    Raises:
        NotFoundError: h2load isn't installed.
        UnavailableError: an answer was not a success.
    """
    program = shutil.which("h2load")
    if program is None:
        raise NotFoundError("there is no h2load: apt-get install nghttp2-client")
    log = directory / "h2load.tsv"
    log.unlink(missing_ok=True)
    given = [f"--header={name}: {value}" for name, value in headers.items()]
    where = (
        (f"--base-uri={base}", f"http://host{path}")
        if base.startswith("unix:")
        else (f"{base}{path}",)
    )
    ended = await run(
        [
            *(*inside, program, "--h1", f"-c{CLIENTS}", "-t1", "-D", str(round(seconds))),
            *(f"--log-file={log}", *given, *where),
        ],
        timeout_s=seconds + 60,
        secret_args=given,
    )
    return read(ended.stdout.decode(), log.read_text())


def read(said: str, log: str) -> Load:
    """Return what h2load said and logged (start, status, microseconds; a line an answer).

    Raises:
        UnavailableError: not every answer was a success, or there was none.
    """
    counts, rate = _COUNTS.search(said), _RATE.search(said)
    times = sorted(int(line.split("\t")[2]) for line in log.splitlines())
    if counts is None or rate is None or not times:
        raise UnavailableError(f"h2load measured nothing: {said[-500:]}")
    if any(int(counts[number]) for number in (2, 3, 4)):
        seen = sorted({line.split("\t")[1] for line in log.splitlines()})
        raise UnavailableError(f"not every answer was a success: {counts[0]} ({', '.join(seen)})")
    return Load(
        per_second=float(rate[1]),
        p50_ms=times[len(times) // 2] / MICROSECONDS,
        p99_ms=times[len(times) * 99 // 100] / MICROSECONDS,
    )
