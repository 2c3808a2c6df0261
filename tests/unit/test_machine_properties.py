"""Random transactions against several machines at once: the law is the class's name."""

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from core.model import RESOURCE_TYPES, VM, Resource, VMPhase
from raftstate.state.dump import Frozen
from raftstate.state.machine import REMEMBER_MS, Machine
from raftstate.txn import Applied, Put, Txn, decode_outcome, encode_txn

IDS = st.sampled_from("abc")
CLAIMS = st.sets(st.sampled_from(["n/1", "n/2"])).map(lambda claims: tuple(sorted(claims)))
VMS = st.builds(
    lambda host, cpus, phase: msgspec.msgpack.encode(
        VM(id="a", name="a", cluster_id="c", host_id=host, cpus=cpus, memory_mib=1, phase=phase)
    ),
    st.sampled_from(["h1", "h2"]),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.sampled_from(VMPhase),
)
PUTS = st.builds(
    lambda id_, claims, body: Put(kind="vm", id=id_, name=id_, body=body, claims=claims),
    IDS,
    CLAIMS,
    st.binary(max_size=2) | VMS,
)


class FormerVM(Resource, tag="vm.v1", frozen=True, kw_only=True):
    """A VM as a version knew it that had neither sizes nor phases."""

    host_id: str = ""
    colour: str = "red"


def versions(place: str = ":memory:") -> list[Machine]:
    """A machine of this version, of a former one, and of one that knows no kind at all."""
    return [Machine(place, types=types) for types in (RESOURCE_TYPES, (FormerVM,), ())]


@st.composite
def txns(draw: st.DrawFn) -> Txn:
    return Txn(
        request_id=f"r{draw(st.integers(0, 30))}",
        stamp_ms=draw(st.integers(0, 3)) * REMEMBER_MS,
        guards={f"vm/{id_}": draw(st.integers(0, 4)) for id_ in draw(st.sets(IDS, max_size=1))},
        puts=tuple(draw(st.lists(PUTS, max_size=2, unique_by=lambda p: p.id))),
        deletes=tuple(f"vm/{id_}" for id_ in draw(st.sets(IDS, max_size=1))),
    )


class ReplicasNeverDiverge(RuleBasedStateMachine):
    """Packed or not, repeated or not, of whatever version, by way of a snapshot or not: equal logs make equal states."""

    @initialize()
    def begin(self) -> None:
        self.index = 0
        self.machines = [*versions(), Machine(":memory:")]
        self.frozen: list[tuple[Frozen, bytes]] = []
        self.directory = TemporaryDirectory()

    def apply(self, payloads: list[bytes]) -> list[bytes]:
        self.index += 1
        outcomes, *others = [machine.apply(self.index, payloads) for machine in self.machines]
        assert all(other == outcomes for other in others)
        return outcomes

    @rule(batch=st.lists(txns(), min_size=1, max_size=4), garbage=st.booleans())
    def entry(self, batch: list[Txn], garbage: bool) -> None:
        payloads = [encode_txn(txn) for txn in batch] + [b"\xc1"] * garbage
        # The first is looked up before anything of this entry is forgotten.
        before = self.machines[0].remembered(batch[0].request_id)
        outcomes = self.apply(payloads)
        assert before is None or decode_outcome(outcomes[0]) == before, "the first outcome stands"

    @rule()
    def snapshot(self) -> None:
        """The last one goes on from a copy of another version's state."""
        dump = Path(self.directory.name, "dump")
        frozen = self.machines[1].freeze()
        frozen.write(dump)
        frozen.close()
        self.machines[-1].stage(dump)()

    @rule()
    def freeze(self) -> None:
        self.frozen.append((self.machines[0].freeze(), self.machines[0].digest()))

    @rule()
    def thaw(self) -> None:
        """What was frozen is as it was, whatever was applied since."""
        for frozen, digest in self.frozen:
            path = Path(self.directory.name, "frozen")
            frozen.write(path)
            frozen.close()
            machine = Machine(path)
            assert machine.recompute_digest() == machine.digest() == digest
            machine.close()
        self.frozen.clear()

    @rule(request=st.integers(0, 30))
    def repeat(self, request: int) -> None:
        """A command that was delivered twice: the second time nothing changes."""
        payload = encode_txn(Txn(request_id=f"r{request}", stamp_ms=3 * REMEMBER_MS))
        first = self.apply([payload])
        digest = self.machines[0].digest()
        assert self.apply([payload]) == first
        assert self.machines[0].digest() == digest

    @invariant()
    def digests_and_indexes_are_equal(self) -> None:
        assert len({machine.digest() for machine in self.machines}) == 1
        assert {machine.applied() for machine in self.machines} == {self.index}

    @invariant()
    def the_digest_is_that_of_the_rows(self) -> None:
        for machine in self.machines:
            assert machine.recompute_digest() == machine.digest()

    @invariant()
    def columns_agree_with_bodies(self) -> None:
        for machine in self.machines[:2]:
            table = machine.table("vm")
            fields = ", ".join(f'"{name}"' for name in table.names)
            query = f"SELECT body, {fields} FROM {table.name}"  # noqa: S608 - the schema's
            for body, *values in machine._db.execute(query).fetchall():
                assert tuple(values) == table.values(body)

    def teardown(self) -> None:
        for frozen, _ in self.frozen:
            frozen.close()
        for machine in self.machines:
            machine.close()
        self.directory.cleanup()


class AClaimHasOneHolderWhichExists(RuleBasedStateMachine):
    """Against a model of a few lines: what is applied is what guards and claims allow, nothing else."""

    @initialize()
    def begin(self) -> None:
        self.index = 0
        self.machine = Machine(":memory:")
        self.model: dict[str, tuple[Put, int]] = {}

    @rule(txn=txns())
    def apply(self, txn: Txn) -> None:
        self.index += 1
        txn = Txn(
            request_id=f"only-{self.index}",
            stamp_ms=0,
            guards=txn.guards,
            puts=txn.puts,
            deletes=txn.deletes,
        )
        after = {k: v for k, v in self.model.items() if k not in txn.deletes}
        after |= {f"vm/{put.id}": (put, self.index) for put in txn.puts}
        claims = [claim for put, _ in after.values() for claim in put.claims]
        guarded = all(
            (self.model[key][1] if key in self.model else 0) == revision
            for key, revision in txn.guards.items()
        )
        (outcome,) = self.machine.apply(self.index, [encode_txn(txn)])
        possible = guarded and len(claims) == len(set(claims))
        assert isinstance(decode_outcome(outcome), Applied) == possible
        if possible:
            self.model = after

    @invariant()
    def the_machine_holds_what_the_model_holds(self) -> None:
        for id_ in "abc":
            key = f"vm/{id_}"
            expected = (self.model[key][0].body, self.model[key][1]) if key in self.model else None
            assert self.machine.get("vm", id_) == expected
        holders = {claim: key for key, (put, _) in self.model.items() for claim in put.claims}
        for claim in ("n/1", "n/2"):
            assert self.machine.claim_holder(claim) == holders.get(claim, "")

    def teardown(self) -> None:
        self.machine.close()


pytestmark = pytest.mark.timeout(120)  # many runs; a busy machine takes its time for each
SETTINGS = settings(max_examples=25, stateful_step_count=12, deadline=None)


def test_replicas_never_diverge():
    run_state_machine_as_test(ReplicasNeverDiverge, settings=SETTINGS)


def test_a_claim_has_one_holder_which_exists():
    run_state_machine_as_test(AClaimHasOneHolderWhichExists, settings=SETTINGS)
