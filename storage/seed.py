"""What a VM's cloud-init reads at its first boot: a NoCloud seed image.

Called by the VM service, which checks what a user sent, and by `storage.seed_store`. Everything here is pure: a
seed's bytes depend on the VM alone. Name and SSH keys travel as meta-data, which
cloud-init merges with whatever user-data the user wrote. A guest without cloud-init just sees a CD.
"""

from __future__ import annotations

import re

import yaml

from core.errors import InvalidError
from core.model import CloudInit
from storage.ids import check_id
from storage.iso9660 import write_iso
from storage.ssh_keys import check_ssh_key

LABEL = "cidata"
USER_DATA_HEADER = "#cloud-config"
USER_DATA_MAX_BYTES = 64 << 10
USER_DATA_DEPTH_MAX = 100
SSH_KEYS_MAX = 100

_HOSTNAME = re.compile(
    r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.IGNORECASE
)
_NETWORK = {
    "version": 2,
    "ethernets": {
        "en": {"match": {"name": "en*"}, "dhcp4": True},
        "eth": {"match": {"name": "eth*"}, "dhcp4": True},
    },
}


def check_hostname(text: str) -> str:
    """Return a host name that guests accept (RFC 1123).

    Raises:
        InvalidError: anything else.
    """
    if len(text) > 253 or not _HOSTNAME.fullmatch(text):
        raise InvalidError(
            f"hostname {text[:80]!r} is not allowed: use letters, digits and '-', with '.' between parts"
        )
    return text


def check_cloud_init(cloud_init: CloudInit) -> None:
    """Refuse what a guest would not understand; an empty hostname is left to the caller.

    Raises:
        InvalidError: a bad hostname, SSH key, or user-data that is not a #cloud-config.
    """
    if cloud_init.hostname:
        check_hostname(cloud_init.hostname)
    if len(cloud_init.ssh_keys) > SSH_KEYS_MAX:
        raise InvalidError(f"a VM takes at most {SSH_KEYS_MAX} SSH keys")
    for key in cloud_init.ssh_keys:
        check_ssh_key(key)
    _check_user_data(cloud_init.user_data)


def _check_user_data(text: str) -> None:
    if not text:
        return
    if len(text.encode("utf-8", "surrogatepass")) > USER_DATA_MAX_BYTES:
        raise InvalidError("user-data is larger than 64 KiB: let the guest fetch the rest itself")
    if text.split("\n", 1)[0].rstrip() != USER_DATA_HEADER:
        raise InvalidError(
            f"user-data must be a cloud-config: its first line must be '{USER_DATA_HEADER}' and the rest YAML; "
            "put scripts into its runcmd or write_files"
        )
    try:
        first = _first_node(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise InvalidError(
            f"user-data is not valid YAML in line {line}: {error.problem or 'see there'}"
        ) from None
    except (yaml.YAMLError, ValueError):
        raise InvalidError("user-data is not valid YAML: check it with a YAML checker") from None
    if first is not None and not isinstance(first, yaml.MappingStartEvent):
        raise InvalidError(
            "user-data must hold settings such as 'packages: [nginx]' after its first line"
        )


def _first_node(text: str) -> yaml.NodeEvent | None:
    """Parse the whole text; return its outermost node, None if it has none.

    Only parsed, never built: aliases and merge keys of a few hundred bytes can take hours to build. And nothing
    is nested without end, which takes the parser quadratic time.
    """
    first: yaml.NodeEvent | None = None
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.NodeEvent) and first is None:
            first = event
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > USER_DATA_DEPTH_MAX:
            raise InvalidError(
                f"user-data is nested more than {USER_DATA_DEPTH_MAX} levels deep: make it flatter"
            )
    return first


def seed_files(vm_id: str, hostname: str, cloud_init: CloudInit) -> dict[str, bytes]:
    """Return the files of a VM's seed. Pure.

    The instance id is the VM's id, so cloud-init runs once in a VM's life. User-data is kept as it was given.

    Raises:
        InvalidError: see `check_cloud_init`.
    """
    check_cloud_init(cloud_init)
    meta: dict[str, object] = {
        "instance-id": check_id(vm_id, "vm"),
        "local-hostname": check_hostname(cloud_init.hostname or hostname),
    }
    if cloud_init.ssh_keys:
        meta["public-keys"] = [check_ssh_key(key) for key in cloud_init.ssh_keys]
    return {
        "meta-data": yaml.safe_dump(meta, width=1 << 20).encode(),
        "user-data": (cloud_init.user_data or f"{USER_DATA_HEADER}\n{{}}\n").encode(),
        "network-config": yaml.safe_dump(_NETWORK).encode(),
        "vendor-data": f"{USER_DATA_HEADER}\n{{}}\n".encode(),
    }


def seed_image(vm_id: str, hostname: str, cloud_init: CloudInit) -> bytes:
    """Return a VM's seed as an ISO image labelled `cidata`; equal input gives equal bytes. Pure."""
    return write_iso(LABEL, seed_files(vm_id, hostname, cloud_init))
