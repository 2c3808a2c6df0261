"""The small cluster that the stories of `tests/golden/cli` are told about."""

from tests.golden.cli.stub import T0_MS, World


def member(number, **fields):
    return {
        "id": f"h{number}-id",
        "name": f"h{number}",
        "address": f"10.0.0.{number}",
        "role": "voter",
        "votes": True,
        "vote": "auto",
        "applied_index": 42,
        "lag": 0,
        "health": "ok",
        "failure_domain": f"rack{number}",
        "feature_level": 1,
        "generation": 1,
        "leader": number == 1,
        "raft": "self" if number == 1 else "connected",
        "gossip": "alive",
        "lease_age_s": 0.4,
        "watchdog": "armed",
        "state": "member",
        "version": "0.1.0",
        "vms": 0,
        **fields,
    }


def thing(name, **fields):
    return {"id": f"{name}-id", "name": name, "revision": 3, "created_ms": T0_MS, **fields}


def host_health(number, **fields):
    return {
        "id": f"h{number}-id",
        "name": f"h{number}",
        "role": "voter",
        "votes": True,
        "leader": number == 1,
        "state": "member",
        "maintenance": False,
        "vms": 0,
        "answers": True,
        "why": "",
        "gossip": "self" if number == 1 else "alive",
        "lease_age_s": 0.4,
        "lease_fresh": True,
        "clock_offset_ms": 0 if number == 1 else -12.5,
        "guard_answers": True,
        "guard_phase": "held",
        "watchdog": "device",
        "watchdog_armed": True,
        "libvirt_answers": True,
        "arbitration": None,
        "secrets_open": True,
        "applied_index": 42,
        "lag": 0,
        "storages": [{"id": "local-id", "name": "local", "usable": True, "why": ""}],
        "peers": [
            {"host_name": f"h{n}", "round_trip_ms": 0.8, "why": "", "gossip": "alive"}
            for n in (1, 2)
            if n != number
        ],
        **fields,
    }


def small_health():
    """The small cluster's health: h3 is dead, the storage of h2 is full, and a VM is blocked."""
    full = {"id": "local-id", "name": "local", "usable": False, "why": "No space left on device"}
    gone = {
        "host_name": "h3",
        "round_trip_ms": None,
        "why": "no answer in time",
        "gossip": "failed",
    }
    one, two = host_health(1, vms=1), host_health(2, storages=[full], maintenance=True)
    for host in (one, two):
        host["peers"].append(gone)
    unknown = ("guard_answers", "guard_phase", "watchdog", "watchdog_armed", "libvirt_answers")
    unknown += ("secrets_open", "applied_index", "lag", "clock_offset_ms")
    three = host_health(3, **dict.fromkeys(unknown)) | {
        "answers": False,
        "why": "no answer in time",
        "gossip": "failed",
        "lease_age_s": 95.0,
        "lease_fresh": False,
        "storages": [],
        "peers": [],
    }
    return {
        "verdict": "degraded",
        "line": "degraded: 2 of 3 voters are up: if one more is lost, writes stop (and 1 more)",
        "host_name": "h1",
        "cluster_name": "prod",
        "index": 42,
        "quorum": True,
        "leader_name": "h1",
        "vip": "10.0.0.9",
        "vip_holder_name": "h1",
        "voters": 3,
        "voters_up": 2,
        "losses_survived": 0,
        "findings": [
            {
                "severity": "degraded",
                "host_name": "",
                "code": "no-spare-voter",
                "what": "2 of 3 voters are up: if one more is lost, writes stop",
                "advice": "bring back h3",
            },
            {
                "severity": "degraded",
                "host_name": "h2",
                "code": "storage-unusable",
                "what": "data storage local can't be used: No space left on device\x1b[31m",
                "advice": "look at its mount there, at its server, and at the space that is left",
            },
        ],
        "vms_blocked": 1,
        "first_blocked": [{"name": "web9", "host_name": "h3", "reason": "no host has room"}],
        "hosts_in_maintenance": ["h2"],
        "hosts_fenced": [],
        "hosts": [one, two, three],
    }


def small_cluster():
    """Three hosts, of which one is dead, an image, a running VM and all that belongs to it."""
    members = [
        member(1, vms=1),
        member(2),
        member(
            3,
            raft="disconnected",
            gossip="failed",
            lease_age_s=None,
            watchdog="none",
            applied_index=None,
            lag=None,
            health="disconnected",
        ),
    ]
    hosts = [
        thing(
            f"h{n}",
            address=f"10.0.0.{n}",
            state="member",
            cpus=8,
            memory_mib=32768,
            arch="x86_64",
            accelerator="kvm",
            watchdog="/dev/watchdog",
            version="0.1.0",
            cluster_name="default",
        )
        for n in (1, 2, 3)
    ]
    rules = [
        {"id": "r1", "direction": "ingress", "protocol": "all", "remote_group_id": "default-id"}
        | {"family": 4, "enabled": True, "default": True},
        {"id": "r2", "direction": "ingress", "protocol": "tcp", "port_first": 22, "port_last": 22}
        | {"cidr": "10.0.0.0/8", "family": 4, "enabled": False},
    ]
    alarm = thing("e2", code="host-dead", subject="host/h3-id", subject_name="h3", severity="alarm")
    alarm |= {"message": "no lease for 60 s: its VMs wait for proof that it is off"}
    notice = thing("e1", code="vm-started", subject="vm/web1-id", subject_name="web1")
    notice |= {"severity": "notice", "message": "started on h1\x1b[31m", "revision": 40}
    return World(
        status={
            "cluster_name": "prod",
            "index": 42,
            "leader_name": "h1",
            "quorum": True,
            "members": members,
            "vms": {"running": 1},
            "alarms": [alarm],
        },
        health=small_health(),
        collections={
            "members": members,
            "hosts": hosts,
            "certificates": [
                thing(
                    "all",
                    kind="own",
                    names=["kvorum.example.org"],
                    issuer="CN=Example Issuing",
                    not_after_ms=T0_MS + 300 * 86_400_000,
                    sha256="ab" * 32,
                    warnings=["it names neither name nor address of h3"],
                ),
                thing(
                    "authority",
                    kind="authority",
                    names=[],
                    issuer="CN=kvorum prod",
                    not_after_ms=T0_MS + 7000 * 86_400_000,
                    sha256="cd" * 32,
                    warnings=[],
                ),
            ],
            "images": [
                thing(
                    "debian-12",
                    state="ready",
                    size_bytes=400 << 20,
                    virtual_size_bytes=2 << 30,
                    source_format="qcow2",
                    sha256="ab" * 32,
                    host_ids=["h1-id"],
                    host_names=["h1"],
                )
            ],
            "vms": [
                thing(
                    "web1",
                    phase="running",
                    power="running",
                    host_id="h1-id",
                    host_name="h1",
                    ips=["10.77.0.17"],
                    cpus=2,
                    memory_mib=1536,
                    ha=True,
                    a_field_of_the_future={"x": [1, None]},
                )
            ],
            "disks": [
                thing(
                    "web1.0",
                    vm_id="web1-id",
                    vm_name="web1",
                    size_bytes=10 << 30,
                    data_storage_id="local-id",
                    data_storage_name="local",
                    image_id="debian-12-id",
                    image_name="debian-12",
                    host_name="h1",
                    index=0,
                )
            ],
            "nics": [
                thing(
                    "web1.0",
                    vm_id="web1-id",
                    vm_name="web1",
                    port_group_id="default-id",
                    port_group_name="default",
                    ip="10.77.0.17",
                    mac="52:54:00:00:00:01",
                    security_group_ids=["default-id"],
                    security_group_names=["default"],
                )
            ],
            "data-storages": [thing("local", kind="local", path="/var/lib/kvorum/disks")],
            "port-groups": [
                thing(
                    "default",
                    vni=100,
                    cidr="10.77.0.0/24",
                    service_ip="10.77.0.2",
                    gateway="",
                    dns=[],
                    pool_first="10.77.0.16",
                    pool_last="10.77.0.254",
                    mtu=1450,
                    domain="internal",
                    switch_name="default",
                )
            ],
            "security-groups": [thing("default", rules=rules, data_center_name="default")],
            "tasks": [
                {
                    "id": "t1",
                    "name": "t1",
                    "workflow": "vm-create",
                    "subject": "vm/web1-id",
                    "subject_name": "web1",
                    "state": "succeeded",
                    "progress": 100,
                    "step": "start",
                    "runner_host_id": "h1-id",
                    "created_ms": T0_MS,
                    "ended_ms": T0_MS + 12_300,
                    "result": {"vm": "web1", "ips": "10.77.0.16"},
                    "log": [
                        {"step": "create-disk", "what": "begun", "at_ms": T0_MS + 2000},
                        {
                            "step": "create-disk",
                            "what": "retry",
                            "text": "the storage does not answer\x1b[31m",
                            "at_ms": T0_MS + 3000,
                        },
                        {"step": "create-disk", "what": "done", "at_ms": T0_MS + 4000},
                        {
                            "step": "plug",
                            "inside": ["attach-network"],
                            "what": "done",
                            "at_ms": T0_MS + 5000,
                        },
                    ],
                },
                {
                    "id": "t2",
                    "name": "t2",
                    "workflow": "vm-create",
                    "subject": "vm/web2-id",
                    "subject_name": "web2",
                    "state": "running",
                    "progress": 20,
                    "step": "create-disk",
                    "runner_host_id": "h1-id",
                    "created_ms": T0_MS,
                    "log": [{"step": "create-disk", "what": "begun", "at_ms": T0_MS + 2000}],
                    "steps": [
                        {"step": "create-disk", "state": "begun"},
                        {"step": "plug", "inside": ["attach-network"], "state": "waiting"},
                    ],
                },
            ],
            "events": [notice, alarm],
            "join-tokens": [thing("t-1", expires_ms=T0_MS + 10_800_000, used_by_host_id="")],
            "access-tokens": [thing("ci", expires_ms=0)],
        },
    )
