"""Where agents listen: a unix socket on this host, or HTTPS addresses of any hosts of the cluster.

Parsed from one text (`KVORUM_ADDRESS`) by the command line; the transport tries endpoints in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import InvalidError

LOCAL_SOCKET = "/run/kvorum/api.sock"
DEFAULT_PORT = 7443


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One agent. Either `socket_path` is set, or `host` (no brackets) and `port`."""

    socket_path: str = ""
    host: str = ""
    port: int = DEFAULT_PORT

    @property
    def local(self) -> bool:
        """Whether this is a unix socket, which needs no token."""
        return bool(self.socket_path)

    @property
    def base_url(self) -> str:
        """The URL that paths are added to; has no slash at its end."""
        if self.socket_path:
            return "http://localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"

    def __str__(self) -> str:
        return self.socket_path or self.base_url


def parse_endpoints(text: str) -> tuple[Endpoint, ...]:
    """Return the endpoints of a comma-separated list; an empty text is the agent of this host.

    Each is `host`, `host:port`, `https://host:port`, an IPv6 address with or without brackets,
    or `unix:/path/to/socket`.

    Raises:
        InvalidError: an entry is none of these.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        return (Endpoint(socket_path=LOCAL_SOCKET),)
    return tuple(dict.fromkeys(_parse_one(part) for part in parts))


def _parse_one(text: str) -> Endpoint:
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise InvalidError(f"address {text!r}: a unix socket needs an absolute path")
        return Endpoint(socket_path=path)
    if text.startswith("http://"):
        raise InvalidError(f"address {text!r}: the API speaks HTTPS only; write https://")
    rest = text.removeprefix("https://").removesuffix("/")
    host, port = _split_port(rest, text)
    if not host or any(sign in host for sign in "/?#@ \\[]"):
        raise InvalidError(f"address {text!r} is not host, host:port or https://host:port")
    return Endpoint(host=host, port=port)


def _split_port(rest: str, text: str) -> tuple[str, int]:
    if rest.startswith("["):
        host, bracket, port_text = rest[1:].partition("]")
        if not bracket or (port_text and not port_text.startswith(":")):
            raise InvalidError(f"address {text!r} is not [IPv6 address]:port")
        port_text = port_text.removeprefix(":")
    elif rest.count(":") > 1:
        host, port_text = rest, ""
    else:
        host, _, port_text = rest.partition(":")
    if not port_text:
        return host, DEFAULT_PORT
    if not (port_text.isascii() and port_text.isdigit()) or not 1 <= int(port_text[:6]) <= 65535:
        raise InvalidError(f"address {text!r}: the port must be a number from 1 to 65535")
    return host, int(port_text)
