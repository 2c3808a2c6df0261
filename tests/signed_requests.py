"""A program that signs its requests with an access key, as docs/identity.md tells it to; written apart from the product."""

import hashlib
import hmac
import json
import random
from dataclasses import dataclass, field

from tests.api import ADMIN, problem_of

ORDER = (
    "callback-url",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "last-event-id",
    "prefer",
)


@dataclass
class Program:
    """Has a key, and sends requests through a test client of any agent."""

    key_id: str
    secret: str
    now_s: object  # a function
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def nonce(self) -> str:
        return f"{self.rng.getrandbits(128):032x}"

    def head(self, method: str, target: str, body: bytes = b"", headers=None, **parts) -> dict:
        """Return all headers of a signed request; `parts` are said instead of what is right."""
        headers = dict(headers or {})
        time_s, nonce = parts.get("time", str(self.now_s())), parts.get("nonce", self.nonce())
        sha256 = hashlib.sha256(body).hexdigest()
        lines = ["KVORUM-HMAC-SHA256", self.key_id, time_s, nonce, method, target, sha256]
        small = {name.lower(): value for name, value in headers.items()}
        lines += [f"{name}:{small[name]}" for name in ORDER if name in small]
        text = "\n".join(lines).encode()
        mac = hmac.new(self.secret.encode(), text, hashlib.sha256).hexdigest()
        said = {"key": self.key_id, "time": time_s, "nonce": nonce, "sha256": sha256}
        said |= {"signature": mac, **parts}
        shown = ", ".join(f"{name}={value}" for name, value in said.items())
        return headers | {"Authorization": f"KVORUM-HMAC-SHA256 {shown}"}

    async def send(self, api, method: str, target: str, value=None, headers=None):
        """Send a request that is signed rightly; `value` is the JSON of its body."""
        body = b"" if value is None else json.dumps(value).encode()
        headers = dict(headers or {})
        if value is not None:
            headers.setdefault("Content-Type", "application/json")
        head = self.head(method, target, body, headers)
        skip = ["Content-Type"]  # the library would add one that isn't signed
        return await api.request(
            method, target, data=body or None, headers=head, skip_auto_headers=skip
        )


async def made(api, name="ci", **body) -> dict:
    """Return an access key that an administrator makes, an operator's unless told otherwise."""
    body = body or {"roles": ["operator"]}
    response = await api.post("/v1/access-keys", json={"name": name, **body}, headers=ADMIN)
    assert response.status == 201, await response.text()
    assert response.headers["Cache-Control"] == "no-store"
    return await response.json()


async def program(member, api, name="ci", **body) -> Program:
    """Return a program with a new key."""
    key = await made(api, name, **body)
    return Program(key["id"], key["secret"], lambda: member.clock.wall_ms() // 1000)


async def refused(response) -> str:
    """Return why an answer says that nobody is let in."""
    return (await problem_of(response, 401, "unauthenticated"))["detail"]
