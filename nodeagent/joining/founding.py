"""What a new cluster consists of: the first transaction of its log.

`kvorum init` calls it once. Everything a user needs for a first VM exists afterwards, under the name `default`.
"""

from __future__ import annotations

import random

from core.clock import new_id
from core.identity.certificates import KeyPair
from core.identity.sealing import seal
from core.model import (
    AccessToken,
    Cluster,
    DataCenter,
    DataStorage,
    DataStorageKind,
    DistributedSwitch,
    Host,
    ImageStorage,
    Mesh,
    PortGroup,
    Resource,
    SecurityGroup,
)
from netfabric.security_group import default_rules
from nodeagent.identity.tokens import secret_hash

MESH_ID = "mesh"
DEFAULT = "default"
LOCAL_STORAGE = "local"
LOCAL_PATH = "/var/lib/kvorum/local"
IMAGES_PATH = "/var/lib/kvorum/images"


def founding_resources(
    *,
    cluster_name: str,
    host: Host,
    authority: KeyPair,
    gossip_key: bytes,
    secrets_key: bytes,
    admin_token: str,
    now_ms: int,
    rng: random.Random,
) -> tuple[Resource, ...]:
    """Return every resource of a cluster of one host. `host.cluster_id` is the new cluster's id."""
    center = DataCenter(id=new_id(rng), name=DEFAULT, created_ms=now_ms)
    cluster = Cluster(
        id=host.cluster_id, name=cluster_name, data_center_id=center.id, created_ms=now_ms
    )
    switch = DistributedSwitch(
        id=new_id(rng), name=DEFAULT, cluster_ids=(cluster.id,), created_ms=now_ms
    )
    group_id = new_id(rng)
    return (
        center,
        cluster,
        host,
        Mesh(
            id=MESH_ID,
            name=cluster_name,
            feature_level=host.feature_level,
            ca_pem=authority.certificate_pem,
            sealed_ca_key=seal(secrets_key, "ca-key", authority.key_pem.encode()),
            sealed_gossip_key=seal(secrets_key, "gossip-key", gossip_key),
            created_ms=now_ms,
        ),
        AccessToken(
            id=new_id(rng),
            name="admin",
            secret_sha256=secret_hash(admin_token),
            created_ms=now_ms,
        ),
        DataStorage(
            id=new_id(rng),
            name=LOCAL_STORAGE,
            data_center_id=center.id,
            kind=DataStorageKind.LOCAL,
            path=LOCAL_PATH,
            created_ms=now_ms,
        ),
        ImageStorage(
            id=new_id(rng),
            name=DEFAULT,
            data_center_ids=(center.id,),
            path=IMAGES_PATH,
            created_ms=now_ms,
        ),
        switch,
        PortGroup(
            id=new_id(rng),
            name=DEFAULT,
            switch_id=switch.id,
            vni=100,
            cidr="10.100.0.0/16",
            service_ip="10.100.0.2",
            pool_first="10.100.1.1",
            pool_last="10.100.255.254",
            created_ms=now_ms,
        ),
        SecurityGroup(
            id=group_id,
            name=DEFAULT,
            data_center_id=center.id,
            rules=default_rules(rng, group_id),
            created_ms=now_ms,
        ),
    )
