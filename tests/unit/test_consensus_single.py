"""The in-memory engine that tests of everything above use: as strict as the real one where they can tell."""

import inspect

import pytest

from core.errors import ConflictError, UnavailableError
from raftstate.consensus.engine import ConsensusEngine, NodeId, Peer
from raftstate.consensus.pysyncobj_engine import PySyncObjEngine
from raftstate.consensus.single import SingleNodeEngine
from tests.sim.checkers import History
from tests.sim.machine import SimMachine


@pytest.fixture
def machine():
    return SimMachine(History(), "single")


async def test_a_proposal_is_applied_and_answered(machine):
    engine = SingleNodeEngine(machine)
    assert await engine.propose(b"one", timeout_s=1) == b"1:one"
    assert await engine.propose(b"two", timeout_s=1) == b"2:two"
    assert await engine.read_barrier(timeout_s=1) == 2
    assert machine.payloads() == [b"one", b"two"]


async def test_without_a_quorum_nothing_is_applied(machine):
    engine = SingleNodeEngine(machine)
    engine.available = False
    with pytest.raises(UnavailableError):
        await engine.propose(b"one", timeout_s=1)
    with pytest.raises(UnavailableError):
        await engine.read_barrier(timeout_s=1)
    assert engine.leader() is None
    assert machine.payloads() == []


async def test_it_stays_alone(machine):
    engine = SingleNodeEngine(machine)
    (me,) = engine.voters()
    with pytest.raises(ConflictError):
        await engine.add_voter(Peer(NodeId("b"), "10.0.0.2:7444"), timeout_s=1)
    with pytest.raises(ConflictError):
        await engine.remove_voter(me.id, timeout_s=1)


def parameters(method) -> list:
    return [(p.name, p.kind) for p in inspect.signature(method).parameters.values()]


@pytest.mark.parametrize("engine", [SingleNodeEngine, PySyncObjEngine])
def test_every_engine_has_the_methods_of_the_interface(engine):
    for name, method in inspect.getmembers(ConsensusEngine, inspect.isfunction):
        if not name.startswith("_"):
            assert parameters(getattr(engine, name)) == parameters(method), name
