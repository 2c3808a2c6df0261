"""What placement rules mean for the choice of a host. Pure: rules and the places of VMs in, hosts allowed or not out.

Asked by whatever chooses a host (`ha.placement`), and by `nodeagent.services.placement_rules` when a rule is written. A VM is
where its record says, in a live migration on both hosts; one that is stopped, and shall be, is nowhere.

VMs that mandatory rules keep together, directly or through others, are one group. Those of a group that run bind the rest to
their host. Members that leave their host, because it is lost or is being emptied, bind nobody: they *follow*, and the host
is chosen for all of them at once. Costs nothing for a VM without rules; else grows with the rules and members of its group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from core.errors import ConflictError
from core.model import VM, PlacementPolicy, PlacementRule, PowerState, VMPhase

_IDLE_PHASES = (VMPhase.STOPPED, VMPhase.DELETING)
_UNMOVABLE_PHASES = (VMPhase.CREATING, VMPhase.PAUSED, VMPhase.BLOCKED, VMPhase.DELETING)


class RuleError(ConflictError):
    """A rule can't hold together with another one; the message names both."""

    code = "rule-contradiction"


def is_placed(vm: VM) -> bool:
    """Tell whether a VM runs or shall run, so that it takes room where it is."""
    return not (vm.power is PowerState.STOPPED and vm.phase in _IDLE_PHASES)


@dataclass(frozen=True, slots=True)
class RuleBook:
    """Rules by the VMs that they are about. `groups`: by VM, those that mandatory rules keep on one host with it, itself too."""

    by_vm: Mapping[str, tuple[PlacementRule, ...]] = field(default_factory=dict)
    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, rules: Iterable[PlacementRule]) -> RuleBook:
        """Sort out rules; once for many questions."""
        by_vm: dict[str, list[PlacementRule]] = {}
        groups: dict[str, frozenset[str]] = {}
        for rule in sorted(rules, key=lambda rule: (rule.name, rule.id)):
            for vm_id in dict.fromkeys(rule.vm_ids):
                by_vm.setdefault(vm_id, []).append(rule)
            if rule.is_mandatory and rule.policy is PlacementPolicy.VM_AFFINITY and rule.vm_ids:
                joined = frozenset(rule.vm_ids).union(
                    *(groups.get(vm_id, frozenset()) for vm_id in rule.vm_ids)
                )
                groups.update(dict.fromkeys(joined, joined))
        return cls({vm_id: tuple(found) for vm_id, found in by_vm.items()}, groups)

    def group_of(self, vm_id: str) -> frozenset[str]:
        """Return the VMs that have to be on one host with a VM, itself too."""
        return self.groups.get(vm_id) or frozenset({vm_id})

    def concerned(self, vm_id: str) -> frozenset[str]:
        """Return the other VMs whose places decide where a VM, or its group, may run for certain."""
        group = self.group_of(vm_id)
        apart = {
            other
            for member in group
            for rule in self.by_vm.get(member, ())
            if rule.is_mandatory and rule.policy is PlacementPolicy.VM_ANTI_AFFINITY
            for other in rule.vm_ids
        }
        return (group | apart) - {vm_id}

    def mandatory(self, vm_id: str) -> tuple[PlacementRule, ...]:
        """Return the mandatory rules about a VM and its group."""
        found = {
            rule.id: rule
            for member in self.group_of(vm_id)
            for rule in self.by_vm.get(member, ())
            if rule.is_mandatory
        }
        return tuple(found.values())


NO_RULES = RuleBook()


@dataclass(frozen=True, slots=True)
class Bounds:
    """What rules mean for one VM now. `followers` are to go where it goes. `only`: sets of hosts outside of which it can't be,
    with the reason; `never`: hosts that it can't be on, with the reason. `rather` and `rather_not`: the same of rules that are preferred."""

    followers: tuple[VM, ...] = ()
    only: tuple[tuple[frozenset[str], str], ...] = ()
    never: Mapping[str, str] = field(default_factory=dict)
    rather: tuple[frozenset[str], ...] = ()
    rather_not: tuple[frozenset[str], ...] = ()

    def why_not(self, host_id: str) -> str:
        """Return which mandatory rule forbids a host; empty: none does."""
        if why := self.never.get(host_id):
            return why
        return next((why for hosts, why in self.only if host_id not in hosts), "")

    def penalty(self, host_id: str) -> int:
        """Return how many preferred rules would not hold on a host."""
        return sum(host_id not in hosts for hosts in self.rather) + sum(
            host_id in hosts for hosts in self.rather_not
        )


def nobody_leaves(vm: VM) -> bool:
    """Say of every VM that it stays where it is."""
    del vm
    return False


def can_leave(vm: VM) -> bool:
    """Tell whether a VM can be moved off its host alive, now or soon, as far as its record says; its disks may forbid it."""
    return vm.power is PowerState.RUNNING and vm.phase not in _UNMOVABLE_PHASES


def bounds_of(
    book: RuleBook,
    vm: VM,
    vm_of: Callable[[str], VM | None],
    *,
    planned: Mapping[str, str] | None = None,
    leaves: Callable[[VM], bool] = nobody_leaves,
    moves: bool = False,
) -> Bounds | None:
    """Return what rules mean for a VM; None: it has none.

    `vm_of` gives VMs by id. `planned` are hosts by VM that were chosen, but aren't recorded yet. `leaves` tells whether
    another VM that is on the host of this one leaves it, too, for the same reason. `moves`: the VM runs, and may come nearer to its group even while that is
    on several hosts; one that doesn't run is not started then.
    """
    if vm.id not in book.by_vm:
        return None
    chosen = planned or {}

    def places(vm_id: str) -> frozenset[str]:
        if host_id := chosen.get(vm_id):
            return frozenset({host_id})
        other = vm_of(vm_id)
        if other is None or not is_placed(other):
            return frozenset()
        return frozenset({other.host_id, other.migrating_to_host_id}) - {""}

    bound: dict[str, str] = {}
    followers: list[VM] = []
    for vm_id in sorted(book.group_of(vm.id) - {vm.id}):
        member, at = vm_of(vm_id), places(vm_id)
        if member is None or not at:
            continue
        goes = vm_id not in chosen and vm.host_id in at and leaves(member)
        staying = at - {vm.host_id} if goes else at
        bound.update(dict.fromkeys(staying, member.name))
        if not staying:
            followers.append(member)
    together = (vm, *followers)
    only: list[tuple[frozenset[str], str]] = []
    if bound:
        hosts = frozenset(bound) if len(bound) == 1 or moves else frozenset()
        names = _names(vm, book)
        beside = " and ".join(sorted(set(bound.values())))
        why = f"{names} keeps it on one host with {beside}"
        only.append((hosts, why if hosts else f"{why}, and these are on several hosts"))
    never: dict[str, str] = {}
    for member in together:
        for rule in book.by_vm.get(member.id, ()):
            if rule.is_mandatory:
                _add_mandatory(rule, member, together, places, vm_of, only, never)
    rather, rather_not = _preferences(book, vm, places)
    return Bounds(tuple(followers), tuple(only), never, rather, rather_not)


def _names(vm: VM, book: RuleBook) -> str:
    found = [
        repr(rule.name)
        for rule in book.by_vm[vm.id]
        if rule.is_mandatory and rule.policy is PlacementPolicy.VM_AFFINITY
    ]
    return f"rule {', '.join(found)}"


def _add_mandatory(
    rule: PlacementRule,
    member: VM,
    together: tuple[VM, ...],
    places: Callable[[str], frozenset[str]],
    vm_of: Callable[[str], VM | None],
    only: list[tuple[frozenset[str], str]],
    never: dict[str, str],
) -> None:
    match rule.policy:
        case PlacementPolicy.HOST_AFFINITY:
            only.append((frozenset(rule.host_ids), f"rule {rule.name!r} keeps it on other hosts"))
        case PlacementPolicy.HOST_ANTI_AFFINITY:
            why = f"rule {rule.name!r} keeps it off this host"
            never.update((host_id, why) for host_id in rule.host_ids if host_id not in never)
        case PlacementPolicy.VM_ANTI_AFFINITY:
            for vm_id in rule.vm_ids:
                if vm_id == member.id:
                    continue
                other = vm_of(vm_id)
                name = other.name if other is not None else vm_id
                why = f"rule {rule.name!r} keeps it apart from {name}, which is on it"
                if any(one.id == vm_id for one in together):
                    why = f"rule {rule.name!r} keeps {member.name} apart from {name}, which is to be on its host"
                    only.append((frozenset(), why))
                    continue
                never.update((h, why) for h in sorted(places(vm_id)) if h not in never)
        case PlacementPolicy.VM_AFFINITY:
            pass  # the group is bound already


def _preferences(
    book: RuleBook, vm: VM, places: Callable[[str], frozenset[str]]
) -> tuple[tuple[frozenset[str], ...], tuple[frozenset[str], ...]]:
    rather: list[frozenset[str]] = []
    rather_not: list[frozenset[str]] = []
    for rule in book.by_vm[vm.id]:
        if rule.is_mandatory:
            continue
        others = frozenset().union(*(places(id_) for id_ in rule.vm_ids if id_ != vm.id))
        match rule.policy:
            case PlacementPolicy.HOST_AFFINITY:
                rather.append(frozenset(rule.host_ids))
            case PlacementPolicy.HOST_ANTI_AFFINITY:
                rather_not.append(frozenset(rule.host_ids))
            case PlacementPolicy.VM_AFFINITY if others:
                rather.append(others)
            case PlacementPolicy.VM_ANTI_AFFINITY:
                rather_not.append(others)
            case _:
                pass
    return tuple(rather), tuple(rather_not)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two mandatory rules that can't both hold, and why."""

    one: PlacementRule
    other: PlacementRule
    why: str

    def told(self) -> str:
        """Return it in words."""
        return f"rules {self.one.name!r} and {self.other.name!r} can't both hold: {self.why}"


def contradictions(
    rules: Iterable[PlacementRule], name_of: Callable[[str], str]
) -> list[Contradiction]:
    """Return pairs of mandatory rules that no host could ever satisfy; `name_of` gives a VM's name by its id.

    Too few hosts for VMs that are kept apart is none: hosts may be added.
    """
    book = RuleBook.of(rule for rule in rules if rule.is_mandatory)
    found: dict[tuple[str, str], Contradiction] = {}
    for group in {book.group_of(vm_id) for vm_id in book.by_vm}:
        for one in _within(group, book, name_of):
            found.setdefault((one.one.id, one.other.id), one)
    return [found[key] for key in sorted(found, key=lambda k: (found[k].one.name, k))]


def _within(
    group: frozenset[str], book: RuleBook, name_of: Callable[[str], str]
) -> Iterable[Contradiction]:
    rules = {rule.id: rule for id_ in sorted(group) for rule in book.by_vm[id_]}
    ordered = sorted(rules.values(), key=lambda rule: (rule.name, rule.id))
    who = " and ".join(sorted(name_of(id_) for id_ in group))
    for rule in ordered:
        if rule.policy is not PlacementPolicy.VM_ANTI_AFFINITY:
            continue
        both = sorted(group.intersection(rule.vm_ids))
        if len(both) > 1:
            joining = next(
                r for r in book.by_vm[both[0]] if r.policy is PlacementPolicy.VM_AFFINITY
            )
            names = " and ".join(sorted(name_of(id_) for id_ in both))
            yield Contradiction(joining, rule, f"{names} would have to be together and apart")
    on = [rule for rule in ordered if rule.policy is PlacementPolicy.HOST_AFFINITY]
    off = [rule for rule in ordered if rule.policy is PlacementPolicy.HOST_ANTI_AFFINITY]
    why = f"they leave no host for {who}"
    for one, other in combinations(on, 2):
        if not set(one.host_ids) & set(other.host_ids):
            yield Contradiction(one, other, why)
            return
    if not on:
        return
    left = set(on[0].host_ids).intersection(*(rule.host_ids for rule in on[1:]))
    if not left and len(on) > 1:
        yield Contradiction(on[0], on[-1], why)
        return
    for rule in off:
        if left and not (left := left - set(rule.host_ids)):
            yield Contradiction(on[-1], rule, why)


def refuse_contradiction(
    rule: PlacementRule, others: Iterable[PlacementRule], name_of: Callable[[str], str]
) -> None:
    """See that a rule can hold beside the `others` of its cluster.

    Raises:
        RuleError: it can't; the message names both rules.
    """
    others = [one for one in others if one.id != rule.id]
    known = {(one.one.id, one.other.id) for one in contradictions(others, name_of)}
    for one in contradictions([*others, rule], name_of):
        if (one.one.id, one.other.id) not in known:
            raise RuleError(f"{one.told()}; change one of them, or make it preferred")


def broken(
    rule: PlacementRule, vm_of: Callable[[str], VM | None], host_name: Callable[[str], str]
) -> list[str]:
    """Return in words where a rule doesn't hold now."""
    vms = [vm for id_ in dict.fromkeys(rule.vm_ids) if (vm := vm_of(id_)) and is_placed(vm)]
    vms = sorted((vm for vm in vms if vm.host_id), key=lambda vm: vm.name)
    match rule.policy:
        case PlacementPolicy.VM_ANTI_AFFINITY:
            on: dict[str, list[str]] = {}
            for vm in vms:
                for host_id in {vm.host_id, vm.migrating_to_host_id} - {""}:
                    on.setdefault(host_id, []).append(vm.name)
            crowded = sorted((host_name(id_), names) for id_, names in on.items())
            return [
                f"{' and '.join(names)} are together on {host}"
                for host, names in crowded
                if len(names) > 1
            ]
        case PlacementPolicy.VM_AFFINITY:
            if len({vm.host_id for vm in vms}) < 2:
                return []
            return [", ".join(f"{vm.name} is on {host_name(vm.host_id)}" for vm in vms)]
        case PlacementPolicy.HOST_AFFINITY | PlacementPolicy.HOST_ANTI_AFFINITY:
            wanted = rule.policy is PlacementPolicy.HOST_AFFINITY
            wrong = [vm for vm in vms if (vm.host_id in rule.host_ids) is not wanted]
            return [f"{vm.name} is on {host_name(vm.host_id)}" for vm in wrong]
