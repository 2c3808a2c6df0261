"""What a guest's cloud-init is told."""

from __future__ import annotations

import base64
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InvalidError
from core.model import CloudInit
from storage.iso9660 import write_iso
from storage.memory_driver import MemoryDriver
from storage.seed import check_cloud_init, seed_files, seed_image
from storage.seed_store import SeedStore
from storage.ssh_keys import check_ssh_key

VM = "3f2b8a52-6c1e-4b8e-9d2e-1f6d0a1b2c3d"
HOST = "11111111-2222-4333-8444-555555555555"


def key(kind: str = "ssh-ed25519", *fields: bytes, comment: str = "me@laptop") -> str:
    parts = (kind.encode(), *(fields or (b"k" * 32,)))
    blob = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return f"{kind} {base64.b64encode(blob).decode()} {comment}".strip()


RSA_3072 = key("ssh-rsa", b"\1\0\1", b"\0" + b"\xff" * 384)
RSA_1024 = key("ssh-rsa", b"\1\0\1", b"\0" + b"\xff" * 128)


def test_keys_of_all_usual_types_are_kept_as_they_are() -> None:
    for good in (
        key(),
        key(comment=""),
        key(comment="two words"),
        RSA_3072,
        key("ecdsa-sha2-nistp256", b"nistp256", b"x"),
    ):
        assert check_ssh_key(f"  {good}\n") == good


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not understood"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
        ('command="reboot" ' + key(), "options"),
        (key() + "\n" + key(), "one line"),
        ("ssh-dss AAAA", "not understood"),
        ("ssh-ed25519 AAAA", "damaged"),
        ("ssh-ed25519 !!!!", "damaged"),
        ("ssh-ed25519 " + key().split()[1][:-8], "damaged"),
        ("ssh-rsa " + key().split()[1], "damaged"),
        (key("ssh-ed25519", b"short"), "damaged"),
        (RSA_1024, "2048 bits"),
        (key(comment="x" * 20000), "one line"),
        (key(comment="\x1b[31m"), "printable"),
    ],
)
def test_a_key_that_sshd_would_not_take_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidError, match=reason):
        check_ssh_key(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#!/bin/sh\necho hello\n", "first line must be '#cloud-config'"),
        ("packages: [nginx]\n", "first line"),
        ("\n#cloud-config\n", "first line"),
        ("#cloud-config-archive\n", "first line"),
        ("## template: jinja\n#cloud-config\n", "first line"),
        ("#cloud-config\nfoo: [\n", "not valid YAML in line"),
        ("#cloud-config\n- a\n- b\n", "settings"),
        ("#cloud-config\njust words\n", "settings"),
        ("#cloud-config\nx: " + "[" * 60000, "100 levels"),
        ("#cloud-config\nx: \x00\n", "YAML"),
        ("#cloud-config\n#" + "x" * (64 << 10), "64 KiB"),
    ],
)
def test_user_data_that_a_guest_would_ignore_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidError, match=reason):
        check_cloud_init(CloudInit(user_data=text))


def test_yaml_that_explodes_when_it_is_built_costs_nothing() -> None:
    bomb = "#cloud-config\na0: &a0 {x: 1}\n" + "".join(
        f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 60)
    )
    check_cloud_init(CloudInit(user_data=bomb))


def test_an_empty_cloud_config_is_fine() -> None:
    for text in (
        "#cloud-config",
        "#cloud-config\n",
        "#cloud-config \n{}\n",
        "#cloud-config\r\na: 1\r\n",
    ):
        check_cloud_init(CloudInit(user_data=text))


@pytest.mark.parametrize("name", ["-web", "web_1", "web 1", "a" * 64, "web1\n", "web..1", "ẃeb"])
def test_a_hostname_that_guests_refuse_is_refused(name: str) -> None:
    with pytest.raises(InvalidError, match="hostname"):
        seed_files(VM, name, CloudInit())


def test_name_and_keys_arrive_whatever_the_user_data_says() -> None:
    user_data = "#cloud-config\n# mine\nssh_authorized_keys: [other]\n"
    files = seed_files(VM, "web1", CloudInit(ssh_keys=(key(), RSA_3072), user_data=user_data))
    assert yaml.safe_load(files["meta-data"]) == {
        "instance-id": VM,
        "local-hostname": "web1",
        "public-keys": [key(), RSA_3072],
    }
    assert files["user-data"] == user_data.encode()
    network = yaml.safe_load(files["network-config"])
    assert {e["match"]["name"]: e["dhcp4"] for e in network["ethernets"].values()} == {
        "en*": True,
        "eth*": True,
    }


def test_a_vm_without_settings_gets_a_seed_that_says_nothing() -> None:
    files = seed_files(VM, "web1", CloudInit(hostname="other.example"))
    assert yaml.safe_load(files["user-data"]) == {}
    assert yaml.safe_load(files["meta-data"]) == {
        "instance-id": VM,
        "local-hostname": "other.example",
    }


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_no_comment_of_a_key_breaks_out_of_the_meta_data(comment: str) -> None:
    line = key(comment=comment)
    try:
        wanted = check_ssh_key(line)
    except InvalidError:
        return
    found = yaml.safe_load(seed_files(VM, "web1", CloudInit(ssh_keys=(line,)))["meta-data"])
    assert found["public-keys"] == [wanted]
    assert set(found) == {"instance-id", "local-hostname", "public-keys"}


def test_equal_vms_get_equal_seeds_and_others_do_not() -> None:
    cloud_init = CloudInit(ssh_keys=(key(),))
    assert seed_image(VM, "web1", cloud_init) == seed_image(VM, "web1", cloud_init)
    assert seed_image(VM, "web1", cloud_init) != seed_image(VM, "web2", cloud_init)


@pytest.mark.skipif(
    shutil.which("isoinfo") is None, reason="isoinfo (genisoimage) reads the image back"
)
@pytest.mark.parametrize("names", ["-R", "-J"])
def test_the_image_is_read_back_by_another_program(tmp_path: Path, names: str) -> None:
    image = tmp_path / "seed.iso"
    cloud_init = CloudInit(user_data="#cloud-config\n" + "# filler\n" * 5000)
    image.write_bytes(seed_image(VM, "web1", cloud_init))

    def isoinfo(*arguments: str) -> bytes:
        return subprocess.run(
            ["isoinfo", "-i", image, *arguments], capture_output=True, check=True
        ).stdout

    assert b"Volume id: cidata" in isoinfo("-d")
    for name, content in seed_files(VM, "web1", cloud_init).items():
        assert isoinfo(names, "-x", f"/{name}") == content


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z.-]{0,20}", fullmatch=True),
        st.binary(max_size=6000),
        min_size=1,
        max_size=8,
    )
)
def test_every_byte_of_every_file_is_in_the_image_where_its_entry_says(
    files: dict[str, bytes],
) -> None:
    image = write_iso("cidata", files)
    assert len(image) % 2048 == 0
    sectors = struct.unpack("<I", image[16 * 2048 + 80 : 16 * 2048 + 84])[0]
    assert sectors * 2048 == len(image)
    at, found = 23 * 2048, []
    while image[at]:
        sector, length = struct.unpack("<I4xI", image[at + 2 : at + 14])
        found.append(image[sector * 2048 : sector * 2048 + length])
        at += image[at]
    assert found[2:] == [files[name] for name in sorted(files)]


async def test_a_seed_is_written_once_and_rewritten_only_when_it_changes(tmp_path: Path) -> None:
    driver = MemoryDriver("22222222-2222-4333-8444-555555555555", tmp_path)
    (tmp_path / "seeds").mkdir()
    store = SeedStore(driver, host_id=HOST)
    path = await store.ensure(VM, "web1", CloudInit())
    first = path.stat()
    assert first.st_mode & 0o777 == 0o600
    assert (await store.ensure(VM, "web1", CloudInit())).stat().st_ino == first.st_ino
    await store.ensure(VM, "web2", CloudInit())
    assert path.read_bytes() == seed_image(VM, "web2", CloudInit())
    await store.delete(VM)
    await store.delete(VM)
    assert not list((tmp_path / "seeds").iterdir())
    store.close()
