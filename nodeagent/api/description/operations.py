"""Every operation of the API: what it is for, what it takes and what it answers.

`nodeagent.api.description.document` makes the OpenAPI description of these; a test holds them against the routes that
the application really has, in both directions. Answers that every operation can give (problems) aren't repeated here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from core.model import (
    VM,
    AccessKey,
    Account,
    Bmc,
    DataStorage,
    DistributedSwitch,
    Drill,
    Event,
    Host,
    Image,
    ImageStorage,
    Permission,
    PortGroup,
    Resource,
    Role,
    Rule,
    SecurityGroup,
    Snapshot,
    Task,
)
from ha.drills.report import Report
from ha.lease import Renewal
from nodeagent.api.access_keys import ChangeAccessKey, MakeAccessKey
from nodeagent.api.accounts import (
    ChangeAccount,
    CreateAccount,
    LogIn,
    SetPassword,
)
from nodeagent.api.arbitration import ChangeArbitration
from nodeagent.api.attaching import AttachCluster, AttachDataCenter
from nodeagent.api.bmcs import ConfirmPowerOff, Power, PutBmc
from nodeagent.api.certificates import ImportCertificate
from nodeagent.api.description.schemas import reference_to
from nodeagent.api.drills import AbortDrill, CheckDrill, DrillPlan, RunDrill
from nodeagent.api.ha import ChangeProfile, Disarm
from nodeagent.api.hosts import ChangeHost, ConfirmOff, ShutDown
from nodeagent.api.joining import (
    InitCluster,
    JoinCluster,
    LeaveCluster,
    MakeAccessToken,
    MakeJoinTokens,
)
from nodeagent.api.maintenance import EnterMaintenance, LeaveMaintenance
from nodeagent.api.members import ChangePolicy
from nodeagent.api.networks import ChangeRule, CreatePortGroup, CreateRule, CreateSecurityGroup
from nodeagent.api.permissions import MANY
from nodeagent.api.problems import Problem
from nodeagent.api.roles import WriteRole
from nodeagent.api.snapshots import TakeSnapshot
from nodeagent.api.storages import CreateDataStorage
from nodeagent.api.tasks import GiveUpTask
from nodeagent.api.two_factor import TotpCode
from nodeagent.api.vip import ChangeVip
from nodeagent.api.workflows import RunWorkflow
from nodeagent.joining.messages import AboutStanding, JoinAnswer, JoinCancel, JoinRequest, Standing
from nodeagent.services.vm_requests import (
    ChangeVM,
    CreateVM,
    DeleteVMs,
    MigrateVM,
    MigrateVMs,
    SomeVMs,
    StopVM,
    StopVMs,
)

Schema = Mapping[str, object]
Shape = type[Resource] | type[msgspec.Struct] | Schema | None

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
OBJECT: Schema = {"type": "object"}
PASSWORD: Schema = {"type": "string", "format": "password"}
FILE: Schema = {"type": "string", "format": "binary"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query part."""

    name: str
    description: str
    schema: Schema
    required: bool = False
    many: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path. `answers` are its successes: what each means and the shape of its body (None: none).

    `file` says that the body is a file, not JSON. `media` is what an answer is when not JSON. `task`: it starts long
    work, so that `Prefer: wait=N` is heeded. `open`: it needs no credentials of the API.
    """

    summary: str
    answers: Mapping[int, tuple[str, Shape]]
    body: type[msgspec.Struct] | None = None
    file: bool = False
    media: str = "application/json"
    query: tuple[Parameter, ...] = ()
    task: bool = False
    open: bool = False
    only_on_host: bool = False


def object_of(**properties: Schema) -> Schema:
    """Return the schema of an object that has at least these."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def titled(name: str, schema: Schema) -> Schema:
    """Return a schema with the name that clients give its objects."""
    return {"title": name, **schema}


def list_of(item: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": item}


def shown(type_: type[msgspec.Struct]) -> Schema:
    """Return a reference to the schema of a resource as the API shows it."""
    return {"$ref": f"#/components/schemas/{type_.__name__}"}


def items_of(item: Schema) -> Schema:
    """Return the schema of a listing: the items, and the log index of the copy they were read from."""
    return object_of(items=list_of(item), index=NUMBER)


def page_of(item: Schema) -> Schema:
    """Return the schema of a page of stored resources; only what was asked for is there beside the items."""
    some = {**OBJECT, "description": "With `fields`: these and no others."}
    listing = items_of({"anyOf": [item, some]})
    asked: dict[str, Schema] = {
        "next": {**TEXT, "description": "The cursor to go on with; absent when that was all."},
        "count": {**NUMBER, "description": "With `count=1`: how many match; `items` is empty."},
        "plan": {
            **list_of(object_of(step=TEXT, reads_rows=NUMBER)),
            "description": "With `explain=1`; `items` is empty.",
        },
        "reads_rows": {
            **NUMBER,
            "description": "With `explain=1`: rows gone through from end to end, at most.",
        },
    }
    properties = listing["properties"]
    assert isinstance(properties, dict), "an object has properties"
    return {**listing, "properties": {**properties, **asked}}


VM_AND_TASK = object_of(vm=shown(VM), task={"anyOf": [shown(Task), {"type": "null"}]})
VM_WORK: Mapping[int, tuple[str, Shape]] = {
    200: ("There was nothing to do.", VM_AND_TASK),
    202: ("The work is recorded; `Location` is its task.", VM_AND_TASK),
}
SNAPSHOT_AND_TASK = object_of(snapshot=shown(Snapshot), task=shown(Task))
SNAPSHOT_WORK: Mapping[int, tuple[str, Shape]] = {
    202: ("The work is recorded; `Location` is its task.", SNAPSHOT_AND_TASK)
}
FLAG: Schema = {"type": "boolean"}
REAL: Schema = {"type": "number"}
PERHAPS_NUMBER: Schema = {"type": ["number", "null"]}
VOTES: Mapping[str, Schema] = {
    "voters": NUMBER,
    "voters_wanted": NUMBER,
    "losses_survived": NUMBER,
}
MEMBER = titled(
    "Member",
    object_of(
        id=TEXT,
        name=TEXT,
        address=TEXT,
        role=TEXT,
        votes=FLAG,
        vote=TEXT,
        leader=FLAG,
        applied_index={"type": ["integer", "null"]},
        lag={"type": ["integer", "null"]},
        health=TEXT,
        failure_domain=TEXT,
        feature_level=NUMBER,
        raft=TEXT,
        gossip=TEXT,
        lease_age_s=PERHAPS_NUMBER,
        watchdog=TEXT,
        state=TEXT,
        version=TEXT,
        vms=NUMBER,
        work=list_of(OBJECT),
        plain_http=TEXT,
        service_faults=list_of(OBJECT),
    ),
)
OUTCOMES: Mapping[int, tuple[str, Shape]] = {
    200: (
        "What came of each, in the order they were named; `status` as if it had been asked for alone.",
        titled(
            "Outcomes",
            items_of(
                titled(
                    "Outcome",
                    object_of(
                        ref=TEXT,
                        id=TEXT,
                        name=TEXT,
                        status=NUMBER,
                        task={"anyOf": [shown(Task), {"type": "null"}]},
                        problem={"anyOf": [reference_to(Problem), {"type": "null"}]},
                    ),
                )
            ),
        ),
    )
}
CALLBACK_KEY = titled("CallbackKey", object_of(public_key=TEXT))
POLICY = titled(
    "VoterPolicy",
    object_of(voters_max=NUMBER, voter_replace_after_s=NUMBER, feature_level=NUMBER, **VOTES),
)
VIP = titled("Vip", object_of(address=TEXT, holder_name=TEXT, problems=list_of(TEXT)))
HA_STATUS = titled(
    "HaStatus",
    object_of(
        state=TEXT,
        profile=TEXT,
        disarmed_by=TEXT,
        disarmed_ms=NUMBER,
        reason=TEXT,
        rearm_ms=NUMBER,
        waits_for=list_of(TEXT),
        hosts_behind=list_of(TEXT),
    ),
)
HA_PROFILE = titled(
    "HaProfile",
    object_of(
        name=TEXT,
        lease_s=REAL,
        watchdog_s=REAL,
        margin_s=REAL,
        safe_s=REAL,
        choices=list_of(TEXT),
        hosts_behind=list_of(TEXT),
    ),
)
TAGS: Mapping[int, tuple[str, Shape]] = {
    200: ("The tags now.", titled("Tags", object_of(tags=list_of(TEXT))))
}
PLUGIN = titled(
    "HostPlugin",
    object_of(
        host_id=TEXT,
        host_name=TEXT,
        package=TEXT,
        version=TEXT,
        group=TEXT,
        name=TEXT,
        state=TEXT,
        why=TEXT,
    ),
)
SYSTEM_TAG = titled("SystemTag", object_of(name=TEXT, description=TEXT))
WORKFLOW = titled(
    "RunnableWorkflow",
    object_of(
        name=TEXT,
        description=TEXT,
        run_on=TEXT,
        inputs=list_of(
            titled(
                "WorkflowInput",
                object_of(
                    name=TEXT,
                    type=TEXT,
                    required=FLAG,
                    default=TEXT,
                    length_max=NUMBER,
                    description=TEXT,
                ),
            )
        ),
        steps=list_of(TEXT),
    ),
)
PINNED = titled("MemberVote", object_of(id=TEXT, name=TEXT, vote=TEXT, role=TEXT))
STATUS = titled(
    "ClusterStatus",
    object_of(
        cluster_name=TEXT,
        index=NUMBER,
        leader_name=TEXT,
        quorum=FLAG,
        members=list_of(MEMBER),
        vms={**OBJECT, "additionalProperties": NUMBER},
        alarms=list_of(shown(Event)),
    ),
)
FINDING = titled(
    "HealthFinding",
    object_of(severity=TEXT, host_name=TEXT, code=TEXT, what=TEXT, advice=TEXT),
)
PERHAPS_TEXT: Schema = {"type": ["string", "null"]}
PERHAPS_FLAG: Schema = {"type": ["boolean", "null"]}
ARBITRATION = titled(
    "ArbitrationAddresses",
    object_of(
        addresses=list_of(TEXT),
        hosts=list_of(
            titled(
                "HostArbitration",
                object_of(host_name=TEXT, state=PERHAPS_TEXT, answering=list_of(TEXT)),
            )
        ),
        problems=list_of(TEXT),
    ),
)
HOST_HEALTH = titled(
    "HostHealth",
    object_of(
        id=TEXT,
        name=TEXT,
        role=TEXT,
        votes=FLAG,
        leader=FLAG,
        state=TEXT,
        maintenance=FLAG,
        vms=NUMBER,
        answers=FLAG,
        why=TEXT,
        gossip=TEXT,
        lease_age_s=PERHAPS_NUMBER,
        lease_fresh=FLAG,
        guard_answers=PERHAPS_FLAG,
        guard_phase=PERHAPS_TEXT,
        watchdog=PERHAPS_TEXT,
        watchdog_armed=PERHAPS_FLAG,
        libvirt_answers=PERHAPS_FLAG,
        arbitration=PERHAPS_TEXT,
        secrets_open=PERHAPS_FLAG,
        applied_index={"type": ["integer", "null"]},
        lag={"type": ["integer", "null"]},
        clock_offset_ms=PERHAPS_NUMBER,
        storages=list_of(
            titled("StorageHealth", object_of(id=TEXT, name=TEXT, usable=FLAG, why=TEXT))
        ),
        peers=list_of(
            titled(
                "PeerHealth",
                object_of(host_name=TEXT, round_trip_ms=PERHAPS_NUMBER, why=TEXT, gossip=TEXT),
            )
        ),
    ),
)
HEALTH = titled(
    "ClusterHealth",
    object_of(
        verdict=TEXT,
        line=TEXT,
        host_name=TEXT,
        cluster_name=TEXT,
        index=NUMBER,
        quorum=FLAG,
        leader_name=TEXT,
        vip=TEXT,
        vip_holder_name=TEXT,
        voters=NUMBER,
        voters_up=NUMBER,
        losses_survived=NUMBER,
        findings=list_of(FINDING),
        vms_blocked=NUMBER,
        first_blocked=list_of(
            titled("BlockedVM", object_of(name=TEXT, host_name=TEXT, reason=TEXT))
        ),
        hosts_in_maintenance=list_of(TEXT),
        hosts_fenced=list_of(TEXT),
        hosts=list_of(HOST_HEALTH),
    ),
)
RULE_CHECK = titled(
    "RuleCheck",
    object_of(
        name=TEXT,
        holds=FLAG,
        broken=list_of(TEXT),
        warnings=list_of(TEXT),
        index=NUMBER,
    ),
)
ROOM = titled(
    "Room",
    object_of(
        cluster_name=TEXT,
        admission=TEXT,
        host_failures=NUMBER,
        bearable=FLAG,
        losses=list_of(
            titled(
                "HostLoss",
                object_of(
                    hosts=list_of(TEXT),
                    vms=NUMBER,
                    memory_mib=NUMBER,
                    placed={**OBJECT, "additionalProperties": NUMBER},
                    left_out=NUMBER,
                    ruled_out=NUMBER,
                    missing_mib=NUMBER,
                    why=TEXT,
                ),
            )
        ),
        index=NUMBER,
    ),
)
MAINTENANCE = titled(
    "HostMaintenance",
    object_of(
        host=TEXT,
        maintenance=FLAG,
        unmovable=TEXT,
        ready=FLAG,
        move_back=FLAG,
        left=NUMBER,
        away=NUMBER,
        vms=list_of(
            titled(
                "StayingVM",
                object_of(
                    id=TEXT, name=TEXT, phase=TEXT, standing=TEXT, why=TEXT, task_id=TEXT, work=TEXT
                ),
            )
        ),
    ),
)
GONE_DOWN = titled(
    "ShutDownHost",
    object_of(policy=TEXT, given=list_of(TEXT), waiting=list_of(TEXT), left=list_of(TEXT)),
)
CALLER = titled(
    "Caller",
    object_of(
        name=TEXT,
        via=TEXT,
        account_id=TEXT,
        permissions=list_of(shown(Permission)),
    ),
)
HERE = titled(
    "LocalStatus",
    object_of(state=TEXT, detail=TEXT, version=TEXT, host_id=TEXT, host_name=TEXT),
)
BELONGS: Mapping[str, Schema] = {
    "host_id": TEXT,
    "host_name": TEXT,
    "cluster_name": TEXT,
    "address": TEXT,
    "api": TEXT,
}
BEGUN = titled("NewCluster", object_of(**BELONGS, admin_token_file=TEXT))
JOINED = titled("NewMember", object_of(**BELONGS, members=NUMBER, **VOTES))
RELEASED = titled("ReleasedHost", object_of(host=TEXT, vms_released=NUMBER))
TOKENS = titled("NewJoinTokens", object_of(tokens=list_of(PASSWORD), expires_ms=NUMBER))
TOKEN = titled("NewAccessToken", object_of(token=PASSWORD, id=TEXT, name=TEXT))
SESSION = titled("NewSession", object_of(token=PASSWORD, id=TEXT, expires_ms=NUMBER))
TOTP = titled("NewTotp", object_of(uri=PASSWORD, qr_svg=PASSWORD, qr_text=PASSWORD))
RECOVERY = titled("RecoveryCodes", object_of(recovery_codes=list_of(PASSWORD)))
LEFT = titled("FormerMember", object_of(host_name=TEXT, cluster_name=TEXT))
CERTIFICATE_FIELDS = object_of(
    name=TEXT,
    kind=TEXT,
    host_name=TEXT,
    subject=TEXT,
    issuer=TEXT,
    names=list_of(TEXT),
    not_before_ms=NUMBER,
    not_after_ms=NUMBER,
    sha256=TEXT,
    warnings=list_of(TEXT),
)
CERTIFICATE = titled("Certificate", CERTIFICATE_FIELDS)
SECRETS = titled(
    "SecretsKeyStatus",
    object_of(
        key_id=TEXT,
        next_key_id=TEXT,
        former_key_id=TEXT,
        changing=FLAG,
        hosts_without_key=list_of(TEXT),
        secrets_by_key={**OBJECT, "additionalProperties": NUMBER},
        hosts=list_of(
            titled(
                "SecretsKeyAtHost",
                object_of(name=TEXT, state=TEXT, place=TEXT, key_id=TEXT, hsm=TEXT, fault=TEXT),
            )
        ),
    ),
)
NEW_SECRET = titled(
    "AccessKeySecret", object_of(id=TEXT, name=TEXT, secret=PASSWORD, expires_ms=NUMBER)
)
GONE: Mapping[int, tuple[str, Shape]] = {204: ("It is gone.", None)}
TOUCHED: Schema = list_of(
    titled("Touched", object_of(kind=TEXT, id=TEXT, name=TEXT, relation=TEXT, to=TEXT))
)
PLAN: Schema = titled(
    "DeletionPlan",
    object_of(
        target=titled("Target", object_of(kind=TEXT, id=TEXT, name=TEXT)),
        allowed=FLAG,
        why_not=TEXT,
        deleted=TOUCHED,
        detached=TOUCHED,
        refused=TOUCHED,
    ),
)
PLANNED: tuple[str, Shape] = ("What it would take along and what stands in its way.", PLAN)
DRY_RUN = Parameter("dry_run", "1: only say what would go and what forbids it.", TEXT)
GONE_OR_PLANNED: Mapping[int, tuple[str, Shape]] = {200: PLANNED, **GONE}
STRONG = Parameter(
    "consistency",
    "`local` reads this agent's copy; `strong` waits until it has everything that was acknowledged anywhere.",
    {"type": "string", "enum": ["local", "strong"]},
)
LISTED = (
    Parameter(
        "q",
        "A condition: attribute, operator, value; all given must hold. Operators are `=`, `!=`, `>`, `>=`, `<`, `<=`, "
        "`~=` (pattern), `?=` (in), `!?=` (not in), `is:null`, `!is:null`.",
        TEXT,
        many=True,
    ),
    Parameter("sort", "The attribute to sort by; with `-` in front, descending.", TEXT),
    Parameter("limit", "How many at most.", {"type": "integer", "minimum": 1, "maximum": 10_000}),
)
LIST = (*LISTED, STRONG)
ONE: Schema = {"type": "string", "enum": ["0", "1"]}
QUERY = (
    *LIST,
    Parameter("cursor", "Go on after a page: its `next`, with the same `q` and `sort`.", TEXT),
    Parameter(
        "fields", "Show only these attributes, with commas between, e.g. `name,host.name`.", TEXT
    ),
    Parameter("count", "Only say how many match.", ONE),
    Parameter("explain", "Say how the query would be run, and don't run it.", ONE),
)

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/v1/openapi.json"): Operation(
        "This description.", {200: ("An OpenAPI 3.1 document.", OBJECT)}
    ),
    ("GET", "/v1/status"): Operation(
        "The cluster at a glance.",
        {200: ("Leader, quorum, members, VMs by phase, the last alarms.", STATUS)},
    ),
    ("GET", "/v1/health"): Operation(
        "Whether the cluster can take a failure now, what is wrong, and what to do. Takes about two seconds at most, and "
        "needs no quorum.",
        {200: ("The verdict (ok, degraded or failing), findings, and each host.", HEALTH)},
    ),
    ("GET", "/v1/clusters/{cluster}/room"): Operation(
        "What would become of the highly available VMs if hosts were lost, the worst losses first.",
        {200: ("What is set, and where the VMs of each loss would go.", ROOM)},
    ),
    ("GET", "/v1/placement-rules/{rule}/check"): Operation(
        "Whether a placement rule holds now, and whether it can.",
        {200: ("Where it doesn't hold, and why it may not be able to.", RULE_CHECK)},
    ),
    ("GET", "/v1/members"): Operation(
        "Each host's role, progress and health. Takes a second at most.",
        {200: ("One item for each host.", items_of(MEMBER))},
        query=LIST,
    ),
    ("GET", "/v1/members/policy"): Operation(
        "How many hosts vote.", {200: ("What is set and what is.", POLICY)}
    ),
    ("PATCH", "/v1/members/policy"): Operation(
        "Change how many hosts vote; the leader acts on it within seconds.",
        {200: ("The changed policy.", POLICY)},
        body=ChangePolicy,
    ),
    ("GET", "/v1/members/vip"): Operation(
        "The management address (VIP), who holds it, and what is wrong with it. Takes two seconds at most.",
        {200: ("The address; empty while none is set.", VIP)},
    ),
    ("PATCH", "/v1/members/vip"): Operation(
        "Set, change or clear the management address (VIP); the leader takes it within seconds.",
        {200: ("The address as it is now.", VIP)},
        body=ChangeVip,
    ),
    ("GET", "/v1/members/arbitration"): Operation(
        "The arbitration addresses, and which host reaches them. Takes two seconds at most.",
        {200: ("The addresses; none while none is set.", ARBITRATION)},
    ),
    ("PATCH", "/v1/members/arbitration"): Operation(
        "Set, change or clear the arbitration addresses; hosts ping them from the next second on.",
        {200: ("The addresses as they are now.", ARBITRATION)},
        body=ChangeArbitration,
    ),
    ("GET", "/v1/ha/status"): Operation(
        "Whether failover acts, who disarmed it and why, and what is not done yet.",
        {200: ("The wish and how far it has come.", HA_STATUS)},
    ),
    ("GET", "/v1/ha/profile"): Operation(
        "The lease and watchdog times that failover goes by.", {200: ("The profile.", HA_PROFILE)}
    ),
    ("PATCH", "/v1/ha/profile"): Operation(
        "Go by another profile; guards follow within seconds.",
        {200: ("The changed profile.", HA_PROFILE)},
        body=ChangeProfile,
    ),
    ("POST", "/v1/ha/actions/disarm"): Operation(
        "Have failover act no more, as soon as nothing is under way.",
        {200: ("The wish and how far it has come.", HA_STATUS)},
        body=Disarm,
    ),
    ("POST", "/v1/ha/actions/arm"): Operation(
        "Have failover act again.", {200: ("The wish and how far it has come.", HA_STATUS)}
    ),
    ("GET", "/v1/members/{host}"): Operation(
        "One host's role, progress and health.", {200: ("The host.", MEMBER)}
    ),
    ("DELETE", "/v1/members/{host}"): Operation(
        "Remove a host from the cluster.", GONE_OR_PLANNED, query=(DRY_RUN,)
    ),
    ("POST", "/v1/members/{host}/actions/promote"): Operation(
        "Let a host always vote.", {200: ("Its vote as it is now.", PINNED)}
    ),
    ("POST", "/v1/members/{host}/actions/demote"): Operation(
        "Let a host never vote.", {200: ("Its vote as it is now.", PINNED)}
    ),
    ("POST", "/v1/members/{host}/actions/auto"): Operation(
        "Let the cluster choose whether a host votes.", {200: ("Its vote as it is now.", PINNED)}
    ),
    ("GET", "/v1/certificates"): Operation(
        "The imported certificates, this host's own and the authority's.",
        {200: ("Without keys.", items_of(CERTIFICATE))},
    ),
    ("POST", "/v1/certificates"): Operation(
        "Serve the API with a certificate of PEM, PKCS#12 or JKS; new connections get it at once.",
        {201: ("The certificate, and warnings about its names.", CERTIFICATE)},
        body=ImportCertificate,
    ),
    ("DELETE", "/v1/certificates/{scope}"): Operation(
        "Delete the certificate imported for `all` hosts or for one.", GONE
    ),
    ("GET", "/v1/secrets"): Operation(
        "Which secrets key is in use, and how far a change of it is.", {200: ("By ids.", SECRETS)}
    ),
    ("POST", "/v1/secrets/actions/rotate"): Operation(
        "Make a new secrets key; hosts get it and secrets are sealed anew by themselves.",
        {202: ("It has begun.", SECRETS)},
    ),
    ("GET", "/v1/state/backup"): Operation(
        "A backup of the whole replicated state, as of one moment.",
        {200: ("The file.", FILE)},
        media="application/octet-stream",
        query=(
            Parameter(
                "of",
                "`host`: of what this host has, for when there is no quorum.",
                {"type": "string"},
            ),
        ),
    ),
    ("PATCH", "/v1/hosts/{host}"): Operation(
        "Change a host.", {200: ("The changed host.", Host)}, body=ChangeHost
    ),
    ("DELETE", "/v1/hosts/{host}"): Operation(
        "Remove a host from the cluster.", GONE_OR_PLANNED, query=(DRY_RUN,)
    ),
    ("POST", "/v1/hosts/{host}/actions/confirm-off"): Operation(
        "Say that a lost host is powered off, so that its VMs may run elsewhere.",
        {200: ("Its VMs are released.", RELEASED)},
        body=ConfirmOff,
    ),
    ("GET", "/v1/hosts/{host}/maintenance"): Operation(
        "How far the maintenance of a host is: what is still on it, and why.",
        {200: ("What is asked and what is.", MAINTENANCE)},
    ),
    ("POST", "/v1/hosts/{host}/actions/enter-maintenance"): Operation(
        "Let a host get no new VMs and have those on it moved away, live; asked again, it goes on.",
        {200: ("It has begun.", MAINTENANCE)},
        body=EnterMaintenance,
    ),
    ("POST", "/v1/hosts/{host}/actions/leave-maintenance"): Operation(
        "End the maintenance of a host, complete or not; its VMs come back.",
        {200: ("It is over, and VMs may still be on their way back.", MAINTENANCE)},
        body=LeaveMaintenance,
    ),
    ("POST", "/v1/bmcs"): Operation(
        "Name the management board of a host, in place of one before; it is asked first.",
        {201: ("The board, without its password.", Bmc)},
        body=PutBmc,
    ),
    ("DELETE", "/v1/bmcs/{bmc}"): Operation("Forget the management board of a host.", GONE),
    ("GET", "/v1/bmcs/{bmc}/power"): Operation(
        "Ask a host's management board whether the host has power.",
        {200: ("What it says.", Power)},
    ),
    ("POST", "/v1/bmcs/{bmc}/actions/power-on"): Operation(
        "Switch a host on by its management board.", {204: ("It was told to.", None)}
    ),
    ("POST", "/v1/bmcs/{bmc}/actions/power-off"): Operation(
        "Take the power from a host by its management board, whatever runs on it.",
        {204: ("It was told to.", None)},
        body=ConfirmPowerOff,
    ),
    ("POST", "/v1/drills/actions/check"): Operation(
        "What a drill would be, and what stands in its way; nothing is done.",
        {200: ("The plan.", DrillPlan)},
        body=CheckDrill,
    ),
    ("POST", "/v1/drills"): Operation(
        "Rehearse a failure, for real: it begins at once.",
        {201: ("The drill; ask for it until it has ended.", Drill)},
        body=RunDrill,
    ),
    ("POST", "/v1/drills/{drill}/actions/abort"): Operation(
        "End a drill early: what it broke is put right first.",
        {202: ("It will end.", Drill)},
        body=AbortDrill,
    ),
    ("GET", "/v1/drills/{drill}/report"): Operation(
        "The report of a drill, as text, as Markdown and in parts.",
        {200: ("The report, as far as the drill is.", Report)},
    ),
    ("POST", "/v1/vms"): Operation("Make a VM from an image.", VM_WORK, body=CreateVM, task=True),
    ("PATCH", "/v1/vms/{vm}"): Operation(
        "Change a VM; what is absent stays.", {200: ("The changed VM.", VM)}, body=ChangeVM
    ),
    ("DELETE", "/v1/vms/{vm}"): Operation(
        "Stop a VM by force and remove it with its disks and NICs.",
        {
            **VM_WORK,
            200: (
                "With `dry_run`: what it would take along. Else: nothing to do.",
                {"anyOf": [PLAN, VM_AND_TASK]},
            ),
        },
        query=(DRY_RUN,),
        task=True,
    ),
    ("POST", "/v1/vms/{vm}/actions/start"): Operation("Start a VM.", VM_WORK, task=True),
    ("POST", "/v1/vms/{vm}/actions/stop"): Operation(
        "Shut a VM down, or cut its power.", VM_WORK, body=StopVM, task=True
    ),
    ("POST", "/v1/vms/{vm}/actions/reboot"): Operation("Restart a VM's guest.", VM_WORK, task=True),
    ("POST", "/v1/vms/{vm}/actions/migrate"): Operation(
        "Move a running VM to another host.", VM_WORK, body=MigrateVM, task=True
    ),
    ("POST", "/v1/vms/actions/start"): Operation(
        "Start up to 200 VMs.", OUTCOMES, body=SomeVMs, task=True
    ),
    ("POST", "/v1/vms/actions/stop"): Operation(
        "Shut up to 200 VMs down, or cut their power.", OUTCOMES, body=StopVMs, task=True
    ),
    ("POST", "/v1/vms/actions/reboot"): Operation(
        "Restart the guests of up to 200 VMs.", OUTCOMES, body=SomeVMs, task=True
    ),
    ("POST", "/v1/vms/actions/migrate"): Operation(
        "Move up to 200 running VMs to other hosts.", OUTCOMES, body=MigrateVMs, task=True
    ),
    ("POST", "/v1/vms/actions/delete"): Operation(
        "Stop up to 200 VMs by force and remove them with their disks and NICs.",
        OUTCOMES,
        body=DeleteVMs,
        task=True,
    ),
    ("POST", "/v1/snapshots"): Operation(
        "Keep what the disk of a stopped VM holds now.",
        SNAPSHOT_WORK,
        body=TakeSnapshot,
        task=True,
    ),
    ("DELETE", "/v1/snapshots/{snapshot}"): Operation(
        "Forget a snapshot of a stopped VM; what its disk holds, and other snapshots, stay.",
        {**SNAPSHOT_WORK, 200: ("With `dry_run`: what would go on from its parent.", PLAN)},
        query=(DRY_RUN,),
        task=True,
    ),
    ("POST", "/v1/snapshots/{snapshot}/actions/revert"): Operation(
        "Have the disk of a stopped VM hold again what it held then; what was written since its last snapshot is lost.",
        SNAPSHOT_WORK,
        task=True,
    ),
    ("POST", "/v1/images"): Operation(
        "Upload an image.",
        {201: ("Verified and stored.", Image)},
        file=True,
        query=(
            Parameter("name", "Its name.", TEXT, required=True),
            Parameter("format", "What the file must be, e.g. `qcow2`; else it is found out.", TEXT),
            Parameter("sha256", "What the file's hash must be, 64 hex digits.", TEXT),
        ),
    ),
    ("DELETE", "/v1/images/{image}"): Operation(
        "Delete an image.", GONE_OR_PLANNED, query=(DRY_RUN,)
    ),
    ("POST", "/v1/data-storages"): Operation(
        "Add a data storage.", {201: ("The data storage.", DataStorage)}, body=CreateDataStorage
    ),
    ("DELETE", "/v1/data-storages/{storage}"): Operation(
        "Forget a data storage; its files stay.", GONE_OR_PLANNED, query=(DRY_RUN,)
    ),
    ("POST", "/v1/port-groups"): Operation(
        "Make a port group.", {201: ("The port group.", PortGroup)}, body=CreatePortGroup
    ),
    ("DELETE", "/v1/port-groups/{group}"): Operation(
        "Delete a port group.", GONE_OR_PLANNED, query=(DRY_RUN,)
    ),
    ("POST", "/v1/security-groups"): Operation(
        "Make a security group with its default rules.",
        {201: ("The security group.", SecurityGroup)},
        body=CreateSecurityGroup,
    ),
    ("DELETE", "/v1/security-groups/{group}"): Operation(
        "Delete a security group.", GONE_OR_PLANNED, query=(DRY_RUN,)
    ),
    ("POST", "/v1/security-groups/{group}/rules"): Operation(
        "Add a rule; hosts have it within a second.", {201: ("The rule.", Rule)}, body=CreateRule
    ),
    ("PATCH", "/v1/security-groups/{group}/rules/{rule}"): Operation(
        "Switch a rule on or off.", {200: ("The rule.", Rule)}, body=ChangeRule
    ),
    ("DELETE", "/v1/security-groups/{group}/rules/{rule}"): Operation(
        "Remove a rule that isn't a default one.", GONE
    ),
    ("POST", "/v1/distributed-switches/{switch}/actions/attach"): Operation(
        "Let a switch span the hosts of a cluster too.",
        {200: ("The switch.", DistributedSwitch)},
        body=AttachCluster,
    ),
    ("POST", "/v1/distributed-switches/{switch}/actions/detach"): Operation(
        "Take a switch away from a cluster that has no VM on it.",
        {200: ("The switch.", DistributedSwitch)},
        body=AttachCluster,
    ),
    ("POST", "/v1/image-storages/{storage}/actions/attach"): Operation(
        "Let VMs of a data center be made of its images.",
        {200: ("The image storage.", ImageStorage)},
        body=AttachDataCenter,
    ),
    ("POST", "/v1/image-storages/{storage}/actions/detach"): Operation(
        "Take an image storage away from a data center that has no VM of its images.",
        {200: ("The image storage.", ImageStorage)},
        body=AttachDataCenter,
    ),
    ("GET", "/v1/tasks/{task}"): Operation(
        "Show a task; with `Prefer: wait=N` once it changes or ends, N seconds at most.",
        {200: ("The task.", Task)},
        task=True,
    ),
    ("DELETE", "/v1/tasks/{task}"): Operation(
        "Ask a task to stop at its next safe point.", {202: ("It is asked.", Task)}
    ),
    ("POST", "/v1/tasks/{task}/actions/retry"): Operation(
        "Have what failed and waits for its next try be tried at once.",
        {202: ("It is asked.", Task)},
    ),
    ("POST", "/v1/tasks/{task}/actions/give-up"): Operation(
        "End a stuck task as it is, and record what it leaves behind.",
        {202: ("It is asked.", Task)},
        body=GiveUpTask,
    ),
    ("GET", "/v1/callback-key"): Operation(
        "The public key that receivers of callbacks check signatures with.",
        {200: ("`whpk_` and the Ed25519 key in base64.", CALLBACK_KEY)},
        open=True,
    ),
    ("POST", "/v1/callback-key/actions/rotate"): Operation(
        "Sign callbacks with a new key from now on.",
        {200: ("The new public key.", CALLBACK_KEY)},
    ),
    ("GET", "/v1/events"): Operation(
        "Events, oldest first; with `Accept: text/event-stream` a stream that `Last-Event-ID` resumes at any agent.",
        {200: ("The events.", page_of(shown(Event)))},
        query=QUERY,
    ),
    ("GET", "/v1/plugins"): Operation(
        "What plug-ins each host has, and whether they work.",
        {200: ("One item for each entry point of each host.", items_of(PLUGIN))},
        query=LIST,
    ),
    ("GET", "/v1/system-tags"): Operation(
        "The patterns of system tags that this agent knows.",
        {200: ("Name and meaning.", items_of(SYSTEM_TAG))},
        query=LISTED,
    ),
    ("GET", "/v1/workflows"): Operation(
        "Workflows of plug-ins that people may run, as this agent knows them.",
        {200: ("One item each, with what it takes.", items_of(WORKFLOW))},
        query=LISTED,
    ),
    ("POST", "/v1/workflows/{workflow}/actions/run"): Operation(
        "Run a workflow on a VM.",
        {202: ("Its task is recorded.", VM_AND_TASK)},
        body=RunWorkflow,
        task=True,
    ),
    ("POST", "/v1/join-tokens"): Operation(
        "Make single-use join tokens.",
        {201: ("Their texts, shown this once.", TOKENS)},
        body=MakeJoinTokens,
    ),
    ("DELETE", "/v1/join-tokens/{token}"): Operation("Revoke a join token.", GONE),
    ("POST", "/v1/access-tokens"): Operation(
        "Make an access token.",
        {201: ("The token, shown this once.", TOKEN)},
        body=MakeAccessToken,
    ),
    ("DELETE", "/v1/access-tokens/{token}"): Operation(
        "Revoke an access token, everywhere at once.", GONE
    ),
    ("POST", "/v1/access-keys"): Operation(
        "Make an access key, with which a program signs its requests.",
        {201: ("The secret, shown this once.", NEW_SECRET)},
        body=MakeAccessKey,
    ),
    ("PATCH", "/v1/access-keys/{key}"): Operation(
        "Change an access key; a disabled one is refused everywhere at once.",
        {200: ("The changed key.", AccessKey)},
        body=ChangeAccessKey,
    ),
    ("POST", "/v1/access-keys/{key}/actions/rotate"): Operation(
        "Give an access key a new secret; the former one ends everywhere at once.",
        {200: ("The secret, shown this once.", NEW_SECRET)},
    ),
    ("DELETE", "/v1/access-keys/{key}"): Operation(
        "Delete an access key; it is refused everywhere at once.", GONE
    ),
    ("POST", "/v1/login"): Operation(
        "Log in with name, password and perhaps a time code.",
        {200: ("A session's token, shown this once.", SESSION)},
        body=LogIn,
        open=True,
    ),
    ("POST", "/v1/logout"): Operation("End the session that the request came with.", GONE),
    ("GET", "/v1/whoami"): Operation(
        "Who the credentials are, and what they allow.", {200: ("The caller.", CALLER)}
    ),
    ("DELETE", "/v1/sessions/{session}"): Operation("End a session, everywhere at once.", GONE),
    ("POST", "/v1/accounts"): Operation(
        "Make an account.", {201: ("The account.", Account)}, body=CreateAccount
    ),
    ("PATCH", "/v1/accounts/{account}"): Operation(
        "Change an account; what is absent stays.",
        {200: ("The changed account.", Account)},
        body=ChangeAccount,
    ),
    ("DELETE", "/v1/accounts/{account}"): Operation(
        "Delete an account with its sessions, access tokens and access keys.", GONE
    ),
    ("POST", "/v1/accounts/{account}/actions/set-password"): Operation(
        "Set a password and end the account's other sessions; one's own needs the old one.",
        {204: ("It is set.", None)},
        body=SetPassword,
    ),
    ("POST", "/v1/accounts/{account}/actions/enable-totp"): Operation(
        "Show the secret of time codes as an address and a QR code, until a code confirms it.",
        {200: ("For an authenticator app.", TOTP)},
    ),
    ("POST", "/v1/accounts/{account}/actions/confirm-totp"): Operation(
        "Switch time codes on with a first code.",
        {200: ("Recovery codes, shown this once.", RECOVERY)},
        body=TotpCode,
    ),
    ("POST", "/v1/accounts/{account}/actions/disable-totp"): Operation(
        "Switch time codes off; one's own need a code.",
        {204: ("They are off.", None)},
        body=TotpCode,
    ),
    ("POST", "/v1/accounts/{account}/actions/renew-recovery-codes"): Operation(
        "Make new recovery codes of one's own, for a time code; the old ones end.",
        {200: ("Recovery codes, shown this once.", RECOVERY)},
        body=TotpCode,
    ),
    ("GET", "/v1/roles"): Operation(
        "The roles, built-in ones too.", {200: ("All roles.", items_of(shown(Role)))}, query=LIST
    ),
    ("POST", "/v1/roles"): Operation("Make a role.", {201: ("The role.", Role)}, body=WriteRole),
    ("PATCH", "/v1/roles/{role}"): Operation(
        "Replace a role's permissions.", {200: ("The changed role.", Role)}, body=WriteRole
    ),
    ("DELETE", "/v1/roles/{role}"): Operation("Delete a role that nobody holds.", GONE),
    ("GET", "/v1/join/authority"): Operation(
        "The cluster's certificate authority, for a host about to join.",
        {200: ("The certificate.", TEXT)},
        media="application/x-pem-file",
        open=True,
    ),
    ("POST", "/v1/join"): Operation(
        "Be admitted as a host, by a join token.",
        {200: ("What a member needs.", JoinAnswer)},
        body=JoinRequest,
        open=True,
    ),
    ("POST", "/v1/join/cancel"): Operation(
        "Take an admission back.", {204: ("It is taken back.", None)}, body=JoinCancel, open=True
    ),
    ("POST", "/v1/join/standing"): Operation(
        "Ask whether a host is a member.",
        {200: ("What this copy of the state says.", Standing)},
        body=AboutStanding,
        open=True,
    ),
    ("GET", "/v1/local/status"): Operation(
        "What this host is.", {200: ("Member or not.", HERE)}, only_on_host=True
    ),
    ("POST", "/v1/local/init"): Operation(
        "Make this host the first of a new cluster.",
        {201: ("It is.", BEGUN)},
        body=InitCluster,
        only_on_host=True,
    ),
    ("POST", "/v1/local/join"): Operation(
        "Make this host a member.", {200: ("It is.", JOINED)}, body=JoinCluster, only_on_host=True
    ),
    ("POST", "/v1/local/leave"): Operation(
        "Take this host out of its cluster.",
        {200: ("It belongs to none now.", LEFT)},
        body=LeaveCluster,
        only_on_host=True,
    ),
    ("POST", "/v1/local/shutdown"): Operation(
        "End the guests of this host, which goes down, as its policy says; for what systemd runs then.",
        {200: ("What became of them, by names of VMs.", GONE_DOWN)},
        body=ShutDown,
        only_on_host=True,
    ),
    ("POST", "/v1/local/lease"): Operation(
        "Renew this host's lease; for its guard.",
        {
            200: (
                "Committed, and what of it is recorded.",
                object_of(index=NUMBER, lease_s=REAL, watchdog_s=REAL, disarmed=FLAG),
            )
        },
        body=Renewal,
        only_on_host=True,
    ),
}

STARTING_TASKS = frozenset(
    route for route, operation in OPERATIONS.items() if operation.task and route[0] != "GET"
) | frozenset(
    ("POST", f"/v1/{many.plural}/actions/{many.verb}")
    for many in MANY
    if OPERATIONS[many.method, many.path].task
)
"""The routes that answer with a task that they have started, by method and path."""
