"""Random placement rules, and a plain reading of what mandatory ones ask, to try the real one against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hypothesis import strategies as st

from core.model import VM, Host, PlacementPolicy, PlacementRule, RuleStrength


@st.composite
def placement_rules(
    draw: st.DrawFn, vms: Sequence[VM], hosts: Sequence[Host], most: int = 4
) -> tuple[PlacementRule, ...]:
    """Draw some rules about these VMs and hosts; they may contradict each other."""
    return tuple(
        rule(
            f"r{n}",
            draw(st.sampled_from(PlacementPolicy)),
            draw(st.lists(st.sampled_from([vm.id for vm in vms]), unique=True, max_size=4)),
            draw(st.lists(st.sampled_from([host.id for host in hosts]), unique=True, max_size=3)),
            draw(st.sampled_from(RuleStrength)),
        )
        for n in range(draw(st.integers(0, most)))
    )


def rule(
    name: str,
    policy: PlacementPolicy,
    vms: Iterable[str],
    hosts: Iterable[str] = (),
    strength: RuleStrength = RuleStrength.MANDATORY,
) -> PlacementRule:
    """Make a rule of cluster c."""
    made = PlacementRule(
        id=name,
        name=name,
        cluster_id="c",
        policy=policy,
        strength=strength,
        vm_ids=tuple(vms),
    )
    if made.is_about_hosts:
        return PlacementRule(
            id=name,
            name=name,
            cluster_id="c",
            policy=policy,
            strength=strength,
            vm_ids=made.vm_ids,
            host_ids=tuple(hosts),
        )
    return made


def hold(
    rules: Iterable[PlacementRule], vm_id: str, host_id: str, places: Mapping[str, set[str]]
) -> bool:
    """Tell by the words of the mandatory rules whether a VM may be on a host; `places` are those of the other VMs."""
    for one in rules:
        if not one.is_mandatory or vm_id not in one.vm_ids:
            continue
        others = [places.get(other, set()) for other in one.vm_ids if other != vm_id]
        ok = {
            PlacementPolicy.VM_ANTI_AFFINITY: all(host_id not in at for at in others),
            PlacementPolicy.VM_AFFINITY: all(at <= {host_id} for at in others),
            PlacementPolicy.HOST_AFFINITY: host_id in one.host_ids,
            PlacementPolicy.HOST_ANTI_AFFINITY: host_id not in one.host_ids,
        }
        if not ok[one.policy]:
            return False
    return True
