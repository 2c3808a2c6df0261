"""What `kvorum state` and `kvorum recover` print: the stories of tests/golden/recover, played on stopped hosts in a directory."""

import re
from pathlib import Path

import msgspec
import pytest

from raftstate.rescue.backup_file import Copier
from raftstate.rescue.facts import facts_of
from raftstate.rescue.keys import lock_key
from raftstate.rescue.lock import only_process
from tests.golden.cli.cases import play
from tests.golden.cli.stub import Fault, StubAgent
from tests.golden.cli.world import small_cluster
from tests.stopped_hosts import Cluster

STORIES = sorted((Path(__file__).parents[1] / "golden" / "recover").glob("*.txt"))
PASSPHRASE = "correct horse battery"
# What differs from run to run, and what stands for it in the stories.
STEADY = (
    (r"\b2-[0-9a-f]{8}\b", "2-9f03c1aa"),
    (r"\b\d{8}T\d{6}Z", "20261125T173544Z"),
    (r"\b2026-[01]\d-[0-3]\d \d\d:\d\d:\d\dZ", "2026-11-25 17:35:44Z"),
    (r'("generation"): [89]\d{9}|("generation"): 1[0-9]{10}', r'"generation": 11257561514'),
    (r"127\.0\.0\.9([123])", r"10.0.0.\1"),
    (r"\b[0-9a-f]{64}\b", "5f" * 32),
    (r"^(authority +)[0-9a-f]{16}", r"\g<1>" + "5f" * 8),
    (r'"dump_crc": \d+', '"dump_crc": 3735928559'),
    (r'"dump_bytes": \d+', '"dump_bytes": 462848'),
    (r"\b\d{3}\.\d KiB", "452.4 KiB"),
)


def steady(text: str) -> str:
    for pattern, stand_in in STEADY:
        text = re.sub(pattern, stand_in, text, flags=re.MULTILINE)
    return text


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Set the scene in the current directory; gives the backup that the agent sends."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    cluster = Cluster(tmp_path)
    await cluster.found()
    cluster.host("h1", tail=(1, 2))
    cluster.host("h2", tail=(1, 2, 3), applied=1)
    third = cluster.host("h3", tail=(1, 2, 3, 4))
    Path("h3.json").write_bytes(msgspec.json.encode(facts_of(third)))
    Path("empty").mkdir()
    Path("running").mkdir()
    Path("passphrase").write_text(f"{PASSPHRASE}\n")
    Path("short").write_text("secret\n")
    cluster.backup(tmp_path / "sent", ca_sha256="5f" * 32)
    cluster.close()
    return Path("sent").read_bytes()


@pytest.fixture
def story_files(stage: bytes) -> bytes:
    Path("cut.kvb").write_bytes(stage[:-100])
    return stage


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_the_command_prints_what_the_story_says(story, rewrite, story_files):
    sent = story_files
    if story.stem == "restore":
        Path("prod.kvb").write_bytes(sent)
        copier = Copier(
            lambda h: lock_key(
                Path("h1/state/identity/secrets.key").read_bytes(), PASSPHRASE, h.ca_sha256
            )
        )
        Path("keys.kvb").write_bytes(copier.feed(sent) + copier.finish())
    told = story.read_text()
    with StubAgent(small_cluster()) as agent, only_process(Path("running/agent.lock"), ""):
        agent.faults += [Fault(body=sent), Fault(body=sent), Fault(body=sent[:-100])]
        now = steady(play(told, agent.address))
    if rewrite:
        story.write_text(now)
    assert now == told
