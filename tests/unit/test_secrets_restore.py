"""`kvorum secrets restore`, and backups with keys on a host with an HSM: the way back when every HSM is lost."""

import asyncio
from pathlib import Path

import pytest

from core.identity.certificates import fingerprint
from core.identity.hsm import KeySettings, Pkcs11Hsm
from core.identity.keyring import Keyring
from core.identity.sealing import key_id, make_key
from core.paths import Paths, write_file
from raftstate.rescue.backup_file import Copier, verify
from raftstate.rescue.keys import lock_key, unlock_key
from tests.golden.cli.cases import kvorum
from tests.golden.cli.stub import Fault, StubAgent
from tests.golden.cli.world import small_cluster
from tests.hsm import MemoryHsm, SoftTokens
from tests.one_member import authority
from tests.stopped_hosts import Cluster

WORD = "correct horse battery"
CA = fingerprint(authority().certificate_pem)


@pytest.fixture
async def host(tmp_path: Path) -> Paths:
    """A host whose key is in an HSM that is lost, and `keys.kvb` and `plain.kvb`, backups with and without keys."""
    cluster = Cluster(tmp_path)
    await cluster.found()
    paths = cluster.host("h1")
    (tmp_path / "word").write_text(f"{WORD}\n")
    for name, ca in (("plain.kvb", CA), ("other.kvb", "ab" * 32)):
        cluster.backup(tmp_path / name, ca_sha256=ca)
    cluster.close()
    key = paths.secrets_key.read_bytes()
    for name, locked in (("keys.kvb", key), ("old.kvb", make_key())):
        copier = Copier(lambda h, locked=locked: lock_key(locked, WORD, h.ca_sha256))
        sent = (tmp_path / "plain.kvb").read_bytes()
        (tmp_path / name).write_bytes(copier.feed(sent) + copier.finish())
    hsm = MemoryHsm()
    await Keyring(paths, KeySettings(keep="hsm", hsm=hsm.add("t", "k")), hsm).settle()
    assert paths.secrets_key.read_bytes() != key
    return paths


def restore(host: Paths, backup: str, *more: str):
    root = host.state.parents[1]
    words = ["secrets", "restore", str(root / backup), "--passphrase-file", str(root / "word")]
    return kvorum([*words, "--state-dir", str(host.state), "--yes", *more])


def test_the_key_comes_back_out_of_a_backup(host):
    id_ = Keyring(host).current_id()
    done = restore(host, "keys.kvb")
    assert done.code == 0, done.err
    assert done.out == f"key {id_} is back: this host's agent takes it within a minute\n"
    assert key_id(host.secrets_key.read_bytes()) == id_
    assert host.secrets_key.stat().st_mode & 0o777 == 0o600
    again = restore(host, "keys.kvb")
    assert again.code == 1
    assert "there is nothing to restore" in again.err


@pytest.mark.parametrize(
    ("backup", "why"),
    [
        ("plain.kvb", "made without --with-keys"),
        ("other.kvb", "of another cluster"),
        ("old.kvb", "take a backup that was made after the key was last changed"),
    ],
)
def test_a_backup_that_does_not_fit_changes_nothing(host, backup, why):
    before = host.secrets_key.read_bytes()
    refused = restore(host, backup)
    assert refused.code == 1
    assert why in refused.err
    assert host.secrets_key.read_bytes() == before


def test_a_host_that_is_no_member_is_told_so(host, tmp_path):
    refused = restore(host, "keys.kvb", "--state-dir", str(tmp_path / "nowhere"))
    assert (refused.code, "is no member" in refused.err) == (1, True)


def test_a_host_with_an_hsm_makes_backups_with_keys(host, tmp_path, monkeypatch):
    soft, key = SoftTokens(tmp_path / "soft"), make_key()
    monkeypatch.setenv("SOFTHSM2_CONF", soft.environment["SOFTHSM2_CONF"])
    soft.add_token("t")
    kept = KeySettings(keep="hsm", hsm=soft.add_key("t", "k"))
    write_file(host.secrets_key, key)
    asyncio.run(Keyring(host, kept, Pkcs11Hsm()).settle())
    assert key not in host.secrets_key.read_bytes()
    with StubAgent(small_cluster()) as agent:
        agent.faults.append(Fault(body=(tmp_path / "plain.kvb").read_bytes()))
        file, word = tmp_path / "new.kvb", tmp_path / "word"
        command = ["state", "backup", str(file), "--with-keys", "--state-dir", str(host.state)]
        done = kvorum([*command, "--passphrase-file", str(word)], agent.address)
    assert done.code == 0, done.err
    header = verify(file, on_bytes=lambda *_: None)
    assert unlock_key(header.key, WORD, header.ca_sha256) == key
