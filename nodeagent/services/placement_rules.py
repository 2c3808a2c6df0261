"""Placement rules with this agent's knowledge: what they mean for a VM, what holds a choice to them, and whether they hold.

A choice is made by this agent's copy of the state. What it was made from is guarded in the transaction that records the host:
the mandatory rules about the VM, and the other VMs of those. Of two choices that only together break a rule, the log has
one first; the other's guards fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from core.errors import InvalidError
from core.model import VM, Cluster, Host, PlacementPolicy, PlacementRule, Resource
from core.model.placement_rule import RULE_VMS_MAX
from ha.fencing import is_movable
from ha.health_facts import BrokenRule
from ha.placement import RuledOutError
from ha.placement_rules import (
    Bounds,
    RuleBook,
    bounds_of,
    broken,
    can_leave,
    contradictions,
    nobody_leaves,
    refuse_contradiction,
)
from nodeagent.services.vm_parts import disks_of
from raftstate.store import Store

Rules = tuple[PlacementRule, ...]


def rules_in(store: Store, cluster_id: str, instead: Rules = ()) -> Rules:
    """Return the rules of a cluster, by name; those of `instead` stand for the rules of their ids as they are stored."""
    shall_be = {rule.id: rule for rule in instead}
    return tuple(
        shall_be.get(rule.id, rule)
        for rule in store.all(PlacementRule)
        if rule.cluster_id == cluster_id
    )


def bounds_in(
    store: Store,
    vm: VM,
    *,
    leaves: Callable[[VM], bool] = nobody_leaves,
    moves: bool = False,
    instead: Rules = (),
) -> Bounds | None:
    """Return what rules mean for a VM as the state is now; None: it has none. `leaves`, `moves`: as in `bounds_of`; `instead`: as in `rules_in`."""
    book = RuleBook.of(rules_in(store, vm.cluster_id, instead))
    return bounds_of(book, vm, lambda id_: store.get(VM, id_), leaves=leaves, moves=moves)


def leaving(store: Store, vm: VM, host: Host | None) -> Callable[[VM], bool]:
    """Return what tells which other VMs leave a host, as one that goes from there does: it is being emptied, goes down or has lost
    their storage, or a maintenance has ended and they go back where they were. None: no host is left by anybody."""
    home = store.get(Host, vm.home_host_id) if vm.home_host_id else None
    returns = home is not None and not home.maintenance and vm.host_id != home.id

    def leaves(other: VM) -> bool:
        disks = disks_of(store, other.id)
        if host is None or any(disk.host_id for disk in disks):
            return False
        if host.maintenance or (returns and other.home_host_id == vm.home_host_id):
            return can_leave(other)
        gone = {disk.data_storage_id for disk in disks}.intersection(host.unreachable_storage_ids)
        return is_movable(other) and (bool(host.down_boot_id) or bool(gone))

    return leaves


def rule_guards(store: Store, vm: VM, instead: Rules = ()) -> tuple[Resource, ...]:
    """Return what a choice of a host for a VM was made from; call it before anything is waited for after the choice."""
    book = RuleBook.of(rules_in(store, vm.cluster_id, instead))
    others = (store.get(VM, id_) for id_ in sorted(book.concerned(vm.id)))
    return (*book.mandatory(vm.id), *(other for other in others if other is not None))


def still_allowed(
    store: Store, vm: VM, host: Host, *, leaves: Callable[[VM], bool], moves: bool = False
) -> tuple[Resource, ...]:
    """See that mandatory rules still allow a host that was chosen for a VM a while ago; return what to guard, so that they do.

    Raises:
        RuledOutError: they don't any more.
    """
    bounds = bounds_in(store, vm, leaves=leaves, moves=moves)
    if bounds is not None and (why := bounds.why_not(host.id)):
        raise RuledOutError(f"host {host.name} can't take VM {vm.name!r} any more: {why}")
    return rule_guards(store, vm)


def joined_by(store: Store, vm: VM, rules: Rules) -> Rules:
    """Return rules as they are with a VM that is about to be created, in the order given.

    Raises:
        InvalidError: a rule is about another cluster, or has as many VMs as it may.
        RuleError: with the VM, one contradicts another.
    """
    joined: Rules = ()
    name_of = _names(store)
    for rule in rules:
        if rule.cluster_id != vm.cluster_id:
            raise InvalidError(
                f"rule {rule.name!r} is about another cluster than that of VM {vm.name!r}: a rule is about one cluster"
            )
        if len(rule.vm_ids) >= RULE_VMS_MAX:
            raise InvalidError(f"rule {rule.name!r} is about {RULE_VMS_MAX} VMs, and takes no more")
        after = replace(rule, vm_ids=(*rule.vm_ids, vm.id))
        refuse_contradiction(
            after,
            rules_in(store, vm.cluster_id, joined),
            lambda id_: vm.name if id_ == vm.id else name_of(id_),
        )
        joined = (*joined, after)
    return joined


def check_rule(store: Store, after: Resource) -> None:
    """See that a rule, as it shall be, is about one cluster and can hold beside the others; other resources pass.

    Raises:
        InvalidError: a VM or host of it belongs to another cluster.
        RuleError: it contradicts another rule.
    """
    if not isinstance(after, PlacementRule):
        return
    cluster = store.need(Cluster, after.cluster_id)
    members: list[VM | Host] = [vm for id_ in after.vm_ids if (vm := store.get(VM, id_))]
    members += [host for id_ in after.host_ids if (host := store.get(Host, id_))]
    for one in members:
        if one.cluster_id != cluster.id:
            what = "VM" if isinstance(one, VM) else "host"
            raise InvalidError(
                f"{what} {one.name!r} is not in cluster {cluster.name!r}: a rule is about one cluster"
            )
    refuse_contradiction(after, rules_in(store, cluster.id), _names(store))


@dataclass(frozen=True, slots=True)
class RuleCheck:
    """Where a rule doesn't hold now, and why it may not be able to."""

    broken: tuple[str, ...]
    warnings: tuple[str, ...]


def checked(store: Store, rule: PlacementRule) -> RuleCheck:
    """Return whether a rule holds now, and can hold."""
    return RuleCheck(tuple(_broken(store, rule)), tuple(_warnings(store, rule)))


def broken_rules(store: Store) -> tuple[BrokenRule, ...]:
    """Return the rules that don't hold now, by name."""
    return tuple(
        BrokenRule(name=rule.name, mandatory=rule.is_mandatory, what="; ".join(found))
        for rule in store.all(PlacementRule)
        if (found := _broken(store, rule))
    )


def _names(store: Store) -> Callable[[str], str]:
    def name_of(vm_id: str) -> str:
        vm = store.get(VM, vm_id)
        return vm.name if vm is not None else vm_id

    return name_of


def _broken(store: Store, rule: PlacementRule) -> list[str]:
    def host_name(host_id: str) -> str:
        host = store.get(Host, host_id)
        return host.name if host is not None else host_id

    return broken(rule, lambda id_: store.get(VM, id_), host_name)


def _warnings(store: Store, rule: PlacementRule) -> Iterable[str]:
    hosts = [
        host for host in store.all(Host) if host.cluster_id == rule.cluster_id and not host.witness
    ]
    if rule.policy is PlacementPolicy.VM_ANTI_AFFINITY and len(rule.vm_ids) > len(hosts):
        yield f"it keeps {len(rule.vm_ids)} VMs apart, and the cluster has {len(hosts)} hosts"
    if rule.is_about_hosts and not rule.host_ids:
        yield "its hosts are gone: name others, or delete it"
    others = rules_in(store, rule.cluster_id)
    for one in contradictions(others, _names(store)):
        if rule.id in (one.one.id, one.other.id):
            yield one.told()
