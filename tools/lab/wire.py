"""The network between lab hosts: one bridge in a namespace, and the faults that cables have.

Called by `lab`. All faults are nftables rules on the bridge, outside the hosts: frames vanish
silently, as on a broken cable, and a fault outlives a power-off of the host.
"""

from __future__ import annotations

from core.command import run
from tools.lab.layout import PREFIX_LENGTH, WIRE_ADDRESS, Layout

TIMEOUT_S = 20.0
RULES = """
table bridge faults {
  set cut { type ifname; }
  set deaf { type ifname; }
  set mute { type ifname; }
  set apart { type ifname . ifname; }
  chain forward {
    type filter hook forward priority 0;
    iifname @cut drop
    oifname @cut drop
    iifname @mute drop
    oifname @deaf drop
    iifname . oifname @apart drop
  }
  chain input {
    type filter hook input priority 0;
    iifname @cut drop
    iifname @mute drop
  }
  chain output {
    type filter hook output priority 0;
    oifname @cut drop
    oifname @deaf drop
  }
}
"""


class Wire:
    """The cables of one lab. All methods may be repeated."""

    def __init__(self, layout: Layout) -> None:
        self._name = layout.wire

    async def create(self, *, mtu: int) -> None:
        """Make namespace and bridge; the bridge has an address, so it can play an outside client."""
        await run(["ip", "netns", "add", self._name], timeout_s=TIMEOUT_S)
        address = f"{WIRE_ADDRESS}/{PREFIX_LENGTH}"
        lines = (
            "link set lo up",
            f"link add br0 mtu {mtu} type bridge forward_delay 0",
            f"address add {address} dev br0",
            "link set br0 up",
        )
        batch = "\n".join(lines).encode() + b"\n"
        await run(["ip", "-n", self._name, "-batch", "-"], timeout_s=TIMEOUT_S, input=batch)
        await self._nft(RULES)

    async def _nft(self, text: str) -> None:
        inside = ["nsenter", f"--net=/run/netns/{self._name}"]
        await run([*inside, "nft", "-f", "-"], timeout_s=TIMEOUT_S, input=text.encode())

    async def cut(self, host: str) -> None:
        """Drop every frame from and to a host."""
        await self._nft(f"add element bridge faults cut {{ {host} }}\n")

    async def one_way(self, host: str, direction: str) -> None:
        """Drop what the host receives (`in`) or what it sends (`out`)."""
        name = {"in": "deaf", "out": "mute"}[direction]
        await self._nft(f"add element bridge faults {name} {{ {host} }}\n")

    async def partial(self, first: str, second: str) -> None:
        """Drop every frame between two hosts; all others still see both."""
        pairs = f"{first} . {second}, {second} . {first}"
        await self._nft(f"add element bridge faults apart {{ {pairs} }}\n")

    async def heal(self, host: str, hosts: tuple[str, ...]) -> None:
        """Take back every fault of one host; `hosts` are all hosts of the lab."""
        lines = [f"{name} {{ {host} }}" for name in ("cut", "deaf", "mute")]
        lines += [
            f"apart {{ {host} . {other}, {other} . {host} }}" for other in hosts if other != host
        ]
        # Deleting what is not there is an error, so it is added first; one transaction, no gap.
        text = "".join(
            f"add element bridge faults {line}\ndelete element bridge faults {line}\n"
            for line in lines
        )
        await self._nft(text)

    async def heal_all(self) -> None:
        """Take back every fault."""
        names = ("cut", "deaf", "mute", "apart")
        await self._nft("".join(f"flush set bridge faults {name}\n" for name in names))
