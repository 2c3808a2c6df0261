"""Where this host keeps its things. One struct, passed down from `nodeagent.main`, and from the commands that work without it.

Everything below `state` survives a reboot, everything below `run` does not.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """The directories of one agent, and the files whose names others rely on."""

    etc: Path = Path("/etc/kvorum")
    state: Path = Path("/var/lib/kvorum")
    run: Path = Path("/run/kvorum")

    @property
    def api_socket(self) -> Path:
        return self.run / "api.sock"

    @property
    def guard_socket(self) -> Path:
        return self.run / "guard.sock"

    @property
    def identity(self) -> Path:
        return self.state / "identity"

    @property
    def ca_pem(self) -> Path:
        return self.identity / "ca.pem"

    @property
    def host_pem(self) -> Path:
        return self.identity / "host.pem"

    @property
    def host_key(self) -> Path:
        return self.identity / "host.key"

    @property
    def next_identity(self) -> Path:
        """There only while certificate and key are being exchanged."""
        return self.identity / "host.next"

    @property
    def secrets_key(self) -> Path:
        return self.identity / "secrets.key"

    @property
    def secrets_next(self) -> Path:
        """There only while the secrets key is being changed."""
        return self.identity / "secrets.next"

    @property
    def secrets_old(self) -> Path:
        """The former secrets key, until every host has the new one."""
        return self.identity / "secrets.old"

    @property
    def serf_secret(self) -> Path:
        return self.identity / "serf.secret"

    @property
    def member_file(self) -> Path:
        """Written last by init and join: a host with it is a member."""
        return self.state / "member.json"

    @property
    def raft(self) -> Path:
        return self.state / "raft"

    @property
    def database(self) -> Path:
        return self.state / "state.db"

    @property
    def lock(self) -> Path:
        """Held by the agent while it runs, and by the commands that need it stopped."""
        return self.state / "agent.lock"

    @property
    def guard_config(self) -> Path:
        return self.state / "guard.json"

    @property
    def serf_config(self) -> Path:
        return self.etc / "serf.json"

    @property
    def serf_keyring(self) -> Path:
        return self.state / "serf" / "keyring.json"

    @property
    def admin_token(self) -> Path:
        return self.etc / "admin.token"


def write_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a small file so that after a crash it is either the old or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.fchmod(descriptor, mode)
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
