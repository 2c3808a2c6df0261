"""Placement rules: which VMs belong on one host, which must not meet, and which hosts they may run on.

Written by users; `ha.placement_rules` judges by them wherever a host is chosen.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from core.attributes import attribute
from core.errors import InvalidError
from core.model.resource import DESCRIPTION_LENGTH_MAX, OnDelete, Relation, Tagged

RULE_VMS_MAX = 100
RULE_HOSTS_MAX = 1000


class PlacementPolicy(StrEnum):
    """What a rule asks. `VM_ANTI_AFFINITY`: no two of its VMs on one host. `VM_AFFINITY`: all of them on one host.
    `HOST_ANTI_AFFINITY`: on none of its hosts. `HOST_AFFINITY`: only on its hosts."""

    VM_ANTI_AFFINITY = "vm-anti-affinity"
    VM_AFFINITY = "vm-affinity"
    HOST_ANTI_AFFINITY = "host-anti-affinity"
    HOST_AFFINITY = "host-affinity"


class RuleStrength(StrEnum):
    """`MANDATORY`: a VM rather waits than runs where the rule can't hold. `PREFERRED`: hosts where it holds come first."""

    MANDATORY = "mandatory"
    PREFERRED = "preferred"


class PlacementRule(Tagged, tag="placement-rule.v1", frozen=True, kw_only=True):
    """Where some VMs of a cluster may run: apart from or together with each other, or on or off some hosts.

    Nothing is moved by a rule; it holds whenever a host is chosen for one of its VMs.
    """

    PLURAL: ClassVar[str] = "placement-rules"
    BY_DECLARATION: ClassVar[bool] = True
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "cluster_id",
            target="cluster",
            name="cluster",
            reverse="placement_rules",
            required=True,
            on_delete=OnDelete.ALONG,
        ),
        Relation(
            "vm_ids",
            target="vm",
            name="vms",
            reverse="placement_rules",
            many=True,
            on_delete=OnDelete.DETACH,
            maximum=RULE_VMS_MAX,
        ),
        Relation(
            "host_ids",
            target="host",
            name="hosts",
            reverse="placement_rules",
            many=True,
            on_delete=OnDelete.DETACH,
            maximum=RULE_HOSTS_MAX,
        ),
    )

    cluster_id: Annotated[str, attribute("The cluster whose VMs it is about.")]
    policy: Annotated[PlacementPolicy, attribute("What it asks.")]
    strength: Annotated[
        RuleStrength,
        attribute("Whether a VM rather waits than breaks it, or it only comes first."),
    ] = RuleStrength.MANDATORY
    vm_ids: Annotated[
        tuple[str, ...], attribute("The VMs that it is about.", count_max=RULE_VMS_MAX)
    ] = ()
    host_ids: Annotated[
        tuple[str, ...],
        attribute(
            "The hosts that they may or must not run on; only of the host policies.",
            count_max=RULE_HOSTS_MAX,
        ),
    ] = ()
    description: Annotated[
        str, attribute("A note for people.", length_max=DESCRIPTION_LENGTH_MAX)
    ] = ""

    @property
    def is_mandatory(self) -> bool:
        """Whether a VM rather waits than breaks it."""
        return self.strength is RuleStrength.MANDATORY

    @property
    def is_about_hosts(self) -> bool:
        """Whether it names hosts."""
        return self.policy in (PlacementPolicy.HOST_AFFINITY, PlacementPolicy.HOST_ANTI_AFFINITY)

    def check(self) -> None:
        if self.is_about_hosts and not self.host_ids:
            raise InvalidError(f"a rule of policy {self.policy} needs hosts: name one at least")
        if self.host_ids and not self.is_about_hosts:
            raise InvalidError(f"a rule of policy {self.policy} is about VMs only: name no hosts")
