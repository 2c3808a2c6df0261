"""Public keys as OpenSSH writes them.

Called by `storage.seed` and the services before a key is stored: a key that sshd would skip makes a VM that
nobody can enter, and a line with more than a key could open doors (options such as command=).
"""

from __future__ import annotations

import base64
import binascii
import re
import struct

from core.errors import InvalidError

KEY_TYPES = frozenset(
    {"ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"}
    | {"sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"}
)
KEY_MAX_CHARS = 16 * 1024
RSA_BITS_MIN = 2048

_LINE = re.compile(r"(\S+) +(\S+)(?: +(.*))?")


def check_ssh_key(text: str) -> str:
    """Return a public key as `type base64 [comment]` on one line.

    Raises:
        InvalidError: a private key, options before the key, an unknown type, a damaged key, or a weak RSA key.
    """
    line = text.strip()
    if "PRIVATE KEY" in line:
        raise InvalidError(
            "this is a private key: keep it secret and give the public one (the .pub file)"
        )
    if len(line) > KEY_MAX_CHARS or not line.isprintable():
        raise InvalidError("an SSH key is one line of printable text: give one key at a time")
    match = _LINE.fullmatch(line)
    if match is None or match[1] not in KEY_TYPES:
        raise InvalidError(
            f"SSH key {line[:40]!r} is not understood: give a line like 'ssh-ed25519 AAAA... name', without options"
        )
    _check_blob(match[1], match[2])
    return " ".join(part for part in match.groups() if part)


def _check_blob(kind: str, encoded: str) -> None:
    damaged = InvalidError(f"the {kind} key is damaged: copy the whole line of the .pub file")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise damaged from None
    fields: list[bytes] = []
    rest = blob
    while rest:
        if len(rest) < 4 or (length := struct.unpack(">I", rest[:4])[0]) > len(rest) - 4:
            raise damaged
        fields.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    if (
        len(fields) < 2
        or fields[0] != kind.encode()
        or (kind == "ssh-ed25519" and len(fields[1]) != 32)
    ):
        raise damaged
    if kind == "ssh-rsa":
        if len(fields) != 3:
            raise damaged
        if int.from_bytes(fields[2], "big").bit_length() < RSA_BITS_MIN:
            raise InvalidError(
                f"the RSA key has less than {RSA_BITS_MIN} bits: make one with 'ssh-keygen -t ed25519'"
            )
