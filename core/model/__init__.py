"""Every resource type of the cluster, one file an area.

The store keeps these, the API shows them, controllers act on them. `KINDS` is the one list of all types.
"""

from __future__ import annotations

from core.model.cascade import DeletePlan, Touched, ids_in, plan_delete
from core.model.compute import VM, CloudInit, PowerState, VMPhase
from core.model.identity import (
    AccessKey,
    Account,
    Audit,
    NonceFloor,
    Permission,
    Role,
    Session,
    UsedNonce,
)
from core.model.mesh import (
    AccessToken,
    ApiCertificate,
    Cluster,
    DataCenter,
    Host,
    HostKey,
    HostState,
    JoinToken,
    Lease,
    Mesh,
    SecretsKey,
    Vote,
)
from core.model.network import (
    Direction,
    DistributedSwitch,
    Nic,
    PortGroup,
    Protocol,
    Rule,
    SecurityGroup,
)
from core.model.relations import Link, links_of
from core.model.resource import OnDelete, Relation, Resource, check_name, key_of, kind_of
from core.model.storage import (
    DataStorage,
    DataStorageKind,
    Disk,
    Image,
    ImageState,
    ImageStorage,
)
from core.model.work import (
    Callback,
    CallbackKey,
    Deletion,
    Event,
    JournalEntry,
    LogLine,
    PlannedStep,
    Severity,
    StepMark,
    Task,
    TaskState,
)

RESOURCE_TYPES: tuple[type[Resource], ...] = (
    DataCenter,
    Cluster,
    Mesh,
    Host,
    Lease,
    JoinToken,
    AccessToken,
    ApiCertificate,
    SecretsKey,
    HostKey,
    Account,
    Role,
    Session,
    AccessKey,
    UsedNonce,
    NonceFloor,
    Audit,
    DataStorage,
    ImageStorage,
    Image,
    Disk,
    DistributedSwitch,
    PortGroup,
    Nic,
    SecurityGroup,
    VM,
    Task,
    Event,
    Deletion,
    Callback,
    CallbackKey,
)

KINDS: dict[str, type[Resource]] = {kind_of(type_): type_ for type_ in RESOURCE_TYPES}

COLLECTIONS: dict[str, type[Resource]] = {
    type_.PLURAL: type_ for type_ in RESOURCE_TYPES if type_.PLURAL
}
LINKS = links_of(RESOURCE_TYPES)

__all__ = [
    "COLLECTIONS",
    "KINDS",
    "LINKS",
    "RESOURCE_TYPES",
    "VM",
    "AccessKey",
    "AccessToken",
    "Account",
    "ApiCertificate",
    "Audit",
    "Callback",
    "CallbackKey",
    "CloudInit",
    "Cluster",
    "DataCenter",
    "DataStorage",
    "DataStorageKind",
    "DeletePlan",
    "Deletion",
    "Direction",
    "Disk",
    "DistributedSwitch",
    "Event",
    "Host",
    "HostKey",
    "HostState",
    "Image",
    "ImageState",
    "ImageStorage",
    "JoinToken",
    "JournalEntry",
    "Lease",
    "Link",
    "LogLine",
    "Mesh",
    "Nic",
    "NonceFloor",
    "OnDelete",
    "Permission",
    "PlannedStep",
    "PortGroup",
    "PowerState",
    "Protocol",
    "Relation",
    "Resource",
    "Role",
    "Rule",
    "SecretsKey",
    "SecurityGroup",
    "Session",
    "Severity",
    "StepMark",
    "Task",
    "TaskState",
    "Touched",
    "UsedNonce",
    "VMPhase",
    "Vote",
    "check_name",
    "ids_in",
    "key_of",
    "kind_of",
    "links_of",
    "plan_delete",
]
