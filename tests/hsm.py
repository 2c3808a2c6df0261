"""HSMs for tests: one in memory, and tokens of SoftHSM in a directory of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.identity.hsm import HsmSettings, Mechanism, SecretsLockedError, WrappedKey
from core.identity.sealing import key_id

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "canary-pin-of-a-token"
SO_PIN = "another-pin-of-the-officer"
ROOT = Path(__file__).resolve().parent.parent


@dataclass
class MemoryHsm:
    """Tokens with keys by name. `broken`: it answers nothing; `dead`: tokens that are not there (any more)."""

    keys: dict[tuple[str, str], bytes] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    broken: bool = False
    calls: int = 0

    def add(self, token: str, key: str) -> HsmSettings:
        """Make a key, in place of one of that name, and return how it is named."""
        self.keys[token, key] = AESGCM.generate_key(256)
        return HsmSettings(module="/memory.so", token=token, key=key, pin_file="/pin")

    async def wrap(self, settings: HsmSettings, keys: Sequence[bytes]) -> tuple[WrappedKey, ...]:
        cipher, wrapped = self._cipher(settings), []
        for key in keys:
            nonce = os.urandom(12)
            content = nonce + cipher.encrypt(nonce, key, None)
            wrapped.append(
                WrappedKey(
                    key_id=key_id(key),
                    hsm=settings,
                    mechanism=Mechanism.AES_GCM,
                    wrapped=content,
                )
            )
        return tuple(wrapped)

    async def unwrap(self, settings: HsmSettings, wrapped: Sequence[WrappedKey]) -> list[bytes]:
        cipher, keys = self._cipher(settings), []
        for one in wrapped:
            try:
                keys.append(cipher.decrypt(one.wrapped[:12], one.wrapped[12:], None))
            except InvalidTag:
                keys.append(b"")
        return keys

    def _cipher(self, settings: HsmSettings) -> AESGCM:
        self.calls += 1
        if self.broken or settings.token in self.dead:
            raise SecretsLockedError(f"the HSM can't be used for {settings.shown()}: it is away")
        key = self.keys.get((settings.token, settings.key))
        if key is None:
            raise SecretsLockedError(f"the HSM can't be used for {settings.shown()}: no keys")
        return AESGCM(key)


class SoftTokens:
    """SoftHSM with a directory of its own; `environment` is what processes need to find it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._conf = directory / "softhsm2.conf"
        self.tokens = directory / "tokens"
        self.tokens.mkdir(parents=True)
        self._conf.write_text(f"directories.tokendir = {self.tokens}\nlog.level = ERROR\n")
        self.environment = {"SOFTHSM2_CONF": str(self._conf)}
        self.pin_file = directory / "pin"
        self.write_pin(PIN)

    def write_pin(self, pin: str, mode: int = 0o600) -> None:
        """Write the PIN's file anew."""
        self.pin_file.unlink(missing_ok=True)
        self.pin_file.write_text(f"{pin}\n")
        self.pin_file.chmod(mode)

    def add_token(self, label: str) -> None:
        """Make an empty token."""
        argv = ["softhsm2-util", "--init-token", "--free", "--label", label]
        self._run([*argv, "--pin", PIN, "--so-pin", SO_PIN])

    def add_key(self, token: str, label: str, **how: object) -> HsmSettings:
        """Make a key: `may`, what it is good for; `extractable`; `bits`."""
        order = {"token": token, "label": label, **how}
        self._run([sys.executable, "-m", "tests.hsm"], json.dumps(order))
        return self.settings(token, label)

    def settings(self, token: str, label: str) -> HsmSettings:
        return HsmSettings(module=MODULE, token=token, key=label, pin_file=str(self.pin_file))

    def _run(self, argv: list[str], text: str = "") -> None:
        environment = {**os.environ, **self.environment}
        subprocess.run(
            argv, env=environment, input=text.encode(), cwd=ROOT, check=True, capture_output=True
        )


def _make_key(order: dict) -> None:
    """Run in a process of its own: a module can be loaded with one configuration only."""
    import pkcs11
    from pkcs11 import Attribute, KeyType, MechanismFlag

    may = [MechanismFlag[name] for name in order.get("may", [])]
    kept = not order.get("extractable", False)
    token = pkcs11.lib(MODULE).get_token(token_label=order["token"])
    with token.open(user_pin=PIN, rw=True) as session:
        options = {}
        if may:
            options["capabilities"] = may[0] if len(may) == 1 else may[0] | may[1]
        session.generate_key(
            KeyType.AES,
            order.get("bits", 256),
            label=order["label"],
            store=True,
            template={Attribute.EXTRACTABLE: not kept, Attribute.SENSITIVE: kept},
            **options,
        )


if __name__ == "__main__":
    _make_key(json.load(sys.stdin))
