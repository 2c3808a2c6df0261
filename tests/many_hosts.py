"""A cluster of several hosts as its leader sees it, for tests of roles: one real store, voters and links as a test says."""

from msgspec.structs import replace

from core.errors import UnavailableError
from core.model import Event, Host
from nodeagent.node import Node
from nodeagent.services.member_states import State
from raftstate.consensus.engine import NodeId, Peer, Progress, Role
from raftstate.consensus.single import SingleNodeEngine
from tests.one_member import HOST_ID, OneMember


def id_of(number: int) -> str:
    """Return the id of host `h<number>`; that of h1 is HOST_ID."""
    return f"{number}" * 8 + "-1111-4111-8111-111111111111" if number > 1 else HOST_ID


class ManyEngine(SingleNodeEngine):
    """The leader's engine: writes are committed at once, voters change as asked, links are what a test says."""

    def __init__(self, machine, peer: Peer) -> None:
        super().__init__(machine, peer=peer)
        self.peers = {peer.id: peer}
        self.linked: dict[str, Progress] = {}
        self.orders: list[str] = []
        self.fault_text = ""
        self.refuses: set[str] = set()
        self.leads = True
        self.parents: list[tuple[str, ...]] = []

    def is_leader(self) -> bool:
        return self.leads and self.available

    def leader(self):
        return super().leader() if self.leads else None

    def role(self) -> Role:
        return Role.VOTER if self._peer.id in self.peers else Role.REPLICA

    def fault(self) -> str:
        return self.fault_text

    def voters(self) -> tuple[Peer, ...]:
        return tuple(self.peers[id_] for id_ in sorted(self.peers))

    def connected(self) -> frozenset[NodeId]:
        return frozenset(self.linked)

    def progress(self):
        return self.linked

    def follow(self, parents) -> None:
        self.parents.append(tuple(peer.id for peer in parents))

    async def add_voter(self, peer: Peer, *, timeout_s: float) -> None:
        self.orders.append(f"+{peer.id[0]}")
        if peer.id in self.refuses:
            raise UnavailableError(f"the voters could not be changed within {timeout_s:g} s")
        self.peers[peer.id] = peer
        self.linked.setdefault(peer.id, Progress(self.commit_index(), 1, 0.0))

    async def remove_voter(self, node: NodeId, *, timeout_s: float) -> None:
        del timeout_s
        self.orders.append(f"-{node[0]}")
        self.peers.pop(node, None)

    async def step_aside(self, *, timeout_s: float) -> None:
        del timeout_s
        self.orders.append("hand-over")
        self.leads = False


class AnsweringMesh:
    """Hosts that answer: their states by host id; everybody else is silent."""

    def __init__(self) -> None:
        self.states: dict[str, State] = {}
        self.asked: list[str] = []

    async def call(self, host: Host, path: str, body, answer, *, timeout_s: float = 5.0):
        del body, answer, timeout_s
        self.asked.append(f"{host.name}{path}")
        if host.id not in self.states:
            raise UnavailableError(f"host {host.name} does not answer: no answer in time")
        return self.states[host.id]


class ManyHosts(OneMember):
    """Host h1 leads and votes; add others with `join`."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.engine = ManyEngine(self.machine, Peer(NodeId(HOST_ID), "192.0.2.1:7444"))
        self.mesh_client = AnsweringMesh()
        self.store._proposer = self.engine
        self.node = self.node_of(HOST_ID, "h1")

    def node_of(self, host_id: str, host_name: str) -> Node:
        made = super().node_of(host_id, host_name)
        fields = {name: getattr(made, name) for name in made.__dataclass_fields__}
        mesh = getattr(self, "mesh_client", None)
        return Node(**{**fields, "mesh": mesh, "engine": self.engine})

    async def join(self, *numbers: int, **fields) -> None:
        """Record hosts that answer and keep up."""
        for number in numbers:
            await self.add_host(id_of(number), f"h{number}", f"192.0.2.{number}", **fields)
            self.mesh_client.states[id_of(number)] = self.state()

    def state(self, **fields) -> State:
        """Return what a host that keeps up says."""
        index = self.machine.applied()
        well = {"applied": index, "committed": index, "level": 1, "generation": 1, "votes": False}
        return State(**(well | fields))

    def vote(self, *numbers: int, level: int = 1) -> None:
        """Make hosts voters with a link to the leader."""
        for number in numbers:
            self.engine.peers[id_of(number)] = Peer(NodeId(id_of(number)), f"192.0.2.{number}:7444")
            self.link(number, level=level)

    def link(self, number: int, *, applied: int | None = None, level: int = 1) -> None:
        """Say that the leader has a link to a host."""
        index = self.machine.applied() if applied is None else applied
        self.engine.linked[id_of(number)] = Progress(index, level, 0.0)

    def die(self, number: int) -> None:
        """Take a host's links and answers away."""
        self.engine.linked.pop(id_of(number), None)
        self.mesh_client.states.pop(id_of(number), None)

    async def change(self, number: int, **fields) -> None:
        """Change a host's record."""
        await self.store.apply(puts=(replace(self.store.need(Host, id_of(number)), **fields),))

    def votes(self) -> str:
        """Return the voters' numbers."""
        return "".join(sorted(id_[0] for id_ in self.engine.peers))

    def events(self) -> list[str]:
        """Return the codes and subjects of all events."""
        return [f"{e.code} {e.subject_name}" for e in self.store.since(Event, 0)]
