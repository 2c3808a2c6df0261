"""Finds secrets where they shouldn't be: as they are, in hex, and in base64 at any alignment."""

import base64
from dataclasses import dataclass, field


def forms_of(secret: bytes) -> set[bytes]:
    """Return the byte strings that give a secret away."""
    forms = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # What surrounds the secret colours the first and the last characters.
            forms.add(encode(bytes(shift) + secret)[shift + 1 : -4])
    return forms


def of_pem(pem: str) -> list[bytes]:
    """Return what of a PEM key is secret: its DER form, and its lines."""
    lines = pem.strip().splitlines()[1:-1]
    return [base64.b64decode("".join(lines))[-60:], *(line.encode() for line in lines[1:-1])]


@dataclass
class Canaries:
    """Secrets by name, and what was said where they might sing."""

    secrets: dict[str, list[bytes]] = field(default_factory=dict)
    said: list[tuple[str, bytes]] = field(default_factory=list)

    def hear(self, where: str, what: bytes | str) -> None:
        self.said.append((where, what.encode() if isinstance(what, str) else what))

    def found(self) -> list[str]:
        """Return `secret in where` for everything that got out."""
        return [
            f"{name} in {where}"
            for name, secrets in self.secrets.items()
            for where, what in self.said
            if any(form in what for secret in secrets for form in forms_of(secret))
        ]
