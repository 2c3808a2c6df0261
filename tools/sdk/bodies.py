"""The bodies of requests, one struct each; fields left alone are not sent, so the agent's defaults apply.

Built by programs and the command line, encoded by the client.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all request bodies."""


class InitBody(Body, frozen=True, kw_only=True):
    """Make a cluster of this host. Empty fields are derived by the agent."""

    cluster_name: str = ""
    host_name: str = ""
    address: str = ""


class JoinBody(Body, frozen=True, kw_only=True):
    """Make this host a member of the cluster that gave the token."""

    token: str
    host_name: str = ""
    address: str = ""
    witness: bool = False


class LeaveBody(Body, frozen=True, kw_only=True):
    """Take this host out of its cluster; `confirm` is its name, needed with `force`."""

    force: bool = False
    confirm: str = ""


class JoinTokenBody(Body, frozen=True, kw_only=True):
    """Ask for single-use join tokens that live for `ttl_s` seconds."""

    count: int = 1
    ttl_s: int = 10800
    cluster: str | UnsetType = UNSET


class AccessTokenBody(Body, frozen=True, kw_only=True):
    """Ask for an access token; `ttl_s` 0 never ends."""

    name: str
    ttl_s: int = 0
    account: str | UnsetType = UNSET
    roles: tuple[str, ...] | UnsetType = UNSET


class AccessKeyBody(Body, frozen=True, kw_only=True):
    """Ask for an access key, with an account's rights or roles of its own; `ttl_s` 0 never ends."""

    name: str
    account: str | UnsetType = UNSET
    roles: tuple[str, ...] | UnsetType = UNSET
    ttl_s: int = 0
    description: str = ""


class AccessKeyPatch(Body, frozen=True, kw_only=True):
    """What to change of an access key."""

    disabled: bool | UnsetType = UNSET
    description: str | UnsetType = UNSET


class LoginBody(Body, frozen=True, kw_only=True):
    """Log in; `code` is empty without two-factor log-in."""

    name: str
    password: str
    code: str = ""

    def __repr__(self) -> str:
        return "LoginBody(***)"


class AccountBody(Body, frozen=True, kw_only=True):
    """An account; without a password nobody can log in to it."""

    name: str
    roles: tuple[str, ...] = ()
    password: str = ""
    description: str = ""

    def __repr__(self) -> str:
        return "AccountBody(***)"


class AccountPatch(Body, frozen=True, kw_only=True):
    """What to change of an account."""

    roles: tuple[str, ...] | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET
    description: str | UnsetType = UNSET


class PasswordBody(Body, frozen=True, kw_only=True):
    """A new password; one's own needs the old one."""

    password: str
    old_password: str = ""

    def __repr__(self) -> str:
        return "PasswordBody(***)"


class CodeBody(Body, frozen=True, kw_only=True):
    """A time code."""

    code: str = ""


class PermissionBody(Body, frozen=True, kw_only=True):
    """Each of `actions` on each of `kinds`; `*` is all of them. `operate@env=test`: only on what carries the tag."""

    kinds: tuple[str, ...]
    actions: tuple[str, ...]


class TagsBody(Body, frozen=True, kw_only=True):
    """Tags to add and to remove."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


class RoleBody(Body, frozen=True, kw_only=True):
    """A role, or its new permissions."""

    permissions: tuple[PermissionBody, ...]
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class CertificateBody(Body, frozen=True, kw_only=True):
    """Import a certificate file (PEM, PKCS#12, JKS) for the HTTPS API; without `host` for all hosts."""

    content: bytes
    passphrase: str = ""
    host: str = ""

    def __repr__(self) -> str:
        return "CertificateBody(***)"


class DataStorageBody(Body, frozen=True, kw_only=True):
    """A data storage; `kind` is local or shared. `driver`: a plug-in's, instead of the product's."""

    name: str
    kind: str
    path: str
    driver: str | UnsetType = UNSET
    data_center: str | UnsetType = UNSET


class PortGroupBody(Body, frozen=True, kw_only=True):
    """A port group; the agent chooses what is not set."""

    name: str
    cidr: str
    vni: int | UnsetType = UNSET
    gateway: str | UnsetType = UNSET
    dns: tuple[str, ...] | UnsetType = UNSET
    mtu: int | UnsetType = UNSET
    switch: str | UnsetType = UNSET


class SecurityGroupBody(Body, frozen=True, kw_only=True):
    """An empty security group."""

    name: str
    data_center: str | UnsetType = UNSET


class RuleBody(Body, frozen=True, kw_only=True):
    """A rule: `port_first`..`port_last` 0 is every port; `cidr` or `remote_group` is the other side."""

    direction: str
    protocol: str = "all"
    port_first: int = 0
    port_last: int = 0
    cidr: str = ""
    remote_group: str = ""
    family: int = 4


class RulePatch(Body, frozen=True, kw_only=True):
    """Switch a rule on or off."""

    enabled: bool


class VMBody(Body, frozen=True, kw_only=True):
    """A virtual machine to create; images, storages, port groups and hosts by name or id."""

    name: str
    image: str
    cpus: int = 1
    memory_mib: int = 1024
    disk_size_bytes: int | UnsetType = UNSET
    data_storage: str | UnsetType = UNSET
    port_group: str | UnsetType = UNSET
    security_groups: tuple[str, ...] | UnsetType = UNSET
    cluster: str | UnsetType = UNSET
    host: str | UnsetType = UNSET
    placement_rules: tuple[str, ...] | UnsetType = UNSET
    ha: bool = True
    priority: str | UnsetType = UNSET
    start_after: tuple[str, ...] | UnsetType = UNSET
    start_delay_s: int | UnsetType = UNSET
    hostname: str | UnsetType = UNSET
    ssh_keys: tuple[str, ...] = ()
    user_data: str = ""
    start: bool = True
    description: str = ""


class VMPatch(Body, frozen=True, kw_only=True):
    """What can be changed of a VM at any time."""

    description: str | UnsetType = UNSET
    ha: bool | UnsetType = UNSET
    priority: str | UnsetType = UNSET
    start_after: tuple[str, ...] | UnsetType = UNSET
    start_delay_s: int | UnsetType = UNSET


class DataCenterBody(Body, frozen=True, kw_only=True):
    """A data center."""

    name: str
    description: str = ""


class ClusterBody(Body, frozen=True, kw_only=True):
    """A cluster in a data center, by name or id."""

    name: str
    data_center: str
    description: str = ""


class PlacementRuleBody(Body, frozen=True, kw_only=True):
    """A placement rule; cluster, VMs and hosts by name or id."""

    name: str
    cluster: str
    policy: str
    strength: str = "mandatory"
    vms: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    description: str = ""


class PlacementRulePatch(Body, frozen=True, kw_only=True):
    """What to change of a placement rule; the lists are given as a whole."""

    name: str | UnsetType = UNSET
    strength: str | UnsetType = UNSET
    vms: tuple[str, ...] | UnsetType = UNSET
    hosts: tuple[str, ...] | UnsetType = UNSET
    description: str | UnsetType = UNSET


class SwitchBody(Body, frozen=True, kw_only=True):
    """A distributed switch, and the clusters that it is attached to, by name or id."""

    name: str
    clusters: tuple[str, ...] = ()


class AttachClusterBody(Body, frozen=True, kw_only=True):
    """The cluster that a switch is attached to, or detached from."""

    cluster: str


class AttachDataCenterBody(Body, frozen=True, kw_only=True):
    """The data center that an image storage is attached to, or detached from."""

    data_center: str


class PlacePatch(Body, frozen=True, kw_only=True):
    """What to change of a data center or a cluster."""

    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class ClusterPatch(PlacePatch, frozen=True, kw_only=True):
    """What to change of a cluster. `admission`: off, warn or enforce."""

    admission: str | UnsetType = UNSET
    host_failures: int | UnsetType = UNSET
    shutdown_policy: str | UnsetType = UNSET
    freeze_s_max: int | UnsetType = UNSET
    cpu_overcommit: int | UnsetType = UNSET


class EnterMaintenanceBody(Body, frozen=True, kw_only=True):
    """What becomes of VMs that can't be moved: refuse, stop or keep."""

    unmovable: str = "refuse"


class LeaveMaintenanceBody(Body, frozen=True, kw_only=True):
    """Whether the VMs come back."""

    move_back: bool = True


class EmptyBody(Body, frozen=True, kw_only=True):
    """For actions that need no words."""


class StopBody(Body, frozen=True, kw_only=True):
    """Stop a VM: by its power button, or at once when `force`."""

    force: bool = False
    timeout_s: int | UnsetType = UNSET


class MigrateBody(Body, frozen=True, kw_only=True):
    """Move a running VM; without `host` the cluster chooses."""

    host: str | UnsetType = UNSET


class HostPatch(Body, frozen=True, kw_only=True):
    """What can be said of a host; an empty failure domain is none. Only one without VMs can go to another cluster."""

    failure_domain: str | UnsetType = UNSET
    cluster: str | UnsetType = UNSET
    shutdown_policy: str | UnsetType = UNSET


class VoterPolicyBody(Body, frozen=True, kw_only=True):
    """How many hosts vote at most (1, 3, 5 or 7), and after what silence a voter is replaced."""

    voters_max: int | UnsetType = UNSET
    voter_replace_after_s: int | UnsetType = UNSET


class BmcBody(Body, frozen=True, kw_only=True):
    """The management board of a host."""

    host: str
    address: str
    user: str
    password: str
    port: int | UnsetType = UNSET
    cipher_suite: int | UnsetType = UNSET
    protocol: str | UnsetType = UNSET
    fingerprint: str | UnsetType = UNSET
    system: str | UnsetType = UNSET

    def __repr__(self) -> str:
        return f"BmcBody({self.host}, {self.address}, ***)"


class CheckDrillBody(Body, frozen=True, kw_only=True):
    """A drill that is thought of; `duration_s` 0: as long as is usual."""

    kind: str
    host: str = ""
    duration_s: int = 0
    data_storage: str = ""


class RunDrillBody(CheckDrillBody, frozen=True, kw_only=True):
    """A drill for real; `confirm` is the host's name, or the cluster's for a full power loss."""

    confirm: str


class AbortDrillBody(Body, frozen=True, kw_only=True):
    """The end of a drill before its time."""

    reason: str = ""


class GiveUpBody(Body, frozen=True, kw_only=True):
    """Why a stuck task is ended as it is; `confirm` is the name of what it works on."""

    reason: str
    confirm: str


class SnapshotBody(Body, frozen=True, kw_only=True):
    """Of which stopped VM a snapshot is taken; without `name` it is called by the VM and the moment."""

    vm: str
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class RunWorkflowBody(Body, frozen=True, kw_only=True):
    """What a workflow is run on, and its inputs."""

    vm: str
    arguments: dict[str, str] = {}


class ConfirmOffBody(Body, frozen=True, kw_only=True):
    """A person's word that a host has no power; `confirm` is its name."""

    confirm: str
