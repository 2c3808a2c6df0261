"""Random transactions against several machines at once: the law is the class's name."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from raftstate.state.machine import REMEMBER_MS, Machine
from raftstate.txn import Applied, Put, Txn, decode_outcome, encode_txn

IDS = st.sampled_from("abc")
CLAIMS = st.sets(st.sampled_from(["n/1", "n/2"])).map(lambda claims: tuple(sorted(claims)))
PUTS = st.builds(
    lambda id_, claims, body: Put(kind="vm", id=id_, name=id_, body=body, claims=claims),
    IDS,
    CLAIMS,
    st.binary(max_size=2),
)


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
    """Packed or not, repeated or not, by way of a snapshot or not: equal logs make equal states."""

    @initialize()
    def begin(self) -> None:
        self.index = 0
        self.once, self.twice, self.by_snapshot = (Machine(":memory:") for _ in range(3))

    @rule(batch=st.lists(txns(), min_size=1, max_size=4), garbage=st.booleans())
    def entry(self, batch: list[Txn], garbage: bool) -> None:
        self.index += 1
        payloads = [encode_txn(txn) for txn in batch] + [b"\xc1"] * garbage
        before = self.once.remembered(batch[0].request_id)  # later ones may be forgotten by then
        outcomes = self.once.apply(self.index, payloads)
        for machine in (self.twice, self.by_snapshot):
            assert machine.apply(self.index, payloads) == outcomes
        assert before is None or decode_outcome(outcomes[0]) == before, "the first outcome stands"

    @rule()
    def snapshot(self) -> None:
        fresh = Machine(":memory:")
        fresh.load(self.by_snapshot.dump())
        self.by_snapshot.close()
        self.by_snapshot = fresh

    @rule(request=st.integers(0, 30))
    def repeat(self, request: int) -> None:
        """A command that was delivered twice: the second time nothing changes."""
        txn = Txn(request_id=f"r{request}", stamp_ms=3 * REMEMBER_MS)
        self.index += 1
        for machine in (self.once, self.twice, self.by_snapshot):
            machine.apply(self.index, [encode_txn(txn)])
        digest, first = self.once.digest(), self.once.remembered(txn.request_id)
        self.index += 1
        for machine in (self.once, self.twice, self.by_snapshot):
            (outcome,) = machine.apply(self.index, [encode_txn(txn)])
            assert decode_outcome(outcome) == first
        assert self.once.digest() == digest

    @invariant()
    def digests_and_indexes_are_equal(self) -> None:
        machines = (self.once, self.twice, self.by_snapshot)
        assert len({machine.digest() for machine in machines}) == 1
        assert {machine.applied() for machine in machines} == {self.index}

    def teardown(self) -> None:
        for machine in (self.once, self.twice, self.by_snapshot):
            machine.close()


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


SETTINGS = settings(max_examples=25, stateful_step_count=12, deadline=None)


def test_replicas_never_diverge():
    run_state_machine_as_test(ReplicasNeverDiverge, settings=SETTINGS)


def test_a_claim_has_one_holder_which_exists():
    run_state_machine_as_test(AClaimHasOneHolderWhichExists, settings=SETTINGS)
