"""Which cluster is meant and how to get in: from the environment and the files of the user, the same for every program.

`kvorum` and `kvorum_sdk.connect` read it. `KVORUM_ADDRESS` names agents, without it the one of this host is asked through
its unix socket; `KVORUM_TOKEN`, `~/.config/kvorum/session` or `~/.config/kvorum/token` let in; `KVORUM_CA` is whom to trust.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import InvalidError
from tools.sdk.endpoints import Endpoint, parse_endpoints

LOCAL_CA_FILE = "/var/lib/kvorum/identity/ca.pem"
TOKEN_FILE = ".config/kvorum/token"
SESSION_FILE = ".config/kvorum/session"
CACHE_DIRECTORY = ".cache/kvorum"
OTHERS_MAY_READ = 0o077


@dataclass(frozen=True, slots=True)
class Settings:
    """What a client needs to know. `cache` is where addresses are remembered, None for nowhere."""

    endpoints: tuple[Endpoint, ...]
    token: str = field(default="", repr=False)
    access_key: tuple[str, str] = field(default=("", ""), repr=False)  # id and secret
    ca_file: str = LOCAL_CA_FILE
    cache: Path | None = None

    @property
    def remote(self) -> bool:
        """Whether more than this host's own socket is asked."""
        return not all(endpoint.local for endpoint in self.endpoints)


def settings_from(environ: Mapping[str, str], *, needs_token: bool = True) -> Settings:
    """Return what the environment and the user's files say.

    Raises:
        InvalidError: an address is none, there is no token where one is needed, or others may read its file.
    """
    try:
        endpoints = parse_endpoints(environ.get("KVORUM_ADDRESS", ""))
    except InvalidError as error:
        raise InvalidError(f"KVORUM_ADDRESS: {error.message}") from None
    remote = not all(endpoint.local for endpoint in endpoints)
    return Settings(
        endpoints=endpoints,
        token=token_of(environ) if remote and needs_token else "",
        ca_file=environ.get("KVORUM_CA", LOCAL_CA_FILE),
        cache=_cache(environ) if remote else None,
    )


def token_of(environ: Mapping[str, str]) -> str:
    """Return the access token of KVORUM_TOKEN, or the session of a log-in, or the access token of the token file.

    Raises:
        InvalidError: there is none, or others may read the file.
    """
    if given := environ.get("KVORUM_TOKEN", "").strip():
        return _checked(given, "KVORUM_TOKEN")
    session, path = home_of(environ) / SESSION_FILE, home_of(environ) / TOKEN_FILE
    path = session if session.exists() else path
    try:
        if path.stat().st_mode & OTHERS_MAY_READ:
            raise InvalidError(f"{path} can be read by others: chmod 600 {path}")
        return _checked(path.read_text(encoding="utf-8").strip(), str(path))
    except FileNotFoundError:
        raise InvalidError(
            f"no access token: log in with kvorum login NAME, set KVORUM_TOKEN or write one to {path} (mode 0600); "
            "make one on a host with: kvorum access-token create NAME"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"cannot read {path}: {error}") from None


def home_of(environ: Mapping[str, str]) -> Path:
    """Return the user's directory."""
    return Path(environ.get("HOME", "/root"))


def _cache(environ: Mapping[str, str]) -> Path | None:
    if given := environ.get("XDG_CACHE_HOME", ""):
        return Path(given) / "kvorum"
    return Path(environ["HOME"]) / CACHE_DIRECTORY if environ.get("HOME") else None


def _checked(token: str, source: str) -> str:
    if (
        not token.startswith(("kvt_", "kvs_"))
        or not token.isascii()
        or not token.isprintable()
        or " " in token
    ):
        raise InvalidError(f"{source} holds no access token (kvt_...)")
    return token
