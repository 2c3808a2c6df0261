"""What the API takes and shows, as classes. Made by `make sdk` from the description of the API: don't edit.

What programs give (`Create…`, `Change…`) leaves out what is `UNSET`, so that the agent's defaults apply.
"""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import UNSET, UnsetType, field

from tools.sdk.model import Model, OpenEnum


class DataStorageKind(OpenEnum):
    """`LOCAL`: a directory of each host's own. `SHARED`: one directory mounted at the same path on all hosts."""

    LOCAL = "local"
    SHARED = "shared"


class Direction(OpenEnum):
    """Seen from the VM: ingress comes in to it."""

    EGRESS = "egress"
    INGRESS = "ingress"


class HostState(OpenEnum):
    """Where a host stands for the cluster. `FENCED`: its VMs were taken away and its renewals are refused
    until it reports that its guests are gone.
    """

    FENCED = "fenced"
    MEMBER = "member"


class ImageState(OpenEnum):
    """An image is usable only when ready."""

    READY = "ready"
    UPLOADING = "uploading"


class PowerState(OpenEnum):
    """What the user wants of a VM."""

    RUNNING = "running"
    STOPPED = "stopped"


class Protocol(OpenEnum):
    """What a rule matches above IP."""

    ALL = "all"
    ICMP = "icmp"
    TCP = "tcp"
    UDP = "udp"


class Severity(OpenEnum):
    """How much an event matters."""

    ALARM = "alarm"
    NOTICE = "notice"
    WARNING = "warning"


class StepMark(OpenEnum):
    """`BEGUN` is recorded before a step's effect, so that undo is never lost."""

    BEGUN = "begun"
    DONE = "done"
    UNDONE = "undone"


class TaskState(OpenEnum):
    """A task ends as succeeded, failed or cancelled and then never changes."""

    CANCELLED = "cancelled"
    FAILED = "failed"
    PENDING = "pending"
    ROLLING_BACK = "rolling-back"
    RUNNING = "running"
    SUCCEEDED = "succeeded"


class VMPhase(OpenEnum):
    """What is true of a VM as last reported by the host in charge."""

    BLOCKED = "blocked"
    CREATING = "creating"
    DELETING = "deleting"
    MIGRATING = "migrating"
    PAUSED = "paused"
    RUNNING = "running"
    STARTING = "starting"
    STOPPED = "stopped"
    STOPPING = "stopping"


class Vote(OpenEnum):
    """What an operator says about a host's vote: the cluster chooses, or it shall vote always, or never."""

    ALWAYS = "always"
    AUTO = "auto"
    NEVER = "never"


class AccessToken(Model, frozen=True, kw_only=True):
    """A bearer token of the HTTPS API; only the SHA-256 of its secret is kept.

    It may do what its `role_ids` allow or, if it has an `account_id`, what that account may; with neither, everything.
    """

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    expires_ms: int = 0
    account_id: str = ""
    role_ids: tuple[str, ...] = ()
    account_name: str = ""
    """The name behind `account_id`; empty without one."""


class Account(Model, frozen=True, kw_only=True):
    """A person, or a program.

    `password_hash` is an argon2id text, empty as long as there is no password. `sealed_totp` is the secret of the time
    codes, asked for once `totp_confirmed`; a code of time step `totp_last_step` or an earlier one is never accepted
    again. `recovery_sha256` are the codes that may each stand in for one time code. `failures` counts wrong log-ins since
    the last good one, and none is accepted until `locked_until_ms` but from `known_addresses`, from which a log-in
    succeeded before.
    """

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    role_ids: tuple[str, ...] = ()
    description: str = ""
    disabled: bool = False
    totp_confirmed: bool = False
    totp_last_step: int = 0
    failures: int = 0
    locked_until_ms: int = 0
    known_addresses: tuple[str, ...] = ()


class Audit(Model, frozen=True, kw_only=True):
    """What somebody did or tried. Begins before the change is made, ends after it; name = id.

    `result` is the HTTP status, 0 as long as the end is not recorded: then the outcome is unknown. `operator` is the
    account, token or `root`; `via` how they were known. `subject` is `kind/id`, or `kind/` and what the caller wrote.
    `before` and `after` are the attributes that differ, as JSON with secrets masked. `count` is more than 1 where many
    equal failures of one address are told together.
    """

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    action: str = ""
    operator: str = ""
    account_id: str = ""
    via: str = ""
    address: str = ""
    subject: str = ""
    subject_name: str = ""
    host_id: str = ""
    request_id: str = ""
    result: int = 0
    code: str = ""
    message: str = ""
    ended_ms: int = 0
    count: int = 1
    before: str = ""
    after: str = ""


class Caller(Model, frozen=True, kw_only=True):
    """An object of the API."""

    name: str = ""
    via: str = ""
    account_id: str = ""
    permissions: tuple[Permission, ...] = ()


class Certificate(Model, frozen=True, kw_only=True):
    """An object of the API."""

    name: str = ""
    kind: str = ""
    host_name: str = ""
    subject: str = ""
    issuer: str = ""
    names: tuple[str, ...] = ()
    not_before_ms: int = 0
    not_after_ms: int = 0
    sha256: str = ""
    warnings: tuple[str, ...] = ()


class ChangeAccount(Model, frozen=True, kw_only=True):
    """`PATCH /v1/accounts/{account}`: absent fields stay."""

    roles: tuple[str, ...] | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET
    description: str | UnsetType = UNSET


class ChangeHost(Model, frozen=True, kw_only=True):
    """`PATCH /v1/hosts/{host}`: hosts of one failure domain fail together."""

    failure_domain: str | UnsetType | None = UNSET


class ChangePolicy(Model, frozen=True, kw_only=True):
    """`PATCH /v1/members/policy`. What is absent stays as it is."""

    voters_max: int | UnsetType | None = UNSET
    voter_replace_after_s: int | UnsetType | None = UNSET


class ChangeRule(Model, frozen=True, kw_only=True):
    """Only switching on and off."""

    enabled: bool


class ChangeVM(Model, frozen=True, kw_only=True):
    """`PATCH /v1/vms/{vm}` (merge patch): absent fields stay."""

    description: str | UnsetType = UNSET
    ha: bool | UnsetType = UNSET


class CloudInit(Model, frozen=True, kw_only=True):
    """What a guest's cloud-init gets through a NoCloud seed. `user_data` is a whole #cloud-config text."""

    hostname: str = ""
    ssh_keys: tuple[str, ...] = ()
    user_data: str = ""


class Cluster(Model, frozen=True, kw_only=True):
    """A logical group of hosts inside a data center."""

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    data_center_id: str = ""
    data_center_name: str = ""
    """The name behind `data_center_id`; empty without one."""


class ClusterStatus(Model, frozen=True, kw_only=True):
    """An object of the API."""

    cluster_name: str = ""
    index: int = 0
    leader_name: str = ""
    quorum: bool = False
    members: tuple[Member, ...] = ()
    vms: dict[str, int] = field(default_factory=dict)
    alarms: tuple[Event, ...] = ()


class ConfirmOff(Model, frozen=True, kw_only=True):
    """`confirm` repeats the host's name: whoever calls has looked at the machine."""

    confirm: str


class CreateAccount(Model, frozen=True, kw_only=True):
    """`POST /v1/accounts`. Without a password nobody can log in to it until one is set."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"password"})

    name: str
    roles: tuple[str, ...] | UnsetType = UNSET
    password: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class CreateDataStorage(Model, frozen=True, kw_only=True):
    """`path` must exist on every host and, for `shared`, be the same directory everywhere."""

    name: str
    kind: DataStorageKind
    path: str


class CreatePortGroup(Model, frozen=True, kw_only=True):
    """Empty or 0 means: choose. The pool is the network without its first 16 addresses."""

    name: str
    cidr: str
    vni: int | UnsetType = UNSET
    """Default: `0`."""
    gateway: str | UnsetType = UNSET
    dns: tuple[str, ...] | UnsetType = UNSET
    mtu: int | UnsetType = UNSET
    """Default: `1450`."""
    service_ip: str | UnsetType = UNSET
    pool_first: str | UnsetType = UNSET
    pool_last: str | UnsetType = UNSET
    domain: str | UnsetType = UNSET
    """Default: `internal`."""
    switch: str | UnsetType = UNSET
    """Default: `default`."""


class CreateRule(Model, frozen=True, kw_only=True):
    """`remote_group` is a name or id; it and `cidr` exclude each other."""

    direction: Direction | UnsetType = UNSET
    """Default: `ingress`."""
    protocol: Protocol | UnsetType = UNSET
    """Default: `all`."""
    port_first: int | UnsetType = UNSET
    """Default: `0`."""
    port_last: int | UnsetType = UNSET
    """Default: `0`."""
    cidr: str | UnsetType = UNSET
    remote_group: str | UnsetType = UNSET
    family: int | UnsetType = UNSET
    """Default: `4`."""


class CreateSecurityGroup(Model, frozen=True, kw_only=True):
    """A new group starts with the four default rules."""

    name: str


class CreateVM(Model, frozen=True, kw_only=True):
    """`POST /v1/vms`. Empty references mean the default; `disk_size_bytes` 0 means the image's size."""

    name: str
    image: str
    cpus: int | UnsetType = UNSET
    """Default: `1`."""
    memory_mib: int | UnsetType = UNSET
    """Default: `1024`."""
    disk_size_bytes: int | UnsetType = UNSET
    """Default: `0`."""
    data_storage: str | UnsetType = UNSET
    port_group: str | UnsetType = UNSET
    """Default: `default`."""
    security_groups: tuple[str, ...] | UnsetType = UNSET
    """Default: `['default']`."""
    host: str | UnsetType = UNSET
    ha: bool | UnsetType = UNSET
    """Default: `True`."""
    hostname: str | UnsetType = UNSET
    ssh_keys: tuple[str, ...] | UnsetType = UNSET
    user_data: str | UnsetType = UNSET
    start: bool | UnsetType = UNSET
    """Default: `True`."""
    description: str | UnsetType = UNSET


class DataCenter(Model, frozen=True, kw_only=True):
    """The largest name space; holds clusters."""

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0


class DataStorage(Model, frozen=True, kw_only=True):
    """Where disks live. `path` is absolute and the same on every host."""

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    data_center_id: str = ""
    kind: DataStorageKind = DataStorageKind("")
    path: str = ""
    data_center_name: str = ""
    """The name behind `data_center_id`; empty without one."""


class DeletionPlan(Model, frozen=True, kw_only=True):
    """An object of the API."""

    target: Target
    allowed: bool = False
    why_not: str = ""
    deleted: tuple[Touched, ...] = ()
    detached: tuple[Touched, ...] = ()
    refused: tuple[Touched, ...] = ()


class Disk(Model, frozen=True, kw_only=True):
    """A virtual disk: qcow2, linked to its image's cached copy on the same data storage (or empty: no image).

    `index` orders the disks of a VM, 0 is the one it boots from. `host_id` is set for local storage only.
    """

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    vm_id: str = ""
    data_storage_id: str = ""
    size_bytes: int = 0
    image_id: str = ""
    image_sha256: str = ""
    host_id: str = ""
    index: int = 0
    vm_name: str = ""
    """The name behind `vm_id`; empty without one."""
    data_storage_name: str = ""
    """The name behind `data_storage_id`; empty without one."""
    image_name: str = ""
    """The name behind `image_id`; empty without one."""
    host_name: str = ""
    """The name behind `host_id`; empty without one."""


class DistributedSwitch(Model, frozen=True, kw_only=True):
    """A switch that spans the hosts of a cluster."""

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    cluster_id: str = ""
    cluster_name: str = ""
    """The name behind `cluster_id`; empty without one."""


class Event(Model, frozen=True, kw_only=True):
    """Something that happened to `subject` (`kind/id`); its revision is its place in time. name = id."""

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    code: str = ""
    subject: str = ""
    subject_name: str = ""
    message: str = ""
    severity: Severity = Severity("notice")
    host_id: str = ""
    host_name: str = ""
    """The name behind `host_id`; empty without one."""


class FormerMember(Model, frozen=True, kw_only=True):
    """An object of the API."""

    host_name: str = ""
    cluster_name: str = ""


class Host(Model, frozen=True, kw_only=True):
    """A server that runs the agent. `address` is its IP on the management network.

    Hosts of one `failure_domain` (a rack, a room) fail together; empty: this host shares its fate with no other. A
    `witness` votes and holds the state, but runs no VMs. `feature_level` is what its agent understands. `joining` from
    its admission until it has the state and says so: it gets no vote, and may give up without a trace.
    """

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    cluster_id: str = ""
    address: str = ""
    api_port: int = 7443
    mesh_port: int = 7444
    version: str = ""
    cpus: int = 0
    memory_mib: int = 0
    arch: str = "x86_64"
    accelerator: str = ""
    watchdog: str = ""
    state: HostState = HostState("member")
    maintenance: bool = False
    failure_domain: str = ""
    witness: bool = False
    vote: Vote = Vote("auto")
    feature_level: int = 1
    joining: bool = False
    cluster_name: str = ""
    """The name behind `cluster_id`; empty without one."""


class Image(Model, frozen=True, kw_only=True):
    """A disk template. Always stored as a standalone qcow2 file named by its SHA-256.

    `sha256` and `size_bytes` are of that stored file; `virtual_size_bytes` is what a guest sees.
    `host_ids` are hosts that hold a verified copy. `source_*` describe the file as it was uploaded.
    """

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    image_storage_id: str = ""
    state: ImageState = ImageState("uploading")
    sha256: str = ""
    size_bytes: int = 0
    virtual_size_bytes: int = 0
    source_format: str = ""
    source_sha256: str = ""
    host_ids: tuple[str, ...] = ()
    image_storage_name: str = ""
    """The name behind `image_storage_id`; empty without one."""
    host_names: tuple[str, ...] = ()
    """The names behind `host_ids`."""


class ImageStorage(Model, frozen=True, kw_only=True):
    """Where images live: a directory of the same path on every host; images are copied between hosts by hash."""

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    data_center_id: str = ""
    path: str = ""
    data_center_name: str = ""
    """The name behind `data_center_id`; empty without one."""


class ImportCertificate(Model, frozen=True, kw_only=True):
    """`POST /v1/certificates`. `content` is the file in base64; `host` a name or id, empty for all hosts."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"passphrase"})

    content: bytes
    passphrase: str | UnsetType = UNSET
    """At most 1024 characters."""
    host: str | UnsetType = UNSET


class InitCluster(Model, frozen=True, kw_only=True):
    """`POST /v1/local/init`. Empty: derived from the host."""

    cluster_name: str | UnsetType = UNSET
    host_name: str | UnsetType = UNSET
    address: str | UnsetType = UNSET


class JoinCluster(Model, frozen=True, kw_only=True):
    """`POST /v1/local/join`. Empty names are derived from the host."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"token"})

    token: str
    host_name: str | UnsetType = UNSET
    address: str | UnsetType = UNSET
    witness: bool | UnsetType = UNSET
    """Default: `False`."""


class JoinToken(Model, frozen=True, kw_only=True):
    """A single-use right to join. Only the SHA-256 of its secret is kept; name = id."""

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    expires_ms: int = 0
    used_by_host_id: str = ""
    used_by_host_name: str = ""
    """The name behind `used_by_host_id`; empty without one."""


class JournalEntry(Model, frozen=True, kw_only=True):
    """One line of a workflow's journal."""

    step: str = ""
    mark: StepMark = StepMark("")
    at_ms: int = 0


class LeaveCluster(Model, frozen=True, kw_only=True):
    """`POST /v1/local/leave`. `force` needs `confirm`, this host's name."""

    force: bool | UnsetType = UNSET
    """Default: `False`."""
    confirm: str | UnsetType = UNSET


class LocalStatus(Model, frozen=True, kw_only=True):
    """An object of the API."""

    state: str = ""
    detail: str = ""
    version: str = ""
    host_id: str = ""
    host_name: str = ""


class LogIn(Model, frozen=True, kw_only=True):
    """`POST /v1/login`. `code`: six digits, or a recovery code; empty without two-factor log-in."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"code", "password"})

    name: str
    password: str
    code: str | UnsetType = UNSET


class MakeAccessToken(Model, frozen=True, kw_only=True):
    """`POST /v1/access-tokens`. `ttl_s` 0: never expires. Without `account` and `roles` it may do everything."""

    name: str
    ttl_s: int | UnsetType = UNSET
    """Default: `0`."""
    account: str | UnsetType = UNSET
    roles: tuple[str, ...] | UnsetType = UNSET


class MakeJoinTokens(Model, frozen=True, kw_only=True):
    """`POST /v1/join-tokens`."""

    count: int | UnsetType = UNSET
    """Default: `1`."""
    ttl_s: int | UnsetType = UNSET
    """Default: `10800`."""


class Member(Model, frozen=True, kw_only=True):
    """An object of the API."""

    id: str
    name: str = ""
    address: str = ""
    role: str = ""
    votes: bool = False
    vote: str = ""
    leader: bool = False
    applied_index: int | None = None
    lag: int | None = None
    health: str = ""
    failure_domain: str = ""
    feature_level: int = 0
    raft: str = ""
    gossip: str = ""
    lease_age_s: float | None = None
    watchdog: str = ""
    state: str = ""
    version: str = ""
    vms: int = 0
    work: tuple[dict[str, Any], ...] = ()
    service_faults: tuple[dict[str, Any], ...] = ()


class MemberVote(Model, frozen=True, kw_only=True):
    """An object of the API."""

    id: str
    name: str = ""
    vote: str = ""
    role: str = ""


class MigrateVM(Model, frozen=True, kw_only=True):
    """`POST /v1/vms/{vm}/actions/migrate`. An empty `host` lets the cluster choose."""

    host: str | UnsetType = UNSET


class NewAccessToken(Model, frozen=True, kw_only=True):
    """An object of the API."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"token"})

    token: str = ""
    id: str
    name: str = ""


class NewCluster(Model, frozen=True, kw_only=True):
    """An object of the API."""

    host_id: str = ""
    host_name: str = ""
    cluster_name: str = ""
    address: str = ""
    api: str = ""
    admin_token_file: str = ""


class NewJoinTokens(Model, frozen=True, kw_only=True):
    """An object of the API."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"tokens"})

    tokens: tuple[str, ...] = ()
    expires_ms: int = 0


class NewMember(Model, frozen=True, kw_only=True):
    """An object of the API."""

    host_id: str = ""
    host_name: str = ""
    cluster_name: str = ""
    address: str = ""
    api: str = ""
    members: int = 0
    voters: int = 0
    voters_wanted: int = 0
    losses_survived: int = 0


class NewSession(Model, frozen=True, kw_only=True):
    """An object of the API."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"token"})

    token: str = ""
    id: str
    expires_ms: int = 0


class NewTotp(Model, frozen=True, kw_only=True):
    """An object of the API."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"qr_svg", "qr_text", "uri"})

    uri: str = ""
    qr_svg: str = ""
    qr_text: str = ""


class Nic(Model, frozen=True, kw_only=True):
    """A VM's network card; name = `<vm name>.<index>`."""

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    vm_id: str = ""
    port_group_id: str = ""
    mac: str = ""
    ip: str = ""
    security_group_ids: tuple[str, ...] = ()
    index: int = 0
    vm_name: str = ""
    """The name behind `vm_id`; empty without one."""
    port_group_name: str = ""
    """The name behind `port_group_id`; empty without one."""
    security_group_names: tuple[str, ...] = ()
    """The names behind `security_group_ids`."""


class Permission(Model, frozen=True, kw_only=True):
    """The right to do each of `actions` to each of `kinds`; `*` stands for all of them."""

    kinds: tuple[str, ...]
    actions: tuple[str, ...]


class PortGroup(Model, frozen=True, kw_only=True):
    """Uniform configuration of the ports of one VXLAN network.

    `vni` 1..16777215, unique in the mesh. `cidr` is IPv4. `service_ip` answers DHCP and DNS on every host and
    is never given to a NIC; `gateway` and `dns` are handed out by DHCP when set. `mtu` is the guests' MTU.
    `pool_first`..`pool_last` is where NIC addresses come from.
    """

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    switch_id: str = ""
    vni: int = 0
    cidr: str = ""
    service_ip: str = ""
    pool_first: str = ""
    pool_last: str = ""
    gateway: str = ""
    dns: tuple[str, ...] = ()
    mtu: int = 1450
    domain: str = "internal"
    switch_name: str = ""
    """The name behind `switch_id`; empty without one."""


class RecoveryCodes(Model, frozen=True, kw_only=True):
    """An object of the API."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"recovery_codes"})

    recovery_codes: tuple[str, ...] = ()


class ReleasedHost(Model, frozen=True, kw_only=True):
    """An object of the API."""

    host: str = ""
    vms_released: int = 0


class Role(Model, frozen=True, kw_only=True):
    """A named set of permissions, given to accounts and access tokens.

    Its id is its name. The built-in roles (`core.identity.permissions`) are not stored.
    """

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    permissions: tuple[Permission, ...] = ()
    description: str = ""


class Rule(Model, frozen=True, kw_only=True):
    """One rule of a security group: an exception to "everything in is denied, everything out is allowed".

    Allows ingress that matches; an egress rule with `remote_group_id` belongs to the default rules. `cidr` or
    `remote_group_id` name the other side (both empty: anyone). `port_first`..`port_last` 0: all ports.
    `family` is 4 or 6. Default rules (NET-5) can be disabled, not deleted.
    """

    id: str
    direction: Direction = Direction("")
    protocol: Protocol = Protocol("all")
    port_first: int = 0
    port_last: int = 0
    cidr: str = ""
    remote_group_id: str = ""
    family: int = 4
    enabled: bool = True
    default: bool = False


class SecretsKeyStatus(Model, frozen=True, kw_only=True):
    """An object of the API."""

    key_id: str = ""
    next_key_id: str = ""
    former_key_id: str = ""
    changing: bool = False
    hosts_without_key: tuple[str, ...] = ()
    secrets_by_key: dict[str, int] = field(default_factory=dict)


class SecurityGroup(Model, frozen=True, kw_only=True):
    """A stateful firewall shared by NICs."""

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    data_center_id: str = ""
    rules: tuple[Rule, ...] = ()
    data_center_name: str = ""
    """The name behind `data_center_id`; empty without one."""


class Session(Model, frozen=True, kw_only=True):
    """A log-in that lasts until `expires_ms`. The token names the id, so it is found without a search; name = id."""

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    account_id: str = ""
    expires_ms: int = 0
    address: str = ""
    account_name: str = ""
    """The name behind `account_id`; empty without one."""


class SetPassword(Model, frozen=True, kw_only=True):
    """`.../actions/set-password`. Whoever sets their own has to know the old one."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"old_password", "password"})

    password: str
    old_password: str | UnsetType = UNSET


class StopVM(Model, frozen=True, kw_only=True):
    """`POST /v1/vms/{vm}/actions/stop`. `force` cuts the power; else the guest has `timeout_s` to shut down."""

    force: bool | UnsetType = UNSET
    """Default: `False`."""
    timeout_s: int | UnsetType = UNSET
    """Default: `90`."""


class Target(Model, frozen=True, kw_only=True):
    """An object of the API."""

    kind: str = ""
    id: str
    name: str = ""


class Task(Model, frozen=True, kw_only=True):
    """A run of a workflow on a resource; name = id.

    `workflow` names the definition, `subject` the resource as `kind/id`. `arguments` are strings only.
    `runner_host_id` is who works on it. `progress` is 0..100. `error` and `error_code` are set when failed.
    `cancel_requested` asks the runner to stop where that is safe.
    `plan` is the workflow as it was when the work began: whoever resumes it goes by that. `journal` is what the
    engine lives by; `log` tells people more, bounded. `result` is what came of it, empty when it was undone.
    """

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    workflow: str = ""
    subject: str = ""
    subject_name: str = ""
    arguments: dict[str, str] = field(default_factory=dict)
    runner_host_id: str = ""
    state: TaskState = TaskState("pending")
    progress: int = 0
    step: str = ""
    journal: tuple[JournalEntry, ...] = ()
    log: tuple[TaskLog, ...] = ()
    result: dict[str, str] = field(default_factory=dict)
    error: str = ""
    error_code: str = ""
    cancel_requested: bool = False
    ended_ms: int = 0
    runner_host_name: str = ""
    """The name behind `runner_host_id`; empty without one."""
    steps: tuple[TaskStep, ...] = ()


class TaskLog(Model, frozen=True, kw_only=True):
    """An object of the API."""

    at_ms: int = 0
    what: str = ""
    step: str = ""
    inside: tuple[str, ...] = ()
    text: str = ""


class TaskStep(Model, frozen=True, kw_only=True):
    """An object of the API."""

    step: str = ""
    inside: tuple[str, ...] = ()
    weight: int = 0
    state: str = ""
    """One of `waiting`, `begun`, `done`, `undone`."""


class TotpCode(Model, frozen=True, kw_only=True):
    """`.../actions/confirm-totp` and `disable-totp`."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"code"})

    code: str | UnsetType = UNSET


class Touched(Model, frozen=True, kw_only=True):
    """An object of the API."""

    kind: str = ""
    id: str
    name: str = ""
    relation: str = ""
    to: str = ""


class VM(Model, frozen=True, kw_only=True):
    """A virtual machine.

    Users write `power`, sizes and cloud-init. `host_id` with `generation` says who may run it: the generation
    grows with every start, and ownership changes only in a transaction that guards a proof that the former
    host stopped. `boot_id` is the boot of the host in which it was started last. `migrating_to_host_id` is set
    during a live migration. `blocked_reason` is empty or says why it cannot run now.
    """

    id: str
    name: str = ""
    revision: int = 0
    created_ms: int = 0
    cluster_id: str = ""
    host_id: str = ""
    cpus: int = 0
    memory_mib: int = 0
    power: PowerState = PowerState("running")
    phase: VMPhase = VMPhase("creating")
    generation: int = 0
    boot_id: str = ""
    migrating_to_host_id: str = ""
    blocked_reason: str = ""
    ha: bool = True
    cloud_init: CloudInit = field(default_factory=lambda: CloudInit())
    description: str = ""
    cluster_name: str = ""
    """The name behind `cluster_id`; empty without one."""
    host_name: str = ""
    """The name behind `host_id`; empty without one."""
    migrating_to_host_name: str = ""
    """The name behind `migrating_to_host_id`; empty without one."""
    ips: tuple[str, ...] = ()
    nics: tuple[VMNic, ...] = ()
    disks: tuple[VMDisk, ...] = ()


class VMDisk(Model, frozen=True, kw_only=True):
    """An object of the API."""

    name: str = ""
    size_bytes: int = 0


class VMNic(Model, frozen=True, kw_only=True):
    """An object of the API."""

    name: str = ""
    mac: str = ""
    ip: str = ""


class VoterPolicy(Model, frozen=True, kw_only=True):
    """An object of the API."""

    voters_max: int = 0
    voter_replace_after_s: int = 0
    feature_level: int = 0
    voters: int = 0
    voters_wanted: int = 0
    losses_survived: int = 0


class WriteRole(Model, frozen=True, kw_only=True):
    """`POST /v1/roles`, and `PATCH`, which replaces the permissions."""

    permissions: tuple[Permission, ...]
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
