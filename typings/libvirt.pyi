"""The part of libvirt's Python binding that nodeagent.compute uses."""

from collections.abc import Callable

VIR_CONNECT_LIST_DOMAINS_ACTIVE: int
VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE: int
VIR_DOMAIN_STATS_STATE: int

VIR_DOMAIN_AFFECT_LIVE: int
VIR_DOMAIN_METADATA_ELEMENT: int
VIR_DOMAIN_REBOOT_ACPI_POWER_BTN: int
VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN: int
VIR_DOMAIN_START_PAUSED: int
VIR_DOMAIN_UNDEFINE_MANAGED_SAVE: int
VIR_DOMAIN_UNDEFINE_NVRAM: int
VIR_DOMAIN_XML_MIGRATABLE: int

VIR_DOMAIN_RUNNING: int
VIR_DOMAIN_BLOCKED: int
VIR_DOMAIN_PAUSED: int
VIR_DOMAIN_PMSUSPENDED: int
VIR_DOMAIN_SHUTDOWN: int
VIR_DOMAIN_CRASHED: int

VIR_DOMAIN_PAUSED_USER: int
VIR_DOMAIN_PAUSED_MIGRATION: int
VIR_DOMAIN_PAUSED_IOERROR: int
VIR_DOMAIN_PAUSED_STARTING_UP: int
VIR_DOMAIN_PAUSED_CRASHED: int

VIR_DOMAIN_JOB_NONE: int

VIR_DOMAIN_EVENT_ID_LIFECYCLE: int
VIR_DOMAIN_EVENT_ID_REBOOT: int
VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON: int

VIR_DOMAIN_EVENT_STARTED: int
VIR_DOMAIN_EVENT_STARTED_BOOTED: int
VIR_DOMAIN_EVENT_STARTED_MIGRATED: int
VIR_DOMAIN_EVENT_SUSPENDED: int
VIR_DOMAIN_EVENT_SUSPENDED_PAUSED: int
VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED: int
VIR_DOMAIN_EVENT_SUSPENDED_IOERROR: int
VIR_DOMAIN_EVENT_RESUMED: int
VIR_DOMAIN_EVENT_RESUMED_UNPAUSED: int
VIR_DOMAIN_EVENT_RESUMED_MIGRATED: int
VIR_DOMAIN_EVENT_STOPPED: int
VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: int
VIR_DOMAIN_EVENT_STOPPED_DESTROYED: int
VIR_DOMAIN_EVENT_STOPPED_CRASHED: int
VIR_DOMAIN_EVENT_STOPPED_FAILED: int
VIR_DOMAIN_EVENT_STOPPED_MIGRATED: int

VIR_MIGRATE_ABORT_ON_ERROR: int
VIR_MIGRATE_AUTO_CONVERGE: int
VIR_MIGRATE_LIVE: int
VIR_MIGRATE_NON_SHARED_DISK: int
VIR_MIGRATE_PAUSED: int
VIR_MIGRATE_PEER2PEER: int
VIR_MIGRATE_UNSAFE: int

VIR_NODE_MEMORY_STATS_ALL_CELLS: int

VIR_MIGRATE_PARAM_BANDWIDTH: str
VIR_MIGRATE_PARAM_DEST_XML: str
VIR_MIGRATE_PARAM_DISKS_URI: str
VIR_MIGRATE_PARAM_URI: str

VIR_ERR_ACCESS_DENIED: int
VIR_ERR_ARGUMENT_UNSUPPORTED: int
VIR_ERR_AUTH_FAILED: int
VIR_ERR_CONFIG_UNSUPPORTED: int
VIR_ERR_CPU_INCOMPATIBLE: int
VIR_ERR_DOM_EXIST: int
VIR_ERR_INVALID_ARG: int
VIR_ERR_MIGRATE_UNSAFE: int
VIR_ERR_NO_DOMAIN: int
VIR_ERR_NO_DOMAIN_METADATA: int
VIR_ERR_NO_SUPPORT: int
VIR_ERR_OPERATION_ABORTED: int
VIR_ERR_OPERATION_DENIED: int
VIR_ERR_OPERATION_INVALID: int
VIR_ERR_OPERATION_UNSUPPORTED: int
VIR_ERR_XML_DETAIL: int
VIR_ERR_XML_ERROR: int
VIR_ERR_XML_INVALID_SCHEMA: int

class libvirtError(Exception):
    def get_error_code(self) -> int | None: ...

class virDomain:
    def UUIDString(self) -> str: ...
    def XMLDesc(self, flags: int = 0) -> str: ...
    def abortJob(self) -> int: ...
    def destroy(self) -> int: ...
    def isPersistent(self) -> int: ...
    def jobStats(self, flags: int = 0) -> dict[str, int]: ...
    def metadata(self, type: int, uri: str, flags: int = 0) -> str: ...
    def migrateToURI3(self, dconnuri: str, params: dict[str, str | int], flags: int = 0) -> int: ...
    def name(self) -> str: ...
    def reboot(self, flags: int = 0) -> int: ...
    def reset(self, flags: int = 0) -> int: ...
    def resume(self) -> int: ...
    def setMetadata(self, type: int, metadata: str, key: str, uri: str, flags: int = 0) -> int: ...
    def shutdownFlags(self, flags: int = 0) -> int: ...
    def state(self, flags: int = 0) -> list[int]: ...
    def suspend(self) -> int: ...
    def undefineFlags(self, flags: int = 0) -> int: ...

class virConnect:
    def close(self) -> int: ...
    def createXML(self, xmlDesc: str, flags: int = 0) -> virDomain: ...
    def domainEventDeregisterAny(self, callbackID: int) -> None: ...
    def domainEventRegisterAny(
        self, dom: virDomain | None, eventID: int, cb: Callable[..., None], opaque: None
    ) -> int: ...
    def getHostname(self) -> str: ...
    def getInfo(self) -> list[str | int]: ...
    def getLibVersion(self) -> int: ...
    def getMemoryStats(self, cellNum: int, flags: int = 0) -> dict[str, int]: ...
    def getVersion(self) -> int: ...
    def listAllDomains(self, flags: int = 0) -> list[virDomain]: ...
    def getAllDomainStats(
        self, stats: int = 0, flags: int = 0
    ) -> list[tuple[virDomain, dict[str, int]]]: ...
    def lookupByUUIDString(self, uuid: str) -> virDomain: ...
    def registerCloseCallback(self, cb: Callable[[virConnect, int, None], None], opaque: None) -> int: ...
    def setKeepAlive(self, interval: int, count: int) -> int: ...
    def unregisterCloseCallback(self) -> None: ...

def open(name: str | None = None) -> virConnect: ...
def registerErrorHandler(f: Callable[[None, object], None], ctx: None) -> int: ...
def virEventRegisterDefaultImpl() -> int: ...
def virEventRunDefaultImpl() -> int: ...
