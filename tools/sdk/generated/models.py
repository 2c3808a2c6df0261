"""What the API takes and shows, as classes. Made by `make sdk` from the description of the API: don't edit.

What programs give (`Create…`, `Change…`) leaves out what is `UNSET`, so that the agent's defaults apply.
"""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import UNSET, UnsetType, field

from tools.sdk.model import Model, OpenEnum


class Admission(OpenEnum):
    """What is done about a VM for which, after its start, the loss of hosts could not be borne: nothing, a warning, a refusal."""

    ENFORCE = "enforce"
    OFF = "off"
    WARN = "warn"


class Arbitration(OpenEnum):
    """Whether a host reaches an arbitration address. `UNKNOWN`: there is none, it was just begun, or its agent is an older one."""

    LOST = "lost"
    REACHED = "reached"
    UNKNOWN = "unknown"


class BmcProtocol(OpenEnum):
    """What a board speaks: IPMI 2.0 (RMCP+) by UDP, or Redfish (DMTF DSP0266) by HTTPS."""

    IPMI = "ipmi"
    REDFISH = "redfish"


class BmcState(OpenEnum):
    """Whether a board can be relied on. `OK`: it said "on" when it was asked last while its host held its lease."""

    FAULT = "fault"
    OK = "ok"
    UNCHECKED = "unchecked"


class DataStorageKind(OpenEnum):
    """`LOCAL`: a directory of each host's own. `SHARED`: one directory mounted at the same path on all hosts."""

    LOCAL = "local"
    SHARED = "shared"


class Direction(OpenEnum):
    """Seen from the VM: ingress comes in to it."""

    EGRESS = "egress"
    INGRESS = "ingress"


class DrillKind(OpenEnum):
    """Which failure is rehearsed."""

    AGENT_KILL = "agent-kill"
    FULL_POWER_LOSS = "full-power-loss"
    GUARD_KILL = "guard-kill"
    LEADER_LOSS = "leader-loss"
    NETWORK_CUT = "network-cut"
    POWER_OFF = "power-off"
    STORAGE_LOSS = "storage-loss"


class DrillPromise(OpenEnum):
    """What is promised of a VM. `STAYS`: it isn't touched. `MOVES`: it runs elsewhere in time. `RETURNS`: it runs again in
    time after the power is back. `WAITS`: it runs again when its host is back, nobody says when.
    """

    MOVES = "moves"
    RETURNS = "returns"
    STAYS = "stays"
    WAITS = "waits"


class DrillState(OpenEnum):
    """How far a drill is. `PREPARED`: nobody has begun. `STARTING`: its host may do the fault now. `WATCHING`: the fault was
    ordered, once and for all. `UNDOING`: what was broken is put right. `ENDED`: it never changes any more.
    """

    ENDED = "ended"
    PREPARED = "prepared"
    STARTING = "starting"
    UNDOING = "undoing"
    WATCHING = "watching"


class DrillVerdict(OpenEnum):
    """What a drill has shown of a promise. `INCONCLUSIVE`: neither that it is kept nor that it isn't."""

    ABORTED = "aborted"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    OPEN = "open"
    PASSED = "passed"


class Going(OpenEnum):
    """How a host goes down."""

    POWER_OFF = "power-off"
    REBOOT = "reboot"


class HostState(OpenEnum):
    """Where a host stands for the cluster. `FENCING`: its renewals are refused while its power is being taken away.
    `FENCED`: it is off, as an operator or its management board says. Either ends when the host comes with another boot, or
    its guard reports that no guests are left.
    """

    FENCED = "fenced"
    FENCING = "fencing"
    MEMBER = "member"


class ImageState(OpenEnum):
    """An image is usable only when ready."""

    READY = "ready"
    UPLOADING = "uploading"


class PlacementPolicy(OpenEnum):
    """What a rule asks. `VM_ANTI_AFFINITY`: no two of its VMs on one host. `VM_AFFINITY`: all of them on one host.
    `HOST_ANTI_AFFINITY`: on none of its hosts. `HOST_AFFINITY`: only on its hosts.
    """

    HOST_AFFINITY = "host-affinity"
    HOST_ANTI_AFFINITY = "host-anti-affinity"
    VM_AFFINITY = "vm-affinity"
    VM_ANTI_AFFINITY = "vm-anti-affinity"


class PluginState(OpenEnum):
    """`REFUSED`: left out when it was loaded. `FAILING`: its last call failed, or took too long and it is called no
    more; `why` says which.
    """

    ACTIVE = "active"
    FAILING = "failing"
    REFUSED = "refused"


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


class RuleStrength(OpenEnum):
    """`MANDATORY`: a VM rather waits than runs where the rule can't hold. `PREFERRED`: hosts where it holds come first."""

    MANDATORY = "mandatory"
    PREFERRED = "preferred"


class Severity(OpenEnum):
    """How much an event matters."""

    ALARM = "alarm"
    NOTICE = "notice"
    WARNING = "warning"


class ShutdownPolicy(OpenEnum):
    """What becomes of the VMs of a host that is shut down in order. `MIGRATE`: they are moved away live first. `FAILOVER`: they
    are shut down and started elsewhere. `FREEZE`: they are shut down and wait for the host. `CONDITIONAL`: freeze for a reboot,
    failover for a power-off. `CLUSTER`, of a host only: as its cluster says.
    """

    CLUSTER = "cluster"
    CONDITIONAL = "conditional"
    FAILOVER = "failover"
    FREEZE = "freeze"
    MIGRATE = "migrate"


class SnapshotState(OpenEnum):
    """A snapshot can be gone back to only when ready."""

    DELETING = "deleting"
    READY = "ready"
    TAKING = "taking"


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


class Unmovable(OpenEnum):
    """What becomes of VMs that can't leave a host alive when it is emptied for maintenance. `REFUSE`: it isn't begun while
    there are any; `STOP`: they are shut down, and started again afterwards; `KEEP`: they stay.
    """

    KEEP = "keep"
    REFUSE = "refuse"
    STOP = "stop"


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


class VMPriority(OpenEnum):
    """Which VMs come first when many are to be started, after a host or all power was lost, or room is short."""

    HIGH = "high"
    LOW = "low"
    MEDIUM = "medium"


class Vote(OpenEnum):
    """What an operator says about a host's vote: the cluster chooses, or it shall vote always, or never."""

    ALWAYS = "always"
    AUTO = "auto"
    NEVER = "never"


class AbortDrill(Model, frozen=True, kw_only=True):
    """`POST /v1/drills/{drill}/actions/abort`."""

    reason: str | UnsetType = UNSET
    """Why, for the report. At most 200 characters."""


class AbortDrills(Model, frozen=True, kw_only=True):
    """What users say of one of the drills."""

    drills: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of them."""
    q: tuple[str, ...] | UnsetType = UNSET
    """Conditions as lists take them, instead of `drills`; all must hold."""
    reason: str | UnsetType = UNSET
    """Why, for the report. At most 200 characters."""


class AccessKey(Model, frozen=True, kw_only=True):
    """What a program of others signs its requests with; its id is part of each signature.

    It may do what its `role_ids` allow or, if it has an `account_id`, what that account may; with neither, nothing. The
    secret is sealed and not hashed, because a signature can be checked only with the secret itself. `expires_ms` 0: never.
    """

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    account_id: str = ""
    """It may do what this account may; empty: by its roles."""
    role_ids: tuple[str, ...] = ()
    """Roles that say what it may do."""
    expires_ms: int = 0
    """Until when it is good; 0: for ever."""
    disabled: bool = False
    """Whether what it signs is refused."""
    description: str = ""
    """A note for people. At most 1000 characters."""
    account_name: str = ""
    """The name behind `account_id`; empty without one."""


class AccessKeySecret(Model, frozen=True, kw_only=True):
    """An object of the API."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"secret"})

    id: str
    name: str = ""
    secret: str = ""
    expires_ms: int = 0


class AccessToken(Model, frozen=True, kw_only=True):
    """A bearer token of the HTTPS API; only the SHA-256 of its secret is kept.

    It may do what its `role_ids` allow or, if it has an `account_id`, what that account may; with neither, everything.
    """

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    expires_ms: int = 0
    """Until when it is good; 0: for ever."""
    account_id: str = ""
    """It may do what this account may; empty: by its roles."""
    role_ids: tuple[str, ...] = ()
    """Roles that say what it may do; with neither roles nor account it may do everything."""
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
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    role_ids: tuple[str, ...] = ()
    """Roles that say what it may do."""
    description: str = ""
    """A note for people. At most 1000 characters."""
    disabled: bool = False
    """Whether it is kept out."""
    totp_confirmed: bool = False
    """Whether a log-in needs a time code."""
    totp_last_step: int = 0
    """Time step of the last code that was used; none up to it counts again."""
    failures: int = 0
    """Wrong log-ins since the last good one. 0..."""
    locked_until_ms: int = 0
    """Until when log-ins from new addresses are refused."""
    known_addresses: tuple[str, ...] = ()
    """Networks that it has logged in from."""


class ArbitrationAddresses(Model, frozen=True, kw_only=True):
    """An object of the API."""

    addresses: tuple[str, ...] = ()
    hosts: tuple[HostArbitration, ...] = ()
    problems: tuple[str, ...] = ()


class AttachCluster(Model, frozen=True, kw_only=True):
    """Which cluster a switch is attached to, or detached from."""

    cluster: str
    """Name or id of the cluster."""


class AttachDataCenter(Model, frozen=True, kw_only=True):
    """Which data center an image storage is attached to, or detached from."""

    data_center: str
    """Name or id of the data center."""


class AttachDistributedSwitches(Model, frozen=True, kw_only=True):
    """What users say of one of the distributed-switches."""

    cluster: str
    """Name or id of the cluster."""
    distributed_switches: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of them."""
    q: tuple[str, ...] | UnsetType = UNSET
    """Conditions as lists take them, instead of `distributed_switches`; all must hold."""


class AttachImageStorages(Model, frozen=True, kw_only=True):
    """What users say of one of the image-storages."""

    data_center: str
    """Name or id of the data center."""
    image_storages: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of them."""
    q: tuple[str, ...] | UnsetType = UNSET
    """Conditions as lists take them, instead of `image_storages`; all must hold."""


class Audit(Model, frozen=True, kw_only=True):
    """What somebody did or tried. Begins before the change is made, ends after it; name = id.

    `result` is the HTTP status, 0 as long as the end is not recorded: then the outcome is unknown. `operator` is the
    account, token or `root`; `via` how they were known. `subject` is `kind/id`, or `kind/` and what the caller wrote.
    `before` and `after` are the attributes that differ, as JSON with secrets masked. `count` is more than 1 where many
    equal failures of one address are told together.
    """

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    action: str = ""
    """What was asked, as method and path."""
    operator: str = ""
    """Who asked: an account, a token or `root`."""
    account_id: str = ""
    """The account, if there was one."""
    via: str = ""
    """How they were known: session, token or the host's own socket."""
    address: str = ""
    """Where the request came from."""
    subject: str = ""
    """What it was about, as `kind/id`."""
    subject_name: str = ""
    """The name that it had."""
    host_id: str = ""
    """The host that was asked."""
    request_id: str = ""
    """Id of the request, as in the answer and in the agent's log."""
    result: int = 0
    """HTTP status; 0: the outcome isn't known."""
    code: str = ""
    """Code of the refusal; empty: it worked."""
    message: str = ""
    """More about it, in words."""
    ended_ms: int = 0
    """When it was over; 0: not known."""
    count: int = 1
    """How many equal ones are told together. 1..."""
    before: str = ""
    """What differs, as it was: JSON, secrets masked."""
    after: str = ""
    """What differs, as it is now: JSON, secrets masked."""


class AutoMembers(Model, frozen=True, kw_only=True):
    """What users say of one of the hosts."""

    members: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of them."""
    q: tuple[str, ...] | UnsetType = UNSET
    """Conditions as lists take them, instead of `members`; all must hold."""


class BlockedVM(Model, frozen=True, kw_only=True):
    """An object of the API."""

    name: str = ""
    host_name: str = ""
    reason: str = ""


class Bmc(Model, frozen=True, kw_only=True):
    """A host's management board (baseboard management controller), spoken to by IPMI 2.0 or Redfish; id = host id, name = host name.

    Its word that the host is off is proof enough to start the host's VMs elsewhere. So it is believed only while `state`
    is `ok`: a board that says "off" of a host that is certainly on belongs to another machine. No two hosts have one board.
    A Redfish service may speak for several machines: then address, port and `system` together are the board.

    An agent from before Redfish takes such a board for one that speaks IPMI at `port`: nothing answers there by UDP, so it
    is a fault to that agent, never "off".
    """

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    host_id: str = ""
    """The host whose power it switches."""
    address: str = ""
    """IP address or name of the board. At most 253 characters."""
    user: str = ""
    """Who logs in. At most 64 characters."""
    port: int = 623
    """Port: UDP with `ipmi`, TCP with `redfish`. 1..65535."""
    cipher_suite: int = 17
    """Cipher suite of RMCP+: 17 (SHA-256) or 3 (SHA-1). 1..17."""
    state: BmcState = BmcState("unchecked")
    """Whether its word is relied on."""
    why: str = ""
    """What was wrong when it was asked last."""
    protocol: BmcProtocol = BmcProtocol("ipmi")
    """What the board speaks."""
    fingerprint: str = ""
    """SHA-256 of the board's certificate, in hexadecimal: nothing is told to a board that shows another one. `redfish` only."""
    system: str = ""
    """Id of the host's machine in its Redfish service. `redfish` only."""
    host_name: str = ""
    """The name behind `host_id`; empty without one."""


class CallbackKey(Model, frozen=True, kw_only=True):
    """An object of the API."""

    public_key: str = ""


class Caller(Model, frozen=True, kw_only=True):
    """An object of the API."""

    name: str = ""
    via: str = ""
    account_id: str = ""
    permissions: tuple[Permission, ...] = ()


class CancelTasks(Model, frozen=True, kw_only=True):
    """What users say of one of the tasks."""

    tasks: tuple[str, ...]
    """Names or ids of them."""


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


class ChangeAccessKey(Model, frozen=True, kw_only=True):
    """`PATCH /v1/access-keys/{key}`: absent fields stay."""

    disabled: bool | UnsetType = UNSET
    """Whether what it signs is refused."""
    description: str | UnsetType = UNSET
    """A note for people. At most 1000 characters."""


class ChangeAccount(Model, frozen=True, kw_only=True):
    """`PATCH /v1/accounts/{account}`: absent fields stay."""

    roles: tuple[str, ...] | UnsetType = UNSET
    """Names of its roles, all of them."""
    disabled: bool | UnsetType = UNSET
    """Whether it is kept out."""
    description: str | UnsetType = UNSET
    """A note for people. At most 1000 characters."""


class ChangeArbitration(Model, frozen=True, kw_only=True):
    """`PATCH /v1/members/arbitration`."""

    addresses: tuple[str, ...]
    """IPv4 or IPv6 addresses that are not of the cluster, such as the router's; empty: none."""


class ChangeCluster(Model, frozen=True, kw_only=True):
    """What users say of one of the clusters."""

    name: str | UnsetType = UNSET
    """Its name: 1 to 63 of a-z, 0-9, `-` and `.`."""
    data_center: str | UnsetType = UNSET
    """The data center that it lies in. Name or id, of data-centers."""
    tags: tuple[str, ...] | UnsetType = UNSET
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    description: str | UnsetType = UNSET
    """A note for people. At most 1000 characters."""
    admission: Admission | UnsetType = UNSET
    """What is done about a start that leaves too little room for the VMs of lost hosts."""
    host_failures: int | UnsetType = UNSET
    """The loss of how many hosts at a time is to be borne. 1..4."""
    shutdown_policy: ShutdownPolicy | UnsetType = UNSET
    """What becomes of the VMs of a host that is shut down in order; not `cluster`."""
    freeze_s_max: int | UnsetType = UNSET
    """For how long VMs wait for a host that was shut down with `freeze`; then they are started elsewhere. 60..86400."""
    cpu_overcommit: int | UnsetType = UNSET
    """How many virtual CPUs are placed on each processor thread of a host at most. 1..64."""


class ChangeDataCenter(Model, frozen=True, kw_only=True):
    """What users say of one of the data-centers."""

    name: str | UnsetType = UNSET
    """Its name: 1 to 63 of a-z, 0-9, `-` and `.`."""
    tags: tuple[str, ...] | UnsetType = UNSET
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    description: str | UnsetType = UNSET
    """A note for people. At most 1000 characters."""


class ChangeDistributedSwitch(Model, frozen=True, kw_only=True):
    """What users say of one of the distributed-switches."""

    name: str | UnsetType = UNSET
    """Its name: 1 to 63 of a-z, 0-9, `-` and `.`."""
    clusters: tuple[str, ...] | UnsetType = UNSET
    """The clusters whose hosts it spans. Names or ids, of clusters."""
    tags: tuple[str, ...] | UnsetType = UNSET
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""


class ChangeHost(Model, frozen=True, kw_only=True):
    """`PATCH /v1/hosts/{host}`: hosts of one failure domain fail together."""

    failure_domain: str | UnsetType | None = UNSET
    """Hosts of one domain fail together; empty: it shares its fate with no other."""
    shutdown_policy: ShutdownPolicy | UnsetType | None = UNSET
    """What becomes of its VMs when it is shut down in order."""
    cluster: str | UnsetType | None = UNSET
    """Name or id of another cluster; only for a host without VMs."""


class ChangePlacementRule(Model, frozen=True, kw_only=True):
    """What users say of one of the placement-rules."""

    name: str | UnsetType = UNSET
    """Its name: 1 to 63 of a-z, 0-9, `-` and `.`."""
    cluster: str | UnsetType = UNSET
    """The cluster whose VMs it is about. Name or id, of clusters."""
    vms: tuple[str, ...] | UnsetType = UNSET
    """The VMs that it is about. Names or ids, of vms."""
    hosts: tuple[str, ...] | UnsetType = UNSET
    """The hosts that they may or must not run on; only of the host policies. Names or ids, of hosts."""
    tags: tuple[str, ...] | UnsetType = UNSET
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    policy: PlacementPolicy | UnsetType = UNSET
    """What it asks."""
    strength: RuleStrength | UnsetType = UNSET
    """Whether a VM rather waits than breaks it, or it only comes first."""
    description: str | UnsetType = UNSET
    """A note for people. At most 1000 characters."""


class ChangePolicy(Model, frozen=True, kw_only=True):
    """`PATCH /v1/members/policy`. What is absent stays as it is."""

    voters_max: int | UnsetType | None = UNSET
    """How many hosts vote at most: 1, 3, 5 or 7; `null`: as it is."""
    voter_replace_after_s: int | UnsetType | None = UNSET
    """Silence after which a voter gives its place to another host, 10 s to 7 days; `null`: as it is."""


class ChangeProfile(Model, frozen=True, kw_only=True):
    """`PATCH /v1/ha/profile`."""

    name: str
    """The profile to go by: `wide`, `default` or `moonshot`."""
    force: bool | UnsetType = UNSET
    """Also if a host's network was seen not to hold it lately. Default: `False`."""


class ChangeRule(Model, frozen=True, kw_only=True):
    """Only switching on and off."""

    enabled: bool
    """Whether it is in force."""


class ChangeTags(Model, frozen=True, kw_only=True):
    """`PATCH /v1/<plural>/{ref}/tags`. What is there already, or isn't, is no error. A key has one value: a new one
    takes the place of the old.
    """

    add: tuple[str, ...] | UnsetType = UNSET
    """Tags that it shall have."""
    remove: tuple[str, ...] | UnsetType = UNSET
    """Tags that it shall not have any more."""


class ChangeVM(Model, frozen=True, kw_only=True):
    """`PATCH /v1/vms/{vm}` (merge patch): absent fields stay."""

    description: str | UnsetType = UNSET
    """A note for people. At most 1000 characters."""
    ha: bool | UnsetType = UNSET
    """Whether it is started elsewhere when its host is lost."""
    priority: VMPriority | UnsetType = UNSET
    """Which VMs come first when many are to be started, or room is short."""
    start_after: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of VMs that it waits for when many are started."""
    start_delay_s: int | UnsetType = UNSET
    """How many seconds after the last of these VMs it is started. 0..3600."""


class ChangeVip(Model, frozen=True, kw_only=True):
    """`PATCH /v1/members/vip`."""

    address: str
    """A free address of the hosts' network, `10.0.0.9` or `10.0.0.9/24`; empty: no VIP. At most 64 characters."""


class CheckDrill(Model, frozen=True, kw_only=True):
    """`POST /v1/drills/actions/check`: which drill is thought of."""

    kind: DrillKind
    """Which failure is rehearsed."""
    host: str | UnsetType = UNSET
    """Name or id of the host that fails; empty for a full power loss only."""
    duration_s: int | UnsetType = UNSET
    """How long a cut lasts; 0: as long as is usual. Of kinds that end by themselves only. 0..120. Default: `0`."""
    data_storage: str | UnsetType = UNSET
    """Name or id of the data storage that is lost; empty: none."""


class CloudInit(Model, frozen=True, kw_only=True):
    """What a guest's cloud-init gets through a NoCloud seed. `user_data` is a whole #cloud-config text."""

    hostname: str = ""
    """Host name of the guest. At most 253 characters."""
    ssh_keys: tuple[str, ...] = ()
    """Public keys that may log in, one each."""
    user_data: str = ""
    """A whole #cloud-config text, of 64 KiB at most. At most 65536 characters."""


class Cluster(Model, frozen=True, kw_only=True):
    """A logical group of hosts inside a data center.

    `admission` keeps room for the highly available VMs of `host_failures` hosts that may be lost at a time (`ha.admission`).
    """

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    data_center_id: str = ""
    """The data center that it lies in."""
    description: str = ""
    """A note for people. At most 1000 characters."""
    admission: Admission = Admission("warn")
    """What is done about a start that leaves too little room for the VMs of lost hosts."""
    host_failures: int = 1
    """The loss of how many hosts at a time is to be borne. 1..4."""
    shutdown_policy: ShutdownPolicy = ShutdownPolicy("conditional")
    """What becomes of the VMs of a host that is shut down in order; not `cluster`."""
    freeze_s_max: int = 900
    """For how long VMs wait for a host that was shut down with `freeze`; then they are started elsewhere. 60..86400."""
    cpu_overcommit: int = 8
    """How many virtual CPUs are placed on each processor thread of a host at most. 1..64."""
    data_center_name: str = ""
    """The name behind `data_center_id`; empty without one."""


class ClusterHealth(Model, frozen=True, kw_only=True):
    """An object of the API."""

    verdict: str = ""
    line: str = ""
    host_name: str = ""
    cluster_name: str = ""
    index: int = 0
    quorum: bool = False
    leader_name: str = ""
    vip: str = ""
    vip_holder_name: str = ""
    voters: int = 0
    voters_up: int = 0
    losses_survived: int = 0
    findings: tuple[HealthFinding, ...] = ()
    vms_blocked: int = 0
    first_blocked: tuple[BlockedVM, ...] = ()
    hosts_in_maintenance: tuple[str, ...] = ()
    hosts_fenced: tuple[str, ...] = ()
    hosts: tuple[HostHealth, ...] = ()


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
    """The host's name, once more: whoever asks has looked at the machine."""


class ConfirmPowerOff(Model, frozen=True, kw_only=True):
    """`confirm` repeats the host's name: its guests lose their power too."""

    confirm: str
    """The host's name, once more: its guests lose their power too."""


class CreateAccount(Model, frozen=True, kw_only=True):
    """`POST /v1/accounts`. Without a password nobody can log in to it until one is set."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"password"})

    name: str
    """Its name: 1 to 63 of a-z, 0-9, `-` and `.`."""
    roles: tuple[str, ...] | UnsetType = UNSET
    """Names of its roles."""
    password: str | UnsetType = UNSET
    """Its password, of 12 characters at least; empty: nobody can log in to it yet."""
    description: str | UnsetType = UNSET
    """A note for people. At most 1000 characters."""


class CreateCluster(Model, frozen=True, kw_only=True):
    """What users say of one of the clusters."""

    name: str
    """Its name: 1 to 63 of a-z, 0-9, `-` and `.`."""
    data_center: str
    """The data center that it lies in. Name or id, of data-centers."""
    tags: tuple[str, ...] | UnsetType = UNSET
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    description: str | UnsetType = UNSET
    """A note for people. At most 1000 characters."""
    admission: Admission | UnsetType = UNSET
    """What is done about a start that leaves too little room for the VMs of lost hosts. Default: `warn`."""
    host_failures: int | UnsetType = UNSET
    """The loss of how many hosts at a time is to be borne. 1..4. Default: `1`."""
    shutdown_policy: ShutdownPolicy | UnsetType = UNSET
    """What becomes of the VMs of a host that is shut down in order; not `cluster`. Default: `conditional`."""
    freeze_s_max: int | UnsetType = UNSET
    """For how long VMs wait for a host that was shut down with `freeze`; then they are started elsewhere. 60..86400. Default: `900`."""
    cpu_overcommit: int | UnsetType = UNSET
    """How many virtual CPUs are placed on each processor thread of a host at most. 1..64. Default: `8`."""


class CreateDataCenter(Model, frozen=True, kw_only=True):
    """What users say of one of the data-centers."""

    name: str
    """Its name: 1 to 63 of a-z, 0-9, `-` and `.`."""
    tags: tuple[str, ...] | UnsetType = UNSET
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    description: str | UnsetType = UNSET
    """A note for people. At most 1000 characters."""


class CreateDataStorage(Model, frozen=True, kw_only=True):
    """`path` must exist on every host and, for `shared`, be the same directory everywhere.

    `driver` names one that a plug-in brings, on every host; empty: the product's.
    """

    name: str
    """Its name: 1 to 63 of a-z, 0-9, `-` and `.`."""
    kind: DataStorageKind
    """Whether each host has a directory of its own, or all mount the same."""
    path: str
    """Absolute path, the same on every host."""
    driver: str | UnsetType = UNSET
    """The plug-in's driver that it is used by; empty: the product's own."""
    data_center: str | UnsetType = UNSET
    """Name or id of its data center; empty: the first."""


class CreateDistributedSwitch(Model, frozen=True, kw_only=True):
    """What users say of one of the distributed-switches."""

    name: str
    """Its name: 1 to 63 of a-z, 0-9, `-` and `.`."""
    clusters: tuple[str, ...] | UnsetType = UNSET
    """The clusters whose hosts it spans. Names or ids, of clusters."""
    tags: tuple[str, ...] | UnsetType = UNSET
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""


class CreatePlacementRule(Model, frozen=True, kw_only=True):
    """What users say of one of the placement-rules."""

    name: str
    """Its name: 1 to 63 of a-z, 0-9, `-` and `.`."""
    cluster: str
    """The cluster whose VMs it is about. Name or id, of clusters."""
    policy: PlacementPolicy
    """What it asks."""
    vms: tuple[str, ...] | UnsetType = UNSET
    """The VMs that it is about. Names or ids, of vms."""
    hosts: tuple[str, ...] | UnsetType = UNSET
    """The hosts that they may or must not run on; only of the host policies. Names or ids, of hosts."""
    tags: tuple[str, ...] | UnsetType = UNSET
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    strength: RuleStrength | UnsetType = UNSET
    """Whether a VM rather waits than breaks it, or it only comes first. Default: `mandatory`."""
    description: str | UnsetType = UNSET
    """A note for people. At most 1000 characters."""


class CreatePortGroup(Model, frozen=True, kw_only=True):
    """Empty or 0 means: choose. The pool is the network without its first 16 addresses."""

    name: str
    """Its name: 1 to 63 of a-z, 0-9, `-` and `.`."""
    cidr: str
    """Its IPv4 network, e.g. `10.20.0.0/24`."""
    vni: int | UnsetType = UNSET
    """VXLAN network identifier; 0: a free one. 0..16777215. Default: `0`."""
    gateway: str | UnsetType = UNSET
    """Default route that DHCP hands out; empty: none."""
    dns: tuple[str, ...] | UnsetType = UNSET
    """Name servers that DHCP hands out."""
    mtu: int | UnsetType = UNSET
    """MTU of the guests. 576..65535. Default: `1450`."""
    service_ip: str | UnsetType = UNSET
    """Address that answers DHCP and DNS; empty: the second of the network."""
    pool_first: str | UnsetType = UNSET
    """First address that NICs get; empty: the one after those left free."""
    pool_last: str | UnsetType = UNSET
    """Last address that NICs get; empty: the last of the network."""
    domain: str | UnsetType = UNSET
    """Domain of the guests' names. Default: `internal`."""
    switch: str | UnsetType = UNSET
    """Name or id of the switch that it is on. Default: `default`."""


class CreateRule(Model, frozen=True, kw_only=True):
    """`remote_group` is a name or id; it and `cidr` exclude each other."""

    direction: Direction | UnsetType = UNSET
    """Seen from the VM: in to it, or out of it. Default: `ingress`."""
    protocol: Protocol | UnsetType = UNSET
    """What it matches above IP. Default: `all`."""
    port_first: int | UnsetType = UNSET
    """First port of TCP or UDP; 0: all. 0..65535. Default: `0`."""
    port_last: int | UnsetType = UNSET
    """Last port; 0: all. 0..65535. Default: `0`."""
    cidr: str | UnsetType = UNSET
    """Network of the other side; empty: any."""
    remote_group: str | UnsetType = UNSET
    """Name or id of the other side's security group; excludes `cidr`."""
    family: int | UnsetType = UNSET
    """4 or 6, the version of IP. 4..6. Default: `4`."""


class CreateSecurityGroup(Model, frozen=True, kw_only=True):
    """A new group starts with the four default rules."""

    name: str
    """Its name: 1 to 63 of a-z, 0-9, `-` and `.`."""
    data_center: str | UnsetType = UNSET
    """Name or id of its data center; empty: the first."""


class CreateVM(Model, frozen=True, kw_only=True):
    """`POST /v1/vms`. Empty references mean the default; `disk_size_bytes` 0 means the image's size."""

    name: str
    """Its name: 1 to 63 of a-z, 0-9, `-` and `.`."""
    image: str
    """Name or id of the image that its disk is made of."""
    cpus: int | UnsetType = UNSET
    """Virtual CPUs. 1..255. Default: `1`."""
    memory_mib: int | UnsetType = UNSET
    """Memory that the guest sees. 64..16777216. Default: `1024`."""
    disk_size_bytes: int | UnsetType = UNSET
    """Size of its disk, a multiple of 512; 0: that of the image. 0..70368744177664. Default: `0`."""
    data_storage: str | UnsetType = UNSET
    """Name or id of where its disk lies; empty: the only shared one, else the local one."""
    port_group: str | UnsetType = UNSET
    """Name or id of the network of its NIC. Default: `default`."""
    security_groups: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of the firewalls of its NIC. Default: `['default']`."""
    cluster: str | UnsetType = UNSET
    """Name or id of its cluster; empty: that of `host`, else the first."""
    host: str | UnsetType = UNSET
    """Name or id of the host that it starts on; empty: the one with most room."""
    placement_rules: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of placement rules of its cluster that it is put into; needs the right to change them."""
    ha: bool | UnsetType = UNSET
    """Whether it is started elsewhere when its host is lost. Default: `True`."""
    priority: VMPriority | UnsetType = UNSET
    """Which VMs come first when many are to be started, or room is short. Default: `medium`."""
    start_after: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of VMs that it waits for when many are started."""
    start_delay_s: int | UnsetType = UNSET
    """How many seconds after the last of these VMs it is started. 0..3600. Default: `0`."""
    hostname: str | UnsetType = UNSET
    """Host name of the guest; empty: its name. At most 253 characters."""
    ssh_keys: tuple[str, ...] | UnsetType = UNSET
    """Public keys that may log in, one each."""
    user_data: str | UnsetType = UNSET
    """A whole #cloud-config text, of 64 KiB at most."""
    start: bool | UnsetType = UNSET
    """Whether to start it at once. Default: `True`."""
    description: str | UnsetType = UNSET
    """A note for people. At most 1000 characters."""


class DataCenter(Model, frozen=True, kw_only=True):
    """The largest name space; holds clusters."""

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    description: str = ""
    """A note for people. At most 1000 characters."""


class DataStorage(Model, frozen=True, kw_only=True):
    """Where disks live. `path` is absolute and the same on every host."""

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    data_center_id: str = ""
    """The data center that it belongs to."""
    kind: DataStorageKind = DataStorageKind("")
    """Whether each host has a directory of its own, or all mount the same."""
    path: str = ""
    """Absolute path, the same on every host."""
    driver: str = ""
    """The plug-in's driver that it is used by; empty: the product's own."""
    data_center_name: str = ""
    """The name behind `data_center_id`; empty without one."""


class DeleteAccessKeys(Model, frozen=True, kw_only=True):
    """What users say of one of the access-keys."""

    access_keys: tuple[str, ...]
    """Names or ids of them."""


class DeleteAccessTokens(Model, frozen=True, kw_only=True):
    """What users say of one of the access-tokens."""

    access_tokens: tuple[str, ...]
    """Names or ids of them."""


class DeleteAccounts(Model, frozen=True, kw_only=True):
    """What users say of one of the accounts."""

    accounts: tuple[str, ...]
    """Names or ids of them."""


class DeleteBmcs(Model, frozen=True, kw_only=True):
    """What users say of one of the bmcs."""

    bmcs: tuple[str, ...]
    """Names or ids of them."""


class DeleteClusters(Model, frozen=True, kw_only=True):
    """What users say of one of the clusters."""

    clusters: tuple[str, ...]
    """Names or ids of them."""


class DeleteDataCenters(Model, frozen=True, kw_only=True):
    """What users say of one of the data-centers."""

    data_centers: tuple[str, ...]
    """Names or ids of them."""


class DeleteDataStorages(Model, frozen=True, kw_only=True):
    """What users say of one of the data-storages."""

    data_storages: tuple[str, ...]
    """Names or ids of them."""


class DeleteDistributedSwitches(Model, frozen=True, kw_only=True):
    """What users say of one of the distributed-switches."""

    distributed_switches: tuple[str, ...]
    """Names or ids of them."""


class DeleteHosts(Model, frozen=True, kw_only=True):
    """What users say of one of the hosts."""

    hosts: tuple[str, ...]
    """Names or ids of them."""


class DeleteImages(Model, frozen=True, kw_only=True):
    """What users say of one of the images."""

    images: tuple[str, ...]
    """Names or ids of them."""


class DeleteJoinTokens(Model, frozen=True, kw_only=True):
    """What users say of one of the join-tokens."""

    join_tokens: tuple[str, ...]
    """Names or ids of them."""


class DeletePlacementRules(Model, frozen=True, kw_only=True):
    """What users say of one of the placement-rules."""

    placement_rules: tuple[str, ...]
    """Names or ids of them."""


class DeletePortGroups(Model, frozen=True, kw_only=True):
    """What users say of one of the port-groups."""

    port_groups: tuple[str, ...]
    """Names or ids of them."""


class DeleteRoles(Model, frozen=True, kw_only=True):
    """What users say of one of the roles."""

    roles: tuple[str, ...]
    """Names or ids of them."""


class DeleteSecurityGroups(Model, frozen=True, kw_only=True):
    """What users say of one of the security-groups."""

    security_groups: tuple[str, ...]
    """Names or ids of them."""


class DeleteSessions(Model, frozen=True, kw_only=True):
    """What users say of one of the sessions."""

    sessions: tuple[str, ...]
    """Names or ids of them."""


class DeleteSnapshots(Model, frozen=True, kw_only=True):
    """What users say of one of the snapshots."""

    snapshots: tuple[str, ...]
    """Names or ids of them."""


class DeleteVMs(Model, frozen=True, kw_only=True):
    """`POST /v1/vms/actions/delete`. There are no conditions here: what they match may change before a repetition."""

    vms: tuple[str, ...]
    """Names or ids of the VMs."""


class DeletionPlan(Model, frozen=True, kw_only=True):
    """An object of the API."""

    target: Target
    allowed: bool = False
    why_not: str = ""
    deleted: tuple[Touched, ...] = ()
    detached: tuple[Touched, ...] = ()
    refused: tuple[Touched, ...] = ()


class DemoteMembers(Model, frozen=True, kw_only=True):
    """What users say of one of the hosts."""

    members: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of them."""
    q: tuple[str, ...] | UnsetType = UNSET
    """Conditions as lists take them, instead of `members`; all must hold."""


class DetachDistributedSwitches(Model, frozen=True, kw_only=True):
    """What users say of one of the distributed-switches."""

    cluster: str
    """Name or id of the cluster."""
    distributed_switches: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of them."""
    q: tuple[str, ...] | UnsetType = UNSET
    """Conditions as lists take them, instead of `distributed_switches`; all must hold."""


class DetachImageStorages(Model, frozen=True, kw_only=True):
    """What users say of one of the image-storages."""

    data_center: str
    """Name or id of the data center."""
    image_storages: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of them."""
    q: tuple[str, ...] | UnsetType = UNSET
    """Conditions as lists take them, instead of `image_storages`; all must hold."""


class Disarm(Model, frozen=True, kw_only=True):
    """`POST /v1/ha/actions/disarm`."""

    reason: str
    """Why; shown to whoever wonders. At most 200 characters."""
    rearm_after_s: int | UnsetType = UNSET
    """When to arm it again by itself, 60 s to 7 days; 0: when someone does so. Default: `0`."""


class Disk(Model, frozen=True, kw_only=True):
    """A virtual disk: qcow2, linked to its image's cached copy on the same data storage (or empty: no image).

    `index` orders the disks of a VM, 0 is the one it boots from. `host_id` is set for local storage only.
    With snapshots it consists of several files, its layers (`storage.layers`), of which `top_layer_id` is written.
    """

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    vm_id: str = ""
    """The VM that it belongs to."""
    data_storage_id: str = ""
    """Where its file lies."""
    size_bytes: int = 0
    """Size that the guest sees. 512..70368744177664."""
    image_id: str = ""
    """The image that it was made of; empty: none."""
    image_sha256: str = ""
    """SHA-256 of that image's file."""
    host_id: str = ""
    """The host that has it, if its storage is local; else empty."""
    index: int = 0
    """Its place among the VM's disks; 0 is the one that it boots from. 0..."""
    layer_id: str = ""
    """The layer that it is written to; empty: the first, which has the disk's id."""
    current_snapshot_id: str = ""
    """The snapshot that it goes on from; empty: none."""
    vm_name: str = ""
    """The name behind `vm_id`; empty without one."""
    data_storage_name: str = ""
    """The name behind `data_storage_id`; empty without one."""
    image_name: str = ""
    """The name behind `image_id`; empty without one."""
    host_name: str = ""
    """The name behind `host_id`; empty without one."""
    current_snapshot_name: str = ""
    """The name behind `current_snapshot_id`; empty without one."""


class DistributedSwitch(Model, frozen=True, kw_only=True):
    """A switch that spans the hosts of the clusters that it is attached to: only their VMs can be in its port groups."""

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    cluster_ids: tuple[str, ...] = ()
    """The clusters whose hosts it spans."""
    cluster_names: tuple[str, ...] = ()
    """The names behind `cluster_ids`."""


class Drill(Model, frozen=True, kw_only=True):
    """A rehearsal of a failure on a living cluster: what was broken where, what followed when, and whether a promise was kept.

    One at a time in the cluster. `host_id` is the host that fails, empty when all do. `observer_host_id` is whose agent
    conducts it and whose clock all times are by; the fault doesn't touch it.
    """

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    kind: DrillKind = DrillKind("")
    """Which failure is rehearsed."""
    host_id: str = ""
    """The host that fails; empty: all."""
    host_label: str = ""
    """The name that the host had."""
    observer_host_id: str = ""
    """The host whose agent conducts it; empty: whoever leads."""
    data_storage_id: str = ""
    """The data storage that is lost; empty: none."""
    duration_s: int = 0
    """How long a fault lasts that ends by itself; 0: it doesn't."""
    profile: str = "default"
    """HA profile whose promise is tried."""
    boots: dict[str, str] = field(default_factory=dict)
    """Boot of each host before, by the host's id."""
    state: DrillState = DrillState("prepared")
    """How far it is."""
    events: tuple[DrillEvent, ...] = ()
    """The timeline, oldest first."""
    vms: tuple[DrillVM, ...] = ()
    """The VMs that it is about, and what became of them."""
    verdict: DrillVerdict = DrillVerdict("open")
    """Whether the promise was kept."""
    why: str = ""
    """The reason of the verdict, in a line."""
    left_to_do: str = ""
    """What could not be put right by itself, and how to do it."""
    abort_reason: str = ""
    """Why it is to end early; empty: it isn't."""
    ended_ms: int = 0
    """When it ended; 0: not yet."""
    host_name: str = ""
    """The name behind `host_id`; empty without one."""
    observer_host_name: str = ""
    """The name behind `observer_host_id`; empty without one."""
    data_storage_name: str = ""
    """The name behind `data_storage_id`; empty without one."""


class DrillEvent(Model, frozen=True, kw_only=True):
    """One line of a drill's timeline, by the clock of the host that observes it."""

    after_ms: int = 0
    """When, after the fault."""
    code: str = ""
    """What kind of thing happened."""
    text: str = ""
    """What happened, in words."""


class DrillPlan(Model, frozen=True, kw_only=True):
    """What a drill would be. It can begin when there are no `obstacles`; `warnings` don't forbid it."""

    kind: DrillKind = DrillKind("")
    """Which failure is rehearsed."""
    host_name: str = ""
    """The host that fails; empty: all."""
    observer_name: str = ""
    """The host that watches; empty: whoever leads then."""
    possible: bool = False
    """Whether it could begin now."""
    duration_s: int = 0
    """How long the fault lasts; 0: it doesn't end by itself."""
    obstacles: tuple[Obstacle, ...] = ()
    """What stands in the way."""
    warnings: tuple[Obstacle, ...] = ()
    """What should be known before."""
    vms: tuple[DrillVM, ...] = ()
    """The VMs it is about, and what is promised."""


class DrillVM(Model, frozen=True, kw_only=True):
    """A VM that the fault was to touch, or not to. Times are milliseconds after the fault; -1: not seen."""

    vm: str = ""
    """Id of the VM."""
    name: str = ""
    """Its name."""
    promise: DrillPromise = DrillPromise("")
    """What is promised of it."""
    was_on: str = ""
    """Name of the host that ran it before."""
    generation: int = 0
    """Its generation before; each start makes another."""
    bound_ms: int = 0
    """Within which time it has to run again; 0: no promise. 0..."""
    taken_ms: int = -1
    """When it was given a new start, here or elsewhere."""
    running_ms: int = -1
    """When it ran again."""
    now_on: str = ""
    """Name of the host that runs it."""
    blocked: str = ""
    """Why it could not run."""
    stopped_by_user: bool = False
    """Whether it was stopped or moved by a user meanwhile."""
    verdict: DrillVerdict = DrillVerdict("open")
    """Whether the promise was kept."""
    why: str = ""
    """The reason of the verdict."""


class EnterMaintenance(Model, frozen=True, kw_only=True):
    """`POST /v1/hosts/{host}/actions/enter-maintenance`."""

    unmovable: Unmovable | UnsetType = UNSET
    """VMs that can't be moved: `refuse` to begin, `stop` them until it is over, or `keep` them there. Default: `refuse`."""


class Event(Model, frozen=True, kw_only=True):
    """Something that happened to `subject` (`kind/id`); its revision is its place in time. name = id."""

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    code: str = ""
    """What kind of thing happened."""
    subject: str = ""
    """What it happened to, as `kind/id`."""
    subject_name: str = ""
    """The name that it had."""
    message: str = ""
    """What happened, in words."""
    severity: Severity = Severity("notice")
    """How much it matters."""
    host_id: str = ""
    """The host that it is about; empty: none."""
    host_name: str = ""
    """The name behind `host_id`; empty without one."""


class FormerMember(Model, frozen=True, kw_only=True):
    """An object of the API."""

    host_name: str = ""
    cluster_name: str = ""


class GiveUpTask(Model, frozen=True, kw_only=True):
    """`confirm` repeats the name of what the task works on: what it has begun is left as it is."""

    reason: str
    """Why; it is kept with the task. At most 200 characters."""
    confirm: str
    """The name of what the task works on, once more."""


class HaProfile(Model, frozen=True, kw_only=True):
    """An object of the API."""

    name: str = ""
    lease_s: float = 0.0
    watchdog_s: float = 0.0
    margin_s: float = 0.0
    safe_s: float = 0.0
    choices: tuple[str, ...] = ()
    hosts_behind: tuple[str, ...] = ()


class HaStatus(Model, frozen=True, kw_only=True):
    """An object of the API."""

    state: str = ""
    profile: str = ""
    disarmed_by: str = ""
    disarmed_ms: int = 0
    reason: str = ""
    rearm_ms: int = 0
    waits_for: tuple[str, ...] = ()
    hosts_behind: tuple[str, ...] = ()


class HealthFinding(Model, frozen=True, kw_only=True):
    """An object of the API."""

    severity: str = ""
    host_name: str = ""
    code: str = ""
    what: str = ""
    advice: str = ""


class Host(Model, frozen=True, kw_only=True):
    """A server that runs the agent. `address` is its IP on the management network.

    Hosts of one `failure_domain` (a rack, a room) fail together; empty: this host shares its fate with no other. A
    `witness` votes and holds the state, but runs no VMs. `feature_level` is what its agent understands. `joining` from
    its admission until it has the state and says so: it gets no vote, and may give up without a trace. `plugins` are what
    its agent found installed when it started. No VM is placed on a host that can't reach a data storage of its disks.
    `maintenance` is begun and ended by actions; the leader's `nodeagent.services.evacuation` does what it takes.
    """

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    cluster_id: str = ""
    """The cluster that it belongs to."""
    address: str = ""
    """IP address on the management network."""
    api_port: int = 7443
    """TCP port of the HTTPS API. 1..65535."""
    mesh_port: int = 7444
    """TCP port of the mesh between hosts. 1..65535."""
    version: str = ""
    """Version of its agent."""
    cpus: int = 0
    """Threads of its processors. 0..."""
    memory_mib: int = 0
    """Physical memory. 0..."""
    arch: str = "x86_64"
    """Architecture of its processors, e.g. `x86_64`."""
    accelerator: str = ""
    """What guests run on: `kvm`, or `tcg` where there is none; empty before it was asked."""
    watchdog: str = ""
    """Kind of the watchdog that resets it when its lease ends."""
    state: HostState = HostState("member")
    """Whether its renewals are refused, and whether it is known to be off."""
    off_lease_revision: int = 0
    """Revision of the lease that it held when its management board said that it is off; 0: none said so. 0..."""
    fenced_storage_ids: tuple[str, ...] = ()
    """Data storages that said, while it was being fenced, that they take nothing any more that it writes."""
    storage_lease_revision: int = 0
    """Revision of the lease that it held when these data storages said so; 0: none said so. 0..."""
    refusing_storage_ids: tuple[str, ...] = ()
    """Data storages that may refuse what it writes, until it has booted and they have readmitted it."""
    fenced_boot_id: str = ""
    """The boot that these data storages refuse; empty: none."""
    maintenance: bool = False
    """Whether it gets no new VMs, and those on it are moved away."""
    maintenance_unmovable: Unmovable = Unmovable("refuse")
    """What becomes of VMs that can't be moved away from it."""
    maintenance_ready: bool = False
    """Whether all that had to leave it for its maintenance has left."""
    maintenance_back: bool = True
    """Whether its VMs come back when its maintenance ends."""
    shutdown_policy: ShutdownPolicy = ShutdownPolicy("cluster")
    """What becomes of its VMs when it is shut down in order."""
    down_boot_id: str = ""
    """Boot in which it was told to shut down; empty once it is back."""
    frozen: bool = False
    """Whether its VMs wait for it to be back from its shutdown."""
    maintenance_for_shutdown: bool = False
    """Whether its maintenance ends by itself when it is back."""
    failure_domain: str = ""
    """Hosts of one domain fail together; empty: it shares its fate with no other."""
    witness: bool = False
    """Whether it votes and holds the state, but runs no VMs."""
    vote: Vote = Vote("auto")
    """Whether the cluster chooses if it votes, or it shall always or never."""
    feature_level: int = 1
    """What its agent understands of the replicated state."""
    joining: bool = False
    """Admitted, but doesn't have the state yet."""
    plugins: tuple[Plugin, ...] = ()
    """What plug-ins its agent found when it started."""
    resource_types: tuple[str, ...] = ()
    """Collections that plug-ins bring on it."""
    unreachable_storage_ids: tuple[str, ...] = ()
    """Data storages that it could not use when it looked last."""
    arbitration: Arbitration = Arbitration("unknown")
    """Whether it reaches an arbitration address, as it said last."""
    hypervisor: str = ""
    """The driver that its guests run under; empty: its agent never said."""
    driver_fault: str = ""
    """Why a driver that its settings name can't be used, so that no VM starts on it; empty: all can."""
    cluster_name: str = ""
    """The name behind `cluster_id`; empty without one."""
    unreachable_storage_names: tuple[str, ...] = ()
    """The names behind `unreachable_storage_ids`."""


class HostArbitration(Model, frozen=True, kw_only=True):
    """An object of the API."""

    host_name: str = ""
    state: str | None = None
    answering: tuple[str, ...] = ()


class HostHealth(Model, frozen=True, kw_only=True):
    """An object of the API."""

    id: str
    name: str = ""
    role: str = ""
    votes: bool = False
    leader: bool = False
    state: str = ""
    maintenance: bool = False
    vms: int = 0
    answers: bool = False
    why: str = ""
    gossip: str = ""
    lease_age_s: float | None = None
    lease_fresh: bool = False
    guard_answers: bool | None = None
    guard_phase: str | None = None
    watchdog: str | None = None
    watchdog_armed: bool | None = None
    libvirt_answers: bool | None = None
    arbitration: str | None = None
    secrets_open: bool | None = None
    applied_index: int | None = None
    lag: int | None = None
    clock_offset_ms: float | None = None
    storages: tuple[StorageHealth, ...] = ()
    peers: tuple[PeerHealth, ...] = ()


class HostLoss(Model, frozen=True, kw_only=True):
    """An object of the API."""

    hosts: tuple[str, ...] = ()
    vms: int = 0
    memory_mib: int = 0
    placed: dict[str, int] = field(default_factory=dict)
    left_out: int = 0
    ruled_out: int = 0
    missing_mib: int = 0
    why: str = ""


class HostMaintenance(Model, frozen=True, kw_only=True):
    """An object of the API."""

    host: str = ""
    maintenance: bool = False
    unmovable: str = ""
    ready: bool = False
    move_back: bool = False
    left: int = 0
    away: int = 0
    vms: tuple[StayingVM, ...] = ()


class HostPlugin(Model, frozen=True, kw_only=True):
    """An object of the API."""

    host_id: str = ""
    host_name: str = ""
    package: str = ""
    version: str = ""
    group: str = ""
    name: str = ""
    state: str = ""
    why: str = ""


class Image(Model, frozen=True, kw_only=True):
    """A disk template. Always stored as a standalone qcow2 file named by its SHA-256.

    `sha256` and `size_bytes` are of that stored file; `virtual_size_bytes` is what a guest sees.
    `host_ids` are hosts that hold a verified copy. `source_*` describe the file as it was uploaded.
    """

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    image_storage_id: str = ""
    """Where its file is kept."""
    state: ImageState = ImageState("uploading")
    """Whether it can be used yet."""
    sha256: str = ""
    """SHA-256 of the file as it is kept."""
    size_bytes: int = 0
    """Size of the file as it is kept. 0..."""
    virtual_size_bytes: int = 0
    """Size of the disk that a guest sees. 0..."""
    source_format: str = ""
    """Format that it was uploaded in."""
    source_sha256: str = ""
    """SHA-256 of the file as it was uploaded."""
    host_ids: tuple[str, ...] = ()
    """Hosts that hold a verified copy."""
    image_storage_name: str = ""
    """The name behind `image_storage_id`; empty without one."""
    host_names: tuple[str, ...] = ()
    """The names behind `host_ids`."""


class ImageStorage(Model, frozen=True, kw_only=True):
    """Where images live: a directory of the same path on every host; images are copied between hosts by hash.

    VMs of the data centers that it is attached to are made of its images, on data storages of theirs.
    """

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    data_center_ids: tuple[str, ...] = ()
    """The data centers whose VMs are made of its images."""
    path: str = ""
    """Absolute path, the same on every host."""
    data_center_names: tuple[str, ...] = ()
    """The names behind `data_center_ids`."""


class ImportCertificate(Model, frozen=True, kw_only=True):
    """`POST /v1/certificates`. `content` is the file in base64; `host` a name or id, empty for all hosts."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"passphrase"})

    content: bytes
    """The file (PEM, PKCS#12 or JKS), in base64."""
    passphrase: str | UnsetType = UNSET
    """What opens it; empty: nothing is needed. At most 1024 characters."""
    host: str | UnsetType = UNSET
    """Name or id of the host that shall serve it; empty: all."""


class InitCluster(Model, frozen=True, kw_only=True):
    """`POST /v1/local/init`. Empty: derived from the host."""

    cluster_name: str | UnsetType = UNSET
    """Name of the cluster; empty: `kvorum`."""
    host_name: str | UnsetType = UNSET
    """Name of this host; empty: that of the machine."""
    address: str | UnsetType = UNSET
    """IP address of this host; empty: that of the default route."""


class JoinCluster(Model, frozen=True, kw_only=True):
    """`POST /v1/local/join`. Empty names are derived from the host."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"token"})

    token: str
    """A join token, made by a member."""
    host_name: str | UnsetType = UNSET
    """Name of this host; empty: that of the machine."""
    address: str | UnsetType = UNSET
    """IP address of this host; empty: the one that reaches the cluster."""
    witness: bool | UnsetType = UNSET
    """Vote and hold the state, but run no VMs. Default: `False`."""


class JoinToken(Model, frozen=True, kw_only=True):
    """A single-use right to join. Only the SHA-256 of its secret is kept; name = id."""

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    expires_ms: int = 0
    """Until when a host can join with it."""
    used_by_host_id: str = ""
    """The host that joined with it; empty: none yet."""
    cluster_id: str = ""
    """The cluster that a host joins into; empty: the first."""
    used_by_host_name: str = ""
    """The name behind `used_by_host_id`; empty without one."""
    cluster_name: str = ""
    """The name behind `cluster_id`; empty without one."""


class JournalEntry(Model, frozen=True, kw_only=True):
    """One line of a workflow's journal."""

    step: str = ""
    """The step that it is about."""
    mark: StepMark = StepMark("")
    """What became of the step."""
    at_ms: int = 0
    """When."""


class LeaveCluster(Model, frozen=True, kw_only=True):
    """`POST /v1/local/leave`. `force` needs `confirm`, this host's name."""

    force: bool | UnsetType = UNSET
    """Leave a cluster that has no place for this host any more. Default: `False`."""
    confirm: str | UnsetType = UNSET
    """This host's name, once more; needed with `force`."""


class LeaveMaintenance(Model, frozen=True, kw_only=True):
    """`POST /v1/hosts/{host}/actions/leave-maintenance`."""

    move_back: bool | UnsetType = UNSET
    """Whether the VMs that left it for the maintenance come back. Default: `True`."""


class LeaveMaintenanceHosts(Model, frozen=True, kw_only=True):
    """What users say of one of the hosts."""

    hosts: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of them."""
    q: tuple[str, ...] | UnsetType = UNSET
    """Conditions as lists take them, instead of `hosts`; all must hold."""
    move_back: bool | UnsetType = UNSET
    """Whether the VMs that left it for the maintenance come back. Default: `True`."""


class Leftover(Model, frozen=True, kw_only=True):
    """Something that a task that was given up may have left behind."""

    step: str = ""
    """The step that made it, or should have removed it."""
    resource: str = ""
    """What it belongs to, as `kind/id`; empty: nothing."""
    what: str = ""
    """What it is and where."""


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
    """Name of the account."""
    password: str
    """Its password."""
    code: str | UnsetType = UNSET
    """A time code or a recovery code; empty without two-factor log-in."""


class MakeAccessKey(Model, frozen=True, kw_only=True):
    """`POST /v1/access-keys`. Either `account` or `roles`. `ttl_s` 0: never expires."""

    name: str
    """Its name: 1 to 63 of a-z, 0-9, `-` and `.`."""
    account: str | UnsetType = UNSET
    """Name or id of the account whose rights it has; empty: none's."""
    roles: tuple[str, ...] | UnsetType = UNSET
    """Names of the roles that say what it may do."""
    ttl_s: int | UnsetType = UNSET
    """How long it is good; 0: for ever. 0..315360000. Default: `0`."""
    description: str | UnsetType = UNSET
    """A note for people. At most 1000 characters."""


class MakeAccessToken(Model, frozen=True, kw_only=True):
    """`POST /v1/access-tokens`. `ttl_s` 0: never expires. Without `account` and `roles` it may do everything."""

    name: str
    """Its name: 1 to 63 of a-z, 0-9, `-` and `.`."""
    ttl_s: int | UnsetType = UNSET
    """How long it is good; 0: for ever. 0..315360000. Default: `0`."""
    account: str | UnsetType = UNSET
    """Name or id of the account that it acts for; empty: none."""
    roles: tuple[str, ...] | UnsetType = UNSET
    """Names of the roles that say what it may do; with neither roles nor account it may do everything."""


class MakeJoinTokens(Model, frozen=True, kw_only=True):
    """`POST /v1/join-tokens`."""

    count: int | UnsetType = UNSET
    """How many. 1..100. Default: `1`."""
    ttl_s: int | UnsetType = UNSET
    """How long they are good. 1..604800. Default: `10800`."""
    cluster: str | UnsetType = UNSET
    """Name or id of the cluster that hosts join into; empty: the first."""


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
    plain_http: str = ""
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
    """Name or id of where it shall go; empty: the host with most room."""


class MigrateVMs(Model, frozen=True, kw_only=True):
    """`POST /v1/vms/actions/migrate`; see `MigrateVM`."""

    vms: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of the VMs."""
    q: tuple[str, ...] | UnsetType = UNSET
    """Conditions as lists take them, instead of `vms`; all must hold."""
    host: str | UnsetType = UNSET
    """Name or id of where they shall go; empty: where most room is, each."""


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
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    vm_id: str = ""
    """The VM that it belongs to."""
    port_group_id: str = ""
    """The network that it is in."""
    mac: str = ""
    """Its MAC address, unique in the mesh."""
    ip: str = ""
    """Its IPv4 address, unique in its port group."""
    security_group_ids: tuple[str, ...] = ()
    """Firewalls that let traffic through to it."""
    index: int = 0
    """Its place among the VM's NICs. 0..."""
    vm_name: str = ""
    """The name behind `vm_id`; empty without one."""
    port_group_name: str = ""
    """The name behind `port_group_id`; empty without one."""
    security_group_names: tuple[str, ...] = ()
    """The names behind `security_group_ids`."""


class Obstacle(Model, frozen=True, kw_only=True):
    """Why a drill can't begin, or what should be known of it before. `code` stays."""

    code: str = ""
    what: str = ""
    advice: str = ""


class Outcome(Model, frozen=True, kw_only=True):
    """An object of the API."""

    ref: str = ""
    id: str
    name: str = ""
    status: int = 0
    task: Task | None = None
    problem: Problem | None = None


class PeerHealth(Model, frozen=True, kw_only=True):
    """An object of the API."""

    host_name: str = ""
    round_trip_ms: float | None = None
    why: str = ""
    gossip: str = ""


class Permission(Model, frozen=True, kw_only=True):
    """The right to do each of `actions` to each of `kinds`; `*` stands for all of them.

    `action@tag` is limited to resources that carry the tag.
    """

    kinds: tuple[str, ...]
    """Kinds of resources; `*` is all of them."""
    actions: tuple[str, ...]
    """`read`, `create`, `change`, `delete`, `operate`; `*` is all of them. `read@env=test`: only of what carries the tag."""


class PlacementRule(Model, frozen=True, kw_only=True):
    """Where some VMs of a cluster may run: apart from or together with each other, or on or off some hosts.

    Nothing is moved by a rule; it holds whenever a host is chosen for one of its VMs.
    """

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    cluster_id: str = ""
    """The cluster whose VMs it is about."""
    policy: PlacementPolicy = PlacementPolicy("")
    """What it asks."""
    strength: RuleStrength = RuleStrength("mandatory")
    """Whether a VM rather waits than breaks it, or it only comes first."""
    vm_ids: tuple[str, ...] = ()
    """The VMs that it is about."""
    host_ids: tuple[str, ...] = ()
    """The hosts that they may or must not run on; only of the host policies."""
    description: str = ""
    """A note for people. At most 1000 characters."""
    cluster_name: str = ""
    """The name behind `cluster_id`; empty without one."""
    vm_names: tuple[str, ...] = ()
    """The names behind `vm_ids`."""
    host_names: tuple[str, ...] = ()
    """The names behind `host_ids`."""


class Plugin(Model, frozen=True, kw_only=True):
    """What one entry point of an installed package gives to the agent of a host, and why not."""

    package: str = ""
    """The package that it is from."""
    version: str = ""
    """The package's version."""
    group: str = ""
    """The group of entry points: what it gives."""
    name: str = ""
    """The entry point's name."""
    state: PluginState = PluginState("active")
    """Whether it is in use, was left out, or fails."""
    why: str = ""
    """Why it was left out, or what failed last."""


class PortGroup(Model, frozen=True, kw_only=True):
    """Uniform configuration of the ports of one VXLAN network.

    `vni` 1..16777215, unique in the mesh. `cidr` is IPv4. `service_ip` answers DHCP and DNS on every host and
    is never given to a NIC; `gateway` and `dns` are handed out by DHCP when set. `mtu` is the guests' MTU.
    `pool_first`..`pool_last` is where NIC addresses come from.
    """

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    switch_id: str = ""
    """The switch that it is on."""
    vni: int = 0
    """VXLAN network identifier, unique in the mesh. 1..16777215."""
    cidr: str = ""
    """Its IPv4 network, e.g. `10.20.0.0/24`."""
    service_ip: str = ""
    """Address that answers DHCP and DNS on every host; never given to a NIC."""
    pool_first: str = ""
    """First address that NICs get."""
    pool_last: str = ""
    """Last address that NICs get."""
    gateway: str = ""
    """Default route that DHCP hands out; empty: none."""
    dns: tuple[str, ...] = ()
    """Name servers that DHCP hands out."""
    mtu: int = 1450
    """MTU of the guests. 576..65535."""
    domain: str = "internal"
    """Domain of the guests' names."""
    switch_name: str = ""
    """The name behind `switch_id`; empty without one."""


class Power(Model, frozen=True, kw_only=True):
    """What a board says of its host."""

    host: str = ""
    """The host's name."""
    on: bool = False
    """Whether it has power."""


class PowerOnBmcs(Model, frozen=True, kw_only=True):
    """What users say of one of the bmcs."""

    bmcs: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of them."""
    q: tuple[str, ...] | UnsetType = UNSET
    """Conditions as lists take them, instead of `bmcs`; all must hold."""


class Problem(Model, frozen=True, kw_only=True):
    """RFC 9457 section 3.1; `code` is ours and stable, `detail` says what was wrong and what to do."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"code"})

    type: str = ""
    """Address of the kind of problem: `about:kvorum#` and the code."""
    title: str = ""
    """The kind of problem, in words."""
    status: int = 0
    """The HTTP status."""
    code: str = ""
    """The kind of problem, for programs; docs/api.md has all."""
    detail: str = ""
    """What was wrong and what to do."""
    request_id: str = ""
    """Id of the request, as in the agent's log."""


class PromoteMembers(Model, frozen=True, kw_only=True):
    """What users say of one of the hosts."""

    members: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of them."""
    q: tuple[str, ...] | UnsetType = UNSET
    """Conditions as lists take them, instead of `members`; all must hold."""


class PutBmc(Model, frozen=True, kw_only=True):
    """`POST /v1/bmcs`: a host's board, in place of one that was named before."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"password"})

    host: str
    """Name or id of the host whose power it switches."""
    address: str
    """IP address or name of the board. At most 253 characters."""
    user: str
    """Who logs in. At most 64 characters."""
    password: str
    """The password; it is never shown again. With `ipmi` of 20 characters at most. At most 128 characters."""
    port: int | UnsetType = UNSET
    """Port: UDP with `ipmi`, TCP with `redfish`; 0: the usual one, 623 or 443. 0..65535. Default: `0`."""
    cipher_suite: int | UnsetType = UNSET
    """Cipher suite of RMCP+: 17 (SHA-256) or 3 (SHA-1). 1..17. Default: `17`."""
    protocol: BmcProtocol | UnsetType = UNSET
    """What the board speaks. Default: `ipmi`."""
    fingerprint: str | UnsetType = UNSET
    """SHA-256 of the certificate that the board must show, in hexadecimal, with or without colons. Empty: the one that is known of it, or if none is, the one that it shows now. `redfish` only. At most 95 characters."""
    system: str | UnsetType = UNSET
    """Id of the host's machine in its Redfish service, needed where it has several. `redfish` only. At most 128 characters."""


class RecoveryCodes(Model, frozen=True, kw_only=True):
    """An object of the API."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"recovery_codes"})

    recovery_codes: tuple[str, ...] = ()


class ReleasedHost(Model, frozen=True, kw_only=True):
    """An object of the API."""

    host: str = ""
    vms_released: int = 0


class Report(Model, frozen=True, kw_only=True):
    """A drill's report. `text` is for a terminal, `markdown` for a file; both say the same."""

    drill: str = ""
    kind: DrillKind = DrillKind("")
    state: DrillState = DrillState("")
    verdict: DrillVerdict = DrillVerdict("")
    line: str = ""
    meaning: str = ""
    to_do: str = ""
    text: str = ""
    markdown: str = ""


class RetryTasks(Model, frozen=True, kw_only=True):
    """What users say of one of the tasks."""

    tasks: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of them."""
    q: tuple[str, ...] | UnsetType = UNSET
    """Conditions as lists take them, instead of `tasks`; all must hold."""


class Role(Model, frozen=True, kw_only=True):
    """A named set of permissions, given to accounts and access tokens.

    Its id is its name. The built-in roles (`core.identity.permissions`) are not stored.
    """

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    permissions: tuple[Permission, ...] = ()
    """What it allows."""
    description: str = ""
    """A note for people. At most 1000 characters."""


class Room(Model, frozen=True, kw_only=True):
    """An object of the API."""

    cluster_name: str = ""
    admission: str = ""
    host_failures: int = 0
    bearable: bool = False
    losses: tuple[HostLoss, ...] = ()
    index: int = 0


class Rule(Model, frozen=True, kw_only=True):
    """One rule of a security group: an exception to "everything in is denied, everything out is allowed".

    Allows ingress that matches; an egress rule with `remote_group_id` belongs to the default rules. `cidr` or
    `remote_group_id` name the other side (both empty: anyone). `port_first`..`port_last` 0: all ports.
    `family` is 4 or 6. Default rules (NET-5) can be disabled, not deleted.
    """

    id: str
    """Its id within the group."""
    direction: Direction = Direction("")
    """Seen from the VM: in to it, or out of it."""
    protocol: Protocol = Protocol("all")
    """What it matches above IP."""
    port_first: int = 0
    """First port of TCP or UDP; 0: all. 0..65535."""
    port_last: int = 0
    """Last port; 0: all. 0..65535."""
    cidr: str = ""
    """Network of the other side; empty: any."""
    remote_group_id: str = ""
    """Security group of the other side; empty: any."""
    family: int = 4
    """4 or 6, the version of IP. 4..6."""
    enabled: bool = True
    """Whether it is in force."""
    default: bool = False
    """Whether the group was made with it; such a rule can be switched off, not removed."""


class RuleCheck(Model, frozen=True, kw_only=True):
    """An object of the API."""

    name: str = ""
    holds: bool = False
    broken: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    index: int = 0


class RunDrill(Model, frozen=True, kw_only=True):
    """`POST /v1/drills`: a failure for real. `confirm` repeats whose."""

    kind: DrillKind
    """Which failure is rehearsed."""
    host: str | UnsetType = UNSET
    """Name or id of the host that fails; empty for a full power loss only."""
    duration_s: int | UnsetType = UNSET
    """How long a cut lasts; 0: as long as is usual. Of kinds that end by themselves only. 0..120. Default: `0`."""
    data_storage: str | UnsetType = UNSET
    """Name or id of the data storage that is lost; empty: none."""
    confirm: str | UnsetType = UNSET
    """The host's name, once more, or the cluster's for a full power loss: it is done for real."""


class RunWorkflow(Model, frozen=True, kw_only=True):
    """`POST /v1/workflows/{workflow}/actions/run`: on what, and the workflow's inputs."""

    vm: str
    """Name or id of the VM that it is run on."""
    arguments: dict[str, str] | UnsetType = UNSET
    """The workflow's inputs by name, as `GET /v1/workflows` lists them."""


class RunnableWorkflow(Model, frozen=True, kw_only=True):
    """An object of the API."""

    name: str = ""
    description: str = ""
    run_on: str = ""
    inputs: tuple[WorkflowInput, ...] = ()
    steps: tuple[str, ...] = ()


class SecretsKeyAtHost(Model, frozen=True, kw_only=True):
    """An object of the API."""

    name: str = ""
    state: str = ""
    place: str = ""
    key_id: str = ""
    hsm: str = ""
    fault: str = ""


class SecretsKeyStatus(Model, frozen=True, kw_only=True):
    """An object of the API."""

    key_id: str = ""
    next_key_id: str = ""
    former_key_id: str = ""
    changing: bool = False
    hosts_without_key: tuple[str, ...] = ()
    secrets_by_key: dict[str, int] = field(default_factory=dict)
    hosts: tuple[SecretsKeyAtHost, ...] = ()


class SecurityGroup(Model, frozen=True, kw_only=True):
    """A stateful firewall shared by NICs."""

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    data_center_id: str = ""
    """The data center that it belongs to."""
    rules: tuple[Rule, ...] = ()
    """What is let through."""
    data_center_name: str = ""
    """The name behind `data_center_id`; empty without one."""


class Session(Model, frozen=True, kw_only=True):
    """A log-in that lasts until `expires_ms`. The token names the id, so it is found without a search; name = id."""

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    account_id: str = ""
    """Who logged in."""
    expires_ms: int = 0
    """Until when it is good."""
    address: str = ""
    """Where the log-in came from."""
    account_name: str = ""
    """The name behind `account_id`; empty without one."""


class SetPassword(Model, frozen=True, kw_only=True):
    """`.../actions/set-password`. Whoever sets their own has to know the old one."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"old_password", "password"})

    password: str
    """The new password, of 12 characters at least."""
    old_password: str | UnsetType = UNSET
    """The present one; needed for one's own."""


class ShutDown(Model, frozen=True, kw_only=True):
    """`POST /v1/local/shutdown`."""

    going: Going
    """Whether the host is back soon: `reboot` or `power-off`."""


class ShutDownHost(Model, frozen=True, kw_only=True):
    """An object of the API."""

    policy: str = ""
    given: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class Snapshot(Model, frozen=True, kw_only=True):
    """What a disk held at a moment. The snapshots of a disk are a tree: each goes on from its parent.

    `layer_id` is the frozen layer that holds what was written between the parent and this one.
    """

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    disk_id: str = ""
    """The disk that it is of."""
    parent_id: str = ""
    """The snapshot that the disk went on from then; empty: none."""
    state: SnapshotState = SnapshotState("taking")
    """Whether it can be used."""
    layer_id: str = ""
    """The layer that holds it."""
    size_bytes: int = 0
    """Size of the disk that a guest sees. 0..."""
    stored_bytes: int = 0
    """What its layer takes on the data storage: the changes since its parent. 0..."""
    description: str = ""
    """A note for people. At most 1000 characters."""
    disk_name: str = ""
    """The name behind `disk_id`; empty without one."""
    parent_name: str = ""
    """The name behind `parent_id`; empty without one."""


class SomeVMs(Model, frozen=True, kw_only=True):
    """`POST /v1/vms/actions/{start,reboot}`. Either `vms` or `q`."""

    vms: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of the VMs."""
    q: tuple[str, ...] | UnsetType = UNSET
    """Conditions as lists take them, instead of `vms`; all must hold."""


class StayingVM(Model, frozen=True, kw_only=True):
    """An object of the API."""

    id: str
    name: str = ""
    phase: str = ""
    standing: str = ""
    why: str = ""
    task_id: str = ""
    work: str = ""


class StopVM(Model, frozen=True, kw_only=True):
    """`POST /v1/vms/{vm}/actions/stop`. `force` cuts the power; else the guest has `timeout_s` to shut down."""

    force: bool | UnsetType = UNSET
    """Cut the power instead of asking the guest. Default: `False`."""
    timeout_s: int | UnsetType = UNSET
    """How long the guest may take to shut down. 1..3600. Default: `90`."""


class StopVMs(Model, frozen=True, kw_only=True):
    """`POST /v1/vms/actions/stop`; see `StopVM`."""

    vms: tuple[str, ...] | UnsetType = UNSET
    """Names or ids of the VMs."""
    q: tuple[str, ...] | UnsetType = UNSET
    """Conditions as lists take them, instead of `vms`; all must hold."""
    force: bool | UnsetType = UNSET
    """Cut the power instead of asking the guests. Default: `False`."""
    timeout_s: int | UnsetType = UNSET
    """How long each guest may take to shut down. 1..3600. Default: `90`."""


class StorageHealth(Model, frozen=True, kw_only=True):
    """An object of the API."""

    id: str
    name: str = ""
    usable: bool = False
    why: str = ""


class SystemTag(Model, frozen=True, kw_only=True):
    """An object of the API."""

    name: str = ""
    description: str = ""


class Tags(Model, frozen=True, kw_only=True):
    """An object of the API."""

    tags: tuple[str, ...] = ()


class TakeSnapshot(Model, frozen=True, kw_only=True):
    """`POST /v1/snapshots`: of which VM, and how it is called."""

    vm: str
    """Name or id of the VM, which is stopped."""
    name: str | UnsetType = UNSET
    """Its name: 1 to 63 of a-z, 0-9, `-` and `.`; empty: that of the VM and the moment in UTC."""
    description: str | UnsetType = UNSET
    """A note for people. At most 1000 characters."""


class Target(Model, frozen=True, kw_only=True):
    """An object of the API."""

    kind: str = ""
    id: str
    name: str = ""


class Task(Model, frozen=True, kw_only=True):
    """A run of a workflow on a resource; name = id.

    `workflow` names the definition, `subject` the resource as `kind/id`. `arguments` are strings only.
    `runner_host_id` is who works on it. `progress` is 0..100. `error` and `error_code` are set when failed.
    `cancel_requested` asks the runner to stop where that is safe; when `retries_asked` grows, it doesn't wait any longer
    for the next try of what failed. `give_up_reason` asks the runner to end it as it is, unless its journal has grown
    beyond `give_up_after` lines since; then `left_behind` says what stays.
    `plan` is the workflow as it was when the work began: whoever resumes it goes by that. `journal` is what the
    engine lives by; `log` tells people more, bounded. `result` is what came of it, empty when it was undone.
    `request_id` is the API request that started it, as in that answer, its audit, and the logs of whoever works on it.
    """

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    workflow: str = ""
    """Name of the workflow."""
    subject: str = ""
    """What is worked on, as `kind/id`."""
    subject_name: str = ""
    """The name that it had."""
    arguments: dict[str, str] = field(default_factory=dict)
    """What the workflow was asked for."""
    runner_host_id: str = ""
    """The host that works on it."""
    state: TaskState = TaskState("pending")
    """How far it is; once it has ended it never changes."""
    progress: int = 0
    """How much of it is done. 0..100."""
    step: str = ""
    """The step that is being done."""
    journal: tuple[JournalEntry, ...] = ()
    """What became of its steps."""
    log: tuple[TaskLog, ...] = ()
    result: dict[str, str] = field(default_factory=dict)
    """What came of it; empty when it was undone."""
    error: str = ""
    """Why it failed; empty: it didn't."""
    error_code: str = ""
    """The code of that error."""
    cancel_requested: bool = False
    """Whether somebody has asked it to stop where that is safe."""
    retries_asked: int = 0
    """How often somebody has asked for its next try at once. 0..."""
    give_up_reason: str = ""
    """Why somebody asked to give it up; empty: nobody did."""
    give_up_after: int = 0
    """How many journal lines there were then; with more it isn't given up. 0..."""
    left_behind: tuple[Leftover, ...] = ()
    """What may be left of it since it was given up."""
    ended_ms: int = 0
    """When it ended; 0: not yet."""
    request_id: str = ""
    """The API request that started it, as in that answer's `X-Request-Id`."""
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
    """`.../actions/confirm-totp`, `disable-totp` and `renew-recovery-codes`."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"code"})

    code: str | UnsetType = UNSET
    """A time code."""


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
    during a live migration. `blocked_reason` is empty or says why it cannot run now. `priority` and `start_after_ids`
    order the starts that nobody asked for one by one (`ha.start_order`).
    """

    id: str
    """A UUID, or a name where the kind says so; never changes."""
    name: str = ""
    """What people call it, unique among its kind; of records of the cluster the same as the id."""
    revision: int = 0
    """Log index of its last change; guards the next one."""
    created_ms: int = 0
    """When it was made, by the clock of the host that was asked."""
    tags: tuple[str, ...] = ()
    """Names and `key=value` pairs, to find it by, to limit rights, to change what it does."""
    cluster_id: str = ""
    """The cluster on whose hosts it runs."""
    host_id: str = ""
    """The host that may run it."""
    cpus: int = 0
    """Virtual CPUs. 1..255."""
    memory_mib: int = 0
    """Memory that the guest sees. 64..16777216."""
    power: PowerState = PowerState("running")
    """What is wanted: running or stopped."""
    phase: VMPhase = VMPhase("creating")
    """What is true of it, as last reported by its host."""
    generation: int = 0
    """Grows with every start; says together with the host who may run it. 0..."""
    boot_id: str = ""
    """Boot of the host in which it was started last."""
    migrating_to_host_id: str = ""
    """Where it moves to right now; empty: nowhere."""
    home_host_id: str = ""
    """Where it goes back to when the maintenance of that host ends; empty: it stays where it is."""
    starts_after_maintenance: bool = False
    """Whether it was stopped for a maintenance, and is started after it."""
    blocked_reason: str = ""
    """Why it can't run now; empty: nothing forbids it."""
    ha: bool = True
    """Whether it is started elsewhere when its host is lost."""
    priority: VMPriority = VMPriority("medium")
    """Which VMs come first when many are to be started, or room is short."""
    start_after_ids: tuple[str, ...] = ()
    """VMs that it waits for when many are started; a minute at most, or until they are blocked."""
    start_delay_s: int = 0
    """How many seconds after the last of these VMs it is started. 0..3600."""
    cloud_init: CloudInit = field(default_factory=lambda: CloudInit())
    """What the guest is set up with at its first start."""
    description: str = ""
    """A note for people. At most 1000 characters."""
    cluster_name: str = ""
    """The name behind `cluster_id`; empty without one."""
    host_name: str = ""
    """The name behind `host_id`; empty without one."""
    migrating_to_host_name: str = ""
    """The name behind `migrating_to_host_id`; empty without one."""
    home_host_name: str = ""
    """The name behind `home_host_id`; empty without one."""
    start_after_names: tuple[str, ...] = ()
    """The names behind `start_after_ids`."""
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


class Vip(Model, frozen=True, kw_only=True):
    """An object of the API."""

    address: str = ""
    holder_name: str = ""
    problems: tuple[str, ...] = ()


class VoterPolicy(Model, frozen=True, kw_only=True):
    """An object of the API."""

    voters_max: int = 0
    voter_replace_after_s: int = 0
    feature_level: int = 0
    voters: int = 0
    voters_wanted: int = 0
    losses_survived: int = 0


class WorkflowInput(Model, frozen=True, kw_only=True):
    """An object of the API."""

    name: str = ""
    type: str = ""
    required: bool = False
    default: str = ""
    length_max: int = 0
    description: str = ""


class WriteRole(Model, frozen=True, kw_only=True):
    """`POST /v1/roles`, and `PATCH`, which replaces the permissions."""

    permissions: tuple[Permission, ...]
    """What it allows."""
    name: str | UnsetType = UNSET
    """Its name; only when it is made."""
    description: str | UnsetType = UNSET
    """A note for people. At most 1000 characters."""
