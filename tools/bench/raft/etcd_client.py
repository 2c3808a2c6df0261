"""The clients of etcd, in a process of their own: `python -m tools.bench.raft.etcd_client URL`; takes orders.

They speak to the JSON gateway of the leader with aiohttp, a connection for each client.
"""

from __future__ import annotations

import asyncio
import base64
import sys

import aiohttp
import msgspec
import uvloop

from core.errors import UnavailableError
from tools.bench.raft.clients import VALUE_BYTES, drive, orders, reply
from tools.bench.raft.orders import Drive, Ready

REQUEST_TIMEOUT_S = 30.0
CONNECTIONS = 128


async def serve(url: str) -> None:
    """Obey until standard input ends."""
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as http:

        async def write(client: int, key: int) -> None:
            name = base64.b64encode(b"bench-%d-%d" % (client, key))
            value = base64.b64encode(b"x" * VALUE_BYTES)
            body = msgspec.json.encode({"key": name.decode(), "value": value.decode()})
            async with http.post("/v3/kv/put", data=body) as answer:
                text = await answer.read()
                if answer.status != 200:
                    raise UnavailableError(f"etcd refused a write: {text!r}")

        reply(Ready({}))
        async for order in orders():
            assert isinstance(order, Drive), order
            reply(await drive(write, clients=order.clients, seconds=order.seconds))


def main() -> None:
    """Read the argument and serve."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))


if __name__ == "__main__":
    main()
