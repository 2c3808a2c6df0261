"""`kvorum certificate`: what is sent, where the passphrase comes from, and that it is nowhere else."""

import base64

import pytest

from tests.golden.cli.cases import kvorum
from tests.golden.cli.stub import StubAgent
from tests.golden.cli.world import small_cluster
from tests.own_certificates import for_names

OWN = for_names("h1.example.org")
WORD = "canary passphrase"


@pytest.fixture
def agent():
    with StubAgent(small_cluster()) as agent:
        yield agent


def imported(agent):
    sent = agent.asked[-1]
    assert (sent.method, sent.path) == ("POST", "/v1/certificates")
    return sent.json


def test_a_plain_pem_needs_no_passphrase(agent, tmp_path):
    file = tmp_path / "own.pem"
    file.write_bytes(OWN.as_pem())
    done = kvorum(["certificate", "import", str(file)], agent.address, stdin="other\n")
    assert (done.code, done.out) == (0, "all hosts: h1.example.org\n")
    assert done.err == "warning: it is not for h2\n"
    sent = imported(agent)
    assert base64.b64decode(sent["content"]) == OWN.as_pem()
    assert (sent["passphrase"], sent["host"]) == ("", "")


def test_the_passphrase_is_the_first_line_of_stdin_or_of_a_file(agent, tmp_path):
    file, word = tmp_path / "own.p12", tmp_path / "word"
    file.write_bytes(OWN.as_pkcs12(WORD))
    word.write_text(f"{WORD}\nmore\n")
    done = kvorum(
        ["certificate", "import", str(file), "--host", "h1"], agent.address, stdin=f"{WORD}\n"
    )
    assert WORD not in done.out + done.err
    assert (imported(agent)["passphrase"], imported(agent)["host"]) == (WORD, "h1")
    kvorum(["certificate", "import", str(file), "--passphrase-file", str(word)], agent.address)
    assert imported(agent)["passphrase"] == WORD


def test_what_cannot_be_a_certificate_is_not_sent(agent, tmp_path):
    large = tmp_path / "large"
    large.write_bytes(bytes(513 << 10))
    for file in (large, tmp_path / "none"):
        done = kvorum(["certificate", "import", str(file)], agent.address)
        assert done.code == 1
        assert done.err.count("\n") == 1
    assert agent.asked == []


def test_a_person_is_asked_before_a_key_is_deleted(agent):
    agent.world.collections["certificates"] = [{"id": "all", "name": "all"}]
    done = kvorum("certificate reset", agent.address, stdin="n\n", terminal=True)
    assert (done.code, len(agent.world.collections["certificates"])) == (2, 1)
    done = kvorum("certificate reset", agent.address, stdin="y\n", terminal=True)
    assert (done.code, agent.world.collections["certificates"]) == (0, [])
