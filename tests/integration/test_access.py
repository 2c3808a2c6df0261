"""Who may call a cluster's API and mesh, and where its secrets are: only in files that root alone can read."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
from pathlib import Path

import pytest

from core.command import CommandError, run
from nodeagent.identity.tokens import parse_join_token
from tests.integration.cluster import Cluster
from tests.integration.conftest import in_own_loop, poll
from tests.integration.stranger import COLLECTIONS, ask, settled
from tools.lab.lab import Lab
from tools.lab.layout import VENV_BIN

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

ADMIN_TOKEN = "/etc/kvorum/admin.token"
CA = "/var/lib/kvorum/identity/ca.pem"
SOCKET = "/run/kvorum/api.sock"
PASSWORD = "correct-horse-battery-staple-4711"
USER_DATA = f"#cloud-config\npassword: {PASSWORD}\n"
STATE = "/var/lib/kvorum"
# Where the cluster's secrets may lie on a host; all must be readable by root alone.
SECRET_FILES = (
    ADMIN_TOKEN,
    f"{STATE}/identity/host.key",
    f"{STATE}/identity/secrets.key",
    f"{STATE}/identity/serf.secret",
    f"{STATE}/serf/keyring.json",
    "/etc/kvorum/serf.json",
)
OTHERS = stat.S_IRWXG | stat.S_IRWXO


@pytest.fixture(scope="module")
def cluster(lab: Lab, tiny_image: str) -> Cluster:
    return in_own_loop(Cluster.form(lab, tiny_image))


def bearer(token: str) -> tuple[str, str]:
    return ("-H", f"Authorization: Bearer {token}")


async def test_without_a_token_or_with_a_wrong_one_every_path_is_closed(cluster: Cluster) -> None:
    for host in cluster.lab.hosts:
        for path in ("/v1/vms", "/v1/status", "/v1/members", "/v1/events", "/v1/nothing", "/"):
            for credentials in (
                (),
                bearer("kvt_" + "A" * 43),
                bearer(""),
                ("-H", "Authorization: Basic cm9vdDpyb290"),
                ("-H", "Authorization: Bearer"),
            ):
                status, body = await cluster.http(host, path, *credentials)
                assert status == 401, (host, path, credentials, body)
                assert body["code"] == "unauthenticated", body
    status, body = await cluster.http(cluster.lab.hosts[0], "/v1/vms", "-X", "POST", "-d", "{}")
    assert status == 401, body


async def test_local_verbs_are_closed_to_the_network_even_with_a_token(cluster: Cluster) -> None:
    token = await _admin_token(cluster)
    for path in ("/v1/local/status", "/v1/local/init", "/v1/local/lease"):
        status, body = await cluster.http(cluster.lab.hosts[0], path, *bearer(token))
        assert status == 403, (path, body)


async def test_the_admin_token_opens_every_host_whose_certificate_the_clusters_authority_signed(
    cluster: Cluster, tmp_path: Path
) -> None:
    lab = cluster.lab
    token = await _admin_token(cluster)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(lab.inside(lab.hosts[1], CA).read_bytes())
    for host in lab.hosts:
        url = f"https://{lab.address(host)}:7443/v1/hosts"
        argv = ["curl", "-sS", "-m", "15", "--cacert", str(ca), *bearer(token), url]
        answer = json.loads(await lab.text("wire", *argv))
        assert {item["name"] for item in answer["items"]} == set(lab.hosts)
    with pytest.raises(CommandError, match="certificate"):
        await lab.text("wire", "curl", "-sS", "-m", "15", url)


async def test_a_revoked_token_is_refused_by_every_host_at_once(cluster: Cluster) -> None:
    lab = cluster.lab
    token = (await cluster.operator.types(lab.hosts[1], "access-token", "create", "guest")).strip()

    async def opens(host: str) -> bool:
        return (await cluster.http(host, "/v1/vms", *bearer(token)))[0] == 200

    for host in lab.hosts:
        await poll(lambda host=host: opens(host), 5.0)
    await cluster.operator.types(lab.hosts[2], "access-token", "revoke", "guest", "--yes")
    for host in lab.hosts:

        async def closed(host: str = host) -> bool:
            return (await cluster.http(host, "/v1/vms", *bearer(token)))[0] == 401

        await poll(closed, 2.0)


async def test_a_token_ends_at_its_time(cluster: Cluster) -> None:
    host = cluster.lab.hosts[0]
    words = ("access-token", "create", "brief", "--ttl", "3s")
    token = (await cluster.operator.types(host, *words)).strip()

    async def closed() -> bool:
        return (await cluster.http(host, "/v1/vms", *bearer(token)))[0] == 401

    assert not await closed()
    await poll(closed, 10.0, every_s=0.3)


async def test_the_command_works_from_the_network_and_never_takes_a_readable_token_file(
    cluster: Cluster, tmp_path: Path
) -> None:
    lab = cluster.lab
    token = await _admin_token(cluster)
    (tmp_path / "ca.pem").write_bytes(lab.inside(lab.hosts[1], CA).read_bytes())
    file = tmp_path / ".config/kvorum/token"
    file.parent.mkdir(parents=True)
    file.write_text(token)
    file.chmod(0o644)
    settings = [
        "env",
        f"HOME={tmp_path}",
        f"KVORUM_CA={tmp_path / 'ca.pem'}",
        # Nothing listens at the first one: the command goes on to the next.
        f"KVORUM_ADDRESS=127.0.0.1:9,{lab.address(lab.hosts[1])}",
    ]
    kvorum = [*settings, str(VENV_BIN / "kvorum"), "host", "list", "-o", "json"]
    with pytest.raises(CommandError, match="chmod 600") as refused:
        await lab.text("wire", *kvorum)
    assert refused.value.code_number == 2
    file.chmod(0o600)
    shown = json.loads(await lab.text("wire", *kvorum, timeout_s=60.0))
    assert {item["name"] for item in shown} == set(lab.hosts)


async def test_the_unix_socket_is_closed_to_everyone_but_root(cluster: Cluster) -> None:
    lab, host = cluster.lab, cluster.lab.hosts[0]
    for path in (SOCKET, "/run/kvorum/guard.sock"):
        assert lab.inside(host, path).stat().st_mode & OTHERS == 0, path
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    with pytest.raises(CommandError) as refused:
        await lab.text(host, *nobody, "curl", "-sS", "--unix-socket", SOCKET, "http://x/v1/vms")
    assert refused.value.code_number == 7, refused.value.stderr_tail
    # Not the file's mode alone: a caller is known by its user id.
    lab.inside(host, "/run/kvorum").chmod(0o755)
    lab.inside(host, SOCKET).chmod(0o666)
    try:
        text = await lab.text(
            host, *nobody, "curl", "-s", "--unix-socket", SOCKET, "http://x/v1/vms"
        )
    finally:
        lab.inside(host, SOCKET).chmod(0o600)
        lab.inside(host, "/run/kvorum").chmod(0o700)
    assert json.loads(text)["status"] == 403, text


async def test_the_mesh_port_talks_to_nobody_without_a_members_certificate(
    cluster: Cluster, tmp_path: Path
) -> None:
    lab = cluster.lab
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=h1"]
    await run([*make, "-keyout", str(key), "-out", str(certificate)], timeout_s=20.0)
    own = ("--cert", str(certificate), "--key", str(key))
    for host in lab.hosts:
        url = f"https://{lab.address(host)}:7444/"
        for credentials in ((), own):
            with pytest.raises(CommandError) as refused:
                await lab.text("wire", "curl", "-sSk", "-m", "10", *credentials, url)
            assert refused.value.code_number in (35, 52, 56), refused.value
        with pytest.raises(CommandError):
            await lab.text("wire", "curl", "-sS", "-m", "10", f"http://{lab.address(host)}:7444/")


async def test_only_the_known_ports_listen_to_the_network(cluster: Cluster) -> None:
    for host in cluster.lab.hosts:
        text = await cluster.lab.text(host, "ss", "-Hltun")
        open_to_others = set()
        for line in text.splitlines():
            protocol, _, _, _, local = line.split()[:5]
            address, _, port = local.rpartition(":")
            if not address.startswith(("127.", "[::1]")):
                open_to_others.add((protocol, int(port)))
        # VXLAN's port is the kernel's own.
        allowed = {("tcp", 7443), ("tcp", 7444), ("tcp", 7946), ("udp", 7946), ("udp", 4789)}
        assert open_to_others <= allowed, (host, open_to_others - allowed)


async def test_secrets_are_nowhere_but_in_files_of_root(cluster: Cluster, tmp_path: Path) -> None:
    lab, operator = cluster.lab, cluster.operator
    h1, h2, _ = lab.hosts
    (tmp_path / "user-data").write_text(USER_DATA)
    lines: set[str] = set()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(_watch_command_lines(lines), name="watch-command-lines")
        join_token = (await operator.types(h1, "token", "create")).strip()
        refused = await cluster.refusal(h2, "join", join_token)
        assert "member" in refused.line
        await cluster.create("vault", "--user-data", str(tmp_path / "user-data"), "--host", h2)
        access_token = (await operator.types(h2, "access-token", "create", "canary")).strip()
        await operator.types(h1, "vm", "migrate", "vault")
        await settled(lab)
        watching.cancel()
    assert any("qemu-system" in line for line in lines), "the watch saw nothing"
    secrets = await _secrets(cluster, join_token, access_token)
    not_typed = str({line for line in lines if join_token not in line})
    found = [(what, "command line") for what, secret in secrets.items() if secret in not_typed]
    found += await _leaks(cluster, secrets)
    assert found == []
    for host in lab.hosts:
        for name in SECRET_FILES:
            path = lab.inside(host, name)
            if path.exists():
                assert path.stat().st_mode & OTHERS == 0, (host, name)
    await cluster.delete("vault")


async def _watch_command_lines(seen: set[str]) -> None:
    """Collect what anyone on the machine can read of all processes, until cancelled."""
    while True:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.add(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
            except OSError:
                continue
        await asyncio.sleep(0.1)


async def _secrets(cluster: Cluster, join_token: str, access_token: str) -> dict[str, str]:
    """Return the texts that must not show up, by what they are."""
    lab = cluster.lab
    join_secret = parse_join_token(join_token).secret
    host_key = lab.inside(lab.hosts[1], f"{STATE}/identity/host.key").read_text()
    secrets_key = lab.inside(lab.hosts[0], f"{STATE}/identity/secrets.key").read_bytes()
    (gossip_key, *_) = json.loads(
        lab.inside(lab.hosts[0], f"{STATE}/serf/keyring.json").read_text()
    )
    return {
        "admin token": await _admin_token(cluster),
        "access token": access_token,
        "join token": join_token.removeprefix("kvj_")[:60],
        "join secret, hex": join_secret.hex(),
        "gossip key": gossip_key,
        "secrets key, hex": secrets_key.hex(),
        "secrets key, base64": base64.b64encode(secrets_key).decode().rstrip("="),
        "a private key": "PRIVATE KEY",
        "a line of a host's key": host_key.splitlines()[1],
        "a password in user data": PASSWORD,
    }


async def _leaks(cluster: Cluster, secrets: dict[str, str]) -> list[tuple[str, str]]:
    """Search logs, databases, the log of changes, files of the run and answers of the API."""
    lab = cluster.lab
    found, held = [], set()
    for host in lab.hosts:
        state = lab.layout.host_state(host)
        store_holds = {"a password in user data"}  # it has to: other hosts start the VM too
        may_hold = {
            "etc-kvorum/admin.token": {"admin token"},
            "var-lib-kvorum/identity/host.key": {"a private key", "a line of a host's key"},
            "var-lib-kvorum/serf/keyring.json": {"gossip key"},
        }
        for path in (p for p in state.rglob("*") if p.is_file() and not p.is_symlink()):
            name = str(path.relative_to(state))
            if path.suffix == ".qcow2":
                continue
            content = path.read_bytes()
            allowed = may_hold.get(name, set())
            if name.startswith(("var-lib-kvorum/state.db", "var-lib-kvorum/raft/")):
                allowed = store_holds
            here = {what for what, secret in secrets.items() if secret.encode() in content}
            held |= here
            found += [(what, f"{host}: {name}") for what in here - allowed]
        for plural in (*COLLECTIONS, "hosts", "members", "status", "events"):
            text = str((await ask(lab, host, "GET", f"/v1/{plural}")).body)
            found += [
                (what, f"{host}: API {plural}")
                for what, secret in secrets.items()
                if secret in text and not (plural == "vms" and what in store_holds)
            ]
    expected = {"admin token", "gossip key", "a line of a host's key", "a password in user data"}
    assert expected <= held, "the search does not find what is there"
    return found


async def _admin_token(cluster: Cluster) -> str:
    path = cluster.lab.inside(cluster.lab.hosts[0], ADMIN_TOKEN)
    assert path.stat().st_mode & OTHERS == 0
    assert os.stat(path).st_uid == 0
    return path.read_text().strip()
