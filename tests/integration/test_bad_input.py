"""Whatever a user types or sends wrong: one line that says so, exit code 1 or 2, and nothing is changed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from core.command import run
from tests.integration.cluster import SHARED, Cluster
from tests.integration.conftest import in_own_loop, poll
from tests.integration.stranger import (
    all_refused,
    ask,
    differences,
    everything,
    files,
    items,
    settled,
)
from tools.lab.api import API_SOCKET
from tools.lab.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

MIB = 1 << 20
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBHPX4wwjDZyWJ0Zr7kTnsYjaXFLTNxEGAlvRDkYK3jR someone"
NASTY = '<a href="x">&\'$(touch /tmp/kvorum-was-here)`touch /tmp/kvorum-was-here`;\\'
WITNESS = "/tmp/kvorum-was-here"
TINY = ("--image", "tiny", "--memory", "128MiB", "--data-storage", SHARED)


@pytest.fixture(scope="module")
def cluster(lab: Lab, tiny_image: str) -> Cluster:
    """A cluster with a VM `runs` on shared and a VM `stays` on local storage, both on the second host."""

    async def form() -> Cluster:
        made = await Cluster.form(lab, tiny_image)
        await made.create("runs", "--host", lab.hosts[1])
        local = ("--image", "tiny", "--memory", "128MiB", "--data-storage", "local")
        await made.operator.types(
            lab.hosts[0], "vm", "create", "stays", *local, "--host", lab.hosts[1]
        )
        return made

    return in_own_loop(form())


# ------------------------------------------------------------ images


async def test_files_that_are_no_standalone_image_are_refused(
    cluster: Cluster, tiny_image: str, tmp_path: Path
) -> None:
    wanted = {
        "noise": "is in no format known here",
        "empty": "empty",
        "backed": "backing file",
        "external": "data in another file",
        "descriptor": "description of a VMDK",
        "cut": "cut short",
        "mislabelled": "is qcow2, not vmdk",
    }
    await _write_bad_images(tmp_path, tiny_image)
    commands = {name: ("image", "upload", name, "--file", str(tmp_path / name)) for name in wanted}
    commands["mislabelled"] = (*commands["mislabelled"], "--format", "vmdk")
    texts = {commands[name]: text for name, text in wanted.items()}
    await all_refused(cluster, texts, host=cluster.lab.hosts[2])


async def _write_bad_images(directory: Path, good: str) -> None:
    async def qemu_img(*words: str) -> None:
        await run(["qemu-img", *words], timeout_s=30.0)

    (directory / "noise").write_bytes(os.urandom(MIB))
    (directory / "empty").write_bytes(b"")
    await qemu_img(
        *("create", "-q", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw"),
        *(str(directory / "backed"), "16M"),
    )
    data = directory / "data"
    await qemu_img(
        *("create", "-q", "-f", "qcow2", "-o", f"data_file={data},data_file_raw=on"),
        *(str(directory / "external"), "16M"),
    )
    (directory / "descriptor").write_text(
        '# Disk DescriptorFile\nversion=1\nCID=ffffffff\ncreateType="monolithicFlat"\n'
        'RW 32768 FLAT "/etc/shadow" 0\n'
    )
    whole = Path(good).read_bytes()
    (directory / "cut").write_bytes(whole[: len(whole) // 2])
    (directory / "mislabelled").write_bytes(whole)


async def test_an_upload_that_breaks_off_leaves_nothing(cluster: Cluster, tiny_image: str) -> None:
    lab = cluster.lab
    await settled(lab)
    before = await everything(lab)
    content = Path(tiny_image).read_bytes()
    reader, writer = await asyncio.open_unix_connection(str(lab.inside(lab.hosts[0], API_SOCKET)))
    head = (
        f"POST /v1/images?name=torn HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode() + content[: len(content) // 2])
    await writer.drain()
    await poll(lambda: files(lab, lab.hosts[0]) != before[f"files of {lab.hosts[0]}"], 15.0)
    writer.transport.abort()

    async def nothing_is_left() -> bool:
        return not differences(before, await everything(lab))

    await poll(nothing_is_left, 20.0, every_s=0.3)
    del reader


async def test_a_command_killed_in_the_middle_of_its_upload_leaves_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    lab, host = cluster.lab, cluster.lab.hosts[0]
    big = tmp_path / "big.raw"
    with big.open("wb") as file:
        file.write(b"\0" * 510 + b"\x55\xaa")
        file.truncate(768 * MIB)
    await settled(lab)
    before = await everything(lab)
    argv = lab.enter(host, ["kvorum", "image", "upload", "big", "--file", str(big)])
    process = await asyncio.create_subprocess_exec(
        *argv, stderr=asyncio.subprocess.DEVNULL, start_new_session=True
    )
    await poll(lambda: files(lab, host) != before[f"files of {host}"], 60.0, every_s=0.02)
    os.killpg(process.pid, signal.SIGKILL)
    assert await process.wait() != 0

    async def nothing_is_left() -> bool:
        return not differences(before, await everything(lab))

    await poll(nothing_is_left, 30.0, every_s=0.3)


async def test_an_upload_is_held_to_what_it_declares(cluster: Cluster) -> None:
    lab, host = cluster.lab, cluster.lab.hosts[0]
    await settled(lab)
    before = await everything(lab)
    content = b"\0" * 510 + b"\x55\xaa"
    for query, said in (
        ("name=x&sha256=" + "0" * 64, "SHA-256"),
        ("name=x&sha256=short", "64 hex digits"),
        ("name=x&format=floppy", "floppy"),
        ("name=../../etc/x", "not allowed"),
        ("name=tiny", "already taken"),
        ("", "not allowed"),
    ):
        answer = await ask(lab, host, "POST", f"/v1/images?{query}", content=content)
        assert answer.status in (400, 409), (query, answer)
        assert said in answer.problem(), (query, answer)
    assert differences(before, await everything(lab)) == {}


# ------------------------------------------------------------ names and references


async def test_names_that_are_taken_and_things_that_do_not_exist_are_named(
    cluster: Cluster, tiny_image: str
) -> None:
    group = ("port-group", "create")
    wanted = {
        ("vm", "create", "runs", *TINY): "already taken",
        ("vm", "create", "stays", *TINY, "--host", "h3"): "already taken",
        ("image", "upload", "tiny", "--file", tiny_image): "tiny exists",
        ("image", "upload", "x", "--file", "/no/such/file"): "/no/such/file",
        ("data-storage", "create", SHARED, "--kind", "shared", "--path", "/srv/shared"): "taken",
        (*group, "default", "--cidr", "10.9.0.0/24"): "already",
        (*group, "same-vni", "--cidr", "10.9.0.0/24", "--vni", "100"): "100",
        ("security-group", "create", "default"): "already",
        ("access-token", "create", "admin"): "already",
        ("vm", "create", "x", "--image", "nothing"): "nothing",
        ("vm", "create", "x", *TINY, "--port-group", "nowhere"): "nowhere",
        ("vm", "create", "x", *TINY, "--security-group", "nobody"): "nobody",
        ("vm", "create", "x", "--image", "tiny", "--data-storage", "nas9"): "nas9",
        ("vm", "create", "x", *TINY, "--host", "h9"): "h9",
        ("vm", "show", "ghost"): "ghost",
        ("vm", "start", "ghost"): "ghost",
        ("vm", "stop", "ghost"): "ghost",
        ("vm", "reboot", "ghost"): "ghost",
        ("vm", "migrate", "ghost"): "ghost",
        ("vm", "update", "ghost", "--ha", "on"): "ghost",
        ("vm", "delete", "ghost", "--yes"): "ghost",
        ("image", "delete", "ghost", "--yes"): "ghost",
        ("port-group", "delete", "ghost", "--yes"): "ghost",
        ("host", "remove", "h9", "--yes"): "h9",
        ("token", "revoke", "ghost", "--yes"): "ghost",
        ("task", "show", "ghost"): "ghost",
    }
    await all_refused(cluster, wanted)


async def test_sizes_names_keys_and_networks_out_of_bounds_are_refused(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("ssh-ed25519 AAAAnot-a-key me\n")
    (tmp_path / "private").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n")
    (tmp_path / "data").write_text("just words\n")
    (tmp_path / "binary").write_bytes(b"#cloud-config\n\xff\xfe\0")
    make = ("vm", "create", "x", *TINY)
    pg = ("port-group", "create")
    wanted = {
        ("vm", "create", "Web_1", *TINY): "Web_1",
        ("vm", "create", "-x", *TINY): "NAME",
        ("vm", "create", "a" * 64, *TINY): "not allowed",
        ("vm", "create", "../../x", *TINY): "not allowed",
        ("vm", "create", NASTY, *TINY): "not allowed",
        ("vm", "create", "x;reboot", *TINY): "not allowed",
        ("vm", "create", "x\ny", *TINY): "not allowed",
        (*make, "--cpus", "0"): "'0'",
        (*make, "--cpus", "100000"): "cpus",
        (*make, "--memory", "1MiB"): "memory",
        (*make, "--memory=-5GiB"): "-5GiB",
        (*make, "--memory", "100"): "no unit",
        (*make, "--disk-size", "1MiB"): "smaller",
        (*make, "--disk-size", "9999TiB"): "64 TiB",
        (*make, "--hostname", "no_good!"): "no_good!",
        (*make, "--ssh-key", str(tmp_path / "key")): "damaged",
        (*make, "--ssh-key", str(tmp_path / "private")): "private key",
        (*make, "--ssh-key", "/no/key"): "/no/key",
        (*make, "--user-data", str(tmp_path / "data")): "#cloud-config",
        (*make, "--user-data", str(tmp_path / "binary")): "not text",
        (*make, "--description", "x" * 1001): "description",
        (*pg, "x", "--cidr", "10.9.0.0/33"): "10.9.0.0/33",
        (*pg, "x", "--cidr", "10.9.0.5/24"): "10.9.0.5/24",
        (*pg, "x", "--cidr", "10.9.0.0/31"): "10.9.0.0/31",
        (*pg, "x", "--cidr", "127.0.0.0/24"): "127.0.0.0/24",
        (*pg, "x", "--cidr", "10.9.0.0/24", "--gateway", "10.8.0.1"): "10.8.0.1",
        (*pg, "x", "--cidr", "10.9.0.0/24", "--vni", "99999999"): "99999999",
        (*pg, NASTY, "--cidr", "10.9.0.0/24"): "not allowed",
        ("data-storage", "create", "x", "--kind", "shared", "--path", "srv"): "absolute",
        ("data-storage", "create", "x", "--kind", "shared", "--path", "/no/such"): "/no/such",
        ("data-storage", "create", "x", "--kind", "local", "--path", "/srv/../etc"): "/etc",
        ("security-group", "create", NASTY): "not allowed",
        ("token", "create", "--ttl", "99d"): "7 days",
        ("token", "create", "--count", "1000"): "100",
        ("vm", "update", "runs"): "nothing to change",
        ("vm", "launch", "runs"): "launch",
        ("vm", "create", "x", *TINY, "--colour", "red"): "--colour",
    }
    await all_refused(cluster, wanted)


async def test_bodies_that_make_no_sense_are_problem_documents(cluster: Cluster) -> None:
    lab, host = cluster.lab, cluster.lab.hosts[1]
    good = {"name": "x", "image": "tiny", "memory_mib": 128, "data_storage": SHARED}
    await settled(lab)
    before = await everything(lab)
    for method, path, body, content in (
        ("POST", "/v1/vms", None, b"{not json"),
        ("POST", "/v1/vms", None, b"\xff\xfe"),
        ("POST", "/v1/vms", None, b"[" * 100_000),
        ("POST", "/v1/vms", None, b'{"name": "' + b"x" * (2 << 20) + b'"}'),
        ("POST", "/v1/vms", [], b""),
        ("POST", "/v1/vms", {}, b""),
        ("POST", "/v1/vms", {**good, "colour": "red"}, b""),
        ("POST", "/v1/vms", {**good, "cpus": "two"}, b""),
        ("POST", "/v1/vms", {**good, "cpus": 2**70}, b""),
        ("POST", "/v1/vms", {**good, "cpus": -1}, b""),
        ("POST", "/v1/vms", {**good, "memory_mib": 1e300}, b""),
        ("POST", "/v1/vms", {**good, "disk_size_bytes": -512}, b""),
        ("POST", "/v1/vms", {**good, "disk_size_bytes": 10**9 + 1}, b""),
        ("POST", "/v1/vms", {**good, "name": "x\0y"}, b""),
        ("POST", "/v1/vms", {**good, "image": "\0"}, b""),
        ("POST", "/v1/vms", {**good, "image": "\ud800"}, b""),
        ("POST", "/v1/vms", {**good, "hostname": "x\ny"}, b""),
        ("POST", "/v1/vms", {**good, "ssh_keys": [f"{KEY}\n{KEY}"]}, b""),
        ("POST", "/v1/vms", {**good, "ssh_keys": [f'command="reboot" {KEY}']}, b""),
        ("POST", "/v1/vms", {**good, "user_data": "#cloud-config\n\0"}, b""),
        ("POST", "/v1/vms", {**good, "security_groups": ["default"] * 2000}, b""),
        ("POST", "/v1/vms/runs/actions/stop", {"timeout_s": 10**9}, b""),
        ("POST", "/v1/vms/runs/actions/fly", {}, b""),
        ("PATCH", "/v1/vms/runs", {"name": "other"}, b""),
        ("PATCH", "/v1/vms/runs", {"description": None}, b""),
        ("PUT", "/v1/vms/runs", {}, b""),
        ("POST", "/v1/port-groups", {"name": "x", "cidr": "10.9.0.0/24", "mtu": 5}, b""),
        ("POST", "/v1/port-groups", {"name": "x", "cidr": "10.9.0.0/24", "mtu": 10**6}, b""),
        ("POST", "/v1/port-groups", {"name": "x", "cidr": "10.9.0.0/24", "vni": -3}, b""),
        ("POST", "/v1/port-groups", {"name": "x", "cidr": "10.9.0.0/24", "domain": "a\nb"}, b""),
        ("POST", "/v1/port-groups", {"name": "x", "cidr": "10.9.0.0/24", "dns": ["a;b"]}, b""),
        ("POST", "/v1/port-groups", {"name": "x", "cidr": "::/64"}, b""),
        ("POST", "/v1/security-groups/default/rules", {"cidr": "; drop"}, b""),
        ("POST", "/v1/security-groups/default/rules", {"protocol": "sctp }"}, b""),
        ("POST", "/v1/security-groups/default/rules", {"port_first": 70000}, b""),
        ("POST", "/v1/data-storages", {"name": "x", "kind": "cloud", "path": "/srv"}, b""),
        ("POST", "/v1/data-storages", {"name": "x", "kind": "local", "path": "/a\0b"}, b""),
        ("POST", "/v1/join-tokens", {"count": 0}, b""),
        ("POST", "/v1/access-tokens", {"name": "x", "ttl_s": -1}, b""),
        ("POST", "/v1/local/init", {}, b""),
        ("GET", "/v1/vms?q=colour=red", None, b""),
        ("GET", "/v1/vms?limit=0", None, b""),
        ("GET", "/v1/vms?consistency=perhaps", None, b""),
        ("GET", "/v1/../../etc/passwd", None, b""),
        ("GET", "/v1/vms/..%2f..%2fetc%2fpasswd", None, b""),
        ("GET", "/v2/vms", None, b""),
    ):
        answer = await ask(lab, host, method, path, body, content=content)
        assert 400 <= answer.status < 500, (method, path, body, content[:40], answer)
        assert answer.problem(), (method, path, body, content[:40])
    assert differences(before, await everything(lab)) == {}


async def test_free_text_is_carried_to_the_letter_and_never_executed(cluster: Cluster) -> None:
    lab = cluster.lab
    user_data = f"#cloud-config\nbootcmd:\n  - ['echo', '{NASTY.replace(chr(39), '')}']\n"
    body = {
        "name": "odd",
        "image": "tiny",
        "memory_mib": 128,
        "data_storage": SHARED,
        "description": f"{NASTY}\n]]></description><on_crash>x",
        "user_data": user_data,
    }
    answer = await ask(lab, lab.hosts[0], "POST", "/v1/vms", body)
    assert answer.status == 202, answer

    async def runs() -> bool:
        return (await cluster.vm("odd"))["phase"] == "running"

    await poll(runs, 60.0, every_s=0.5)
    vm = await cluster.vm("odd", lab.hosts[2])
    assert vm["description"] == body["description"]
    assert vm["cloud_init"]["user_data"] == user_data
    for host in lab.hosts:
        assert not lab.inside(host, WITNESS).exists()
    await cluster.operator.types(lab.hosts[1], "vm", "update", "odd", "--description", NASTY)
    assert (await cluster.vm("odd"))["description"] == NASTY
    await cluster.delete("odd")
    assert not Path(WITNESS).exists()


# ------------------------------------------------------------ the wrong moment


async def test_what_is_in_use_is_not_deleted_and_impossible_moves_are_refused(
    cluster: Cluster,
) -> None:
    h1, h2, _ = cluster.lab.hosts
    await cluster.operator.types(
        h1, "vm", "create", "resting", "--image", "tiny", "--memory", "128MiB", "--no-start"
    )
    groups = await cluster.operator.asks(h1, "security-group", "list")
    rule = groups[0]["rules"][0]["id"]
    await cluster.operator.types(h1, "security-group", "create", "named")
    other = ("--ingress", "--protocol", "tcp", "--port", "22", "--from-group", "named")
    await cluster.operator.types(h1, "security-group", "rule", "add", "default", *other)
    wanted = {
        ("image", "delete", "tiny", "--yes"): "used by",
        ("port-group", "delete", "default", "--yes"): "NIC",
        ("security-group", "delete", "default", "--yes"): "used by",
        ("security-group", "delete", "named", "--yes"): "such as default",
        ("security-group", "rule", "remove", "default", rule): "default rule",
        ("data-storage", "delete", SHARED, "--yes"): "disks",
        ("data-storage", "delete", "local", "--yes"): "1 disk ",
        ("host", "remove", h2, "--yes"): "delete its VM first",
        ("host", "remove", h1, "--yes"): "another member",
        ("host", "confirm-off", h2, "--confirm", h2): "so it is on",
        ("host", "confirm-off", h2, "--confirm", "h3"): "--confirm h2",
        ("vm", "migrate", "resting"): "not running",
        ("vm", "reboot", "resting"): "not running",
        ("vm", "migrate", "stays"): "local storage",
        ("vm", "migrate", "runs", "--host", h2): "already",
        ("vm", "migrate", "runs", "--host", "h9"): "h9",
        ("init",): "already",
    }
    await all_refused(cluster, wanted)
    await cluster.delete("resting")


async def test_an_empty_address_pool_is_said_and_a_deleted_vm_frees_its_address(
    cluster: Cluster,
) -> None:
    h1, h2, _ = cluster.lab.hosts
    made = ("--cidr", "10.44.0.0/29")
    await cluster.operator.types(h1, "port-group", "create", "small", *made)
    (group,) = [g for g in await items(cluster.lab, h1, "port-groups") if g["name"] == "small"]
    first, last = (int(group[key].rsplit(".", 1)[1]) for key in ("pool_first", "pool_last"))
    rest = (*TINY, "--port-group", "small", "--no-start")
    names = [f"small{number}" for number in range(last - first + 1)]
    for name in names:
        await cluster.operator.types(h1, "vm", "create", name, *rest)
    empty = {("vm", "create", "toomany", *rest): "address pool of port group small is empty"}
    await all_refused(cluster, empty, host=h2)
    address = (await cluster.vm(names[1]))["ips"]
    await cluster.delete(names[1])
    await cluster.operator.types(h2, "vm", "create", "toomany", *rest)
    assert (await cluster.vm("toomany"))["ips"] == address
    await cluster.delete(*(name for name in (*names, "toomany") if name != names[1]))
    await cluster.operator.types(h1, "port-group", "delete", "small", "--yes")


async def test_a_storage_that_is_not_mounted_fails_the_create_and_leaves_nothing(
    cluster: Cluster,
) -> None:
    lab, h3 = cluster.lab, cluster.lab.hosts[2]
    await settled(lab)
    before = await everything(lab)
    await lab.run(h3, "umount", "-l", "/srv/shared")
    try:
        refused = await cluster.refusal(lab.hosts[0], "vm", "create", "lost", *TINY, "--host", h3)
        assert refused.code == 1
        assert "/srv/shared" in refused.line, refused
        assert "mounted" in refused.line, refused
        assert list(Path("/srv/shared").iterdir()) == [], (
            "nothing was written under the mount point"
        )
    finally:
        await lab.run(h3, "mount", "--bind", str(lab.shared), "/srv/shared")

    async def as_before() -> bool:
        after = await everything(lab)
        after["tasks"] = before["tasks"]
        return not differences(before, after)

    await poll(as_before, 30.0, every_s=0.3)
    tasks = await items(lab, lab.hosts[0], "tasks")
    assert [t["state"] for t in tasks if t["subject_name"] == "lost"] == ["failed"]

    async def is_reached() -> bool:
        return not any(host["unreachable_storage_ids"] for host in await items(lab, h3, "hosts"))

    await poll(is_reached, 30.0, every_s=0.3)  # the host looks again every few seconds
    await cluster.create("lost", "--host", h3)
    await cluster.delete("lost")
