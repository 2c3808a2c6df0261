"""Real agents whose secrets key is wrapped by an HSM (SoftHSM): founded and joined so, changed, locked, and lost."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.identity.keyring import WRAPPED_MARK
from tests.hsm import MODULE, SoftTokens
from tests.integration.conftest import LabFactory, in_own_loop, poll
from tools.demo.operator import Operator
from tools.lab.cluster import form_cluster
from tools.lab.lab import Lab
from tools.lab.services import AGENT, GUARD, LIBVIRTD, SERF

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SETTINGS = """
[secrets_key]
keep = "hsm"
[secrets_key.hsm]
module = "{module}"
token = "{token}"
key = "k"
pin_file = "{pin}"
"""
KEY_FILE = "/var/lib/kvorum/identity/secrets.key"


@pytest.fixture(scope="module")
def soft() -> Iterator[SoftTokens]:
    directory = Path(tempfile.mkdtemp(prefix="kvt-hsm-", dir="/tmp"))
    soft = SoftTokens(directory)
    for host in ("h1", "h2"):
        soft.add_token(host)
        soft.add_key(host, "k")
    soft.add_token("new")
    soft.add_key("new", "k")
    yield soft
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def lab(lab_factory: LabFactory, soft: SoftTokens) -> Lab:
    """Two hosts, each with a token of its own, in a cluster that never had its key on disk in clear."""
    environment = [f"{name}={value}" for name, value in soft.environment.items()]
    agent = msgspec.structs.replace(AGENT, argv=("/usr/bin/env", *environment, *AGENT.argv))
    lab = lab_factory(2, (LIBVIRTD, GUARD, agent, SERF))

    async def begin() -> None:
        for host in lab.hosts:
            await set_token(lab, soft, host, host)
        await form_cluster(lab)

    in_own_loop(begin())
    return lab


async def set_token(lab: Lab, soft: SoftTokens, host: str, token: str) -> None:
    """Write a host's settings and have its agent start with them."""
    file = lab.inside(host, "/etc/kvorum/agent.toml")
    before = file.read_text().partition("\n[secrets_key]")[0] if file.exists() else ""
    file.write_text(before + SETTINGS.format(module=MODULE, token=token, pin=soft.pin_file))
    await restart(lab, host)


async def restart(lab: Lab, host: str) -> None:
    dead = lab.service_pid(host, "agent")
    lab.kill(host, "agent", signal.SIGKILL)
    await poll(lambda: lab.service_pid(host, "agent") not in (None, dead), 20.0)
    await lab.wait_ready(host)


async def kept(lab: Lab, host: str) -> dict[str, Any]:
    """Return how a host keeps the key, as the other one says."""
    other = next(h for h in lab.hosts if h != host)
    shown = await Operator(lab).asks(other, "secrets", "status")
    return next(h for h in shown["hosts"] if h["name"] == host)


async def test_keys_in_hsms_are_made_handed_on_changed_locked_and_replaced(
    lab: Lab, soft: SoftTokens
) -> None:
    operator = Operator(lab)
    for host in lab.hosts:
        assert lab.inside(host, KEY_FILE).read_bytes().startswith(WRAPPED_MARK)
        assert (await kept(lab, host))["hsm"] == f"key k in token {host}"

    first = (await kept(lab, "h1"))["key_id"]
    await operator.types("h1", "secrets", "rotate", "--yes")

    async def all_have() -> bool:
        hosts = [await kept(lab, host) for host in lab.hosts]
        ids = {host["key_id"] for host in hosts}
        return len(ids) == 1 and first not in ids and all(h["state"] == "ok" for h in hosts)

    await poll(all_have, 40.0, every_s=0.5)

    away = soft.tokens.with_name("away")
    soft.tokens.rename(away)
    soft.tokens.mkdir()
    await restart(lab, "h2")

    async def is_locked() -> bool:
        host = await kept(lab, "h2")
        return host["state"] == "fault" and "no tokens" in host["fault"]

    await poll(is_locked, 40.0, every_s=0.5)
    assert await operator.asks("h2", "vm", "list") == []

    async def is_told() -> bool:
        events = await operator.asks("h1", "event", "list")
        return any(e["code"] == "secrets-locked" and "host h2" in e["message"] for e in events)

    await poll(is_told, 30.0, every_s=0.5)

    soft.tokens.rmdir()
    away.rename(soft.tokens)

    async def is_open(host: str = "h2", token: str = "h2") -> bool:
        found = await kept(lab, host)
        return (found["state"], found["hsm"]) == ("ok", f"key k in token {token}")

    await poll(is_open, 90.0, every_s=1.0)

    shutil.rmtree(soft.tokens)
    soft.tokens.mkdir()
    soft.add_token("new")
    soft.add_key("new", "k")
    await set_token(lab, soft, "h2", "new")

    async def is_replaced() -> bool:
        return await is_open("h2", "new")

    await poll(is_replaced, 60.0, every_s=0.5)
    assert lab.inside("h2", KEY_FILE).read_bytes().startswith(WRAPPED_MARK)
